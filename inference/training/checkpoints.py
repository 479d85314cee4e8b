"""The checkpoint format: tensors and a few facts in one safetensors file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from ..common.files import write_atomically
from ..pairs.programs import Program, modules

CHECKPOINT_FORMAT = 1


def save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and JSON facts to a temporary file, and move it into place.

    If the write is interrupted, the former file stays as it was.
    """
    metadata = {"latente": json.dumps({"format": CHECKPOINT_FORMAT, **facts})}
    # Copies, since parameters may be views of one storage, which the format refuses.
    copies = {name: value.detach().clone() for name, value in tensors.items()}
    with write_atomically(path) as temporary:
        try:
            save_file(copies, temporary, metadata)
        except SafetensorError as error:  # a full disk, say
            raise OSError(f"{path} could not be written ({error})") from error


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and facts that :func:`save` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is truncated, or not a checkpoint of this library.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["latente"])
            if facts["format"] != CHECKPOINT_FORMAT:
                raise ValueError(f"its format is {facts['format']}, not {CHECKPOINT_FORMAT}")
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is truncated, or not a checkpoint of latente ({error})"
        ) from error


def weights(model: Program, guide: Program, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors of a pair by name: parameters, fixed or trained, and buffers.

    Args:
        trained: the result of :func:`latente.inference.pairs.parameters.parameters`, for the
            parameters that only Pyro's store has.
    """
    named = {
        f"{role}.{name}": value
        for role, module in modules(model, guide).items()
        for name, value in module.state_dict(keep_vars=True).items()
    }
    named |= {name: value for name, value in trained.items() if name.startswith("param.")}
    unique: dict[int, str] = {}
    for name, value in named.items():
        unique.setdefault(id(value), name)
    return {name: named[name] for name in unique.values()}


def check_weights(into: Mapping[str, Tensor], saved: Mapping[str, Tensor], path: str) -> None:
    """Check that saved weights belong to a pair, by name and shape.

    Raises:
        ValueError: if a name or a shape differs: the checkpoint is of another model.
    """
    foreign = f"{path} is a checkpoint of another model"
    for name in sorted(into.keys() ^ saved.keys()):
        where = "is missing in the file" if name in into else "is not in this model"
        raise ValueError(f"{foreign}: {name} {where}")
    for name, value in into.items():
        if value.shape != saved[name].shape:
            raise ValueError(
                f"{foreign}: {name} has shape {tuple(saved[name].shape)} in the file and "
                f"{tuple(value.shape)} in this model"
            )


def restore(into: Mapping[str, Tensor], saved: Mapping[str, Tensor], path: str) -> None:
    """Copy saved weights into a pair's tensors, in place, after checking that they belong to it.

    Raises:
        ValueError: if a name or a shape differs: the checkpoint is of another model.
    """
    check_weights(into, saved, path)
    with torch.no_grad():
        for name, value in into.items():
            value.copy_(saved[name])


def pack(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Collect the state of an optimizer, and the random state.

    Returns:
        Tensors, and the facts that go into JSON.
    """
    state = optimizer.state_dict()
    tensors = {"rng.cpu": torch.get_rng_state()}
    for index, value in enumerate(torch.cuda.get_rng_state_all()):
        tensors[f"rng.cuda.{index}"] = value
    numbers: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                numbers.setdefault(str(index), {})[name] = value
    return tensors, {"groups": state["param_groups"], "numbers": numbers}


def unpack(optimizer: Optimizer, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Restore the state that :func:`pack` collected."""
    state: dict[int, dict[str, Any]] = {
        int(index): dict(entries) for index, entries in facts["numbers"].items()
    }
    for key, value in with_prefix(tensors, "optimizer.").items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": facts["groups"]})
    torch.set_rng_state(tensors["rng.cpu"])
    random = with_prefix(tensors, "rng.cuda.")
    if len(random) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([random[str(index)] for index in range(len(random))])


def current_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The pair's last weights among the tensors of a checkpoint."""
    return {
        name: value
        for name, value in tensors.items()
        if name.startswith(("model.", "guide.", "param."))
    }


def kept_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The final weights of a run: those of the best epoch if they were kept, else the last."""
    return with_prefix(tensors, "best.") or current_weights(tensors)


def with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, by the rest of the name.

    >>> with_prefix({"best.a": torch.ones(1), "a": torch.zeros(1)}, "best.")
    {'a': tensor([1.])}
    """
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
