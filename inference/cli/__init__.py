"""The command line ``latente``."""

from .app import main

__all__ = ["main"]
