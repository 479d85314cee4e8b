"""Helpers for every room: checks of arguments, files, plotting style, progress."""
