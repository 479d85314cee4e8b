"""Files of arrays, folders of images, data sets, sparse matrices, sheets: read or refused."""

import importlib.util
import struct
import zlib

import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse
import torch
from PIL import Image
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from latente.inference import load_data
from latente.inference.data import memory
from latente.inference.data.csv_format import CsvFormat
from latente.inference.data.files import read

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 3))
Y = np.arange(12) % 3
GREY = RNG.integers(0, 256, size=(60, 6, 5)).astype(np.uint8)


def needs(package):
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package}, which reads such files, is optional")


class Items(Dataset):
    """A data set of the given items."""

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        return self.items[number]


def assert_refused(message, source, **options):
    with pytest.raises(ValueError, match=message) as caught:
        load_data(source, **options)
    assert "\n" not in str(caught.value)


# Files of arrays.


def write_npz(path, arrays):
    np.savez(path, **arrays)


def write_mat(path, arrays):
    scipy.io.savemat(path, arrays)


def write_h5(path, arrays):
    h5py = pytest.importorskip("h5py", reason="h5py, which reads such files, is optional")
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values


def write_mat73(path, arrays):
    """What MATLAB 7.3 writes: HDF5 after a header of 512 bytes, axes in reverse order."""
    h5py = pytest.importorskip("h5py", reason="h5py, which reads such files, is optional")
    kinds = {"f8": "double", "i8": "int64", "u1": "uint8", "u2": "char"}
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            file[name] = np.atleast_2d(values).T
            file[name].attrs["MATLAB_class"] = np.bytes_(kinds[values.dtype.str[1:]])
        file.create_group("#refs#")
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


ARCHIVES = {
    "a.npz": write_npz,
    "a.MAT": write_mat,
    "a.h5": write_h5,
    "a.hdf5": write_h5,
    "73.mat": write_mat73,
}


@pytest.fixture(params=ARCHIVES)
def write(request, tmp_path):
    """Writes arrays into a file of each kind."""

    def written(**arrays):
        ARCHIVES[request.param](tmp_path / request.param, arrays)
        return tmp_path / request.param

    return written


def test_the_only_array_is_the_data(write):
    source = read(write(measured=X, seed=np.array(3)))
    assert np.array_equal(source.values, X)
    assert source.labels is None
    assert source.note.startswith("read measured (12, 3)")


def test_of_several_arrays_a_key_chooses(write):
    path = write(a=X, b=X[:, :2], y=Y)
    assert_refused(r"a\.?.* holds a \(12, 3\), b \(12, 2\),? .*choose the data by key=", path)
    source = read(path, key="b")
    assert np.array_equal(source.values, X[:, :2])
    assert np.array_equal(source.labels, Y)
    assert source.note.endswith("left out: a")
    assert_refused(r"no array 'c' of numbers: it holds a \(12, 3\)", path, key="c")


def test_labels_may_be_named_and_are_those_of_the_same_part(write):
    path = write(x=X, kind=Y + 1, x_test=X[:4], y_test=Y[:4], y=Y)
    source = read(path, labels="kind", key="x")
    assert np.array_equal(source.labels, Y + 1)
    assert np.array_equal(read(path, key="x").labels, Y)
    assert np.array_equal(read(path, key="x_test").labels, Y[:4])
    assert_refused("no array 'sort'", path, labels="sort", key="x")
    assert_refused("16 rows but 12 labels", path, labels="kind")


SPLITS = {
    "scikit-learn": ("X_train", "y_train", "X_test", "y_test", "X_val", "y_val"),
    "Keras": ("x_train", "y_train", "x_test", "y_test", "x_valid", "y_valid"),
    "MedMNIST": ("train_images", "train_labels", "test_images", "test_labels", "val_images",
                 "val_labels"),
    "MATLAB": ("xTrain", "yTrain", "xTest", "yTest", "xValidation", "yValidation"),
    "short": ("train", "train_y", "test", "test_y", "valid", "valid_y"),
    "groups": ("train/x", "train/y", "test/x", "test/y", "val/x", "val/y"),
    "mixed": ("x", "y", "x_test", "y_test", "x_val", "y_val"),
}  # fmt: skip


