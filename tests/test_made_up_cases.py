"""Ways to write the same data: each is read with its right values, or refused in one line."""

# ruff: noqa: E501, PD011 (a case a line; the values of a Source are an array)

import decimal

import numpy as np
import pandas as pd
import pytest
import torch

from latente.inference import load_data
from latente.inference.data.codes import are_codes
from latente.inference.data.files import read

ROWS = [[0.5, 2.0], [1.5, 4.0], [-2.25, 3.0]]
POINTS = "a,b\n0.5,2\n1.5,4\n-2.25,3\n"
COMMAS = "a;b\n0,5;2\n1,5;4\n-2,25;3\n"
PLAIN = "read 3 rows of 2 columns, ',' between cells, '.' decimal"
GERMAN = "read 3 rows of 2 columns, ';' between cells, ',' decimal"

READ = {
    "UTF-16 with decimal commas": (COMMAS.encode("utf-16"), ROWS, GERMAN),
    "UTF-16, the high byte first": (b"\xfe\xff" + COMMAS.encode("utf-16-be"), ROWS, GERMAN),
    "Latin-1 names": (
        COMMAS.replace("a;", "größe;").encode("latin-1"), ROWS, f"{GERMAN}, Windows-1252 text",
    ),
    "a mark of UTF-8 before quotes": (
        '"a","b"\n"0.5","2"\n"1.5","4"\n"-2.25","3"\n'.encode("utf-8-sig"), ROWS, PLAIN,
    ),
    "spaces around cells": ("a, b\n0.5, 2\n 1.5 , 4\n-2.25, 3\n", ROWS, PLAIN),
    "spaces within quotes": ('a,b\n" 0.5 ","2"\n"1.5 ",4\n-2.25,3\n', ROWS, PLAIN),
    "plus signs": ("a,b\n+0.5,+2\n+1.5,4\n-2.25,3\n", ROWS, PLAIN),
    "fractions without a zero": ("a,b\n.5,2.\n1.5,4\n-2.25,3\n", ROWS, PLAIN),
    "ends of rows of two kinds": ("a,b\r\n0.5,2\n1.5,4\r\n-2.25,3", ROWS, PLAIN),
    "a name of two lines": ('"a\nx",b\n0.5,2\n1.5,4\n-2.25,3\n', ROWS, PLAIN),
    "the delimiter in a first line": (f"sep=;\n{COMMAS}", ROWS, GERMAN),
    "a delimiter at the end of each row": (
        "a,b,\n0.5,2,\n1.5,4,\n-2.25,3,\n", ROWS, f"{PLAIN}; columns without name and values dropped",
    ),
    "the same without a header": (
        "0.5,0.5,\n1.5,4,\n-2.25,3,\n", [[0.5, 0.5], *ROWS[1:]], "the last column, which is empty, dropped",
    ),
    "bars around each row": (
        "|a|b|\n|0.5|2|\n|1.5|4|\n|-2.25|3|\n", ROWS, "columns without name and values dropped",
    ),
    "an empty column in the middle": (
        "a,,b\n0.5,,2\n1.5,,4\n-2.25,,3\n", ROWS, "columns without name and values dropped",
    ),
    "row numbers written twice": (
        ",Unnamed: 0,a,b\n0,0,0.5,2\n1,1,1.5,4\n2,2,-2.25,3\n", ROWS, f"{PLAIN}; row numbers",
    ),
    "a column that counts": (
        "id,a\n1,0.5\n2,1.5\n3,-2.25\n", [[1, 0.5], [2, 1.5], [3, -2.25]],
        "column 'id' counts the rows: drop what is no measurement",
    ),
    "a column that counts from any number": (
        "id,a\n123,0.5\n124,1.5\n125,-2.25\n", [[123, 0.5], [124, 1.5], [125, -2.25]],
        "column 'id' counts the rows: drop what is no measurement",
    ),
    "a nameless column of values": (
        "a,,b\n1,7,2\n4,5,4\n9,1,3\n", [[1, 7, 2], [4, 5, 4], [9, 1, 3]], "'Unnamed: 1' has no name",
    ),
    "a name that comes twice": (
        "a,a\n0.5,2\n1.5,4\n-2.25,3\n", ROWS, "several columns have the name 'a', and got numbers",
    ),
    "a number for what is missing": (
        "a,b\n0.5,2\n-999,4\n2.25,3\n", [[0.5, 2], [-999, 4], [2.25, 3]],
        "-999 in column 'a' may stand for a missing value",
    ),
    "flags in capitals": ("a,b\nTRUE,2\nFALSE,4\nTRUE,3\n", [[1, 2], [0, 4], [1, 3]], PLAIN),
    "zeros before a fraction": ("a,b\n00.5,2\n01.5,4\n-02.25,3\n", ROWS, PLAIN),
    "small exponents": ("a,b\n5E-1,2e0\n15e-1,4\n-225e-2,3\n", ROWS, PLAIN),
    "names of another alphabet": (POINTS.replace("a,", "高さ,").encode(), ROWS, PLAIN),
    "a bar and decimal commas": (COMMAS.replace(";", "|"), ROWS, "'|' between cells, ',' decimal"),
}  # fmt: skip
"""Bytes or text of a CSV file, the rows that it holds, and a part of its note."""

