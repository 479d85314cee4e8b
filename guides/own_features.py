"""Features that each datum has for itself, in place of those that an encoder makes of it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class OwnFeatures:
    """What the N data are to have for themselves at one level of a guide.

    ``posterior_of_level`` of :class:`Amortized` takes it in place of features.
    """

    shift: Tensor
    """Added to what the encoder gives, (N, *features of the family); without ``given``, the
    features of the family themselves."""
    given: Tensor | None = None
    """What the encoder takes; ``None``: it is not run."""

    def encode(self, encoder: Callable[[Tensor], Tensor]) -> Tensor:
        """The features of the family, (…, N, *features of the family).

        Raises:
            ValueError: if the encoder gives other features than those of the shift.
        """
        if self.given is None:
            return self.shift
        encoded = encoder(self.given)
        if encoded.shape[-self.shift.dim() :] != self.shift.shape:
            raise ValueError(
                f"the encoder gave features of shape {tuple(encoded.shape)}, to which those of "
                f"each datum, {tuple(self.shift.shape)}, cannot be added"
            )
        return encoded + self.shift


Features = Tensor | OwnFeatures
"""What the posterior of a level is made of: what its encoder takes, or what each datum has."""
