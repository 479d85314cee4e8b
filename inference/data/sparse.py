"""Sparse matrices and tensors, which become dense where that fits into memory."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .arrays import to_array
from .memory import check_memory

SPARSE_LAYOUTS = (
    torch.sparse_coo,
    torch.sparse_csr,
    torch.sparse_csc,
    torch.sparse_bsr,
    torch.sparse_bsc,
)


def is_sparse(values: Any) -> bool:
    """Whether the values are a sparse tensor, or a sparse matrix of SciPy or the like."""
    if isinstance(values, Tensor):
        return values.layout in SPARSE_LAYOUTS and not hasattr(values, "get_mask")
    return hasattr(values, "toarray") and hasattr(values, "nnz") and hasattr(values, "dtype")


def to_dense(values: Any, name: str) -> tuple[np.ndarray, str]:
    """Convert a sparse matrix or tensor to an array; also returns a note.

    Raises:
        ValueError: if the array would fill more than a quarter of the available memory, or if the
            values are not real numbers.

    >>> import scipy.sparse
    >>> to_dense(scipy.sparse.csr_array([[0.0, 2.0], [0.0, 0.0]]), "x")[1]
    'sparse, 25% of the values not zero, made dense'
    """
    is_tensor = isinstance(values, Tensor)
    itemsize = values.element_size() if is_tensor else np.dtype(values.dtype).itemsize
    advice = "give fewer columns or rows"
    check_memory(f"the dense form of {name}", tuple(values.shape), itemsize, advice)
    array = to_array(values.detach().to_dense() if is_tensor else values.toarray(), name)
    share = np.count_nonzero(array) / max(array.size, 1)
    return array, f"sparse, {share:.0%} of the values not zero, made dense"
