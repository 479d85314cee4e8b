"""Find the format of a CSV file in its text.

There is no standard for the delimiter, for the decimal mark, or for a first row of names. The rows
are split by each possible delimiter. Those that give every row the same number of cells are kept,
and of these the one with the largest share of numbers among the cells. If two readings are equally
good, the text is refused, and the error names the option that decides.
"""

import csv
import functools
import io
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .checks import number_of

DELIMITERS = {",": "','", ";": "';'", "\t": "tab", "|": "'|'"}
"""Possible delimiters, if none is given, with their names in errors."""
DECIMAL_MARKS = (".", ",")
"""Decimal marks."""
NUMBER_PATTERNS = {
    mark: re.compile(rf"\s*[+-]?(\d+[{mark}]?\d*|[{mark}]\d+)(e[+-]?\d+)?\s*", re.IGNORECASE)
    for mark in DECIMAL_MARKS
}
"""A number, by its decimal mark."""
GROUPED_PATTERNS = {
    mark: re.compile(rf"\s*[+-]?[1-9]\d{{0,2}}[{mark}]\d{{3}}\s*") for mark in DECIMAL_MARKS
}
"""A number whose mark may separate thousands instead of decimals, by that mark."""
LARGE_NUMBER = re.compile(r"\s*[+-]?\d{4,}\s*")
"""A number of four digits or more without a mark between thousands."""
FLAG_WORDS = {"true", "false"}
MISSING_WORDS = {
    *"?-.*", "", "--", "---", "na", "n/a", "n.a.", "#n/a", "#na", "<na>",
    "#div/0!", "#value!", "#ref!", "#num!", "#name?", "#null!", "nan",
    "null", "none", "missing", "unknown",
    "inf", "-inf", "+inf", "infinity", "-infinity",
}  # fmt: skip
"""Words, in lower case, for a missing value. They are not names of columns."""


@dataclass(frozen=True)
class CsvFormat:
    """The format of a table's text. An option that is ``None`` is found in the text.

    >>> find_format("a;b\\n0,5;1\\n2,25;3\\n", CsvFormat(), "x.csv", whole=True)
    CsvFormat(delimiter=';', decimal=',', header=True, row_names=False, code_columns=())
    >>> find_format("0.5,1.5\\n2.5,3.5\\n", CsvFormat(), "x.csv", whole=True)
    Traceback (most recent call last):
    ValueError: the first row of x.csv holds numbers, which may be names of columns or data: \
give header=True or header=False
    """

    delimiter: str | None = None
    """The character between cells; a space stands for any number of spaces."""
    decimal: str | None = None
    """The decimal mark."""
    header: bool | None = None
    """Whether the first row holds the names of the columns."""
    row_names: bool = False
    """Whether the first column has no name and holds the names of the rows; not an option."""
    code_columns: tuple[str, ...] = ()
    """Names of the columns of codes such as "01", which are words; not an option."""

    def __post_init__(self) -> None:
        if self.delimiter is not None and not re.fullmatch(r"[^\w\r\n\"'.+-]", self.delimiter):
            raise ValueError(f"delimiter must be one character, got {self.delimiter!r}")
        if self.decimal not in (None, *DECIMAL_MARKS):
            raise ValueError(f"decimal must be '.' or ',', got {self.decimal!r}")
        if self.header not in (None, True, False):
            raise ValueError(f"header must be True or False, got {self.header!r}")

    def __str__(self) -> str:
        mark = self.delimiter or ","
        header = "" if self.header else ", no header"
        names = ", names of rows dropped" if self.row_names else ""
        between = DELIMITERS.get(mark, repr(mark))
        return f"{between} between cells, {self.decimal!r} decimal{header}{names}"


