"""Tables are read as they are meant, or refused in one line: text formats, columns, digits."""

# ruff: noqa: PD011 (the values of a Source are an array)

import gzip
import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from latente.inference import load_data
from latente.inference.cli.app import app
from latente.inference.data.files import read
from latente.inference.data.rows import as_rows


def written(folder, text, name="table.csv", encoding="utf-8"):
    content = text.encode(encoding)
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.lower().endswith(".gz") else content)
    return path


def values_of(folder, text, **options):
    """The rows of a text, in its order, and the note on how it was read."""
    data = load_data(written(folder, text), validation=0, test=0, **options)
    order = np.random.default_rng(0).permutation(len(data.train))
    return data.train[np.argsort(order)].tolist(), data.note


cells = st.integers(-9999, 9999).map(lambda number: number / 16)  # exact in float32
tables = st.integers(2, 4).flatmap(
    lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), min_size=4, max_size=12)
)


@given(
    rows=tables,
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    decimal=st.sampled_from([".", ","]),
    header=st.sampled_from(["words", "years", "none"]),
    quotes=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "cp1252", "utf-16"]),
    index=st.sampled_from([None, 0, 1]),
    words=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
@settings(max_examples=400, deadline=None)
def test_a_table_is_read_rightly_or_refused_with_what_decides(
    tmp_path_factory, rows, delimiter, decimal, header, quotes, encoding, index, words, end
):
    """Every way to write a table: what is read has the table's values, whatever is not is told."""
    assume(delimiter != decimal or quotes)
    names = {"words": [f"größe {i}" for i in range(len(rows[0]))], "none": []}
    names["years"] = [str(2000 + i) for i in range(len(rows[0]))]
    lines = [[f"{cell:.4f}".replace(".", decimal) for cell in row] for row in rows]
    lines = [names[header], *lines] if names[header] else lines
    kinds = ["süß, sauer", "x"]
    for number, line in enumerate(lines):
        first = number == 0 and header != "none"
        if index is not None:
            line.insert(0, "" if first else str(number - (header != "none") + index))
        if words:
            line.append("art" if first else kinds[number % 2])
    quote = '"' if quotes or (words and delimiter == ",") else ""
    text = end.join(delimiter.join(f"{quote}{cell}{quote}" for cell in line) for line in lines)
    folder = tmp_path_factory.mktemp("table")
    label = "art" if header != "none" else str(len(lines[0]) - 1)
    path = written(folder, text + end, encoding=encoding)
    try:
        source = read(path, label if words else None)
    except ValueError as error:
        told = str(error)
    else:
        told = ""
        assert source.values.dtype == np.float64
        assert source.values.tolist() == rows
        marked = any(not cell.is_integer() for row in rows for cell in row)
        assert f"{decimal!r} decimal" in source.note or not marked
        assert not words or set(source.label_names) == set(kinds)
        assert index is None or "row numbers" in source.note
    assert not told or header != "words", "names of columns leave nothing open"
    assert not told or re.search("give (header|delimiter|decimal)=", told)


@given(
    values=st.lists(
        st.tuples(
            st.floats(-1e30, 1e30),
            st.integers(-(2**53), 2**53),
            st.booleans(),
            st.text("abc,;|\t \"'\n.1é", max_size=6).map("k".__add__),
        ),
        min_size=1,
        max_size=9,
    ),
    names=st.lists(st.text("abxy é.%1", max_size=4).map("n".__add__), min_size=3, max_size=3),
)
@settings(max_examples=300, deadline=None)
def test_a_plain_table_has_the_values_that_pandas_reads(tmp_path_factory, values, names):
    """Commas, points and names: bit for bit what they were before formats were found out."""
    frame = pd.DataFrame(values, columns=[*names, "kind"])
    path = tmp_path_factory.mktemp("table") / "plain.csv"
    frame.to_csv(path, index=False)
    expected = pd.read_csv(path)
    source = read(path, "kind")
    numbers = expected.drop(columns="kind").to_numpy(dtype=np.float64)
    assert source.values.tobytes() == numbers.tobytes()
    assert source.label_names == tuple(np.unique(expected["kind"].astype(str)))
    assert source.note.startswith(f"read {len(frame)} row")


