"""Evaluation of a fitted pair: metrics, predictive densities, leave-one-out, export to ArviZ."""