@dataclass(frozen=True)
class TextReading:
    """The rows of a text, read with one delimiter and decimal mark."""

    delimiter: str
    decimal: str
    rows: list[list[str]]
    has_quotes: bool
    """Whether the last row starts with a quote."""

    @property
    def body(self) -> list[list[str]]:
        """The rows without the first one, which may hold names, if there are others."""
        return self.rows[1:] or self.rows

    @property
    def width(self) -> int:
        """Number of cells of the last row."""
        return len(self.rows[-1])

    @property
    def is_even(self) -> bool:
        """Whether all rows have the same number of cells."""
        return len({len(row) for row in self.rows}) == 1

    @property
    def has_row_names(self) -> bool:
        """Whether only the first column has no name, and holds the rows' names, as R writes them.

        Two cells, the first a number without quotes, may be one number with a decimal comma.
        """
        if {len(row) for row in self.body} != {len(self.rows[0]) + 1}:
            return False
        first = [row[0] for row in self.body]
        are_names = self.has_quotes or not any(map(is_number, first))
        return are_names or (self.width > 2 and is_count(first))

    @functools.cached_property
    def share_of_numbers(self) -> float:
        """Share of the body's cells that are numbers, flags or missing."""
        cells = [cell for row in self.body for cell in row]
        return sum(map(self.is_value, cells)) / len(cells)

    def is_value(self, cell: str) -> bool:
        """Whether a cell holds a number or a flag, or is missing."""
        if NUMBER_PATTERNS[self.decimal].fullmatch(cell):
            return True
        word = cell.strip().lower()
        return word in FLAG_WORDS or word in MISSING_WORDS


def is_number(cell: str) -> bool:
    """Whether a cell holds a number, with either decimal mark."""
    return any(pattern.fullmatch(cell) for pattern in NUMBER_PATTERNS.values())


def is_count(cells: Sequence[str]) -> bool:
    """Whether cells count the rows, from 0 or from 1."""
    first = cells[0].strip() if cells else ""
    return first in ("0", "1") and all(
        cell.strip() == str(number) for number, cell in enumerate(cells, int(first))
    )


def find_format(
    text: str, given: CsvFormat, name: str, *, whole: bool, before: CsvFormat | None = None
) -> CsvFormat:
    """Find the delimiter, the decimal mark, and whether the first row holds names.

    Args:
        text: the beginning of a file.
        given: the options that are given.
        before: the format of the data of the fit, if those were text. It decides what may be read
            in two ways, unless the text visibly has another.
        name: name of the file, for errors.
        whole: whether the text is the whole file; if not, the last row may be incomplete, and is
            left out.

    Raises:
        ValueError: if rows differ in their number of cells, or if two readings are equally good.
    """
    delimiters = [given.delimiter] if given.delimiter else [*DELIMITERS]
    tried = [_read(text, delimiter, given.decimal, whole) for delimiter in delimiters]
    readings = [reading for reading in tried if reading.rows]
    if before is not None and before.delimiter is not None:
        again = _read_as_before(text, given, before, readings, name, whole=whole)
        if again is not None:
            return again
    if not readings:  # nothing to look at
        return CsvFormat(given.delimiter or ",", given.decimal or ".", given.header is not False)
    best = _choose(readings, given, name)
    header = _has_header(best) if given.header is None else given.header
    if header is False and given.header is None:  # may decide the delimiter
        best = _choose(readings, replace(given, header=False), name)
    if given.decimal is None:
        _check_decimal(best, name)
    if header is None:
        raise ValueError(
            f"the first row of {name} holds numbers, which may be names of columns or data: give "
            "header=True or header=False"
        )
    return CsvFormat(best.delimiter, best.decimal, header, best.has_row_names)


def _read_as_before(
    text: str,
    given: CsvFormat,
    before: CsvFormat,
    others: Sequence[TextReading],
    name: str,
    *,
    whole: bool,
) -> CsvFormat | None:
    """The format of the data of the fit; ``None`` if the text visibly has another.

    It has if rows get unequal lengths, if a number has the other decimal mark, or if another
    delimiter leaves more cells numbers.
    """
    delimiter, decimal = given.delimiter or before.delimiter or ",", given.decimal or before.decimal
    reading = _read(text, delimiter, decimal or ".", whole)
    if not reading.rows or not reading.is_even:
        return None
    if given.header is None:
        looks = _has_header(reading) if len(reading.rows) > 1 else _is_row_of_names(reading)
        if looks is not None and looks != before.header:
            had, has = ("names", "none") if before.header else ("no names", "some")
            raise ValueError(
                f"the first row of the data of the fit held {had} of columns, and that of {name} "
                f"seems to hold {has}: write it as those were"
            )
    body = reading.body if before.header else reading.rows
    cells = [cell for row in body for cell in row]
    is_marked = any(is_number(cell) and not reading.is_value(cell) for cell in cells)
    share = max(
        (other.share_of_numbers for other in others if other.is_even and other.width > 1),
        default=0.0,
    )
    if is_marked or reading.share_of_numbers < share:
        return None
    return replace(before, delimiter=delimiter, decimal=reading.decimal)


