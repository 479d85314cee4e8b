"""Reading of CSV files, plain or compressed."""

import codecs
import gzip
import io
import itertools
from pathlib import Path
from typing import Any, BinaryIO, cast

from .csv_format import CsvFormat, find_format
from .source import reading
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


def read_csv(path: Path, given: CsvFormat) -> tuple[Any, str]:
    """Read the table in a CSV file; also returns a line on how it was read.

    Raises:
        ValueError: if the file is not text, or its format cannot be found in the text.
    """
    import pandas as pd  # slow to import, and seldom needed

    with reading(path):
        encoding = _find_encoding(path)
        sample, whole = _sample(path, encoding)
    found = find_format(sample, given, str(path), whole=whole)
    with reading(path):
        table = pd.read_csv(
            path,
            sep=r"\s+" if found.delimiter == " " else found.delimiter,
            decimal=found.decimal or ".",
            header=0 if found.header else None,
            encoding=encoding,
            compression="gzip" if _is_compressed(path) else None,
        )
    notes = [str(found) + (", Windows-1252 text" if encoding == "cp1252" else "")]
    if not found.header:
        table.columns = [str(place) for place in range(len(table.columns))]
        if len(table) >= MIN_ROWS and table.shape[1] > 1 and counts_rows(table["0"].to_numpy()):
            table = table.drop(columns="0")
            notes.append("row numbers in the first column dropped")
    return table, "; ".join(notes)


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
