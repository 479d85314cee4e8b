"""What is given in memory is taken for what it is, or refused in one line, at once."""

import datetime
import re
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.utils.data import DataLoader, Dataset, TensorDataset

from latente.inference import load_data
from latente.inference.data.rows import as_rows

X = np.arange(12.0).reshape(4, 3) / 4


class Endless(Dataset):
    """A data set of no stated length: NumPy would ask it for one item after another, for ever."""

    def __getitem__(self, index):
        return torch.zeros(3)


class Rows:
    """A class of one's own that is read item by item."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return X[index]


def values_by_both(source):
    """What the two ways in make of it: loaded, in the rows' order, and given directly."""
    data = load_data(source, validation=0, test=0)
    order = np.argsort(np.random.default_rng(0).permutation(len(data.train)))
    (rows,) = as_rows(source, "data")
    return data.train[order], rows


SAME = {
    "float32": X.astype(np.float32),
    "float16": X.astype(np.float16),
    "longdouble": X.astype(np.longdouble),
    "big-endian": X.astype(">f8"),
    "big-endian float32": X.astype(">f4"),
    "reversed rows": X[::-1].copy()[::-1],
    "reversed columns": X[:, ::-1].copy()[:, ::-1],
    "Fortran order": np.asfortranarray(X),
    "not masked": np.ma.array(X),
    "list": X.tolist(),
    "list of tensors": list(torch.tensor(X)),
    "tensor": torch.tensor(X),
    "tensor with gradient": torch.tensor(X, requires_grad=True),
    "bfloat16": torch.tensor(X).bfloat16(),
    "half": torch.tensor(X).half(),
    "float8": torch.tensor(X).to(torch.float8_e5m2),
    "matrix": X.view(np.matrix),
    "frame": pd.DataFrame(X),
    "sparse frame": pd.DataFrame(X).astype(pd.SparseDtype(float, 0.0)),
}


@pytest.mark.parametrize("name", SAME)
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_numbers_are_the_same_however_they_are_kept(name):
    expected = torch.tensor(X)
    if name == "float8":  # of two bits after the first: the tensor's own values are what counts
        expected = SAME[name].double()
    for found in values_by_both(SAME[name]):
        assert torch.equal(found.detach().double(), expected)


