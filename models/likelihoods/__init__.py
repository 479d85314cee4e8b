"""Likelihoods p(x|z): each turns a decoder's features into a distribution of one datum x."""
