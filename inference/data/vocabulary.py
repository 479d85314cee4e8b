"""``Vocabulary``: what the integers of a sequence of tokens stand for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from ..common.arguments import name_rows

TokenKind = Literal["characters", "words"]
"""What the tokens of a text are."""

END, UNKNOWN = 0, 1
"""The token after the last of a sequence, which is also the padding; and that of a word that the
vocabulary has not."""

END_NAME, UNKNOWN_NAME = "<end>", "<unknown>"


@dataclass(frozen=True)
class Vocabulary:
    """The characters or the words that tokens 0, 1, … of a text stand for.

    Token 0 ends each sequence, and is the padding after it. Among words, token 1 is any word that
    is not in the vocabulary; characters that are not in it are refused.

    >>> vocabulary = find_vocabulary(["to be", "or not to be"], "words")
    >>> vocabulary.tokens
    ('<end>', '<unknown>', 'be', 'to', 'not', 'or')
    >>> vocabulary.decode([[3, 2, 0, 0], [3, 1, 5, 0]])
    ['to be', 'to <unknown> or']
    """

    kind: TokenKind
    tokens: tuple[str, ...]
    """What each token stands for, by its number."""

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} tokens, {self.kind})"

    @property
    def first(self) -> int:
        """The number of the first token that is a character or a word of its own."""
        return 2 if self.kind == "words" else 1

    def decode(self, tokens: Any) -> list[str]:
        """The text of each sequence (N, T), up to its first end.

        Raises:
            ValueError: if a token is none of the vocabulary's.
        """
        values = np.asarray(tokens)
        check_tokens(values, len(self), "x")
        glue = " " if self.kind == "words" else ""
        texts = []
        for row in values.astype(np.int64):
            ends = np.flatnonzero(row == END)
            kept = row[: ends[0]] if len(ends) else row
            texts.append(glue.join(self.tokens[token] for token in kept))
        return texts

    def encode(
        self, texts: Sequence[str], name: str, places: Sequence[str] = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of texts, without their ends, laid end to end; and how many each has.

        Args:
            texts: the texts, none of them empty.
            name: of the data, in errors.
            places: where each text is, in words; its row if they are not given.

        Raises:
            ValueError: naming a character that the vocabulary has not, and where it is.
        """
        if self.kind == "words":
            words = [text.split() for text in texts]
            numbers = {word: n for n, word in enumerate(self.tokens) if n != END}
            joined = [numbers.get(word, UNKNOWN) for text in words for word in text]
            return np.array(joined, np.int64), np.array([*map(len, words)], np.int64)
        lengths = np.array([*map(len, texts)], np.int64)
        codes = _code_points("".join(texts))
        known = _code_points("".join(self.tokens[self.first :]))
        found = np.searchsorted(known, codes).clip(max=max(len(known) - 1, 0))
        bad = np.flatnonzero(known[found] != codes) if len(known) else np.arange(len(codes))
        if len(bad):
            row = int(np.searchsorted(lengths.cumsum(), bad[0], side="right"))
            where = places[row] if len(places) else name_rows(np.array([row]))
            character = chr(codes[bad[0]])
            raise ValueError(
                f"{name} has the character {character!r} (U+{codes[bad[0]]:04X}) in {where}, which "
                f"is not in the vocabulary of {len(self)} tokens"
            )
        return found + self.first, lengths


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def find_vocabulary(texts: Sequence[str], kind: TokenKind) -> Vocabulary:
    """The vocabulary of texts: characters in the order of Unicode, words from the most frequent.

    Raises:
        ValueError: if the kind is unknown.

    >>> find_vocabulary(["ba", "c"], "characters").tokens
    ('<end>', 'a', 'b', 'c')
    """
    if kind not in get_args(TokenKind):
        raise ValueError(f"tokens must be 'characters' or 'words', got {kind!r}")
    if kind == "characters":
        return Vocabulary(kind, (END_NAME, *sorted(set("".join(texts)))))
    counts: dict[str, int] = {}
    for text in texts:
        for word in text.split():
            counts[word] = counts.get(word, 0) + 1
    counts.pop(UNKNOWN_NAME, None)  # it is the token of unknown words already
    words = sorted(counts, key=lambda word: (-counts[word], word))
    return Vocabulary(kind, (END_NAME, UNKNOWN_NAME, *words))


def without_rare(
    vocabulary: Vocabulary, tokens: np.ndarray, min_count: int
) -> tuple[Vocabulary, np.ndarray]:
    """The vocabulary without rare words; also the new number of each of its tokens, (K,).

    Args:
        tokens: all tokens of the training sequences, in one dimension.
        min_count: words that are fewer times among these become unknown.
    """
    counts = np.bincount(tokens, minlength=len(vocabulary))
    own = range(vocabulary.first, len(vocabulary))
    kept = [number for number in own if counts[number] >= min_count]
    kept.sort(key=lambda number: (-counts[number], vocabulary.tokens[number]))
    numbers = np.full(len(vocabulary), UNKNOWN)
    numbers[END] = END
    numbers[kept] = np.arange(len(kept)) + vocabulary.first
    special = vocabulary.tokens[: vocabulary.first]
    words = tuple(vocabulary.tokens[number] for number in kept)
    return Vocabulary(vocabulary.kind, (*special, *words)), numbers


def check_tokens(tokens: np.ndarray, size: int, name: str) -> None:
    """Refuse tokens that are not from 0 to the size of the vocabulary, less 1.

    Args:
        tokens: (N, …).
        size: K, of the vocabulary.
        name: of the data.

    Raises:
        ValueError: naming a token and its row.

    >>> check_tokens(np.array([[0, 2], [5, 1]]), 3, "x")
    Traceback (most recent call last):
    ValueError: x has the token 5, which is not in the vocabulary of 3 tokens, 0 to 2, in row 1,...
    """
    bad = (tokens < 0) | (tokens >= size) | (tokens != np.floor(tokens))
    if bad.any():
        rows = np.flatnonzero(bad.reshape(len(tokens), -1).any(1))
        token = tokens[bad].flat[0].item()
        token = int(token) if token == token // 1 else token
        raise ValueError(
            f"{name} has the token {token}, which is not in the vocabulary of {size} "
            f"tokens, 0 to {size - 1}, in {name_rows(rows)}"
        )
