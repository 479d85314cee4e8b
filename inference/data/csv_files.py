"""Reading of CSV files, plain or compressed."""

import codecs
import csv
import gzip
import io
import itertools
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from .codes import are_codes
from .csv_format import CsvFormat, find_format
from .source import join_notes, reading
from .tables import MIN_ROWS, counts_rows

SAMPLE_CHARACTERS, SAMPLE_LINES = 2**18, 20
"""The part of a file, at least, in which its format is looked for."""
BYTES_AT_ONCE = 2**20
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""The first bytes of a text that give its encoding."""
DELIMITER_LINE = re.compile(r"sep=([^\w\s\"'.+-]|\t)\r?\n", re.IGNORECASE)
"""A first line with which spreadsheets say what stands between cells."""
PADDED_DIGITS = re.compile(r"(?:^|[^\w.,+-])\s*0\d+\s*(?:$|[^\w.])")
"""Digits with a zero in front, which may be a code."""
OVERLAP = 64
"""Characters that two pieces of a text have in common, lest a cell is cut."""


def read_csv(
    path: Path, given: CsvFormat, before: CsvFormat | None = None
) -> tuple[Any, str, CsvFormat]:
    """Read the table in a CSV file; also returns a line on how it was read, and its format.

    Args:
        given: the options that are given; the others are found in the text.
        before: the format of the data of the fit, for new data.

    Raises:
        ValueError: if the file is not text, or its format cannot be found in the text.
    """
    import pandas as pd  # slow to import, and seldom needed

    with reading(path):
        encoding = _find_encoding(path)
        sample, whole = _sample(path, encoding)
    told = DELIMITER_LINE.match(sample)
    if told is not None:
        given = replace(given, delimiter=given.delimiter or told[1])
        sample = sample[told.end() :]
    found = find_format(sample, given, str(path), whole=whole, before=before)
    options: dict[str, Any] = {
        "sep": r"\s+" if found.delimiter == " " else found.delimiter,
        "header": 0 if found.header else None,
        "encoding": encoding,
        "compression": "gzip" if _is_compressed(path) else None,
        "skiprows": int(told is not None),
    }
    with reading(path):
        table = pd.read_csv(path, decimal=found.decimal or ".", **options)
        if not found.header:
            table.columns = [str(place) for place in range(len(table.columns))]
        codes = None if before is None else before.code_columns
        table, found = _keep_codes(path, table, found, codes, options)
    note = str(found) + (", Windows-1252 text" if encoding == "cp1252" else "")
    repeated = _repeated_names(sample, found) if found.header else ""
    table, dropped = (table, "") if found.header else _without_names(table)
    return table, join_notes(note, repeated, dropped), found


def _without_names(table: Any) -> tuple[Any, str]:
    """A table without header, without row numbers and an empty last column; also a note."""
    notes = []
    if len(table) >= MIN_ROWS and table.shape[1] > 1 and counts_rows(table["0"].to_numpy()):
        table = table.drop(columns="0")
        notes.append("row numbers in the first column dropped")
    if table.shape[1] > 1 and table.iloc[:, -1].isna().all():  # a delimiter at the end of each row
        table = table.iloc[:, :-1]
        notes.append("the last column, which is empty, dropped")
    return table, join_notes(*notes)


def _repeated_names(sample: str, found: CsvFormat) -> str:
    """A note on names that several columns have, which pandas numbers."""
    if found.delimiter == " ":
        return ""
    first = next(csv.reader(io.StringIO(sample, newline=""), delimiter=found.delimiter or ","), [])
    repeated = [name for name, times in Counter(filter(None, first)).items() if times > 1]
    return f"several columns have the name {repeated[0]!r}, and got numbers" if repeated else ""


def _keep_codes(
    path: Path, table: Any, found: CsvFormat, codes: tuple[str, ...] | None, options: dict[str, Any]
) -> tuple[Any, CsvFormat]:
    """The table with its codes as words, as they are written, and their names in the format.

    Args:
        codes: their names in the data of the fit; ``None``: they are found.
    """
    import pandas as pd  # slow to import, and seldom needed

    numeric = [place for place, dtype in enumerate(table.dtypes) if dtype.kind in "iuf"]
    if codes is not None:
        numeric = [place for place in numeric if str(table.columns[place]) in codes]
    elif not _has_padded_digits(path, options["encoding"]):
        numeric = []
    if not numeric:
        return table, replace(found, code_columns=codes or ())
    written = pd.read_csv(path, dtype=str, **options)
    if len(written.columns) != len(table.columns):  # names of rows are an index
        return table, found
    names = []
    for place in numeric:
        cells = written.iloc[:, place]
        if codes is not None or are_codes(cells.dropna()):
            names.append(str(table.columns[place]))
            table = table.assign(**{names[-1]: cells.to_numpy()})
    return table, replace(found, code_columns=codes or tuple(names))


def _has_padded_digits(path: Path, encoding: str) -> bool:
    """Whether any cell may hold digits with a zero in front."""
    with _open(path) as file:
        text, end = io.TextIOWrapper(file, encoding=encoding, newline=""), ""
        while piece := text.read(BYTES_AT_ONCE):
            if PADDED_DIGITS.search(end + piece):
                return True
            end = piece[-OVERLAP:]
    return False


def _is_compressed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if _is_compressed(path) else path.open("rb")


def _find_encoding(path: Path) -> str:
    """The encoding by the first bytes, else UTF-8, else Windows-1252, as spreadsheets write it."""
    with _open(path) as file:
        start = file.read(4)
        for mark, encoding in BYTE_ORDER_MARKS.items():
            if start.startswith(mark):
                return encoding
        decoder = codecs.getincrementaldecoder("utf-8")()
        block = start
        try:
            while block:
                if b"\0" in block:
                    raise ValueError("it holds bytes of value zero, so it is not UTF-8 text")
                decoder.decode(block)
                block = file.read(BYTES_AT_ONCE)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8"


def _sample(path: Path, encoding: str) -> tuple[str, bool]:
    """The beginning of a text, and whether that is the whole text."""
    with _open(path) as file:
        text = io.TextIOWrapper(file, encoding=encoding, newline="")
        sample = text.read(SAMPLE_CHARACTERS) + text.readline()
        lines = sample.count("\n")
        sample += "".join(itertools.islice(text, max(SAMPLE_LINES - lines, 0)))
        return sample, not text.read(1)
