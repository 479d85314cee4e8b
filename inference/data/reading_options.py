"""The options that data are read with."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .archive_files import ARCHIVE_SUFFIXES
from .archives import read_named_array
from .codes import are_codes
from .csv_format import CsvFormat
from .files import applicable, read
from .likeness import align_columns
from .pixels import as_pixels
from .sequences import from_sequences, is_list_of_arrays, is_ragged, with_lengths
from .source import Source
from .tables import Kinds
from .text_lines import is_text, read_text
from .vocabulary import TokenKind, Vocabulary, check_tokens


@dataclass(frozen=True)
class ReadingOptions:
    """The options of :func:`load_data` that say how a file, a table or an array is read."""

    csv_format: CsvFormat = field(default_factory=CsvFormat)
    found_format: CsvFormat | None = None
    """The format that was found in the text of the data of the fit, for new ones; of other data
    the columns of codes alone."""
    label_column: str | None = None
    aside: tuple[str, ...] = ()
    """Names of the columns of a table that are no part of x."""
    scale: float | None = None
    """What values are divided by; ``None``: found in the data."""
    shape: tuple[int, ...] | None = None
    """The shape of a datum whose values are the columns of a table; ``None``: as it is."""
    key: str | None = None
    """Which array, sheet, layer or field holds the data; ``None``: the only one."""
    pixel_columns: tuple[str, ...] = ()
    """The columns of a table that are pixels, in their order, once they are known."""
    lengths: str | None = None
    """The array of a file that holds the lengths of its sequences."""
    sequences: bool = False
    """Whether the data are sequences of different lengths, once that is known."""
    tokens: TokenKind | None = None
    """What the tokens of a text are."""
    vocabulary: Vocabulary | None = None
    """What tokens stand for, once that is known."""

    def remember(self, found: Source) -> "ReadingOptions":
        """The options with what was found in the data of the fit: format, codes, pixels."""
        words: dict[str, Any] = {str(column.name): column.categories for column in found.kinds}
        words |= {name: values.tolist() for name, values in found.aside.items()}
        if self.label_column is not None:
            words[self.label_column] = found.label_names
        codes = [name for name, cells in words.items() if all(isinstance(c, str) for c in cells)]
        known = tuple(name for name in codes if are_codes(words[name]))
        return replace(
            self,
            pixel_columns=found.pixel_columns,
            found_format=found.csv_format or CsvFormat(code_columns=known),
            sequences=found.lengths is not None,
            vocabulary=found.vocabulary,
        )

    def read(
        self, source: Any, labels: Any = None, kinds: Kinds = None, lengths: Any = None
    ) -> Source:
        """Read data to fit a model to.

        Args:
            kinds: as for :func:`from_table`.
            lengths: lengths of padded sequences, if :attr:`lengths` does not name them.
        """
        lengths = self._named_lengths(source) if lengths is None else lengths
        labels = self.label_column if labels is None else labels
        found = self._read_sequences(source, labels)
        if found is not None and lengths is not None:
            raise ValueError(f"{found.name} has lengths of its own: leave lengths= out")
        found = found or read(
            source, labels, self.csv_format, aside=self.aside, key=self.key, kinds=kinds,
            before=self.found_format,
        )  # fmt: skip
        found = align_columns(found, self.pixel_columns)
        if lengths is not None:
            found = with_lengths(found, lengths)
        return as_pixels(found, self.scale, self.shape)

    def read_again(
        self, source: Any, labels: Any, seen: tuple[tuple[int, ...], ...], kinds: Kinds = None
    ) -> Source:
        """Read new data, which may lack columns beside x, or be of another kind of file.

        Args:
            seen: shapes of a datum that need no other.
            kinds: the columns of a table as they were found in the data of the fit.
        """
        labels = self.label_column if labels is None else labels
        csv_format = applicable(self.csv_format, source)
        found = self._read_sequences(source, labels) or read(
            source, labels, csv_format, aside=self.aside, require=False, key=self.key, kinds=kinds,
            before=self.found_format,
        )  # fmt: skip
        lengths = None if found.lengths is not None else self._named_lengths(source, new=True)
        if lengths is not None:
            found = with_lengths(found, lengths)
        if (found.lengths is not None) != self.sequences:
            what = (
                "were sequences of different lengths: give a list of sequences, or the tuple "
                "(padded, lengths)"
                if self.sequences
                else f"were not sequences of different lengths, as {found.name} is"
            )
            raise ValueError(f"the data of the fit {what}")
        found = align_columns(found, self.pixel_columns)
        shape = None if tuple(found.values.shape[1:]) in seen else self.shape
        return as_pixels(found, self.scale, shape)

    def _named_lengths(self, source: Any, *, new: bool = False) -> Any:
        """The lengths in the file that holds the sequences; ``None`` if they are not named."""
        if self.lengths is None:
            return None
        if isinstance(source, str | Path) and str(source).lower().endswith(ARCHIVE_SUFFIXES):
            return read_named_array(Path(source), self.lengths)
        if new:  # of another kind, which may have lengths of its own
            return None
        raise ValueError(
            f"lengths={self.lengths!r} names an array of a file ending in "
            f"{', '.join(ARCHIVE_SUFFIXES)}, and the data are none: give the lengths themselves"
        )

    def _read_sequences(self, source: Any, labels: Any) -> Source | None:
        """A text, or a list of sequences; ``None`` if the source is neither."""
        if is_text(source):
            if self.csv_format != CsvFormat() or self.aside or self.key:
                raise ValueError("a text has no columns: leave options for tables out")
            if isinstance(labels, str):
                raise ValueError(f"a text has no columns, and labels={labels!r} names one")
            return read_text(source, labels, self.tokens, self.vocabulary)
        if self.tokens is not None and self.vocabulary is None:
            raise ValueError("tokens= is for a text: a file ending in .txt or .txt.gz, or strings")
        if not (is_ragged(source) or (self.sequences and is_list_of_arrays(source))):
            return None
        found = from_sequences(source, labels)
        if self.vocabulary is not None:
            check_tokens(found.values, len(self.vocabulary), found.name)
            found = replace(found, vocabulary=self.vocabulary)
        return found
