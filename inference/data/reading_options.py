"""The options that data are read with."""

from dataclasses import dataclass, field, replace
from typing import Any

from .codes import are_codes
from .csv_format import CsvFormat
from .files import applicable, read
from .likeness import align_columns
from .pixels import as_pixels
from .source import Source
from .tables import Kinds


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
        )

    def read(self, source: Any, labels: Any = None, kinds: Kinds = None) -> Source:
        """Read data to fit a model to.

        Args:
            kinds: as for :func:`from_table`.
        """
        labels = self.label_column if labels is None else labels
        found = read(
            source, labels, self.csv_format, aside=self.aside, key=self.key, kinds=kinds,
            before=self.found_format,
        )  # fmt: skip
        found = align_columns(found, self.pixel_columns)
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
        found = read(
            source, labels, csv_format, aside=self.aside, require=False, key=self.key, kinds=kinds,
            before=self.found_format,
        )  # fmt: skip
        found = align_columns(found, self.pixel_columns)
        shape = None if tuple(found.values.shape[1:]) in seen else self.shape
        return as_pixels(found, self.scale, shape)
