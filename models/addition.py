"""A state that goes on past the levels, to which each level adds."""

from torch import Tensor, nn


class Addition(nn.Module):
    """Add what a network makes of z to the state of the levels above; it joins a :class:`Level`.

    ::

        next state = then(state + project(z)),   at the top then(project(z))

    The state is a deterministic path through the levels, as in NVAE (Vahdat and Kautz 2020, arXiv
    2007.03898) and VDVAE (Child 2021, arXiv 2011.10650): z of a level and the state may have
    different sizes, and the path may go on with ``then``, to more pixels and fewer channels, say.

    Args:
        project: a network from z to the shape of the state.
        then: a network from the sum to the next state; ``None``: the sum is the next state.

    Raises:
        ValueError: when called, if ``project`` does not give the shape of the state, or one that
            broadcasts to it.

    >>> import torch
    >>> from latente.models import Maps
    >>> join = Addition(Maps((2, 7, 7), nn.Conv2d(2, 8, 1)), Maps((8, 7, 7), nn.Upsample((14, 14))))
    >>> join(torch.zeros(5, 8, 7, 7), torch.zeros(5, 2, 7, 7)).shape
    torch.Size([5, 8, 14, 14])
    """

    def __init__(self, project: nn.Module, then: nn.Module | None = None):
        super().__init__()
        self.project = project
        self.then = then

    def forward(self, *state_and_z: Tensor) -> Tensor:
        """(state, z), at the top z alone, to the next state."""
        *above, z = state_and_z
        total = self.project(z)
        for state in above:
            try:
                total = state + total
            except RuntimeError as error:
                raise ValueError(
                    f"a state of shape {tuple(state.shape)} and what is made of z, of shape "
                    f"{tuple(total.shape)}, cannot be added: let project give the state's shape"
                ) from error
        return total if self.then is None else self.then(total)
