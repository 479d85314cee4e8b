"""Base of the posteriors that are diagonal normal, whose encoders give a mean and a log scale."""

from torch import Tensor, nn

from ..models.bounded_scale import check_max_log_scale
from ..models.latent_shape import LatentDim, mean_and_log_scale, num_channels
from .amortized import Amortized


class NormalFeatures(Amortized):
    """Base class of posteriors whose encoder gives a mean and a log scale, in this order.

    Args:
        encoder: a network to features (…, 2 · latent_dim), or for maps (…, 2C, H, W).
        latent_dim: dimension of z, K; or the shape of maps, (C, H, W).
        max_log_scale: m, with log σ = m tanh(feature / m). ``None``: log σ is the feature.

    Raises:
        ValueError: if ``latent_dim`` is less than 1 or ``max_log_scale`` is not positive.
    """

    layout = "μ, log σ"

    def __init__(
        self, encoder: nn.Module, latent_dim: LatentDim, *, max_log_scale: float | None = None
    ):
        super().__init__(encoder, latent_dim, self.num_features(latent_dim))
        check_max_log_scale(max_log_scale)
        self.max_log_scale = max_log_scale

    @staticmethod
    def num_features(latent_dim: LatentDim) -> int:
        """Number of features that the encoder gives: 2 · latent_dim; for maps, 2C channels."""
        return 2 * num_channels(latent_dim)

    def mean_and_log_scale(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Split features into the mean and the log scale, each (…, *event_shape)."""
        return mean_and_log_scale(features, self.latent_dim, self.max_log_scale)
