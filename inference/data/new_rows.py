"""New data of a fit, in the terms of its data, as model and guide see them."""

from collections.abc import Mapping
from typing import Any

from .arrays import is_table
from .fitted_transform import like, refuse_transformed
from .load_data import Data
from .some_labels import SOME_LABELS
from .transform import Transform


def new_rows(transform: Transform | None, data: Any, labels: Any) -> Any:
    """New data as model and guide see them, (x, *context); see :meth:`Run.rows`.

    Args:
        transform: that of the fit; ``None`` for a fit to arrays as the model sees them.
        data: as for :func:`load_data`, or as the fit took them.
        labels: labels beside an array, or the context.

    Raises:
        ValueError: if they are not like the data of the fit; if there are labels that the model is
            not given.
    """
    own_form = isinstance(data, Data | Mapping) or type(data) is tuple
    directly = transform is None or bool(transform.argument_columns)
    takes_labels = transform is not None and transform.given in ("labels", SOME_LABELS)
    if labels is not None and (own_form or not (directly or takes_labels)):
        raise ValueError(
            "the run takes no labels beside these data: leave them out, or, for a program of "
            "several arguments, give (x, context) as a tuple"
        )
    if own_form:
        return data
    if transform is None:
        return data if labels is None else (data, labels)
    if directly and (labels is not None or is_table(data)):
        rows = (data,) if labels is None else (data, labels)
        return like(transform, rows, "data")
    refuse_transformed(transform, data)
    return transform(data, labels)
