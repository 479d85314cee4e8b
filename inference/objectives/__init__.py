"""Objectives: which ``pyro.infer.ELBO`` suits a pair, and those that Pyro lacks."""
