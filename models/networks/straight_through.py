"""The hard indicator of the largest number, with the gradient of the relaxed one."""

import torch
from torch import Tensor, nn


class StraightThrough(nn.Module):
    """Make relaxed indicators (…, K) hard: 1 at the largest number, 0 elsewhere, straight through.

    The gradient is that of the identity (Jang, Gu and Poole 2017, arXiv 1611.01144). Put it before
    a decoder: ``nn.Sequential(StraightThrough(), mlp((M, K), 200, out=784))``.

    >>> StraightThrough()(torch.tensor([0.2, 0.7, 0.1]))
    tensor([0., 1., 0.])
    """

    def forward(self, z: Tensor) -> Tensor:
        """(…, K) to the same shape."""
        hard = torch.zeros_like(z).scatter(-1, z.argmax(-1, keepdim=True), 1.0)
        return hard + (z - z.detach())