def _is_row_of_names(reading: TextReading) -> bool:
    """Whether a text of one row holds no values, but names."""
    return not any(map(reading.is_value, reading.rows[0]))


def _read(text: str, delimiter: str, decimal: str | None, whole: bool) -> TextReading:
    lines = io.StringIO(text, newline="")
    try:
        rows = [*csv.reader(lines, delimiter=delimiter)]
    except csv.Error:  # for example, a quote that is never closed
        rows = []
    if delimiter == " ":
        rows = [line.split() for line in text.splitlines()]
    rows = rows if whole or len(rows) < 2 else rows[:-1]
    rows = [row for row in rows if len(row) > 1 or "".join(row).strip()]
    if decimal is None:
        marked = _marked(rows[1:] or rows)
        # If commas separate cells, a decimal comma needs quotes, so a point is preferred.
        commas = len(marked[","]) if delimiter != "," or not marked["."] else 0
        decimal = "," if commas > len(marked["."]) else "."
    last = text.rstrip().rpartition("\n")[2]
    return TextReading(delimiter, decimal, rows, last.startswith('"'))


def _marked(rows: list[list[str]]) -> dict[str, list[str]]:
    """The numbers that contain a decimal mark, by that mark."""
    cells = [cell for row in rows for cell in row]
    return {
        mark: [cell for cell in cells if mark in cell and pattern.fullmatch(cell)]
        for mark, pattern in NUMBER_PATTERNS.items()
    }


def _choose(readings: list[TextReading], given: CsvFormat, name: str) -> TextReading:
    """Choose the reading with equally many cells in each row, and the most numbers among them."""
    several = [reading for reading in readings if reading.is_even and reading.width > 1]
    best = max((reading.share_of_numbers for reading in several), default=0.0)
    several = [reading for reading in several if reading.share_of_numbers == best]
    if len(several) > 1:
        marks = " or ".join(DELIMITERS[reading.delimiter] for reading in several)
        raise ValueError(f"{marks} may stand between the cells of {name}: give delimiter=")
    commas = _one_column_of_commas(readings)
    if commas is not None and given.decimal != ".":
        may_be_one = bool(several) and _may_be_one(several[0]) and given.header is False
        if given.decimal == "," and (may_be_one or not several):
            return commas
        counts = is_count([row[0].partition(",")[0] for row in commas.body])
        if may_be_one or (not several and counts):
            raise ValueError(
                f"{commas.rows[-1][0]} in {name} may be two numbers or one with a decimal comma: "
                "give delimiter=',' or decimal=','"
            )
        if not several:
            return commas
    named = [reading for reading in readings if reading.has_row_names]
    if several or named:
        return (several or named)[0]
    uneven = [reading for reading in readings if not reading.is_even]
    if uneven:
        _refuse_uneven(uneven, name)
    words = [row[0].split() for row in readings[0].body]
    spaced = {len(row) for row in words} != {1} and all(map(is_number, itertools.chain(*words)))
    if spaced and not given.delimiter:
        raise ValueError(f"spaces seem to stand between the cells of {name}: give delimiter=' '")
    return readings[0]


def _one_column_of_commas(readings: list[TextReading]) -> TextReading | None:
    """The reading as one column of numbers with a decimal comma, if there is one."""
    return next(
        (
            reading
            for reading in readings
            if reading.width == 1
            and reading.is_even
            and reading.decimal == ","
            and reading.share_of_numbers == 1
            and not reading.has_quotes
            and (is_number(reading.rows[0][0]) or "," not in reading.rows[0][0])
        ),
        None,
    )


