"""The command line ``latente``."""

from .commands import app, main

__all__ = ["app", "main"]
