"""Checks of the sizes of priors."""


def check_num_components(num_components: int) -> None:
    """Refuse a mixture without components."""
    if num_components < 1:
        raise ValueError(f"num_components must be at least 1, got {num_components}")
