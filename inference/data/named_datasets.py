"""The named data sets: digits, MNIST and similar ones, Frey Face, chorales, spoken digits."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .chorales import read_chorales
from .source import Source, load_numpy
from .spoken_digits import read_spoken_digits


def data_root() -> Path:
    """The folder of data sets: the environment variable LATENTE_DATA, or ``~/.cache/latente``."""
    return Path(os.environ.get("LATENTE_DATA") or Path.home() / ".cache" / "latente")


def _digits() -> Source:
    from sklearn.datasets import load_digits  # slow to import, and seldom all needed

    digits: Any = load_digits()
    return Source("digits", digits.images.astype(np.float32), digits.target, divisor=16.0)


def _torchvision(name: str, class_name: str) -> Source:
    from torchvision import datasets

    kind, root = getattr(datasets, class_name), data_root()
    parts = []
    for train in (True, False):
        try:
            try:
                parts.append(kind(root, train=train, download=False))
            except RuntimeError:  # from torchvision, if the files do not exist
                parts.append(kind(root, train=train, download=True))
        except (RuntimeError, OSError) as error:
            raise FileNotFoundError(
                f"{name} is not in {root / class_name / 'raw'} and could not be downloaded: put "
                f"its idx files there, or set LATENTE_DATA to a folder that has {class_name}/raw"
            ) from error
        except (ValueError, AssertionError) as error:
            raise ValueError(
                f"{name} in {root / class_name / 'raw'} cannot be read; its files may be "
                f"truncated: delete them to download them anew ({error})"
            ) from error
    values = torch.cat([part.data for part in parts]).numpy()
    labels = torch.cat([part.targets for part in parts]).numpy()
    return Source(name, values, labels, num_test=len(parts[1].data), divisor=255.0)


def _freyfaces() -> Source:
    path = data_root() / "freyfaces.npy"
    if not path.exists():
        raise FileNotFoundError(
            f"freyfaces is not at {path}: put the uint8 array (1965, 28, 20) of its frames there, "
            "or set LATENTE_DATA to a folder that has it"
        )
    return Source("freyfaces", np.asarray(load_numpy(path)), divisor=255.0)


NAMED_DATASETS: dict[str, Callable[[], Source]] = {
    "digits": _digits,
    "mnist": lambda: _torchvision("mnist", "MNIST"),
    "fashion-mnist": lambda: _torchvision("fashion-mnist", "FashionMNIST"),
    "kmnist": lambda: _torchvision("kmnist", "KMNIST"),
    "freyfaces": _freyfaces,
    "jsb-chorales": lambda: read_chorales(data_root() / "jsb-chorales-quarter.json"),
    "spoken-digits": lambda: read_spoken_digits(data_root() / "spoken-digits.npz"),
}

SEQUENCE_SETS = ("jsb-chorales", "spoken-digits")
"""Those whose data are sequences of different lengths."""
