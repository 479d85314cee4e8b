"""Batch normalization of the hidden features of a dense network."""

from torch import Tensor, nn


class BatchNorm(nn.BatchNorm1d):
    """Batch normalization of features, (…, width), over all other axes (Ioffe and Szegedy 2015).

    In training the features of a batch get mean 0 and variance 1, then a learned location and
    scale; in evaluation running averages of mean and variance take their place, so that data are
    independent of each other, as log p(x) needs them. So do they for one row alone, which has no
    variance.

    >>> import torch
    >>> x = 5.0 + torch.arange(12.0).reshape(3, 2, 2)
    >>> norm = BatchNorm(2)
    >>> norm(x).mean((0, 1)).abs().max().item() < 1e-6
    True
    >>> norm.eval()(x[:1, :1]).shape
    torch.Size([1, 1, 2])
    """

    def forward(self, input: Tensor) -> Tensor:
        """(…, width) to the same shape."""
        rows = input.reshape(-1, input.shape[-1])
        if self.training and len(rows) < 2:
            return nn.functional.batch_norm(
                rows, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            ).reshape(input.shape)
        return super().forward(rows).reshape(input.shape)