ROWS = [[0.5, 2.0], [1.5, 4.0], [-2.25, 3.0]]
"""What each of the texts below holds."""
READ = {
    "semicolons and decimal commas": "a;b\n0,5;2\n1,5;4\n-2,25;3\n",
    "tabs": "a\tb\n0.5\t2\n1.5\t4\n-2.25\t3\n",
    "bars": "a|b\n0.5|2\n1.5|4\n-2.25|3\n",
    "decimal commas in quotes": 'a,b\n"0,5","2"\n"1,5","4"\n"-2,25","3"\n',
    "no header": "0.5,2,0.5\n1.5,4,2\n-2.25,3,4\n",
    "pandas' row numbers": ",a,b\n0,0.5,2\n1,1.5,4\n2,-2.25,3\n",
    "pandas' row numbers and no names": ",0,1\n0,0.5,2\n1,1.5,4\n2,-2.25,3\n",
    "row numbers read before": "Unnamed: 0,a,b\n0,0.5,2\n1,1.5,4\n2,-2.25,3\n",
    "row numbers without header": "1,0.5,0.5\n2,1.5,4\n3,-2.25,3\n",
    "R's row numbers": '"","a","b"\n"1",0.5,2\n"2",1.5,4\n"3",-2.25,3\n',
    "R's row names": '"a","b"\n"1",0.5,2\n"7",1.5,4\n"9",-2.25,3\n',
    "R's row names without quotes": "a,b\nu,0.5,2\nv,1.5,4\nw,-2.25,3\n",
    "dates for names": "2020-01-01,2020-01-02\n0.5,2\n1.5,4\n-2.25,3\n",
    "quantiles for names": "mean,0.5,0.25\n1,0.5,2\n5,1.5,4\n7,-2.25,3\n",
    "blank lines": "a,b\n\n0.5,2\n  \n1.5,4\n-2.25,3\n\n",
    "old line ends": "a,b\r0.5,2\r1.5,4\r-2.25,3\r",
    "numbers with exponents": "a;b\n5e-1;2E0\n1,5e0;4\n-2,25;3\n",
}
EXPECTED = {
    "no header": [[0.5, 2, 0.5], [1.5, 4, 2], [-2.25, 3, 4]],
    "row numbers without header": [[0.5, 0.5], [1.5, 4], [-2.25, 3]],
    "quantiles for names": [[1, 0.5, 2], [5, 1.5, 4], [7, -2.25, 3]],
}


@pytest.mark.parametrize("name", READ)
def test_a_text_is_read_as_it_is_meant(tmp_path, name):
    rows, note = values_of(tmp_path, READ[name])
    assert rows == EXPECTED.get(name, ROWS)
    assert note.startswith("read 3 rows of")
    assert ("row numbers" in note) == ("row numbers" in name)
    assert ("names of rows dropped" in note) == ("row names" in name)


def test_a_note_says_how_a_text_was_read(tmp_path):
    lines = "".join(f"{i % 7},{i % 10};{199 - i};{i % 3},5;{i % 2}\n" for i in range(200))
    _, note = values_of(tmp_path, "a;b;c;d\n" + lines)
    told = "read 200 rows of 4 columns, ';' between cells, ',' decimal"
    assert note == f"{told}; 200 to fit"
    _, note = values_of(tmp_path, "0.50,0.50,1.25,-0.30\n1,2,3,4\n5,6,7,8.5\n")
    assert note == "read 3 rows of 4 columns, ',' between cells, '.' decimal, no header; 3 to fit"
    _, note = values_of(tmp_path, READ["pandas' row numbers"])
    assert note.endswith("; row numbers in the first column, which has no name, dropped; 3 to fit")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
@pytest.mark.parametrize("name", ["t.csv", "t.TSV", "t.csv.gz", "T.CSV.GZ"])
def test_encodings_and_ends_of_names(tmp_path, encoding, name):
    text = "größe;art\n0,5;süß\n1,5;sauer\n2,5;süß\n"
    data = load_data(written(tmp_path, text, name, encoding), labels="art", validation=0, test=0)
    assert sorted(data.train.flatten().tolist()) == [0.5, 1.5, 2.5]
    assert data.label_names == ("sauer", "süß")
    assert ("Windows-1252" in data.note) == (encoding == "cp1252")


