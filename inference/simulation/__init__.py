"""Data that a pair makes: simulated, reconstructed, sampled from the prior."""
