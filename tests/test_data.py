"""Loading, splitting, binarizing, streaming and batching data."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from latente.inference import load_data
from latente.inference.data.batches import epoch_batches
from latente.inference.data.rows import Streamed, as_rows


def test_digits_come_split_scaled_and_labelled():
    data = load_data()
    assert (len(data.train), len(data.validation), len(data.test)) == (1437, 180, 180)
    assert data.event_shape == (8, 8)
    assert data.train.dtype == torch.float32
    images = torch.cat([data.train, data.validation, data.test])
    labels = torch.cat([data.train_labels, data.validation_labels, data.test_labels])
    assert (images.min(), images.max()) == (0, 1)
    digits = load_digits()
    expected = torch.as_tensor(digits.images.sum((1, 2)) * 100 + digits.target)
    found = images.sum((1, 2)).double() * 16 * 100 + labels
    assert torch.equal(found.round().sort().values, expected.sort().values)


def test_the_split_follows_the_seed():
    first, again, other = load_data(seed=1), load_data(seed=1), load_data(seed=2)
    assert torch.equal(first.train, again.train)
    assert torch.equal(first.test, again.test)
    assert not torch.equal(first.test, other.test)


def test_static_binarization_is_one_draw_with_the_right_probabilities():
    grey = load_data(seed=3)
    data = load_data(binarize="static", seed=3)
    for bits, values in [(data.train, grey.train), (data.test, grey.test)]:
        assert set(bits.unique().tolist()) == {0.0, 1.0}
        # Sum of independent Bernoulli draws: z-test, false alarm 6e-5 each.
        sd = (values * (1 - values)).sum().sqrt()
        assert abs((bits - values).sum()) < 4 * sd
        assert ((bits == 1) <= (values > 0)).all()
        assert ((bits == 0) <= (values < 1)).all()
    assert torch.equal(data.train, load_data(binarize="static", seed=3).train)


def test_dynamic_binarization_keeps_training_probabilities_and_fixes_the_rest():
    grey, data = load_data(seed=3), load_data(binarize="dynamic", seed=3)
    assert torch.equal(data.train, grey.train)
    assert torch.equal(data.test, load_data(binarize="static", seed=3).test)


def test_each_epoch_draws_fresh_bits_by_the_seed():
    p = torch.full((50, 20), 0.3)

    def bits(seed, epoch):
        return torch.cat(
            [b for (b,) in epoch_batches((p,), 8, seed=seed, epoch=epoch, resample=True)]
        )

    assert torch.equal(bits(0, 0), bits(0, 0))
    assert not torch.equal(bits(0, 0), bits(0, 1))
    assert not torch.equal(bits(0, 0), bits(1, 0))
    mean = torch.stack([bits(0, epoch) for epoch in range(20)]).mean().item()
    assert abs(mean - 0.3) < 4 * (0.3 * 0.7 / (20 * 1000)) ** 0.5  # false alarm 6e-5


@given(num_rows=st.integers(1, 200), batch_size=st.integers(1, 220), epoch=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_an_epoch_holds_each_row_once_in_even_batches(num_rows, batch_size, epoch):
    x, y = torch.arange(float(num_rows)), torch.arange(num_rows)
    batches = list(epoch_batches((x, y), batch_size, seed=0, epoch=epoch))
    sizes = [len(a) for a, _ in batches]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert len(batches) == -(-num_rows // batch_size)
    joined = torch.cat([a for a, _ in batches])
    assert torch.equal(joined.sort().values, x)
    assert torch.equal(joined.long(), torch.cat([b for _, b in batches]))


def test_orders_differ_by_epoch_and_a_full_batch_keeps_order():
    x = torch.arange(100.0)

    def order(epoch):
        return torch.cat([b for (b,) in epoch_batches((x,), 10, seed=0, epoch=epoch)])

    assert not torch.equal(order(0), order(1))
    assert torch.equal(next(epoch_batches((x,), 100, seed=0, epoch=0))[0], x)


def write(path, values, labels):
    frame = pd.DataFrame(values, columns=list("abc"))
    if path.suffix == ".npy":
        np.save(path, values)
        return None
    if path.suffix == ".npz":
        np.savez(path, x=values, y=labels)
        return None
    frame["kind"] = np.array(["cat", "dog"])[labels]
    frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path)
    return "kind"


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".parquet"])
def test_files_give_what_the_array_gives(tmp_path, suffix):
    values = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    labels = np.arange(40) % 2
    path = tmp_path / f"table{suffix}"
    column = write(path, values, labels)
    data = load_data(path, labels=column)
    expected = load_data(values, labels=labels)
    assert torch.allclose(data.train, expected.train, atol=1e-6)
    assert torch.allclose(data.test, expected.test, atol=1e-6)
    if suffix != ".npy":
        assert torch.equal(data.train_labels, expected.train_labels)


def test_tensors_arrays_and_frames_are_alike():
    values = torch.randn(30, 4)
    frame = pd.DataFrame(values.numpy(), columns=list("abcd"))
    for source in (values, values.numpy(), frame):
        assert torch.equal(load_data(source).train, load_data(values).train)


def test_uint8_images_are_scaled_and_uint8_bits_are_not():
    images = np.array([[0, 255], [51, 102]] * 10, dtype=np.uint8)
    assert set(load_data(images).train.unique().tolist()) <= {0.0, 1.0, *np.float32([0.2, 0.4])}
    bits = (images > 60).astype(np.uint8)
    assert set(load_data(bits).train.unique().tolist()) == {0.0, 1.0}


def test_standardized_training_data_have_mean_zero_and_deviation_one():
    values = np.random.default_rng(0).normal(5, 3, size=(200, 2))
    values[:, 1] = 7.0
    data = load_data(values, standardize=True)
    assert torch.allclose(data.train.mean(0), torch.zeros(2).double(), rtol=0, atol=1e-12)
    assert data.train[:, 0].std().item() == pytest.approx(1)
    back = data.test * data.scale + data.location
    assert torch.allclose(back[:, 0].sort().values, load_data(values).test[:, 0].sort().values)


@pytest.mark.parametrize("binarize", ["none", "static", "dynamic"])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_streamed_rows_are_the_rows_in_memory(tmp_path, binarize, dtype):
    values = np.random.default_rng(0).random((60, 5, 2))
    values = (values * 255).astype(np.uint8) if dtype == np.uint8 else values.astype(np.float32)
    path = tmp_path / "big.npy"
    np.save(path, values)
    held = load_data(path, binarize=binarize, stream=False)
    streamed = load_data(path, binarize=binarize, stream=True)
    for part in ("train", "validation", "test"):
        rows = getattr(streamed, part)
        assert isinstance(rows, Streamed)
        assert rows.shape == getattr(held, part).shape
        assert torch.equal(rows[:], getattr(held, part))
        index = torch.tensor([3, 0, 1])
        assert torch.equal(rows[index], getattr(held, part)[index])
    for a, b in zip(
        epoch_batches((held.train,), 7, seed=0, epoch=2, resample=binarize == "dynamic"),
        epoch_batches((streamed.train,), 7, seed=0, epoch=2, resample=binarize == "dynamic"),
        strict=True,
    ):
        assert torch.equal(a[0], b[0])


def test_a_file_beyond_memory_is_streamed(tmp_path, monkeypatch):
    path = tmp_path / "big.npy"
    np.save(path, np.zeros((100, 10), dtype=np.float32))
    assert isinstance(load_data(path).train, torch.Tensor)
    memory = type("Memory", (), {"available": 1000})
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    assert isinstance(load_data(path).train, Streamed)


def test_mnist_keeps_its_own_test_set(mnist):
    data = load_data("mnist")
    assert (len(data.train), len(data.validation), len(data.test)) == (54_000, 6_000, 10_000)
    assert data.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert data.event_shape == (28, 28)


def test_freyfaces(mnist):
    if not (mnist / "freyfaces.npy").exists():
        pytest.skip(f"freyfaces.npy is not in {mnist}")
    data = load_data("freyfaces")
    assert data.event_shape == (28, 20)
    assert len(data.train) + len(data.validation) + len(data.test) == 1965
    assert data.train.max() == np.float32(238 / 255)


def test_whole_labels_keep_their_numbers_and_words_their_names():
    data = load_data(np.zeros((10, 2)), labels=np.array([3.0, 5.0] * 5))
    assert set(data.train_labels.tolist()) == {3, 5}
    words = load_data(np.zeros((10, 2)), labels=np.array(["cat", "ant"] * 5))
    assert words.label_names == ("ant", "cat")
    assert set(words.train_labels.tolist()) == {0, 1}


def test_the_digest_tells_data_apart():
    x = np.random.default_rng(0).normal(size=(50, 3))
    assert load_data(x).digest() == load_data(x.copy()).digest()
    other = x.copy()
    other[17, 1] += 1e-6
    assert load_data(other).digest() != load_data(x).digest()
    assert load_data(x[:-1]).digest() != load_data(x).digest()


BAD = {
    "no header": (lambda d: written(d / "a.csv", b"1,2\n3,4\n"), "first row of .* holds numbers"),
    "nan": (
        lambda d: with_value(np.nan),
        r"the array holds NaN or infinity in row 7, counted from 0: drop or fill them; or .*mask",
    ),
    "infinity": (lambda d: with_value(np.inf), "NaN or infinity in row 7"),
    "empty": (lambda d: np.zeros((0, 3)), "the array holds no rows"),
    "one number": (lambda d: np.float64(3.0), "a single number"),
    "text": (lambda d: np.array([["a"]]), "not numbers"),
    "unknown": (lambda d: "mnits", "neither a data set .* did you mean 'mnist'"),
    "missing": (lambda d: d / "no.npy", "no such file"),
    "foreign npy": (lambda d: written(d / "a.npy", b"hello"), "cannot be read as .npy"),
    "truncated npy": (lambda d: truncated(d), "cannot be read as .npy: it is truncated"),
    "foreign npz": (lambda d: written(d / "a.npz", b"hello"), "cannot be read as .npz"),
    "foreign parquet": (lambda d: written(d / "a.parquet", b"hello"), "cannot be read as .parq"),
    "empty csv": (lambda d: written(d / "a.csv", b""), "cannot be read as .csv"),
    "csv without rows": (lambda d: written(d / "a.csv", b"a,b\n"), "holds no rows"),
    "text column": (lambda d: written(d / "a.csv", b"a,b\n1,x\n"), "column 'b' of .* not numeric"),
    "hole": (lambda d: written(d / "a.csv", b"a,b\n1,2\n3,\n"), "NaN or infinity in row 1"),
    "two arrays": (lambda d: archive(d, a=np.ones(3), b=np.ones(3)), "name the data 'x'"),
}


def with_value(value):
    values = np.zeros((20, 3))
    values[7, 1] = value
    return values


def written(path, content):
    path.write_bytes(content)
    return path


def truncated(folder):
    np.save(folder / "a.npy", np.ones((100, 3)))
    return written(folder / "a.npy", (folder / "a.npy").read_bytes()[:-200])


def archive(folder, **arrays):
    np.savez(folder / "a.npz", **arrays)
    return folder / "a.npz"


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_bad_data_are_refused_in_one_line(tmp_path, make, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        load_data(make(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": np.arange(3)}, "20 rows but 3 labels"),
        ({"binarize": "sometimes"}, "binarize must be"),
        ({"binarize": "static"}, r"outside \[0, 1\] in rows 0, 1, 2, 3, 4, … \(20 in all\)"),
        ({"validation": 0.6, "test": 0.5}, "data to train on"),
        ({"stream": True}, "only a .npy file can be streamed"),
        ({"labels": "kind"}, "has no columns"),
        ({"labels": np.zeros((20, 2))}, r"labels must be one for each row, \(N,\), got shape"),
        ({"standardize": True, "binarize": "static"}, "cannot be both"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_data(np.full((20, 3), 2.0), **arguments)


def test_an_unknown_column_is_named_with_the_nearest(tmp_path):
    path = written(tmp_path / "a.csv", b"a,species\n1,0\n")
    with pytest.raises(ValueError, match="no column 'specie': did you mean 'species'"):
        load_data(path, labels="specie")


def test_absent_torchvision_data_say_where_to_put_them(tmp_path, monkeypatch):
    from torchvision import datasets

    def offline(self):
        raise RuntimeError("no network")

    monkeypatch.setenv("LATENTE_DATA", str(tmp_path))
    monkeypatch.setattr(datasets.MNIST, "download", offline)
    for name, folder in [("mnist", "MNIST"), ("kmnist", "KMNIST"), ("fashion-mnist", "Fashion")]:
        with pytest.raises(FileNotFoundError, match=f"{name} is not in .*{folder}.*LATENTE_DATA"):
            load_data(name)
    with pytest.raises(FileNotFoundError, match="freyfaces is not at"):
        load_data("freyfaces")


def test_truncated_torchvision_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTE_DATA", str(tmp_path))
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, kind in [("train", "images-idx3"), ("train", "labels-idx1")]:
        (raw / f"{part}-{kind}-ubyte").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 9]))
    for kind in ("images-idx3", "labels-idx1"):
        (raw / f"t10k-{kind}-ubyte").write_bytes(b"")
    with pytest.raises(ValueError, match="may be truncated"):
        load_data("mnist")


def test_rows_for_a_fit_are_checked():
    x = np.zeros((5, 2), dtype=np.int64)
    rows = as_rows((x, np.arange(5)), "data")
    assert rows[0].is_floating_point()
    assert not rows[1].is_floating_point()
    with pytest.raises(ValueError, match=r"lengths: argument 0 has 5 rows \(shape \(5, 2\)\), arg"):
        as_rows((x, np.arange(4)), "data")
    with pytest.raises(ValueError, match="context 1 of data holds NaN or infinity in row 2"):
        as_rows((x, np.array([0, 0, np.nan, 0, 0])), "data")
    with pytest.raises(ValueError, match="holds no rows"):
        as_rows(torch.zeros(0, 2), "data")
    with pytest.raises(ValueError, match="give load_data"):
        as_rows("digits", "data")
