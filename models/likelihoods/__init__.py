"""Likelihoods p(x|z): modules from decoder features to the distribution of a datum x."""
