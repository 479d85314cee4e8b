"""zuko, imported without its side effect.

It switches the validation of PyTorch's distributions off for the whole process; here that is
put back as it was. Everything of ours that needs zuko takes it from here.
"""

from torch.distributions import Distribution

_validate = Distribution._validate_args
try:
    import zuko
finally:
    Distribution._validate_args = _validate

__all__ = ["zuko"]