@pytest.mark.parametrize("names", SPLITS.values(), ids=SPLITS)
def test_the_names_of_arrays_tell_the_split(tmp_path, names):
    parts = X[:7], Y[:7], X[9:], Y[9:], X[7:9], Y[7:9]
    arrays = dict(zip(names, parts, strict=True))
    arrays[names[1]] = Y[:7, None]  # a column, as MedMNIST has it
    write_npz(tmp_path / "a.npz", {**arrays, "extra": X})
    source = read(tmp_path / "a.npz")
    assert np.array_equal(source.values, X)
    assert np.array_equal(source.labels, Y)
    assert (source.num_validation, source.num_test) == (2, 3)
    assert source.note.endswith("left out: extra")
    data = load_data(tmp_path / "a.npz")
    assert torch.equal(data.validation, torch.tensor(X[7:9]))
    assert torch.equal(data.test, torch.tensor(X[9:]))
    assert sorted(data.train_index) == list(range(7))
    assert torch.equal(data.test_labels, torch.tensor(Y[9:]))


def test_splits_that_do_not_fit_are_refused(tmp_path):
    def saved(**arrays):
        write_npz(tmp_path / "a.npz", arrays)
        return tmp_path / "a.npz"

    assert_refused("rows of the parts must be alike", saved(x_train=X, x_test=X[:, :2]))
    assert_refused("rows of the parts must be alike", saved(x_train=X, x_test=X.astype("u1")))
    assert_refused("choose the data by key=", saved(x_train=X, train_images=X))
    assert_refused("choose the data by key=", saved(x_test=X, other=X))
    assert_refused(r"holds x \(12, 3\), X \(12, 3\): choose", saved(x=X, X=X))
    assert_refused("holds no array of numbers", saved(name=np.array(["a", "b"])))
    source = read(saved(x_train=X, y_train=Y, x_test=X))
    assert source.labels is None
    assert source.note.endswith("left out: y_train")


@pytest.mark.parametrize("suffix", [".npz", ".mat", ".h5"])
def test_a_truncated_or_foreign_archive_is_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"hello" * 300)
    assert_refused(f"cannot be read as {suffix}", path)
    ARCHIVES[f"a{suffix}".replace(".mat", ".MAT")](path, {"x": np.tile(X, (99, 1))})
    path.write_bytes(path.read_bytes()[:-2000])
    assert_refused(f"cannot be read as {suffix}", path)


def test_rows_along_the_last_axis_of_a_matlab_stack_are_refused(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"X": np.zeros((4, 4, 3, 20))})
    assert_refused("its last axis may count the rows", tmp_path / "a.mat")


def test_words_of_matlab_are_labels(tmp_path):
    cells = np.array(["b", "an", "b"] * 4, object)
    for words in (cells, cells.astype(str)):  # cells, and a matrix of characters
        scipy.io.savemat(tmp_path / "a.mat", {"x": X, "y": words})
        source = read(tmp_path / "a.mat")
        assert source.label_names == ("an", "b")
        assert source.labels.tolist() == [1, 0, 1] * 4


def test_text_of_matlab_is_no_array_of_numbers(tmp_path):
    arrays = {"x": X, "name": np.array([104, 101, 106], np.uint16)}
    write_mat73(tmp_path / "a.mat", arrays)
    assert np.array_equal(read(tmp_path / "a.mat").values, X)
    write_h5(tmp_path / "a.h5", {"x": X, "label": ["b", "a", "b"] * 4})
    source = read(tmp_path / "a.h5")
    assert source.label_names == ("a", "b")
    assert source.labels.tolist() == [1, 0, 1] * 4


@pytest.mark.parametrize("suffix", [".xlsx", ".h5ad", ".h5", ".hdf5"])
def test_a_reader_that_is_not_installed_is_named(tmp_path, monkeypatch, suffix):
    package = {".xlsx": "openpyxl", ".h5ad": "anndata"}.get(suffix, "h5py")
    monkeypatch.setitem(__import__("sys").modules, package, None)
    (tmp_path / f"a{suffix}").write_bytes(b"")
    assert_refused(
        f"read by the package {package}, .* pip install {package}", tmp_path / f"a{suffix}"
    )


def test_a_validation_set_alone_is_kept_and_the_test_set_drawn(tmp_path):
    write_npz(tmp_path / "a.npz", {"x_train": np.tile(X, (2, 1)), "x_val": X[:4]})
    data = load_data(tmp_path / "a.npz", test=0.25, validation=0.5)
    assert torch.equal(data.validation, torch.tensor(X[:4]))
    assert (len(data.train), len(data.test)) == (18, 6)
    assert_refused("has a validation set already", tmp_path / "a.npz", split=["train"] * 28)


