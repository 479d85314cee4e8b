"""The command ``latente encode``."""

from typing import Any

from .row_figures import Found, command_of_rows


def _encode(*pair_and_rows: Any, **options: Any) -> Found:
    """The posterior of each datum: mean and sd of each latent dimension, and k̂; a CSV file.

    Its columns are row (counted from 0), labels and further columns of the data where there are
    any, z_1_mean, z_1_sd, z_2_mean, …, and khat: above the threshold that is printed, q(z|x) is far
    from p(z|x).
    """
    from ..evaluation.encoding import encode

    codes = encode(*pair_and_rows, **options)
    return codes, codes.figures()


encode = command_of_rows(_encode, name="encode", file="codes.csv", following="score")
