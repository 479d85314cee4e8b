"""Codes such as "01": digits that are words, since no number starts with a zero."""

from collections.abc import Iterable


def are_codes(cells: Iterable[str]) -> bool:
    """Whether written values are codes: digits of one width, some with a zero in front, or all.

    >>> are_codes(["01234", "90210"]), are_codes(["007", "01"])
    (True, True)
    >>> are_codes(["0.5", "00.7"]), are_codes(["0", "1"]), are_codes(["10", "05", "7"])
    (False, False, False)
    """
    words = {cell.strip() for cell in cells}
    padded = {word for word in words if len(word) > 1 and word.startswith("0")}
    if not padded or not all(word.isascii() and word.isdigit() for word in words):
        return False
    return padded == words or len({len(word) for word in words}) == 1
