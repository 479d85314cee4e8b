"""The KL divergence from posterior to prior: where it has a closed form, and by dimension."""

from typing import Any

from torch.distributions import Independent, kl_divergence


def has_closed_form(posterior: Any, prior: Any) -> bool:
    """Whether KL(posterior ‖ prior) is known."""
    try:
        kl_divergence(posterior, prior)
    except (NotImplementedError, IndexError):  # that of Bernoulli distributions does not broadcast
        return False
    return True


def is_product(distribution: Any) -> bool:
    """Whether a distribution is one of independent numbers."""
    return (
        isinstance(distribution, Independent)
        and len(distribution.event_shape) == distribution.reinterpreted_batch_ndims
    )
