"""Contexts: further inputs of a part, such as a label or one half of an image."""

from typing import Any, Protocol, TypeGuard

import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor, nn

from .level import Concatenation


class TakesContext(Protocol):
    """A prior, decoder or encoder that may take the context after its own input."""

    conditional: bool
    """Whether it takes the context. A part without this attribute takes none."""


def takes_context(part: object) -> TypeGuard[TakesContext]:
    """Whether a part takes the context."""
    return bool(getattr(part, "conditional", False))


def context_for(part: object, context: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The context for a part that takes it; an empty tuple for one that does not."""
    return context if takes_context(part) else ()


class OneHot(nn.Module):
    """Map labels 0 … C − 1 of any shape (…) to indicators (…, C).

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
        # A buffer, so that indicators have the dtype and device of the module's parameters.
        self.register_buffer("one", torch.ones(()), persistent=False)

    def forward(self, labels: Tensor) -> Tensor:
        """Labels (…) to indicators (…, C)."""
        labels = labels if labels.is_floating_point() else labels.long()
        # Skipped in a fit, which has checked all data: reading values would wait for the device.
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
    """A network of several inputs, each of which its reader first maps to a vector, or to maps.

    ::

        f(x, c₁, …) = network(concat(reader₀(x), reader₁(c₁), …))

    As a decoder it takes z and the context, as an encoder x and the context. So a conditional VAE
    is a VAE whose networks are Conditional (Sohn, Lee and Yan 2015).

    Maps (…, Cᵢ, H, W) are concatenated along their channels, with ``event_dim=3``.

    Args:
        network: from concatenated vectors (…, F) to features.
        *readers: one for each input, in order, that gives vectors (…, Fᵢ): ``FlattenEvent((8,))``
            for latent variables, ``FlattenEvent((8, 8))`` for images, ``OneHot(10)`` for labels, or
            any network.
        event_dim: number of axes of what a reader gives: 1 for vectors, 3 for maps.

    Raises:
        ValueError: if ``event_dim`` is less than 1; when called, if there are more or fewer inputs
            than readers, the leading shapes of the inputs do not broadcast, or maps are not of one
            size.

    >>> from latente.models import FlattenEvent, mlp
    >>> decoder = Conditional(mlp(2 + 10, 16, out=64), FlattenEvent((2,)), OneHot(10))
    >>> decoder(torch.zeros(4, 5, 2), torch.arange(5)).shape
    torch.Size([4, 5, 64])
    """

    conditional = True
    """It takes the context after its own input; see :class:`TakesContext`."""

    def __init__(self, network: nn.Module, *readers: nn.Module, event_dim: int = 1):
        super().__init__()
        self.concatenate = Concatenation(event_dim)
        self.readers = nn.ModuleList(readers)  # first: the last parameter must be the network's
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        """Inputs, each (…, *its event), to the network's features (…, out)."""
        _check_number(self, inputs, len(self.readers))
        read = [reader(value) for reader, value in zip(self.readers, inputs, strict=True)]
        try:
            joined = self.concatenate(*read)
        except RuntimeError as error:
            shapes = ", ".join(str(tuple(value.shape)) for value in inputs)
            raise ValueError(
                f"inputs of shapes {shapes} do not broadcast: the context must have one row for "
                "each datum"
            ) from error
        return self.network(joined)


def _check_number(part: nn.Module, inputs: tuple[Any, ...], expected: int) -> None:
    if len(inputs) != expected:
        context = ", ".join(["x", *["context"] * (expected - 1)])
        raise ValueError(
            f"a {type(part).__name__} of {expected} inputs got {len(inputs)}: give the data as a "
            f"tuple ({context})"
        )
