"""Estimates of the evidence log p(x): importance sampling, annealed importance sampling, bounds."""
