"""Which arrays are rows that :func:`load_data` transformed: known by the memory they lie in."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from .transform import Transform

# Keys are held weakly: memory that is compared is that of tensors that are alive, so no address
# can have been freed and used again, and nothing is kept for the sake of this record.
_TRANSFORMS = WeakTensorKeyDictionary()


def remember_rows(rows: Any, transform: Transform) -> None:
    """Note how the rows of a part of a data set were transformed, for as long as they live."""
    if isinstance(rows, Tensor) and rows.numel():
        _TRANSFORMS[rows] = transform


def transform_of_rows(x: Any) -> Transform | None:
    """How rows were transformed that lie in the memory of a part of a data set.

    They are that part, a slice or a view of it, or its NumPy array. Of others, as of copies, it is
    not known: ``None``.

    >>> from latente.inference import load_data
    >>> data = load_data(np.arange(40.0).reshape(20, 2), standardize=True)
    >>> transform_of_rows(data.train[3:5]) is data.transform
    True
    >>> transform_of_rows(data.train.clone()) is None
    True
    """
    found = _address(x)
    if found is None:
        return None
    device, address = found
    for rows, transform in list(_TRANSFORMS.items()):
        storage = rows.untyped_storage()
        start = storage.data_ptr()
        if rows.device == device and start <= address < start + storage.nbytes():
            return transform
    return None


def _address(x: Any) -> tuple[torch.device, int] | None:
    """The device and the address of the first value of an array."""
    if type(x) is Tensor and x.layout == torch.strided and not x.is_meta and x.numel():
        return x.device, x.data_ptr()
    if isinstance(x, np.ndarray) and x.size:
        return torch.device("cpu"), x.__array_interface__["data"][0]
    return None
