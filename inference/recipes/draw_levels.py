"""The choice ``--levels draw``: steps of z that paint on a canvas."""

from functools import partial

from ...guides import DrawPosterior
from ...models import VAE, DrawDecoder, StandardNormal, mlp
from .hierarchy_parts import HierarchyParts
from .parameters import Count, Natural


def draw_levels(
    parts: HierarchyParts,
    *,
    steps: Count = 10,
    dim: Count = 10,
    hidden: Count = 128,
    read: Natural = 0,
    write: Natural = 0,
) -> tuple[VAE, DrawPosterior]:
    """DRAW with ``steps`` z_t of ``dim`` dimensions, and two recurrent cells of width ``hidden``.

    ``read`` and ``write`` are the windows of Gaussian attention, 5 for 5 × 5; 0 is the whole image.

    Raises:
        ValueError: if there is a window and the data are no images, or the likelihood has no mean.
    """
    likelihood = parts.likelihood
    if (read or write) and len(parts.event_shape) not in (2, 3):
        raise ValueError(
            f"attention looks at a part of an image, and a datum has the shape "
            f"{parts.event_shape}: take --levels draw without read and write"
        )
    decoder = DrawDecoder(
        parts.event_shape,
        (steps, dim),
        hidden,
        features_per_element=likelihood.features_per_element,
        window=write or None,
    )
    family = parts.posterior(partial(mlp, hidden), dim)
    guide = DrawPosterior(family, decoder, likelihood, hidden=hidden, window=read or None)
    return VAE(StandardNormal((steps, dim)), decoder, likelihood), guide
