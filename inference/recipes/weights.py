"""The axis ``--beta``: the weight of the KL, a number or a schedule of the epochs."""

from dataclasses import replace

from ..objectives.schedules import Constant, Cyclical, Warmup
from .axis import Axis, Choice, Part
from .parameters import NonNegative, Positive, Share


def _constant(*, value: NonNegative = 1.0) -> Constant:
    return Constant(value)


def _warmup(
    *, epochs: Positive = 10.0, start: NonNegative = 0.0, stop: NonNegative = 1.0
) -> Warmup:
    return Warmup(_whole(epochs), start, stop)


def _cyclical(
    *, period: Positive = 10.0, rise: Share = 0.5, start: NonNegative = 0.0, stop: NonNegative = 1.0
) -> Cyclical:
    return Cyclical(_whole(period), rise, start, stop)


def _whole(epochs: float) -> float:
    """Convert a whole number to an integer: a resumed run compares the ``repr`` of objectives."""
    return int(epochs) if epochs.is_integer() else epochs


class WeightAxis(Axis[Part]):
    """The weights of the KL by name; a number stands for itself.

    >>> WEIGHTS.parse("4") == WEIGHTS.parse("constant:value=4"), str(WEIGHTS.parse("4"))
    (True, '4')
    >>> WEIGHTS.parse("warmup:20").build()
    Warmup(epochs=20, start=0.0, stop=1.0)
    """

    def parse(self, text: str) -> Choice[Part]:
        """Read a number, or ``NAME:VALUE,…,PARAMETER=VALUE,…``.

        Raises:
            ValueError: if it is neither, or a value is not allowed.
        """
        try:
            float(text)
        except ValueError:
            return super().parse(text)
        return replace(super().parse(f"constant:{text.strip()}"), text=text.strip())


WEIGHTS = WeightAxis(
    "KL weight",
    Part("constant", "a number, for short: --beta 4", "Higgins et al. 2017, beta-VAE", _constant),
    Part(
        "warmup",
        "from start to stop in a straight line over the first epochs",
        "Sønderby et al. 2016, arXiv 1602.02282",
        _warmup,
    ),
    Part(
        "cyclical",
        "from start to stop again and again; it rises for a share of each period",
        "Fu et al. 2019, arXiv 1903.10145",
        _cyclical,
    ),
)
"""The weights; each builds a :class:`Schedule`."""
