"""Fixtures that many tests share."""

import functools
import gc
import os
from pathlib import Path
from unittest import mock

import pyro
import pytest
import torch
from sklearn import datasets
from sklearn.utils import Bunch

from latente.guides import DiagonalNormal
from latente.models import VAE, Bernoulli, StandardNormal, mlp

from . import THREADS

gc.disable()  # till all is imported and collected: nothing of it is garbage


def pytest_collection_modifyitems(items):
    """Warnings of the programs that run notebooks are not ours."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Notebooks show their figures, which the tests' backend does not."""
    if item.path.suffix != ".ipynb":
        return (yield)
    with mock.patch.dict(os.environ):
        os.environ.pop("MPLBACKEND", None)
        return (yield)


def pytest_collection_finish():
    """What is there before the first test stays to the end: it need not be looked at again."""
    gc.freeze()
    gc.set_threshold(7_000, 10, 10)  # traces and autograd graphs are many small objects
    gc.enable()


@pytest.fixture(autouse=True)
def _fresh_state(request):
    """Each test begins from the same seed, with an empty parameter store."""
    slow = request.node.get_closest_marker("slow") is not None
    alone = "PYTEST_XDIST_WORKER" not in os.environ
    # A study by hand has the machine to itself; most nets are too small to share among threads.
    torch.set_num_threads(os.cpu_count() or 1 if slow and alone else THREADS)
    torch.manual_seed(0)
    pyro.clear_param_store()


@pytest.fixture
def binary_images():
    """Bits with structure, (200, 4, 4): the rows of each image agree."""
    column = torch.rand(200, 1, 4, generator=torch.Generator().manual_seed(1)).round()
    return column.expand(200, 4, 4).contiguous()


@pytest.fixture
def make_pair():
    """A small VAE on 4×4 bits with its guide, the same weights each time."""

    def make(latent_dim=2, seed=0, dtype=torch.float32):
        torch.manual_seed(seed)
        vae = VAE(StandardNormal(latent_dim), mlp(latent_dim, 8, out=16), Bernoulli((4, 4)))
        guide = DiagonalNormal(mlp(16, 8, out=2 * latent_dim), latent_dim)
        return vae.to(dtype), guide.to(dtype)

    return make


@functools.cache
def _first_digits():
    digits = datasets.load_digits()
    return Bunch(images=digits.images[:300], target=digits.target[:300])


@pytest.fixture
def few_digits(monkeypatch):
    """Let the data set ``digits`` have its first 300 alone: 240, 30 and 30 of the parts."""
    few = _first_digits()
    monkeypatch.setattr(datasets, "load_digits", lambda: few)
    return few


@pytest.fixture
def mnist():
    """Skip where MNIST is not on disk: a test run downloads nothing."""
    root = Path(os.environ.get("LATENTE_DATA") or Path.home() / ".cache" / "latente")
    if not (root / "MNIST" / "raw" / "t10k-images-idx3-ubyte").exists():
        pytest.skip(f"MNIST is not in {root}: set LATENTE_DATA to a folder that has MNIST/raw")
    return root
