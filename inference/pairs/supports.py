"""Where a distribution has mass: its support, and the bounds that the support depends on."""

from typing import Any, Protocol

from torch import Tensor
from torch.distributions.constraints import is_dependent


class NamesElements(Protocol):
    """The support of a vector whose elements have names, as the columns of a table have.

    It is elementwise, the base of an ``independent`` constraint. Names are used in errors alone.
    """

    element_names: tuple[str, ...]
    """One for each element of the last dimension."""


def name_element(support: Any, position: int) -> str:
    """How a support names an element, in words; empty if it has no names."""
    names = getattr(support, "element_names", ())  # see :class:`NamesElements`
    return f" in {names[position]}" if names else ""


def in_support(distribution: Any, value: Tensor) -> Tensor | None:
    """Which values of a batch lie in a distribution's support; ``None`` where that is not known.

    >>> import pyro.distributions as dist, torch
    >>> in_support(dist.Uniform(0.0, torch.tensor([1.0, 3.0])), torch.tensor(2.0))
    tensor([False,  True])
    """
    try:
        support = distribution.support
    except NotImplementedError:  # a user's distribution may have no support
        return None
    return None if is_dependent(support) else support.check(value)


def is_discrete(distribution: Any) -> bool:
    """Whether a distribution is known to have discrete values, so that it gives them masses.

    >>> import pyro.distributions as dist
    >>> is_discrete(dist.Poisson(2.0).expand([3]).to_event(1)), is_discrete(dist.Normal(0.0, 1.0))
    (True, False)
    """
    try:
        return bool(distribution.support.is_discrete)
    except NotImplementedError:  # a user's distribution may have no support
        return False


def bounds_of(distribution: Any) -> list[Tensor]:
    """The bounds of a distribution's support that are parameters: those of Uniform, Pareto, …

    >>> import pyro.distributions as dist, torch
    >>> bounds_of(dist.Pareto(torch.tensor([1.0, 3.0]), 2.0).to_event(1))
    [tensor([1., 3.])]
    >>> bounds_of(dist.Exponential(torch.ones(2)))
    []
    """
    try:
        support = distribution.support
    except NotImplementedError:
        return []
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return [value for value in vars(support).values() if isinstance(value, Tensor)]
