"""Whether new data seem to be standardized already, where they are given raw."""

from torch import Tensor

NEAR = 5.0
"""Standardized values are seldom beyond this."""
ENOUGH_ROWS = 10
"""Rows from which a mean and a standard deviation say something."""


def refuse_standardized(
    given: Tensor, again: Tensor, location: Tensor, scale: Tensor, name: str, *, is_table: bool
) -> None:
    """Refuse values that were standardized before they were given, told by their sizes.

    Standardized values are near 0, and standardized once more they are far from it, in elements of
    a large mean or a small deviation: those tell. A value that is far in some of these alone is an
    outlier, as is to be scored. Tables, whose names say that they are the fit's, need many rows.

    Args:
        given: (N, …), as given.
        again: the same, standardized as the fit's data were.
        location: what was subtracted for that, (…).
        scale: by what it was divided after that, (…).
        name: of the data.
        is_table: whether the values have names.

    Raises:
        ValueError: if they seem to be standardized.
    """
    given, again = (values.double().reshape(len(values), -1) for values in (given, again))
    many = len(given) >= ENOUGH_ROWS
    enough = _is_standard(given, share=0.5) if many else not is_table
    twice = enough and _moves_away(given, again, location.flatten(), scale.flatten())
    if many and not is_table:
        twice = twice or (_is_standard(given) and not _is_standard(again))
    if twice:
        raise ValueError(
            f"{name} seems to be standardized already, as the run does it to what it is given: "
            "give raw data, or call the function itself on what the model sees, as in "
            "log_evidence(run.model, run.guide, x); if the data are raw, and so unlike those of "
            "the fit, give them as a DataFrame with the names of its columns"
        )


def _moves_away(given: Tensor, again: Tensor, location: Tensor, scale: Tensor) -> bool:
    """Whether all is near 0 as given, and most of the elements that tell are not so again."""
    telling = (location.abs() > 2 * NEAR * scale) | (scale < 0.5 / NEAR)
    near = given.abs().median(0).values < NEAR
    far = again.abs().median(0).values > NEAR
    return bool(near.all()) and 2 * int((far & telling).sum()) > int(telling.sum())


def _is_standard(x: Tensor, share: float = 1.0) -> bool:
    """Whether all means are near 0, and that share of standard deviations near 1."""
    sd = x.std(0)
    usual = ((sd > 0.4) & (sd < 2.5)).double().mean()
    return bool((x.mean(0).abs() < 1).all() and usual >= share)
