"""Find a thing by its name, or say which name is nearest and which there are."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

Named = TypeVar("Named")

MOST_LISTED = 12
"""Names that an error lists in full; of more, it gives the nearest alone where there is one."""


def find_named(name: str, known: Mapping[str, Named], kind: str) -> Named:
    """The thing of that name.

    Args:
        name: what is looked for.
        known: all things by name.
        kind: what they are, in an error.

    Raises:
        ValueError: if there is none, with the nearest name and those that there are.
    """
    if name in known:
        return known[name]
    raise ValueError(f"there is no {kind} {name!r}: {nearest(name, known)}")


def nearest(name: str, known: Iterable[str], lead: str = "there are") -> str:
    """The nearest of some names, in words, and what names there are.

    >>> nearest("vam", ["standard", "vamp"])
    "did you mean 'vamp'? there are standard, vamp"
    """
    names = list(known)
    listed = f"{lead} {', '.join(names)}"
    near = difflib.get_close_matches(name, names, n=1)
    if not near:
        return listed
    question = f"did you mean {near[0]!r}?"
    return question if len(names) > MOST_LISTED else f"{question} {listed}"
