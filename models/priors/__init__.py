"""Priors p(z): each gives the distribution of one datum's latent variables."""