def _may_be_one(reading: TextReading) -> bool:
    """Whether two columns of whole numbers without names may be one with decimal commas."""
    cells = [cell for row in reading.rows for cell in row]
    whole = all(is_number(cell) and not _marked([[cell]])["."] for cell in cells)
    return reading.delimiter == "," and reading.width == 2 and whole


def _refuse_uneven(readings: list[TextReading], name: str) -> None:
    """Refuse rows of unequal length, naming the first that differs from most."""
    commonest = []
    for reading in readings:
        ((width, times),) = Counter(map(len, reading.rows)).most_common(1)
        commonest.append((width > 1, times, width, reading))
    *_, width, reading = max(commonest, key=lambda found: found[:2])
    row = next(number for number, row in enumerate(reading.rows) if len(row) != width)
    mark = DELIMITERS.get(reading.delimiter, repr(reading.delimiter))
    raise ValueError(
        f"row {row + 1} of {name} has {number_of(len(reading.rows[row]), 'cell')} where most rows "
        f"have {width}, with {mark} between cells: mend that row, or give delimiter="
    )


def _check_decimal(reading: TextReading, name: str) -> None:
    """Refuse numbers with both marks, and numbers whose mark may separate thousands.

    Points in a table with commas between cells are decimal marks.
    """
    marked = _marked(reading.body)
    if reading.delimiter == "," and reading.decimal == ".":
        return
    if marked["."] and marked[","]:
        raise ValueError(
            f"{name} holds {marked['.'][0].strip()} and {marked[','][0].strip()}: write all "
            "numbers with one decimal mark, or give decimal="
        )
    cells, grouped = marked[reading.decimal], GROUPED_PATTERNS[reading.decimal]
    may_part = cells and all(map(grouped.fullmatch, cells))
    columns = [column for column in zip(*reading.body, strict=True) if {*cells} & {*column}]
    apart = any(LARGE_NUMBER.fullmatch(cell) for column in columns for cell in column)
    if may_part and not apart:
        digits = cells[0].strip()
        raise ValueError(
            f"{digits} in {name} may be {digits.replace(',', '.')} or "
            f"{digits.replace(reading.decimal, '')}: give decimal={reading.decimal!r} if the "
            "former, or write it without a mark between thousands"
        )


def _has_header(reading: TextReading) -> bool | None:
    """Whether the first row holds names; ``None`` if both are possible.

    A word above a column of numbers is a name. So is a word that does not appear again above words
    that all do. The first row is data if it holds a number twice, a flag, fractions that do not
    rise or fall steadily (the column names of a spectrum do), or a word that appears again below.
    """
    first, body = reading.rows[0], reading.rows[1:]
    shift = max(reading.width - len(first), 0)
    cells = [cell.strip().lower() for cell in first]
    columns = [[row[place] for row in body] for place in range(shift, len(first) + shift)]
    words = [
        (cell, column)
        for cell, column in zip(cells, columns, strict=True)
        if not is_number(cell) and cell not in FLAG_WORDS and cell not in MISSING_WORDS
    ]
    if shift or any(all(map(reading.is_value, column)) for _, column in words):
        return True
    if cells[0] == "" and is_count(columns[0]):
        return True
    counts = [(cell, Counter(word.strip().lower() for word in column)) for cell, column in words]
    has_names = any(cell not in count and min(count.values()) > 1 for cell, count in counts)
    numbers = [float(cell.replace(",", ".")) for cell in cells if is_number(cell)]
    again = any(cell in count for cell, count in counts) or len(set(numbers)) < len(numbers)
    has_data = again or not _may_be_names(numbers) or not FLAG_WORDS.isdisjoint(cells)
    if has_names != has_data:
        return has_names
    return None if numbers or has_data else True


def _may_be_names(numbers: list[float]) -> bool:
    """Whether numbers are whole, or rise or fall steadily."""
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    steady = all(step > 0 for step in steps) or all(step < 0 for step in steps)
    return steady or all(number.is_integer() for number in numbers)
