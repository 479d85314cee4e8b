"""The part of a half-labelled run that is given labels: for draws of a class."""

from dataclasses import replace

from ...guides import Classifying
from ...models import HalfLabelled
from ..training.run import Run


def with_given_labels(run: Run) -> Run:
    """The run of p(x|z, y) p(z) and q(z|x, y), to which labels are a context, known in all rows.

    Any other run is as it was.
    """
    if isinstance(run.model, HalfLabelled) and isinstance(run.guide, Classifying):
        return replace(run, model=run.model.model, guide=run.guide.guide)
    return run
