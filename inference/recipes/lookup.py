"""Find a part by its name, or say which name is nearest."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

Named = TypeVar("Named")


def find_named(name: str, known: Mapping[str, Named], kind: str) -> Named:
    """The part of that name, among those known; an error names the nearest."""
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    raise ValueError(f"there is no {kind} {name!r}: {hint}")
