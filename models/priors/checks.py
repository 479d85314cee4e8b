"""Checks of the sizes of priors."""


def check_latent_dim(latent_dim: int) -> None:
    """Refuse fewer than one latent dimension."""
    if latent_dim < 1:
        raise ValueError(f"latent_dim must be at least 1, got {latent_dim}")


def check_num_components(num_components: int) -> None:
    """Refuse a mixture without components."""
    if num_components < 1:
        raise ValueError(f"num_components must be at least 1, got {num_components}")
