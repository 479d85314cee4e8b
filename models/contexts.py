"""Contexts: what a part is told beside its input, such as a label or the other half of an image."""

from typing import Any

import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor, nn


class OneHot(nn.Module):
    """Labels 0 … C − 1 of any shape (…) to indicators (…, C).

    Args:
        num_classes: C.

    Raises:
        ValueError: if C is less than 2, or, when called, if a label is not a whole number from
            0 to C − 1.

    >>> OneHot(3)(torch.tensor([2, 0])).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """

    def __init__(self, num_classes: int):
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"there must be 2 classes or more, got {num_classes}")
        self.num_classes = num_classes
        # A buffer, so that indicators are of the dtype and device of the networks beside them.
        self.register_buffer("one", torch.ones(()), persistent=False)

    def forward(self, labels: Tensor) -> Tensor:
        """Labels (…) to indicators (…, C)."""
        labels = labels if labels.is_floating_point() else labels.long()
        # Not within a fit, which has checked all its data: a look at values stops a device.
        if is_validation_enabled():
            outside = (labels < 0) | (labels >= self.num_classes) | (labels != labels.floor())
            if bool(outside.any()):
                raise ValueError(
                    f"labels must be whole numbers from 0 to {self.num_classes - 1}, got "
                    f"{labels[outside][0].item():g}"
                )
        classes = torch.arange(self.num_classes, device=labels.device)
        return (labels[..., None] == classes).to(self.one)  # pyright: ignore

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"{self.num_classes}"


class Conditional(nn.Module):
    """A network of several inputs: each is read to a vector, and the network gets them joined.

    ::

        f(x, c₁, …) = network(concat(reader₀(x), reader₁(c₁), …))

    As decoder it takes z and the context, as encoder x and the context; so a conditional VAE is a
    VAE whose networks are told the label (Sohn, Lee and Yan 2015).

    Args:
        network: from joined vectors (…, F) to features.
        *readers: one for each input, in order, each to vectors (…, Fᵢ): ``FlattenEvent((8,))`` for
            latent variables, ``FlattenEvent((8, 8))`` for images, ``OneHot(10)`` for
            labels, or any network.

    Raises:
        ValueError: when called, if the inputs are not as many as the readers, or their
            leading shapes do not go together.

    >>> from latente.models import FlattenEvent, mlp
    >>> decoder = Conditional(mlp(2 + 10, 16, out=64), FlattenEvent((2,)), OneHot(10))
    >>> decoder(torch.zeros(4, 5, 2), torch.arange(5)).shape
    torch.Size([4, 5, 64])
    """

    conditional = True
    """A part with this attribute is given the context, after its own input."""

    def __init__(self, network: nn.Module, *readers: nn.Module):
        super().__init__()
        self.readers = nn.ModuleList(readers)  # before the network, as they are run
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        """Inputs, each (…, *its event), to the network's features (…, out)."""
        _check_number(self, inputs, len(self.readers))
        vectors = [reader(value) for reader, value in zip(self.readers, inputs, strict=True)]
        try:
            batch = torch.broadcast_shapes(*[vector.shape[:-1] for vector in vectors])
        except RuntimeError as error:
            shapes = ", ".join(str(tuple(value.shape)) for value in inputs)
            raise ValueError(
                f"inputs of shapes {shapes} do not go together: the context must be as long as "
                "the data"
            ) from error
        joined = [vector.expand(*batch, vector.shape[-1]) for vector in vectors]
        return self.network(torch.cat(joined, dim=-1))


def _check_number(part: nn.Module, inputs: tuple[Any, ...], wanted: int) -> None:
    if len(inputs) != wanted:
        context = ", ".join(["x", *["context"] * (wanted - 1)])
        raise ValueError(
            f"a {type(part).__name__} of {wanted} inputs got {len(inputs)}: give the data as a "
            f"tuple ({context})"
        )


def told(part: Any, context: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The context, for a part that takes one; nothing, for one that does not."""
    return context if getattr(part, "conditional", False) else ()
