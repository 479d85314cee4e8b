"""Find a thing by its name, or say which name is nearest and which there are."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

Named = TypeVar("Named")

MAX_LISTED_NAMES = 12
"""An error lists up to this many names; of more, it gives the nearest alone, if there is one."""


def find_named(name: str, known: Mapping[str, Named], kind: str) -> Named:
    """Find a thing by its name.

    Args:
        name: the name.
        known: all things by name.
        kind: what they are, in an error.

    Raises:
        ValueError: if there is none of that name, with the nearest name and a list of all.

    >>> find_named("vam", {"standard": 1, "vamp": 2}, "prior")
    Traceback (most recent call last):
    ValueError: there is no prior 'vam': did you mean 'vamp'? there are standard, vamp
    """
    if name in known:
        return known[name]
    raise ValueError(f"there is no {kind} {name!r}: {list_names(name, known)}")


def list_names(name: str, known: Iterable[str], lead: str = "there are") -> str:
    """The nearest of some names, and the list of all of them, in words.

    >>> list_names("vam", ["standard", "vamp"])
    "did you mean 'vamp'? there are standard, vamp"
    """
    names = list(known)
    question, listed = did_you_mean(name, names), f"{lead} {', '.join(names)}"
    if not question:
        return listed
    return question if len(names) > MAX_LISTED_NAMES else f"{question} {listed}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Ask whether the nearest of some names was meant; empty if none is near.

    >>> did_you_mean("MNIS", ["digits", "mnist"]), did_you_mean("x", ["digits"])
    ("did you mean 'mnist'?", '')
    """
    by_lower_case = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    return f"did you mean {by_lower_case[near[0]]!r}?" if near else ""
