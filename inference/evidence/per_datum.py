"""Means over the data of estimates of log p(x)."""

from torch import Tensor


class PerDatum:
    """Estimates of log p(x) of N data, with a standard error each, in nats."""

    log_px: Tensor
    standard_error: Tensor

    @property
    def mean(self) -> float:
        """Mean of ``log_px`` over the data: nats per datum, or per sequence."""
        return self.log_px.mean().item()

    @property
    def mean_standard_error(self) -> float:
        """Monte Carlo standard error of :attr:`mean`, given the data."""
        return (self.standard_error.square().sum().sqrt() / len(self.log_px)).item()
