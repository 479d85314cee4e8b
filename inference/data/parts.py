"""Splits that come with the data, by the names of arrays or folders."""

PART_WORDS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
"""Words for a part of the split, in lower case, with the name of that part."""
PARTS = ("train", "validation", "test")
"""The parts in the order of their rows."""


def join_parts(sizes: dict[str, int]) -> dict[str, int | None]:
    """The sizes of the parts that come with the data, as fields of a ``Source``.

    >>> join_parts({"train": 8, "test": 2})
    {'num_validation': None, 'num_test': 2}
    """
    return {f"num_{part}": sizes.get(part) for part in PARTS[1:]}