AMBIGUOUS = {
    "years": ("2001,2002\n0.5,2\n1.5,4\n", "first row .* header=True or header=False"),
    "one row of fractions that rise": ("0.5,1.5\n2.5,2\n", "header=True or header=False"),
    "thousands or decimals": ("a;b\n1,234;2\n3,456;1\n", "1.234 or 1234: give decimal=','"),
    "points in thousands": ("a;b\n1.234;2\n3.456;1\n", "1.234 or 1234: give decimal='.'"),
    "both marks": ("a;b\n1,5;2.5\n3;1\n", "holds 2.5 and 1,5: .* decimal="),
    "one column or row names": ("x\n1,5\n2,7\n3,1\n", "two numbers or one .* delimiter=','"),
    "one column or two": ("5,5\n2,7\n3,1\n", "two numbers or one with a decimal comma"),
    "spaces": ("a b\n0.5  2\n1.5 4\n", "give delimiter=' '"),
    "two delimiters": ("a;b|c\nx;y|z\n", "';' or '|' may stand .* give delimiter="),
}
UNREADABLE = {
    "comment": ("# by me\n1,2,3\n4,5,6\n", "row 1 of .* has 1 cell where most rows have 3"),
    "short row": ("a,b\n1,2\n3\n5,6\n", "row 3 of .* has 1 cell where most rows have 2"),
    "unquoted decimal commas": ("a,b\n0,5,1,2\n1,5,2,5\n", "row 1 of .* has 2 cells .* have 4"),
    "marked thousands": ("a;b\n1.234,5;2\n3;1\n", r"'a' .* not numeric \('1.234,5' in row 0"),
    "a question mark": ("a,b\n1,2\n?,3\n", r"'a' of .* not numeric \('\?' in row 1"),
    "shuffled row numbers": (",a\n7,0.5\n3,1.5\n", "no name and may hold row numbers"),
    "labels only": ("kind\n1\n2\n", "no columns of data"),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_may_be_read_in_two_ways_is_refused_with_the_option_that_decides(tmp_path, name):
    text, message = AMBIGUOUS[name]
    with pytest.raises(ValueError, match=message) as caught:
        load_data(written(tmp_path, text))
    assert "\n" not in str(caught.value)


DECIDED = [
    ("years", {"header": False}, [[0.5, 2], [1.5, 4], [2001, 2002]]),
    ("years", {"header": True}, [[0.5, 2], [1.5, 4]]),
    ("one row of fractions that rise", {"header": False}, [[0.5, 1.5], [2.5, 2]]),
    ("thousands or decimals", {"decimal": ","}, [[1.25, 2], [3.5, 1]]),
    ("points in thousands", {"decimal": "."}, [[1.25, 2], [3.5, 1]]),
    ("one column or row names", {"decimal": ","}, [[1.5], [2.75], [3.125]]),
    ("one column or two", {"decimal": ","}, [[2.75], [3.125], [5.5]]),
    ("one column or two", {"delimiter": ","}, [[2, 7], [3, 1], [5, 5]]),
    ("spaces", {"delimiter": " "}, [[0.5, 2], [1.5, 4]]),
]


@pytest.mark.parametrize(("name", "options", "expected"), DECIDED)
def test_the_options_decide(tmp_path, name, options, expected):
    text = AMBIGUOUS[name][0]
    if "decimal" in options:  # decimals that float32 holds exactly
        text = text.replace("234", "250").replace("456", "500").replace("2,7", "2,75")
        text = text.replace("3,1", "3,125")
    rows, _ = values_of(tmp_path, text, **options)
    assert sorted(rows) == expected


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_text_that_is_no_table_of_numbers_is_refused_where_it_is_not(tmp_path, name):
    text, message = UNREADABLE[name]
    with pytest.raises(ValueError, match=message) as caught:
        load_data(written(tmp_path, text), labels="kind" if "kind" in text else None)
    assert "\n" not in str(caught.value)


def test_numbers_name_columns_beside_a_word_that_names_classes(tmp_path):
    """What pandas writes of an array beside labels; the first class may be the first row's too."""
    lines = "0.5,1.5,ant\n2.5,3.5,ant\n1.5,4.0,bee\n3.0,1.0,bee\n"
    data = load_data(written(tmp_path, "0,1,kind\n" + lines), labels="kind")
    assert data.note.startswith("read 4 rows of 2 columns, ',' between cells, '.' decimal; 'kind'")
    data = load_data(written(tmp_path, "0,1,bee\n" + lines), labels="2")
    note = "read 5 rows of 2 columns, ',' between cells, '.' decimal, no header"
    assert data.note.startswith(f"{note}; '2' is set aside as labels; ")
    with pytest.raises(ValueError, match="header=True or header=False"):  # fractions and a name
        load_data(written(tmp_path, "2.5,2.5,kind\n" + lines), labels="kind")


def test_a_first_row_that_repeats_its_words_below_is_data(tmp_path):
    text = "5.1,3.5,1.4,0.2,setosa\n4.9,3.0,1.3,0.2,setosa\n5.0,3.1,1.5,0.3,other\n"
    data = load_data(written(tmp_path, text), labels="4", validation=0, test=0)
    assert len(data.train) == 3
    assert data.label_names == ("other", "setosa")
    rows, note = values_of(tmp_path, "True,False\nFalse,True\nTrue,True\n")
    assert len(rows) == 3
    assert "no header" in note


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delimiter": ";;"}, "delimiter must be one character"),
        ({"delimiter": "x"}, "delimiter must be one character"),
        ({"decimal": "'"}, "decimal must be '.' or ','"),
        ({"header": 0.5}, "header must be True or False"),
    ],
)
def test_options_of_a_text_are_checked(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        load_data(written(tmp_path, READ["tabs"]), **options)


def test_options_of_a_text_are_for_texts(tmp_path):
    with pytest.raises(ValueError, match=r"for files ending in \.csv"):
        load_data(np.zeros((5, 2)), header=True)


def test_a_format_is_found_in_the_beginning_of_a_long_file(tmp_path):
    """What comes later in another format is refused by the reader."""
    lines = "".join(f"{i % 97},5;{i};some text\n" for i in range(40_000))
    path = written(tmp_path, "a;b;kind\n" + lines)
    source = read(path, "kind")
    assert source.values.shape == (40_000, 2)
    assert source.values[:, 0].tolist() == [i % 97 + 0.5 for i in range(40_000)]
    with pytest.raises(ValueError, match=r"column 'a' .* not numeric \('1.5' in row 40000"):
        read(written(tmp_path, "a;b;kind\n" + lines + "1.5;2;x\n"), "kind")


def test_duplicate_names_and_missing_values_of_a_frame_are_told():
    frame = pd.DataFrame(np.arange(12.0).reshape(4, 3), columns=["a", "a", "b"])
    assert load_data(frame, labels="b").event_shape == (2,)
    with pytest.raises(ValueError, match="has 2 columns 'a': rename all but one"):
        load_data(frame, labels="a")
    frame = pd.DataFrame({"a": pd.array([1, None, 3], dtype="Int64"), "b": [1.0, 2.0, 4.0]})
    with pytest.raises(ValueError, match=r"NaN or infinity in row 1, .*column 'a': drop or fill"):
        load_data(frame)


OFFSETS = {"seconds": 1.7e9, "metres": 5.5e6, "none": 0.0}


@pytest.mark.parametrize("offset", OFFSETS.values(), ids=OFFSETS)
@pytest.mark.parametrize("kind", ["frame", "csv", "parquet"])
def test_a_large_offset_is_subtracted_before_digits_are_lost(tmp_path, offset, kind):
    """Two columns that say the same in two units: standardized, they are equal."""
    spread = np.random.default_rng(0).normal(size=200).round(6)
    frame = pd.DataFrame({"time": offset + spread, "x": 2 * spread})
    path = tmp_path / f"table.{kind}"
    if kind == "csv":
        frame.to_csv(path, index=False)
    if kind == "parquet":
        frame.to_parquet(path)
    source = frame if kind == "frame" else path
    data = load_data(source, standardize=True)
    assert data.train.dtype == torch.float32
    # float64 has 16 digits: of 1.7e9 it keeps 2e-7.
    assert torch.allclose(data.train[:, 0], data.train[:, 1], rtol=0, atol=1e-6)
    rows = torch.cat([data.train, data.validation, data.test]) * data.scale + data.location
    found, expected = rows[:, 0].double().sort().values - offset, torch.tensor(spread).sort().values
    assert torch.allclose(found, expected, rtol=0, atol=2e-6)
    if offset:
        for use in (load_data, lambda source: as_rows(frame, "data")):
            with pytest.raises(ValueError, match=r"column 'time' of .*: float32 .* standardize"):
                use(source)


def test_columns_that_float32_holds_are_standardized_as_ever():
    """Bit for bit: a digest of a run's data must not change."""
    values = np.random.default_rng(0).normal(20, 3, size=(50, 3))
    data = load_data(pd.DataFrame(values, columns=list("abc")), standardize=True)
    expected = load_data(values.astype(np.float32), standardize=True)
    assert data.digest() == expected.digest()
    assert torch.equal(data.scale, expected.scale)


def frame_with(column, of=None):
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), columns=["a", "b"])
    return frame.assign(c=column if of is None else frame[of])


