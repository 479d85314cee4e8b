"""Splits into train, validation and test."""

import numpy as np


def split_rows(
    num_rows: int, num_test: int | None, validation: float, test: float, seed: int
) -> list[np.ndarray]:
    """Draw the row numbers of the train, validation and test parts, each in random order."""
    if min(validation, test) < 0 or validation + test >= 1:
        raise ValueError(f"validation={validation} and test={test} must leave data to train on")
    pool = num_rows - (num_test or 0)
    order = np.random.default_rng(seed).permutation(pool)
    own_test = np.arange(pool, num_rows)
    evaluation_rows = round(validation * pool), 0 if num_test else round(test * pool)
    first, second = pool - sum(evaluation_rows), pool - evaluation_rows[1]
    return [order[:first], order[first:second], own_test if num_test else order[second:]]