def test_new_data_are_read_as_the_first_were(tmp_path):
    write_npz(tmp_path / "a.npz", {"a": X, "b": X[:, :2]})
    data = load_data(tmp_path / "a.npz", key="a")
    for new in (tmp_path / "a.npz", X, TensorDataset(torch.tensor(X)), scipy.sparse.csr_array(X)):
        assert torch.equal(data.transform(new)[0], torch.tensor(X))
    folder = save_images(tmp_path / "images", np.stack([GREY] * 3, -1))
    (x,) = load_data(folder, seed=2).transform(folder)
    assert torch.equal(x, torch.tensor(np.stack([GREY] * 3, 1)) / 255)


class HuggingFace:
    """What a Dataset of Hugging Face does: rows by number, as dicts of plain values."""

    def __init__(self, columns, names=()):
        self.columns = columns
        self.features = dict.fromkeys(columns)
        if names:
            self.features["label"] = type("ClassLabel", (), {"names": list(names)})()

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, number):
        rows = {name: values[number] for name, values in self.columns.items()}
        return {name: v.tolist() if isinstance(v, np.ndarray | np.generic) else v
                for name, v in rows.items()}  # fmt: skip

    def to_pandas(self):
        return pd.DataFrame(self.columns)


def test_a_dataset_of_hugging_face_is_read_by_its_fields():
    source = read(HuggingFace({"x": X, "label": Y}, "abc"))
    assert np.array_equal(source.values, X)
    assert source.labels.tolist() == Y.tolist()
    assert source.label_names == ("a", "b", "c")
    images = HuggingFace({"image": [Image.fromarray(v) for v in GREY], "label": Y.repeat(5)})
    data = load_data(images, seed=1)
    assert torch.equal(data.train, load_data(GREY, seed=1).train)
    table = HuggingFace({"a": X[:, 0], "b": X[:, 1]})
    assert_refused("the fields a, b: name that of x by key=, or give a table .*to_pandas", table)
    assert load_data(table.to_pandas()).transform.columns == ("a", "b")
    assert_refused(
        "holds the data sets 'train', 'test', so give one", {"train": table, "test": table}
    )


# Sparse matrices.


@pytest.mark.parametrize("kind", ["csr_array", "csc_matrix", "coo_array", "dok_array", "bsr_array"])
def test_a_sparse_matrix_is_its_dense_form(kind, tmp_path):
    dense = np.where(X > 0.5, X, 0)
    sparse = getattr(scipy.sparse, kind)(dense)
    source = read(sparse)
    assert np.array_equal(source.values, dense)
    assert source.note == f"sparse, {np.mean(dense != 0):.0%} of the values not zero, made dense"
    assert np.array_equal(read(sparse, Y).labels, Y)
    if kind not in ("dok_array",):
        scipy.sparse.save_npz(tmp_path / "a.npz", sparse)
        assert np.array_equal(read(tmp_path / "a.npz").values, dense)
        scipy.io.savemat(tmp_path / "a.mat", {"counts": sparse})
        assert np.array_equal(read(tmp_path / "a.mat").values, dense)


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("layout", ["coo", "csr", "csc", "bsr"])
def test_a_sparse_tensor_is_its_dense_form(layout):
    dense = torch.tensor(np.where(X > 0.5, X, 0))
    options = ((1, 1),) if layout == "bsr" else ()
    sparse = getattr(dense, f"to_sparse_{layout}", dense.to_sparse)(*options)
    assert np.array_equal(read(sparse).values, dense)


@pytest.mark.filterwarnings("ignore:Sparse")
def test_too_large_a_dense_form_is_refused_before_it_is_made():
    huge = scipy.sparse.csr_array((10**7, 10**6))
    assert_refused(r"dense form of the matrix.* would fill 7.45e\+04 GiB, more than 25% of", huge)
    indices = torch.zeros(2, 1, dtype=torch.long)
    tensor = torch.sparse_coo_tensor(indices, torch.ones(1), (10**7, 10**6))
    assert_refused(r"would fill 3.73e\+04 GiB", tensor)


# Images.


def save_images(folder, images, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for number, values in enumerate(images):
        Image.fromarray(values).save(folder / f"{number:03d}{suffix}")
    return folder


def png_of_16_bits(values, kind):
    """A PNG file of 16 bits a channel, of which Pillow writes grey ones only."""

    def chunk(name, content):
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


class LazyImages(Dataset):
    """Images that are opened when they are asked for."""

    def __init__(self, folder):
        self.paths = sorted(folder.iterdir())

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, number):
        return Image.open(self.paths[number])