@pytest.mark.parametrize("standardize", [False, True])
def test_columns_without_a_density_are_refused_by_name(standardize):
    for frame, told in [
        (frame_with(7.0), "column 'c' is constant"),
        (frame_with(None, of="b"), "column 'c' is a copy of another"),
        (frame_with(0.0).assign(d=0.0), "columns 'c', 'd' are each constant"),
    ]:
        with pytest.raises(ValueError, match=f"{told}: .* drop .*keep_degenerate=True") as caught:
            load_data(frame, standardize=standardize)
        assert "\n" not in str(caught.value)
        kept = load_data(frame, standardize=standardize, keep_degenerate=True)
        assert kept.event_shape == (len(frame.columns),)
        assert told in kept.note


def test_bits_counts_and_grey_values_may_be_constant():
    """Bounded likelihoods have a maximum at a constant: an image's border, a count never seen."""
    rng = np.random.default_rng(0)
    for values in (rng.integers(0, 2, (40, 3)), rng.poisson(4, (40, 3)), rng.random((40, 3))):
        frame = pd.DataFrame(values, columns=list("abc")).assign(border=0, copy=values[:, 0])
        data = load_data(frame)
        assert data.event_shape == (5,)
        assert "column 'border' is constant; column 'copy' is a copy of another" in data.note
    with pytest.raises(ValueError, match="'border' is constant; column 'copy' is a copy"):
        load_data(frame, standardize=True)
    images = np.zeros((40, 4, 4))
    images[:, 1:3, 1:3] = rng.normal(size=(40, 2, 2))
    assert load_data(images).note == ""


