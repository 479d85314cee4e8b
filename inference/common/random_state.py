"""Seeds of the global random state."""

import torch


def seed_draws(seed: int) -> None:
    """Seed PyTorch's global generators: as ``torch.manual_seed``, at a thousandth of its cost.

    On a machine without an accelerator ``torch.manual_seed`` still formats its caller's stack, for
    the seeds of devices that may be found later: milliseconds, which count where each epoch or each
    draw has a seed. Only the generator of the CPU is seeded there.

    >>> seed_draws(3)
    >>> first = torch.rand(())
    >>> _ = torch.manual_seed(3)
    >>> bool(torch.rand(()) == first)
    True
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
