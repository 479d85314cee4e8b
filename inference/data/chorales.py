"""The chorales of J. S. Bach as piano rolls (Boulanger-Lewandowski et al. 2012)."""

import json
from pathlib import Path

import numpy as np

from .lengths import pad_joined
from .source import Source, join_notes

PARTS = ("train", "valid", "test")
LOWEST, HIGHEST = 21, 108
"""MIDI pitches of the lowest and the highest of a piano's 88 keys."""


def read_chorales(path: Path) -> Source:
    """Read chorales as bits of 88 keys (N, T, 88), one step a quarter note, with lengths.

    Key k is MIDI pitch 21 + k. The file is JSON, ``{"train" | "valid" | "test": [[[pitch, …] a
    step] a chorale]}``; its parts are the split.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if it is of another kind; naming a chorale that has no steps, or a pitch that
            is no key of a piano.

    Source: Boulanger-Lewandowski, Bengio and Vincent 2012 (arXiv 1206.6392).
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"jsb-chorales is not at {path}: put the JSON file of its chorales at quarter-note "
            "steps there (jsb-chorales-quarter.json of czhuang/JSB-Chorales-dataset), or set "
            "LATENTE_DATA to a folder that has it"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        chorales = {part: content[part] for part in PARTS}
        rolls = {
            part: [_roll(chorale, f"{part} chorale {n}") for n, chorale in enumerate(listed)]
            for part, listed in chorales.items()
        }
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} cannot be read as chorales: it must be JSON with lists of pitches for "
            f"{', '.join(PARTS)} ({error!r})"
        ) from error
    except ValueError as error:
        raise ValueError(f"in {path}, {error}") from error
    joined = [roll for part in PARTS for roll in rolls[part]]
    lengths = np.array([len(roll) for roll in joined], np.int64)
    note = join_notes(
        f"read {len(lengths)} chorales of {lengths.min()} to {lengths.max()} quarter notes, "
        f"{lengths.sum()} in all",
        f"88 keys, MIDI pitches {LOWEST} to {HIGHEST}",
    )
    return Source(
        "jsb-chorales",
        pad_joined(np.concatenate(joined), lengths),
        num_validation=len(rolls["valid"]),
        num_test=len(rolls["test"]),
        note=note,
        lengths=lengths,
    )


def _roll(chorale: list[list[int]], name: str) -> np.ndarray:
    """Bits (T, 88) of a chorale."""
    if not chorale:
        raise ValueError(f"{name} has length 0")
    roll = np.zeros((len(chorale), HIGHEST - LOWEST + 1), np.float32)
    for step, pitches in enumerate(chorale):
        for pitch in pitches:
            if not LOWEST <= pitch <= HIGHEST:
                raise ValueError(
                    f"{name} has the pitch {pitch} at step {step}, which is no key of a piano, "
                    f"{LOWEST} to {HIGHEST}"
                )
            roll[step, pitch - LOWEST] = 1
    return roll
