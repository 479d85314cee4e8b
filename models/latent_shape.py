"""The shape of a latent variable, a vector or maps, and the features of a normal over it."""

from torch import Tensor

from .bounded_scale import bound_log_scale

LatentDim = int | tuple[int, ...]
"""K for a vector of length K, or the shape of maps, channels first: (C, H, W)."""


def latent_shape(latent_dim: LatentDim) -> tuple[int, ...]:
    """Read a latent dimension as a shape.

    Raises:
        ValueError: if a size is less than 1.

    >>> latent_shape(2), latent_shape((4, 7, 7))
    ((2,), (4, 7, 7))
    """
    shape = (latent_dim,) if isinstance(latent_dim, int) else tuple(latent_dim)
    if min(shape, default=0) < 1:
        raise ValueError(f"latent_dim must be at least 1, got {latent_dim}")
    return shape


def check_vector(latent_dim: LatentDim, part: str) -> None:
    """Refuse the shape of maps for a part that is of vectors alone.

    Raises:
        ValueError: with the shape, and what to take.
    """
    if not isinstance(latent_dim, int):
        raise ValueError(
            f"{part} is of vectors, and latent_dim={latent_dim} of maps: take DiagonalNormal or "
            "StandardNormal, or make the top level a vector with a Level(…, join) that makes maps "
            "of it"
        )


def check_feature_shape(features: Tensor, latent_dim: LatentDim, width: int, part: str) -> None:
    """Refuse features that are not (…, width), or of maps not (…, width, H, W).

    Args:
        features: what a network gave.
        latent_dim: of the latent variable.
        width: the number of features, or of their channels.
        part: what takes how many of what gives them, in words that begin the message.

    Raises:
        ValueError: with both shapes.
    """
    shape = (width, *latent_shape(latent_dim)[1:])
    if features.shape[-len(shape) :] == shape:
        return
    advice = f"give it out={width}"
    if len(shape) > 1:
        advice = f"end it with {width} channels of {' × '.join(map(str, shape[1:]))}"
    raise ValueError(f"{part} gave a tensor of shape {tuple(features.shape)}: {advice}")


def mean_and_log_scale(
    features: Tensor, latent_dim: LatentDim, max_log_scale: float | None
) -> tuple[Tensor, Tensor]:
    """Split the features of a diagonal normal into μ and log σ, along their first axis.

    Args:
        features: (…, 2K), or of maps (…, 2C, H, W).
        latent_dim: K, or (C, H, W).
        max_log_scale: m, with log σ = m tanh(feature / m); ``None``: log σ is the feature.

    >>> import torch
    >>> mean, log_scale = mean_and_log_scale(torch.zeros(5, 8, 7, 7), (4, 7, 7), None)
    >>> mean.shape
    torch.Size([5, 4, 7, 7])
    """
    mean, log_scale = features.chunk(2, dim=-len(latent_shape(latent_dim)))
    return mean, bound_log_scale(log_scale, max_log_scale)


def num_channels(latent_dim: LatentDim) -> int:
    """K of a vector; C of maps (C, H, W)."""
    return latent_shape(latent_dim)[0]
