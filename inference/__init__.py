"""Fitting and judging Pyro pairs: data, objectives, training, evidence, diagnostics, reports.

The public names are listed in ``__init__.pyi``, and loaded when first used, so that
``latente --help`` need not wait for PyTorch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
