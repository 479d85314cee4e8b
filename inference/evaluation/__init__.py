"""Figures of a fitted pair: metrics, predictive densities, export to ArviZ."""