def test_a_folder_a_lazy_data_set_and_one_array_are_the_same_data(tmp_path):
    folder = save_images(tmp_path / "images", GREY)
    np.save(tmp_path / "a.npy", GREY)
    np.savez(tmp_path / "a.npz", x=GREY)
    lazy = LazyImages(folder)
    sources = [folder, lazy, DataLoader(lazy, 7), tmp_path / "a.npy", tmp_path / "a.npz", GREY]
    first, *others = (load_data(source, seed=1) for source in sources)
    assert first.train.max() <= 1
    for other in others:
        for part in ("train", "validation", "test"):
            assert torch.equal(getattr(first, part), getattr(other, part))
        assert other.digest() == first.digest()
    assert first.note == (
        "read 60 grey images of 6×5, sorted by name; levels of 8 bits, divided by 255; "
        "48 to fit, 6 to validate, 6 to test"
    )


DEEP = RNG.integers(0, 2**16, size=(4, 5, 6)).astype(np.uint16)
IMAGES = {
    "grey 8 bits PNG": (GREY[:4], ".png", 255, False),
    "grey 8 bits TIFF": (GREY[:4], ".tif", 255, False),
    "grey 16 bits PNG": (DEEP, ".PNG", 65535, False),
    "grey 16 bits TIFF": (DEEP, ".tiff", 65535, False),
    "colour PNG": (RNG.integers(0, 256, size=(4, 5, 6, 3)).astype("u1"), ".png", 255, True),
    "colour TIFF": (RNG.integers(0, 256, size=(4, 5, 6, 3)).astype("u1"), ".tif", 255, True),
    "bits": (GREY[:4] > 99, ".png", 1, False),
    "floats": (X.reshape(4, 3, 3).astype("f4"), ".tiff", 1, False),
    "masks of two levels": (GREY[:4] // 128, ".png", 1, False),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images_keep_their_values(name, tmp_path):
    values, suffix, divisor, is_colour = IMAGES[name]
    source = read(save_images(tmp_path, values, suffix))
    assert np.array_equal(source.values, values)
    assert (source.divisor, source.channels_last) == (divisor, is_colour)
    assert load_data(tmp_path, validation=0, test=0).train.max() == (values / divisor).max().astype(
        "f4"
    )


def test_jpeg_images_are_read_as_pillow_reads_them(tmp_path):
    save_images(tmp_path, GREY[:3], ".jpg")
    expected = [np.asarray(Image.open(path)) for path in sorted(tmp_path.iterdir())]
    assert np.array_equal(read(tmp_path).values, np.stack(expected))


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (6, 4)])
def test_colours_and_alpha_of_16_bits_are_not_cut_to_8(tmp_path, kind, channels):
    values = RNG.integers(0, 2**16, size=(4, 5, channels)).astype(np.uint16)
    has_alpha = channels == 4
    if has_alpha:
        values[..., -1] = 65535
    (tmp_path / "a.png").write_bytes(png_of_16_bits(values, kind))
    source = read(tmp_path)
    assert np.array_equal(source.values, values[None, ..., :3])
    assert source.divisor == 65535
    assert ("alpha channels, all opaque, dropped" in source.note) == has_alpha
    assert f"of which the largest is {values[..., :3].max()}" in source.note
    grey = values[..., [0, -1]]
    (tmp_path / "a.png").write_bytes(png_of_16_bits(grey, 4))
    assert_refused("several channels of 16 bits", tmp_path)


def test_opaque_alpha_is_dropped_and_transparency_refused(tmp_path):
    colour = RNG.integers(0, 256, size=(2, 5, 6, 4)).astype("u1")
    colour[..., 3] = 255
    source = read(save_images(tmp_path, colour))
    assert np.array_equal(source.values, colour[..., :3])
    assert "alpha channels, all opaque, dropped" in source.note
    colour[1, 2, 2, 3] = 254
    assert_refused("001.png has transparent pixels", save_images(tmp_path, colour))


def test_images_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # turned to the left
    Image.fromarray(GREY[0]).save(tmp_path / "a.png", exif=exif)
    source = read(tmp_path)
    assert np.array_equal(source.values, np.rot90(GREY[:1], -1, (1, 2)))
    assert "turned upright, as the EXIF data say" in source.note


