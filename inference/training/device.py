"""Find the device to run on."""

import torch


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The device of a name; ``"auto"`` is CUDA where there is one, else the CPU.

    Raises:
        ValueError: if there is no such device.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"there is no device {str(device)!r} here: use 'auto' or 'cpu' ({reason})"
        ) from error
    return torch.device(device)
