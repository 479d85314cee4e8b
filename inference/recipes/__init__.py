"""Recipes: named compositions of parts, the builders of the parts, and a run's configuration."""
