"""Priors p(z): modules that give the distribution of the latent variables of a datum."""
