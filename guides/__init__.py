"""Guides q(z|x): amortized posteriors as Pyro programs, one for each posterior family."""

from .normal import DiagonalNormal

__all__ = ["DiagonalNormal"]