NOT = "is not numeric"
REFUSED = {
    "missing, as a bar": ("a,b\n0.5,-\n1.5,4\n2,3\n", rf"'b' .*{NOT} \('-' in row 0, .*mend that"),
    "missing, as a point": ("a,b\n0.5,2\n1.5,.\n2,3\n", rf"'b' .*{NOT} \('.' in row 1"),
    "missing, as a word": ("a,b\n0.5,2\n1.5,3\nmissing,3\n", rf"'a' .*{NOT} \('missing' in row 2"),
    "missing, as nothing": ("a,b\n0.5,\n1.5,4\n", "NaN or infinity in row 0, .*column 'b': drop or"),
    "a row of nothing": ("a,b\n0.5,2\n,\n1.5,4\n", "NaN or infinity in row 1, .*columns 'a', 'b'"),
    "quoted thousands": ('a,b\n"1,234",2\n"12,345",4\n', "1.234 or 1234: give decimal=','"),
    "thousands in millions": ('a,b\n"1,234,567",2.5\n"12,345",4\n', rf"'a' .*{NOT} \('1,234,567' in"),
    "thousands by spaces": ("a;b\n1 234;2\n12 345;4\n", rf"'a' .*{NOT} \('1 234' in row 0"),
    "thousands by apostrophes": ("a;b\n1'234.5;2\n12'345;4\n", rf"'a' .*{NOT} \(\"1'234.5\" in"),
    "thousands by underscores": ("a,b\n1_000,2\n2_000,4\n", rf"'a' .*{NOT} \('1_000' in row 0"),
    "a delimiter after rows but the first": ("a,b\n0.5,2,\n1.5,4,\n2,3,\n", "row 1 of .* has 2 cells"),
    "a comment with commas": ("# mine, all mine\na,b\n0.5,2\n1.5,4\n1,1\n", rf"{NOT} \('a' in row 0"),
    "a comment at the end": (f"{POINTS}# end\n", "row 5 of .* has 1 cell where most rows have 2"),
    "a comment beside": ("a,b\n0.5,2 # odd\n1.5,4\n1,1\n", rf"'b' .*{NOT} \('2 # odd' in row 0"),
    "a row of units": ("a,b\ncm,kg\n0.5,2\n1.5,4\n2,3\n", "row 0, .* second row of names, or of units"),
    "a row of sums": (f"{POINTS}Total,9\n", rf"'a' .*{NOT} \('Total' in row 3, .*mend that value"),
    "a long row": ("a,b\n0.5,2\n1.5,4,7\n2,3\n", "row 3 of .* has 3 cells where most rows have 2"),
    "dates": ("day,b\n2020-01-01,2\n2020-01-02,4\n", rf"'day' .*{NOT} \('2020-01-01' in row 0"),
    "days first": ("day;b\n01.02.2020;2\n03.02.2020;4\n", rf"'day' .*{NOT} \('01.02.2020' in row 0"),
    "times": ("t,b\n10:00,2\n11:30,4\n", rf"'t' .*{NOT} \('10:00' in row 0"),
    "yes and no": ("a,b\nyes,2\nno,4\n", "groups=.* given= .* vae-table, or --likelihood columns"),
    "percent signs": ("a,b\n5%,2\n10%,4\n", rf"'a' .*{NOT} \('5%' in row 0"),
    "units": ("a,b\n5 cm,2\n10 cm,4\n", rf"'a' .*{NOT} \('5 cm' in row 0"),
    "a currency": ("a;b\n5,00 €;2\n10,00 €;4\n", rf"'a' .*{NOT} \('5,00 €' in row 0"),
    "brackets for minus": ("a,b\n(1.5),2\n2.5,4\n1,1\n", rf"'a' .*{NOT} \('\(1.5\)' in row 0"),
    "a typographic minus": ("a,b\n\u22121.5,2\n2.5,4\n1,1\n", rf"'a' .*{NOT} \('\u22121.5' in row 0"),
    "hexadecimal": ("a,b\n0x1F,2\n0x2F,4\n", rf"'a' .*{NOT} \('0x1F' in row 0"),
    "Fortran's exponents": ("a,b\n1D3,2\n2D-3,4\n", rf"'a' .*{NOT} \('1D3' in row 0"),
    "bounds": ("a,b\n<0.5,2\n1.5,4\n1,1\n", rf"'a' .*{NOT} \('<0.5' in row 0"),
    "infinity": ("a,b\ninf,2\n1.5,4\n", "NaN or infinity in row 0, .*column 'a'"),
    "beyond float64": ("a,b\n0.5,2\n1e400,4\n", "NaN or infinity in row 1, .*column 'a'"),
    "identifiers": ("a,b\n1234567890123456789,2\n1234567890123456790,4\n", "'a' .*, which float64 rounds"),
    "codes": ("zip,b\n01234,2\n90210,4\n", rf"'zip' .*{NOT} \('01234' in row 0.* zeros in front are"),
    "another delimiter": ("a^b\n0.5^2\n1.5^4\n", r"'a\^b' .*\('0.5\^2' in row 0"),
    "a quote that is not closed": ('a,b\n"0.5,2\n1.5,4\n2,3\n', "row 2 of .* has 1 cell"),
    "single quotes": ("'a','b'\n'0.5','2'\n'1.5','4'\n", rf"{NOT} \(\"'0.5'\" in row 0"),
    "UTF-16 without its mark": (POINTS.encode("utf-16-le"), "cannot be read .* bytes of value zero"),
    "a single number": ("5\n", "header=True or header=False"),
    "names and no rows": ("a,b\n", "holds no rows"),
    "an empty file": ("", "truncated, empty or of another kind"),
}  # fmt: skip


