"""Lines of a text as sequences of tokens."""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..common.arguments import name_rows
from .checks import number_of
from .labels import code_labels
from .lengths import pad_joined
from .memory import check_memory
from .source import Source, join_notes, reading
from .vocabulary import TokenKind, Vocabulary, find_vocabulary

TEXT_SUFFIXES = (".txt", ".txt.gz")
"""Suffixes of texts whose lines are sequences."""


@dataclass(frozen=True)
class Lines:
    """The lines of a text that are not empty."""

    name: str
    texts: tuple[str, ...]
    places: tuple[str, ...]
    """Where each is, in words, for errors."""
    num_empty: int = 0


def is_text(source: Any) -> bool:
    """Whether a source is a text: the path of one, or a list of strings."""
    if isinstance(source, str | Path):
        return str(source).lower().endswith(TEXT_SUFFIXES)
    is_list = isinstance(source, list | tuple) and len(source) > 0
    return is_list and all(isinstance(text, str) for text in source)


def read_text(
    source: Any,
    labels: Any,
    kind: TokenKind | None,
    vocabulary: Vocabulary | None = None,
) -> Source:
    """Read the lines of a text, or a list of strings, as sequences of tokens (N, T) with lengths.

    Each sequence ends with the token 0, which its length counts.

    Args:
        source: a path, or a list of strings.
        labels: labels beside the lines that are not empty, (N,).
        kind: what tokens are; ``None``: as in the vocabulary.
        vocabulary: that of the data of the fit, for new text; ``None``: that of this text.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the text is empty or not UTF-8, or has a character that the vocabulary has
            not; if what its tokens are is not given.
    """
    lines = _listed(source) if isinstance(source, list | tuple) else _lines_of(Path(source))
    kind = kind if vocabulary is None else vocabulary.kind
    if kind is None:
        raise ValueError(
            f"{lines.name} holds lines of text: give tokens='characters' or tokens='words'"
        )
    if not lines.texts:
        empty = f": all of its {number_of(lines.num_empty, 'line')} are empty" * bool(
            lines.num_empty
        )
        raise ValueError(f"{lines.name} holds no text{empty}")
    known = find_vocabulary(lines.texts, kind) if vocabulary is None else vocabulary
    joined, lengths = known.encode(lines.texts, lines.name, lines.places)
    lengths = lengths + 1  # the end
    shape = len(lengths), int(lengths.max())
    check_memory(lines.name, shape, 8, "give shorter lines, or fewer")
    note = (
        f"read {number_of(len(lengths), 'line')} of {kind}, vocabulary of {len(known)} tokens, the "
        f"longest line of {shape[1] - 1}"
    )
    dropped = f"{number_of(lines.num_empty, 'empty line')} dropped" if lines.num_empty else ""
    codes, names = code_labels(labels)
    values = pad_joined(joined, lengths - 1, shape[1])
    note = join_notes(note, dropped)
    return Source(lines.name, values, codes, names, note=note, lengths=lengths, vocabulary=known)


def _listed(texts: Sequence[str]) -> Lines:
    name = "the list of texts"
    empty = np.array([row for row, text in enumerate(texts) if not text.strip()])
    if len(empty):
        raise ValueError(f"{name} has empty texts in {name_rows(empty)}: drop them")
    return Lines(name, tuple(texts), tuple(name_rows(np.array([n])) for n in range(len(texts))))


def _lines_of(path: Path) -> Lines:
    """The lines of a file, without their line feeds and carriage returns."""
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    content = path.read_bytes()
    if path.suffix.lower() == ".gz":
        with reading(path):
            content = gzip.decompress(content)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise ValueError(
            f"{path} is not UTF-8: the byte 0x{content[error.start]:02x} in line {line}, at byte "
            f"{column} of it: save it as UTF-8"
        ) from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if not lines[-1]:
        lines.pop()  # what follows the last line feed is no line
    kept = [number for number, line in enumerate(lines) if line.strip()]
    return Lines(
        str(path),
        tuple(lines[number] for number in kept),
        tuple(f"line {number + 1}" for number in kept),
        len(lines) - len(kept),
    )