def test_subfolders_are_classes_as_for_torchvision(tmp_path):
    from torchvision.datasets import ImageFolder

    for kind, images in [("cat", GREY[:5]), ("ant", GREY[5:8]), ("bee/old", GREY[8:10])]:
        save_images(tmp_path / kind, images)
    (tmp_path / "cat" / ".hidden").mkdir()
    (tmp_path / "cat" / ".hidden" / "a.png").write_bytes(b"")
    (tmp_path / "cat" / "notes.txt").write_text("hello")
    source = read(tmp_path)
    assert source.label_names == ("ant", "bee", "cat")
    assert source.labels.tolist() == [0] * 3 + [1] * 2 + [2] * 5
    expected = np.concatenate([GREY[5:8], GREY[8:10], GREY[:5]])
    assert np.array_equal(source.values, expected)
    assert "3 subfolders as labels" in source.note
    assert "1 other file left out" in source.note
    (tmp_path / "cat" / ".hidden" / "a.png").unlink()
    same = read(ImageFolder(str(tmp_path)))  # which makes all images colour
    assert np.array_equal(same.values, np.stack([expected] * 3, -1))
    assert same.channels_last
    assert same.labels.tolist() == source.labels.tolist()
    assert same.label_names == source.label_names
    assert_refused("leave labels= out", tmp_path, labels=np.zeros(10))


