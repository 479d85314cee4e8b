"""A transform as plain values, for ``config.json``, and back."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from .column import Column
from .contexts import ContextColumn
from .csv_format import CsvFormat
from .log_mel import LogMel
from .reading_options import ReadingOptions
from .transform import Transform
from .vocabulary import Vocabulary


def to_json(transform: Transform) -> dict[str, Any]:
    """The fields of a transform as values that JSON can hold, each tensor as its type and values.

    >>> plain = to_json(Transform((2,), location=torch.zeros(2), scale=torch.ones(2)))
    >>> plain["location"]
    ['float32', [0.0, 0.0]]
    """
    plain = {name: getattr(transform, name) for name in asdict(transform)}
    plain |= {
        "options": asdict(transform.options),
        "kinds": [column.to_json() for column in transform.kinds],
        "context_columns": [asdict(column) for column in transform.context_columns],
        "log_mel": None if transform.log_mel is None else asdict(transform.log_mel),
    }
    for name, value in plain.items():
        if isinstance(value, Tensor):
            plain[name] = [str(value.dtype).removeprefix("torch."), value.tolist()]
    return plain


def from_json(plain: Mapping[str, Any]) -> Transform:
    """The transform of plain values.

    Raises:
        ValueError: if they are not those of a transform.

    >>> transform = Transform((2,), location=torch.zeros(2), scale=torch.ones(2))
    >>> from_json(to_json(transform)).location
    tensor([0., 0.])
    """
    try:
        values = {name: _tuples(value) for name, value in plain.items()}
        options = {name: _tuples(value) for name, value in plain["options"].items()}
        for name in ("csv_format", "found_format"):
            if options.get(name) is not None:
                of_text = {key: _tuples(value) for key, value in options[name].items()}
                options[name] = CsvFormat(**of_text)
        if options.get("vocabulary") is not None:  # older runs have none
            of_tokens = {key: _tuples(value) for key, value in options["vocabulary"].items()}
            options["vocabulary"] = Vocabulary(**of_tokens)
        values["options"] = ReadingOptions(**options)
        if values.get("log_mel") is not None:  # likewise
            values["log_mel"] = LogMel(**plain["log_mel"])
        values["train_lengths"] = tuple(map(tuple, plain.get("train_lengths", ())))  # likewise
        values["kinds"] = tuple(map(Column.from_json, plain["kinds"]))
        values["context_columns"] = tuple(
            ContextColumn(**{name: _tuples(value) for name, value in column.items()})
            for column in plain["context_columns"]
        )
        columns = plain.get("argument_columns", {})  # older runs have none
        values["argument_columns"] = {place: tuple(names) for place, names in columns.items()}
        for name in ("location", "scale", "given_flags"):
            if plain[name] is not None:
                kind, numbers = plain[name]
                values[name] = torch.tensor(numbers, dtype=getattr(torch, kind))
        return Transform(**values)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"these are not the values of a transform: {error}") from error


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
