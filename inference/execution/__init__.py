"""Recorded functions: PyTorch operations that are recorded once and run again, bit for bit."""