@given(
    dtype=st.sampled_from([">i2", "<i4", ">i8", "u2", ">u4", "u8", "?", ">f2", "<f4", ">f8"]),
    shape=hnp.array_shapes(min_dims=1, max_dims=3, max_side=4),
    flips=st.lists(st.booleans(), min_size=3, max_size=3),
    transposed=st.booleans(),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_an_array_of_any_type_and_layout_keeps_its_values(dtype, shape, flips, transposed, data):
    elements = {"f": st.integers(-99, 99).map(float), "b": st.booleans()}.get(
        np.dtype(dtype).kind, st.integers(0, 99)
    )
    values = data.draw(hnp.arrays(dtype, shape, elements=elements))
    values = values.T if transposed else values
    values = values[tuple(slice(None, None, -1 if flip else 1) for flip in flips[: values.ndim])]
    for found in values_by_both(values):
        assert found.dtype in (torch.float16, torch.float32, torch.float64)
        assert found.tolist() == values.tolist()


MASKED = np.ma.array(X, mask=X == 1)
REFUSED = {
    "masked": (MASKED, "masked values in .*, in row 1, counted from 0: .* drop those rows"),
    "list of masked rows": (list(MASKED), "masked values in .* in row 1"),
    "masked tensor": (lambda: torch.masked.masked_tensor(torch.tensor(X), torch.tensor(X > 1)),
                      "is a masked tensor"),
    "batches of unequal shapes": ([np.zeros((3, 2)), np.zeros((2, 4))],
                                  r"unequal shapes, \(3, 2\) and \(2, 4\)"),
    "tensors of unequal shapes": ([torch.zeros(3), torch.zeros(2, 1)], "rows have unequal shapes"),
    "ragged list": ([[1.0, 2.0], [3.0]], r"unequal shapes, \(2,\) and \(1,\)"),
    "objects": (X.astype(object), r"holds object, not numbers: .*astype\(float\)"),
    "words": (np.array([["a", "b"]]), "holds <U1, not numbers"),
    "complex": (X + 1j, "holds complex128, not numbers"),
    "complex tensor": (torch.tensor(X) + 1j, "is a complex tensor"),
    "dates": (np.array(["2020-01-01"], "M8[D]"), "holds datetime64"),
    "fields": (np.zeros(3, [("a", "f8"), ("b", "f8")]), "not numbers"),
    "tensor without values": (torch.zeros(3, 2, device="meta"), "is a meta tensor"),
    "data set": (Endless(), "cannot be read by length|Endless, not an array: it has no"),
    "list of data sets": ([Endless()], "items of type Endless, not arrays"),
    "generator": ((row for row in X), "type generator, not an array"),
    "dictionary": ({"x": X}, "type dict, not an array"),
    "nothing": (None, "type NoneType, not an array"),
    "one number": (3.0, "a single number"),
    "rows without values": (np.zeros((4, 0)), "without values|holds no"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore:The PyTorch API of (Masked|nested)", "ignore:It is not rec")
def test_what_is_no_array_of_numbers_is_refused_at_once(name):
    source, message = REFUSED[name]
    source = source() if callable(source) else source
    for use in (load_data, lambda source: as_rows(source, "data")):
        with pytest.raises(ValueError, match=message) as caught:
            use(source)
        assert "\n" not in str(caught.value)


ONLY_LOADED = {
    "sparse matrix": (scipy.sparse.csr_matrix(X), r"type csr_matrix, .*, load_data\(x\)"),
    "sparse array": (scipy.sparse.coo_array(X), r"type coo_array, .* load_data\(x\)"),
    "sparse tensor": (torch.tensor(X).to_sparse(), r"is a sparse tensor: .* load_data\(x\)"),
    "data set of tensors": (TensorDataset(torch.tensor(X)), r"load_data\(dataset\)"),
    "loader": (DataLoader(TensorDataset(torch.tensor(X))), r"load_data\(loader.dataset\)"),
    "rows of one's own": (Rows(), r"type Rows, not an array: give load_data\(dataset\)"),
}


@pytest.mark.parametrize("name", ONLY_LOADED)
def test_what_is_converted_is_read_by_load_data_alone_and_others_say_so(name):
    source, message = ONLY_LOADED[name]
    data = load_data(source, validation=0, test=0)
    assert torch.equal(data.train, load_data(X, validation=0, test=0).train)
    with pytest.raises(ValueError, match=message) as caught:
        as_rows(source, "data")
    assert "\n" not in str(caught.value)


def test_a_tuple_is_data_with_contexts_for_a_fit_and_nothing_for_load_data():
    assert len(as_rows((X, X), "data")) == 2
    with pytest.raises(ValueError, match="one array, not a tuple: give x, and labels="):
        load_data((X, X))


def test_a_file_of_another_byte_order_is_read_as_it_is_meant(tmp_path):
    values = np.random.default_rng(0).normal(size=(20, 3))
    for name, dtype in [("native.npy", "<f8"), ("other.NPY", ">f8")]:
        np.save(tmp_path / "a.npy", values.astype(dtype))
        (tmp_path / "a.npy").rename(tmp_path / name)
    native, other = (load_data(tmp_path / name) for name in ("native.npy", "other.NPY"))
    assert native.digest() == other.digest()
    streamed = load_data(tmp_path / "other.NPY", stream=True)
    assert torch.equal(streamed.train[:], native.train.float())


def test_bytes_above_one_are_divided_and_the_note_says_so():
    data = load_data(np.array([[0, 255], [51, 102]] * 10, dtype=np.uint8))
    assert data.note == "levels of 8 bits, divided by 255"
    assert load_data("digits").note == ""


LABELS = {
    "whole": ([3, 1, 3, 2], [3, 1, 3, 2], ()),
    "whole floats": ([3.0, 1.0, 3.0, 2.0], [3, 1, 3, 2], ()),
    "whole objects": (np.array([10, 2, 10, 1], dtype=object), [10, 2, 10, 1], ()),
    "bfloat16": (torch.tensor([3, 1, 3, 2]).bfloat16(), [3, 1, 3, 2], ()),
    "flags": ([True, False, True, True], [1, 0, 1, 1], ()),
    "words": (["b", "a", "b", "c"], [1, 0, 1, 2], ("a", "b", "c")),
    "numbers as words": (["10.5", "2.5", "1", "2"], [1, 3, 0, 2], ("1", "10.5", "2", "2.5")),
    "categories": (pd.Categorical(["b", "a", "b", "c"]), [1, 0, 1, 2], ("a", "b", "c")),
    "days": ([datetime.date(2020, 1, day) for day in (2, 1, 2, 3)], [1, 0, 1, 2],
             ("2020-01-01", "2020-01-02", "2020-01-03")),
}  # fmt: skip


@pytest.mark.parametrize("name", LABELS)
def test_labels_are_whole_numbers_or_named_classes(name):
    labels, codes, names = LABELS[name]
    data = load_data(X, labels=labels, validation=0, test=0)
    order = np.argsort(np.random.default_rng(0).permutation(4))
    assert data.train_labels[order].tolist() == codes
    assert data.label_names == names


FRACTIONS = "whole numbers or words, but 10.5 is in row 1, .* round or bin them .* context"
BAD_LABELS = {
    "fractions": ([1, 10.5, 2.5, 3], FRACTIONS),
    "fractions as objects": (np.array([1, 10.5, 2.5, 3], dtype=object), FRACTIONS),
    "decimals": ([Decimal(1), Decimal("10.5"), Decimal("2.5"), Decimal(3)], FRACTIONS),
    "infinite": ([1, np.inf, 2, 3], "64 bits, but inf is in row 1"),
    "beyond 64 bits": ([1, 10**30, 2, 3], r"64 bits, but 1e\+30 is in row 1"),
    "unsigned beyond": (np.array([1, 2**63, 2, 3], dtype=np.uint64), "64 bits, but 9.2.* row 1"),
    "missing": (pd.Series([1, None, 2, 3], dtype="Int64"), "missing .* in row 1"),
    "missing word": (["a", None, "b", "c"], "missing .* in row 1"),
    "missing day": (np.array(["2020-01-01", "NaT", "2020-01-01", "2020-01-01"], "M8[D]"),
                    "missing .* in row 1"),
    "masked": (np.ma.array([1, 2, 3, 4], mask=[0, 1, 0, 0]), "masked values in labels, in row 1"),
    "complex": ([1j, 2, 3, 4], "not complex"),
    "one column": ([[1], [2], [3], [4]], r"must be one for each row, \(N,\), got shape \(4, 1\)"),
    "data set": (Endless(), "labels is of type Endless"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_LABELS)
def test_labels_that_are_no_classes_are_refused(name):
    labels, message = BAD_LABELS[name]
    with pytest.raises(ValueError, match=message) as caught:
        load_data(X, labels=labels)
    assert "\n" not in str(caught.value)


def test_fractions_in_a_column_of_labels_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("x;dose\n0,5;10,5\n1,5;2,5\n2,5;1\n")
    with pytest.raises(ValueError, match=re.escape("but 10.5 is in row 0")):
        load_data(tmp_path / "a.csv", labels="dose")


def test_large_whole_numbers_keep_their_digits():
    """float32 has 24 binary digits: 1,700,000,000 and the next would be one number."""
    values = 1_700_000_000 + np.arange(40).reshape(20, 2)
    data = load_data(values, validation=0, test=0)
    assert data.train.dtype == torch.float64
    assert sorted(data.train.flatten().tolist()) == values.flatten().tolist()
    standardized = load_data(values, standardize=True, validation=0, test=0).train
    assert standardized.std(0).tolist() == pytest.approx([1.0, 1.0])
    assert load_data(values - 1_700_000_000, validation=0, test=0).train.dtype == torch.float32
    (given,) = as_rows(torch.as_tensor(values), "data")
    assert given.flatten().tolist() == values.flatten().tolist()


def test_large_whole_numbers_are_not_streamed(tmp_path):
    np.save(tmp_path / "large.npy", 1_700_000_000 + np.arange(40).reshape(20, 2))
    with pytest.raises(ValueError, match=r"whole numbers beyond 2\^24, which float32 rounds"):
        load_data(tmp_path / "large.npy", stream=True)