@pytest.mark.parametrize("has_classes", [False, True])
def test_subfolders_named_after_parts_are_the_split(tmp_path, has_classes):
    parts = {"test": GREY[40:60], "Train": GREY[:30], "val": GREY[30:40]}
    for part, images in parts.items():
        middle = len(images) // 2
        save_images(tmp_path / part / ("a" if has_classes else ""), images[:middle])
        save_images(tmp_path / part / ("b" if has_classes else "."), images)
    source = read(tmp_path)
    expected = [np.concatenate([p[: len(p) // 2], p]) if has_classes else p
                for p in (GREY[:30], GREY[30:40], GREY[40:60])]  # fmt: skip
    assert np.array_equal(source.values, np.concatenate(expected))
    assert (source.num_validation, source.num_test) == tuple(map(len, expected[1:]))
    assert source.label_names == (("a", "b") if has_classes else ())
    assert "to train" in source.note


def test_what_is_no_folder_of_like_images_is_refused(tmp_path):
    folder = save_images(tmp_path / "a", GREY[:3])
    Image.fromarray(GREY[0][:5]).save(folder / "001.png")
    assert_refused(r"001.png has shape \(5, 5\) .* and .*000.png \(6, 5\)", folder)
    Image.fromarray(np.stack([GREY[0]] * 3, -1)).save(folder / "001.png")
    assert_refused(r"001.png has shape \(6, 5, 3\)", folder)
    Image.fromarray(GREY[0]).convert("P").save(folder / "001.png")
    assert_refused("001.png is of mode P", folder)
    Image.fromarray(GREY[0]).save(folder / "001.png", transparency=3)
    assert_refused("001.png is transparent", folder)
    (folder / "001.png").unlink()
    save_images(folder / "inside", GREY[:2])
    assert_refused("images in subfolders, and .*000.png beside them", folder)
    split = save_images(tmp_path / "split" / "train", GREY[:2]).parent
    save_images(split / "test", GREY[:2])
    save_images(split / "third", GREY[:2])
    assert_refused("test, third, train, which may be parts of a split or classes", split)
    (tmp_path / "empty").mkdir()
    assert_refused(r"holds no images \(.png", tmp_path / "empty")
    assert_refused("000.png is one image: give the folder", folder / "000.png")
    frames = [Image.fromarray(image) for image in GREY[:3]]
    (tmp_path / "stack").mkdir()
    frames[0].save(tmp_path / "stack" / "a.tif", save_all=True, append_images=frames[1:])
    assert_refused("a.tif holds 3 images", tmp_path / "stack")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_a_truncated_image_is_named(tmp_path, suffix):
    folder = save_images(tmp_path, RNG.integers(0, 256, size=(3, 40, 40)).astype("u1"), suffix)
    path = folder / f"001{suffix}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert_refused(f"001{suffix} cannot be read as {suffix}: it is truncated", folder)
    path.write_bytes(b"")
    assert_refused(f"001{suffix} cannot be read as {suffix}", folder)


# Data sets.

READ = {
    "tensors": lambda: TensorDataset(torch.tensor(X)),
    "loader": lambda: DataLoader(TensorDataset(torch.tensor(X)), 5, shuffle=True, drop_last=True),
    "arrays": lambda: Items(*X),
    "tensors one by one": lambda: Items(*torch.tensor(X)),
    "tuples of one": lambda: Items(*[(x,) for x in X]),
    "lists": lambda: Items(*X.tolist()),
    "fields": lambda: Items(*[{"x": x} for x in X]),
    "subset": lambda: Subset(Items(*X, *X), range(12)),
    "joined": lambda: Items(*X[:5]) + Items(*X[5:]),
}
LABELLED = {
    "tensors": lambda: TensorDataset(torch.tensor(X), torch.tensor(Y)),
    "loader": lambda: DataLoader(TensorDataset(torch.tensor(X), torch.tensor(Y)), 5),
    "tuples": lambda: Items(*zip(X, Y, strict=True)),
    "lists": lambda: Items(*[[x, int(y)] for x, y in zip(X, Y, strict=True)]),
    "tensor labels": lambda: Items(*zip(torch.tensor(X), torch.tensor(Y), strict=True)),
    "fields": lambda: Items(*[{"label": y, "image": x} for x, y in zip(X, Y, strict=True)]),
}


@pytest.mark.parametrize("make", READ.values(), ids=READ)
def test_a_data_set_is_read_by_item(make):
    source = read(make())
    assert np.array_equal(source.values, X)
    assert source.labels is None
    assert source.note.startswith("read 12 items of a ")
    assert np.array_equal(read(make(), Y).labels, Y)


@pytest.mark.parametrize("make", LABELLED.values(), ids=LABELLED)
def test_labels_are_beside_the_items(make):
    source = read(make())
    assert np.array_equal(source.values, X)
    assert np.array_equal(source.labels, Y)
    assert ", labels beside" in source.note
    assert_refused("labels of its own", make(), labels=Y)


def test_fields_are_chosen_by_key():
    rows = Items(*[{"a": x, "b": x[:2], "kind": "ab"[y % 2]} for x, y in zip(X, Y, strict=True)])
    assert_refused("fields a, b, kind: name that of x by key=", rows)
    source = read(rows, labels="kind", key="b")
    assert np.array_equal(source.values, X[:, :2])
    assert source.label_names == ("a", "b")
    assert "fields left out: a" in source.note
    assert_refused("no field 'c', but a, b, kind", rows, key="c")
    assert_refused("no named fields: leave key='a' out", Items(*X), key="a")


def test_transforms_are_applied_and_chance_is_told():
    class Noisy(Items):
        def __getitem__(self, number):
            return torch.as_tensor(self.items[number]) + torch.rand(3)

    assert "items change each time that they are read" in read(Noisy(*X)).note
    assert "change" not in read(Items(*X)).note


def test_images_of_pillow_and_names_of_classes_come_along():
    rows = Items(*[(Image.fromarray(image), number % 2) for number, image in enumerate(GREY)])
    rows.classes = ["odd", "even"]
    source = read(rows)
    assert np.array_equal(source.values, GREY)
    assert (source.divisor, source.channels_last) == (255, False)
    assert source.label_names == ("odd", "even")
    colour = Items(*[Image.fromarray(np.stack([image] * 3, -1)) for image in GREY])
    assert read(colour).channels_last
    assert_refused("item 0 .* is of mode P", Items(Image.fromarray(GREY[0]).convert("P")))


def fail():
    raise KeyError("no such item")


class Failing(Items):
    def __getitem__(self, number):
        return fail() if number == 2 else self.items[number]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(X)


TENSORS = TensorDataset(torch.tensor(X))
NOT_READ = {
    "stream": (Stream, "Stream cannot be read by length and item"),
    "loader of a stream": (lambda: DataLoader(Stream()), "cannot be read by length and item"),
    "generator": (lambda: (x for x in X), "type generator, not an array"),
    "no items": (Items, "holds no rows"),
    "three parts": (lambda: Items((X[0], X[0], 1)), r"item 0 .* has 3 parts: x or \(x, label\)"),
    "three tensors": (lambda: TensorDataset(*[torch.tensor(X)] * 3), "has 3 parts"),
    "two numbers": (lambda: Items((1.0, 2.0)), r"tuple of numbers, which may be x or \(x, label\)"),
    "unequal": (lambda: Items(X[0], X[1][:2]), r"item 1 .* shape \(2,\) .* item 0 .* \(3,\)"),
    "types": (lambda: Items(X[0], X[1].astype("u1")), "item 1 .* type uint8"),
    "words": (lambda: Items("a", "b"), "item 0 .* holds <U1, not numbers"),
    "nothing": (lambda: Items(None), "item 0 .* of type NoneType"),
    "targets": (lambda: Items((X[0], X[0]), (X[1], X[1])), "labels must be one for each row"),
    "fractions": (lambda: TensorDataset(torch.tensor(X), torch.tensor(X[:, 0])),
                  "labels are whole numbers or words"),
    "label of some": (lambda: Items((X[0], 1), X[1]), "item 1 .* has no label, unlike"),
    "label of others": (lambda: Items(X[0], (X[1], 1)), "item 1 .* has a label, unlike"),
    "failing": (lambda: Failing(*X), "item 2 of the Failing cannot be read: 'no such item'"),
    "missing": (lambda: Items(X[0], X[1] * np.nan), "NaN or infinity in row 1"),
    "subset sampler": (lambda: DataLoader(TENSORS, sampler=SubsetRandomSampler(range(5))),
                       "sampler SubsetRandomSampler chooses items"),
    "weights": (lambda: DataLoader(TENSORS, sampler=WeightedRandomSampler(torch.ones(12), 12)),
                "sampler WeightedRandomSampler chooses items"),
    "with replacement": (
        lambda: DataLoader(TENSORS, sampler=torch.utils.data.RandomSampler(TENSORS, True)),
        "sampler does not give each item once"),
    "batches": (lambda: DataLoader(TENSORS, batch_sampler=[[0, 1], [2]]), "batch sampler list"),
    "collate": (lambda: DataLoader(TENSORS, collate_fn=torch.stack), "collate_fn may change"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_READ)
def test_data_sets_that_cannot_be_read_whole_are_refused(name):
    make, message = NOT_READ[name]
    assert_refused(message, make())


def test_too_large_a_data_set_is_refused_before_it_is_read(monkeypatch):
    monkeypatch.setattr(memory, "MEMORY_SHARE", 0.0)
    assert_refused("save it as a .npy file", Failing(*X))


# Tables.


def sheet(path, rows, name="Sheet1", mode="w"):
    with pd.ExcelWriter(path, mode=mode) as writer:
        pd.DataFrame(rows).to_excel(writer, sheet_name=name, header=False, index=False)
    return path


FRAME = pd.DataFrame({"a": X[:, 0], "b": np.arange(12), "c": X[:, 1] > 0, "kind": ["u", "v"] * 6})


@needs("openpyxl")
def test_a_sheet_is_the_table_it_was(tmp_path):
    FRAME.to_excel(tmp_path / "a.xlsx", index=False)
    FRAME.to_excel(tmp_path / "b.XLSX", engine="openpyxl")
    expected = read(FRAME, "kind")
    for name in ("a.xlsx", "b.XLSX"):
        source = read(tmp_path / name, "kind")
        # openpyxl writes 16 digits, of which the last is rounded.
        assert np.allclose(source.values, expected.values, rtol=1e-15, atol=0)
        assert source.columns == expected.columns
        assert source.labels.tolist() == expected.labels.tolist()
    assert "row numbers in the first column" in source.note


@needs("openpyxl")
def test_a_sheet_that_may_be_read_in_two_ways_is_refused(tmp_path):
    path = sheet(tmp_path / "a.xlsx", X)
    assert_refused("first row of .* holds numbers, .* header=True or header=False", path)
    assert load_data(path, header=False, test=0, validation=0).train.shape == (12, 3)
    assert load_data(path, header=True, test=0, validation=0).train.shape == (11, 3)
    sheet(path, FRAME.to_numpy(), "other", mode="a")
    assert_refused("holds the sheets Sheet1, other: choose one by key=", path)
    source = read(path, "3", CsvFormat(header=False), key="other")
    assert np.allclose(source.values, read(FRAME, "kind").values, rtol=1e-15, atol=0)
    assert_refused("no sheet 'third', but Sheet1, other", path, key="third")
    titled = sheet(tmp_path / "b.xlsx", [["measured in May", None], ["a", "b"], [1.0, 2.0]])
    assert_refused("no name for column 1", titled)
    path.write_bytes(b"hello")
    assert_refused("cannot be read as .xlsx", path)


def test_feather_is_the_table_it_was(tmp_path):
    FRAME.to_feather(tmp_path / "a.feather")
    source, expected = read(tmp_path / "a.feather", "kind"), read(FRAME, "kind")
    assert np.array_equal(source.values, expected.values)
    assert source.columns == expected.columns
    (tmp_path / "a.feather").write_bytes(b"hello")
    assert_refused("cannot be read as .feather", tmp_path / "a.feather")


@needs("anndata")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_sparse", [False, True])
def test_annotated_data_are_a_table_of_their_variables(tmp_path, is_sparse):
    import anndata

    counts = RNG.poisson(1.0, size=(12, 3)).astype("f4")
    x = scipy.sparse.csr_matrix(counts) if is_sparse else counts
    anndata.settings.allow_write_nullable_strings = True
    content = anndata.AnnData(x, pd.DataFrame({"kind": ["u", "v"] * 6}), layers={"twice": 2 * x})
    content.var_names = ["CD4", "CD8", "MS4A1"]
    content.write_h5ad(tmp_path / "a.h5ad")
    source = read(tmp_path / "a.h5ad", "kind")
    assert np.array_equal(source.values, counts)
    assert source.columns == ("CD4", "CD8", "MS4A1")
    assert source.label_names == ("u", "v")
    assert ("made dense" in source.note) == is_sparse
    assert np.array_equal(read(tmp_path / "a.h5ad", key="twice").values, 2 * counts)
    assert_refused("no layer 'thrice'; it has twice", tmp_path / "a.h5ad", key="thrice")
    assert_refused("no obs 'kinds': did you mean 'kind'", tmp_path / "a.h5ad", labels="kinds")


class Foreign:
    """A table of another library, which gives one of pandas."""

    schema = ()

    def __len__(self):
        return len(FRAME)

    def __getitem__(self, name):
        return FRAME[name]

    def to_pandas(self):
        return FRAME


def test_a_table_of_another_library_is_read_as_one_of_pandas():
    import pyarrow

    for table in (Foreign(), pyarrow.Table.from_pandas(FRAME)):
        source = read(table, "kind")
        assert np.array_equal(source.values, read(FRAME, "kind").values)
        assert source.columns == ("a", "b", "c")


@needs("polars")
def test_a_table_of_polars_is_read():
    import polars

    source = read(polars.from_pandas(FRAME), "kind")
    assert np.array_equal(source.values, read(FRAME, "kind").values)
    assert_refused(r"lazy, .*\.collect\(\)", polars.from_pandas(FRAME).lazy())


COLUMNS = {
    "nullable whole": (pd.array([1, 2, 3, 4], "Int64"), None),
    "nullable flags": (pd.array([True, False, True, True], "boolean"), None),
    "nullable fractions": (pd.array([0.5, 2.0, 3.0, 4.0], "Float64"), None),
    "flags": (np.array([True, False, True, True]), None),
    "Arrow": (pd.array([1, 2, 3, 4], "int64[pyarrow]"), None),
    "sparse": (pd.arrays.SparseArray([0, 0, 1, 2]), None),
    "missing whole": (pd.array([1, None, 3, 4], "Int64"), "NaN or infinity in row 1.*column 'q'"),
    "missing flag": (pd.array([True, None, True, True], "boolean"), "NaN .* row 1.*column 'q'"),
    "plain categories": (pd.Categorical(["a", "b", "a", "a"]), "column 'q' .* not numeric"),
    "ordered categories": (pd.Categorical([2, 1, 2, 2], ordered=True), "column 'q' .* not numer"),
    "dates": (pd.date_range("2020", periods=4), "column 'q' .* not numeric .datetime64"),
    "complex": (np.ones(4) * 1j, "column 'q' .* not numeric .complex"),
    "objects": (np.array([1, "a", None, 2], object), "column 'q' .* not numeric"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_of_any_type_are_read_or_refused_by_name(name):
    column, message = COLUMNS[name]
    frame = pd.DataFrame({"p": [0.5, 1.5, 2.5, 3.0], "q": column})
    if message is None:
        source = read(frame)
        expected = [float(value) for value in column]
        assert np.array_equal(source.values, np.stack([frame["p"], expected], 1))
    else:
        assert_refused(message, frame)


def test_key_is_refused_where_there_is_nothing_to_choose(tmp_path):
    np.save(tmp_path / "a.npy", X)
    for source in (tmp_path / "a.npy", X, FRAME, "digits", tmp_path, scipy.sparse.eye_array(3)):
        assert_refused("key= is for files ending in .npz", source, key="x")
