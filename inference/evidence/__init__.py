"""Evidence log p(x): importance sampling, annealed importance sampling, bounds from both sides."""