def test_what_is_given_may_be_constant_but_not_a_copy_of_what_is_modelled():
    flags = np.array([False, False, True])
    assert load_data(frame_with(7.0), given=flags).event_shape == (2,)
    with pytest.raises(ValueError, match="column 'c' is a copy of another"):
        load_data(frame_with(None, of="a"), given=flags)


def test_the_command_line_says_how_a_table_was_read(tmp_path):
    """One line, kept with the run."""
    rows = "".join(f"{i % 7},5;{i % 10};{i % 3},25\n" for i in range(60))
    out = tmp_path / "run"
    path = written(tmp_path, "a;b;c\n" + rows)
    command = ["train", "--data", path, "--epochs", 1, "--latent-dim", 1, "--hidden", 4,
               "--out", out]  # fmt: skip
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(part) for part in command])
    assert result.exit_code == 0, result.output
    note = (
        "read 60 rows of 3 columns, ';' between cells, ',' decimal; "
        "48 to fit, 6 to validate, 6 to test"
    )
    assert f"{path}: {note}\n" in result.stderr
    assert json.loads((out / "config.json").read_text())["data_note"] == note


@pytest.mark.parametrize("word", ["#DIV/0!", "--", "n.a."])
def test_a_first_row_with_a_missing_value_is_no_header(tmp_path, word):
    path = tmp_path / "missing.csv"
    path.write_text(f"{word},1.5,2.5\n" + "0.25,1.75,2.25\n3.5,1.25,0.5\n" * 6)
    with pytest.raises(ValueError, match="which may be names of columns or data: give header="):
        load_data(path)