def written(folder, content, name="table.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(("content", "rows", "note"), READ.values(), ids=READ)
def test_a_text_has_its_values_and_the_note_says_how_it_was_read(tmp_path, content, rows, note):
    source = read(written(tmp_path, content))
    assert source.values.tolist() == rows
    assert note in source.note


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_a_text_that_may_be_misread_is_refused_in_one_line(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_data(written(tmp_path, content), validation=0, test=0)
    assert "\n" not in str(caught.value)


X = np.random.default_rng(0).normal(size=(6, 4))
LEVELS = np.random.default_rng(1).integers(0, 256, size=(6, 5, 4)).astype("u1")
LEVELS[0, 0, 0] = 255
LOCKED = X.copy()
LOCKED.setflags(write=False)
WHOLE = "whole numbers up to 255: give scale=255 if they are grey levels"
ARRAYS = {
    "half precision": (X.astype("f2"), X.astype("f2"), ""),
    "the high byte first": (X.astype(">f8"), X, ""),
    "extended precision": (X.astype(np.longdouble), X, ""),
    "columns in memory order": (np.asfortranarray(X), X, ""),
    "rows and columns reversed": (X[::-1, ::-1], X[::-1, ::-1].copy(), ""),
    "each second column": (X[:, ::2], X[:, [0, 2]], ""),
    "read-only": (LOCKED, X, ""),
    "one row repeated without a copy": (np.broadcast_to(X[0], (5, 4)), np.stack([X[0]] * 5), ""),
    "a mask that hides nothing": (np.ma.array(X, mask=False), X, ""),
    "a view of memory": (memoryview(X.copy()), X, ""),
    "one row": (X[:1], X[:1], ""),
    "numbers without rows of several": (X[:, 0], X[:, 0], ""),
    "rows as tuples": (tuple(map(tuple, X.tolist())), X, ""),
    "a negated view": (torch.tensor(X)._neg_view(), -X, ""),
    "the imaginary part of a conjugate": (torch.tensor(1j * X).conj().imag, -X, ""),
    "a parameter": (torch.nn.Parameter(torch.tensor(X)), X, ""),
    "bits": (X > 0, X > 0, ""),
    "bytes up to 1": ((X > 0).astype("u1"), X > 0, ""),
    "signed bytes": ((50 * X).astype("i1"), (50 * X).astype("i1"), ""),
    "grey levels": (LEVELS, (LEVELS / 255).astype("f4"), "levels of 8 bits, divided by 255"),
    "levels as long integers": (LEVELS.astype("i8"), LEVELS, WHOLE),
    "levels of 16 bits": (LEVELS.astype("u2"), LEVELS, WHOLE),
    "channels last": (
        np.stack([LEVELS / 255] * 3, -1), np.stack([LEVELS / 255] * 3, 1), "channels moved",
    ),
    "objects that are numbers": (pd.DataFrame(X.astype(object)), X.astype("f4"), "read 6 rows"),
    "nullable integers": (pd.DataFrame({"a": pd.array([4, 1, 3], "Int64")}), [[4], [1], [3]], "read"),
    "sparse columns": (pd.DataFrame({"a": pd.arrays.SparseArray([0, 2.5, 0])}), [[0], [2.5], [0]], "read 3 rows"),
}  # fmt: skip
"""What is given, its values in that order, and a part of the note."""


@pytest.mark.parametrize(("given", "expected", "note"), ARRAYS.values(), ids=ARRAYS)
def test_an_array_of_any_kind_has_its_values(given, expected, note):
    data = load_data(given, validation=0, test=0)
    rows = data.train[np.argsort(data.train_index)]
    assert np.array_equal(rows.numpy(), np.asarray(expected).astype(rows.numpy().dtype))
    assert note in data.note
    assert note or not data.note


OBJECTS = np.array([[1.0, 2.0], [3.0, "x"]], dtype=object)
NO_ARRAYS = {
    "no rows": (X[:0], "holds no rows"),
    "no columns": (X[:, :0], r"rows without values, of shape \(6, 0\)"),
    "a single number": (np.float64(3.0), "holds a single number"),
    "an array of one number and no axis": (np.array(3.0), "holds a single number"),
    "an object that is a word": (OBJECTS, r"not numbers \('x' in row 1, column 1, counted from 0\)"),
    "an object that is nothing": (np.array([[1, None]], object), r"\('None' in row 0, column 1"),
    "objects that are numbers": (X.astype(object), r"convert them, with .astype\(float\)"),
    "complex numbers": (X + 0j, "holds complex128, not numbers"),
    "records": (np.zeros(3, [("a", "i4"), ("b", "f8")]), "not numbers"),
    "words": (np.array([["1", "2"]]), "holds <U1, not numbers"),
    "dates": (np.array([["2020-01-01"]], "M8[D]"), "holds datetime64"),
    "spans of time": (np.array([[1]], "m8[s]"), "holds timedelta64"),
    "a mask": (np.ma.array(X, mask=X > 1.3), "there are masked values in the array"),
    "channels first and last": (np.zeros((5, 3, 8, 3)), "give layout='channels_first' or layout="),
    "two arrays": ((X, X), "one array, not a tuple: give x, and labels="),
    "arrays by name": ({"x": X}, "of type dict, not an array"),
    "rows of unequal length": ([[1.0, 2.0], [3.0]], r"unequal shapes, \(2,\) and \(1,\)"),
    "a word among numbers": (
        pd.DataFrame({"a": [1.0, 2, 3], "b": pd.Series([1, "x", 3], dtype=object)}),
        rf"'b' of the DataFrame {NOT} \('x' in row 1",
    ),
    "nothing among numbers": (
        pd.DataFrame({"a": [1.0, 2], "b": pd.Series([1, None], dtype=object)}), "row 1, .*column 'b'",
    ),
    "written numbers": (pd.DataFrame({"a": ["1.5", "2"]}), "written numbers, so .* pd.to_numeric"),
    "written codes": (pd.DataFrame({"a": ["01", "02"]}), "codes with zeros in front are words"),
    "decimals": (pd.DataFrame({"a": [decimal.Decimal("1.5")]}), NOT),
    "days": (pd.DataFrame({"a": pd.date_range("2020", periods=3)}), "number of days, or sort a split"),
    "categories": (pd.DataFrame({"a": pd.Categorical([1, 2])}), rf"{NOT} \(category\)"),
    "identifiers": (pd.DataFrame({"a": [2**60 + 1, 2**60 + 2]}), "which float64 rounds"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "message"), NO_ARRAYS.values(), ids=NO_ARRAYS)
def test_what_is_no_array_of_numbers_is_refused_in_one_line(given, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_data(given, validation=0, test=0)
    assert "\n" not in str(caught.value)


# Codes, which are words wherever they come from.

CODES = pd.DataFrame({"zip": ["01234", "90210", "00501", "90210"], "x": [0.5, 1.5, 2.0, 4.0]})


def test_codes_are_words_from_text_and_from_memory(tmp_path):
    path = tmp_path / "codes.csv"
    CODES.to_csv(path, index=False)
    for source in (path, CODES):
        assert read(source, "zip").label_names == ("00501", "01234", "90210")
        data = load_data(source, kinds={}, validation=0, test=0)
        assert data.transform.kinds[0].categories == ("00501", "01234", "90210")
        asked = load_data(source, kinds={"zip": "normal"}, validation=0, test=0)
        assert sorted(asked.train[:, 0].tolist()) == [501, 1234, 90210, 90210]
        # A new file without any zero in front is read as those of the fit.
        new = written(tmp_path, "zip,x\n90210,0.25\n", "new.csv")
        assert data.transform(new)[0].tolist() == [[2.0, 0.25]]
        assert data.transform(CODES[1:2])[0].tolist() == [[2.0, 1.5]]
        assert asked.transform(new)[0].tolist() == [[90210.0, 0.25]]


def test_columns_of_several_kinds_that_are_missing_are_those_of_the_file(tmp_path):
    data = load_data(CODES, kinds={}, validation=0, test=0)
    path = written(tmp_path, "zip,y\n90210,0.25\n", "new.csv")
    with pytest.raises(ValueError, match=r"new.csv: the table lacks column 'x'$"):
        data.transform(path)
    with pytest.raises(ValueError, match=r"new.csv: there is no column 'zap': did you mean 'zip'"):
        load_data(path, kinds={"zap": "normal"})


@pytest.mark.parametrize(
    ("cells", "expected"),
    [(["01", "12"], True), (["007", "01"], True), (["0.5"], False), (["0", "1"], False),
     (["10", "05", "7"], False), (["01", "x"], False), ([], False)],
)  # fmt: skip
def test_the_rule_of_codes(cells, expected):
    assert are_codes(cells) == expected


# New files of a run are read in the format of the first.

FITTED = {
    "decimal commas without header": (
        "1,5;1,5\n2,5;1,0\n1,5;2,0\n", {}, "1,5;2,0\n", [[1.5, 2.0]],
    ),
    "thousands are decimals, as they were": (
        "a;b\n1,234;2\n3,456;1,5\n1,5;1,25\n", {}, "a;b\n1,234;2\n", [[1.234, 2.0]],
    ),
    "one column of decimal commas": ("a\n1,5\n2,75\n3,125\n", {"decimal": ","}, "a\n1,5\n", [[1.5]]),
    "another delimiter that is plain": (
        "a;b\n1,5;2\n2,5;1\n", {}, "a\tb\n1.5\t2\n", [[1.5, 2.0]],
    ),
    "a number that looks like a code": (
        "a,b\n1,0.5\n02,1.5\n10,2.5\n", {}, "a,b\n02,0.5\n", [[2.0, 0.5]],
    ),
}  # fmt: skip
NOT_FITTED = {
    "names where there were none": (
        "1.5,2.0,1.5\n2.5,1.0,2\n1.5,1.5,3\n", {}, "a,b,c\n1.5,2,1\n", "held no names of columns",
    ),
    "no names where there were some": ("a,b\n1.5,2\n2.5,1\n", {}, "1.5,2.5\n", "seems to hold none"),
    "the other decimal mark": ("a;b\n1,5;2\n2,5;1\n", {}, "a;b\n1.234;2\n", "give decimal='.'"),
    "fewer columns": ("a;b\n1,5;2\n2,5;1\n", {}, "a\n1,5\n", "lacks column 'b'"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "options", "new", "rows"), FITTED.values(), ids=FITTED)
def test_a_small_file_is_read_as_those_of_the_fit(tmp_path, text, options, new, rows):
    data = load_data(written(tmp_path, text), validation=0, test=0, **options)
    (x,) = data.transform(written(tmp_path, new, "new.csv"))
    assert x.tolist() == torch.tensor(rows).tolist()


@pytest.mark.parametrize(("text", "options", "new", "message"), NOT_FITTED.values(), ids=NOT_FITTED)
def test_a_small_file_that_is_visibly_otherwise_is_refused(tmp_path, text, options, new, message):
    data = load_data(written(tmp_path, text), validation=0, test=0, **options)
    with pytest.raises(ValueError, match=message) as caught:
        data.transform(written(tmp_path, new, "new.csv"))
    assert "\n" not in str(caught.value)
