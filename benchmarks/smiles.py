"""A check of SMILES that needs no chemistry package: brackets, ring closures, atoms, bonds."""

import re

ATOM = r"Br|Cl|[BCNOPSFI]|[bcnops]"
BRACKET = r"\[\d*(?:Br|Cl|Si|Se|se|[BCNOPSFIHbcnops])@{0,2}(?:H\d?)?(?:[+-]\d?|\+\+|--)?\]"
PIECE = re.compile(rf"(?P<atom>{BRACKET}|{ATOM})|(?P<bond>[-=#:/\\])|(?P<ring>\d|%\d\d)|[().]")


def is_valid_smiles(text: str) -> bool:
    """Whether a SMILES is well formed: known atoms, each branch and each ring closed.

    A bond stands before an atom or a ring's number, and a ring does not close on its own atom, nor
    on its neighbour in the chain. Valences, and whether an aromatic ring can be one, are not looked
    at: what is well formed need not be a molecule.

    >>> [is_valid_smiles(text) for text in ("CC(=O)Oc1ccccc1", "C1CC", "C(C", "CX", "C=", "C()C")]
    [True, False, False, False, False, False]
    """
    rings: dict[str, int] = {}
    bound_to = {}
    branches: list[tuple[int, int]] = []
    place = atoms = 0  # atoms are numbered from 1; place is the one that the next is bound to
    before = ""
    while text:
        found = PIECE.match(text)
        if found is None:
            return False
        piece, text = found.group(), text[found.end() :]
        if found["atom"]:
            atoms += 1
            bound_to[atoms] = place
            place, kind = atoms, "atom"
        elif found["ring"]:
            if not place or before in ("(", "."):
                return False
            if piece not in rings:
                rings[piece] = place
            elif rings.pop(piece) in (place, bound_to[place]):
                return False
            kind = "ring"
        elif found["bond"]:
            if not place or before == "bond":
                return False
            kind = "bond"
        elif before == "bond" or not place:
            return False
        elif piece == "(":
            branches.append((place, atoms))
            kind = piece
        elif piece == ")":
            if not branches or branches[-1][1] == atoms:
                return False
            place, kind = branches.pop()[0], piece
        else:
            place, kind = 0, piece
        before = kind
    return bool(atoms) and not rings and not branches and before not in ("bond", ".")
