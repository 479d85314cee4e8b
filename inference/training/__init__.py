"""Fitting: preparation, the loop and its state, callbacks, checkpoints, run folders."""
