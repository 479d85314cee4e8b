"""Whether a posterior can be trusted: one file a diagnostic, a registry, and ``diagnose``."""
