"""Spoken digits as frames of log-mel spectrograms (Jackson 2018)."""

from pathlib import Path

import numpy as np
import torch

from .lengths import pad_joined
from .log_mel import LogMel
from .source import Source, join_notes, reading

NUM_TEST_TAKES = 5
"""Takes 0 to 4 of each speaker and digit are the test set, by the data set's own convention."""


def read_spoken_digits(path: Path, log_mel: LogMel | None = None) -> Source:
    """Read recordings of the digits 0 to 9 as log-mel frames (N, T, mels), with lengths.

    The labels are the digits. Each recording is one row, and no two rows are of one recording, so
    none is in two parts. Takes 0 to 4 of each speaker and digit are the test set.

    Args:
        path: an ``.npz`` of ``samples``, int16 at 8 kHz, laid end to end; ``lengths``, ``digit``,
            ``speaker`` and ``take``, each (N,).
        log_mel: how frames are computed.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if it is of another kind, or holds a recording twice.

    Source: https://github.com/Jakobovski/free-spoken-digit-dataset (CC BY-SA).
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"spoken-digits is not at {path}: put the recordings of "
            "Jakobovski/free-spoken-digit-dataset there, an .npz of samples (int16 at 8 kHz, laid "
            "end to end), lengths, digit, speaker and take, or set LATENTE_DATA to a folder that "
            "has it"
        )
    with reading(path), np.load(path, allow_pickle=False) as arrays:
        samples, num_samples = arrays["samples"], arrays["lengths"].astype(np.int64)
        digit, speaker, take = (arrays[name] for name in ("digit", "speaker", "take"))
    sizes = {len(part) for part in (num_samples, digit, speaker, take)}
    if len(sizes) > 1 or samples.dtype != np.int16 or num_samples.sum() != len(samples):
        raise ValueError(
            f"{path} does not hold recordings: samples must be int16 and as many as lengths, one a "
            "recording as digit, speaker and take, sum to"
        )
    recordings = np.split(samples, num_samples.cumsum()[:-1])
    _check_different(recordings, str(path))
    is_test = take < NUM_TEST_TAKES
    order = np.concatenate([np.flatnonzero(~is_test), np.flatnonzero(is_test)])
    log_mel = log_mel or LogMel()
    frames = [
        log_mel(torch.from_numpy(recordings[row].astype(np.float32) / 2**15)).numpy()
        for row in order
    ]
    lengths = np.array([len(part) for part in frames], np.int64)
    note = join_notes(
        f"read {len(order)} recordings of {lengths.min()} to {lengths.max()} frames",
        f"{log_mel.num_mels} log-mel values a frame, every {log_mel.hop / log_mel.sample_rate:g} s",
        f"takes 0 to {NUM_TEST_TAKES - 1} of each speaker and digit to test",
    )
    return Source(
        "spoken-digits",
        pad_joined(np.concatenate(frames), lengths),
        digit[order].astype(np.int64),
        num_test=int(is_test.sum()),
        note=note,
        lengths=lengths,
        log_mel=log_mel,
    )


def _check_different(recordings: list[np.ndarray], name: str) -> None:
    """Refuse recordings of no samples, and two that are the same."""
    seen: dict[bytes, int] = {}
    for number, recording in enumerate(recordings):
        if not len(recording):
            raise ValueError(f"recording {number} of {name}, counted from 0, has length 0")
        before = seen.setdefault(recording.tobytes(), number)
        if before != number:
            raise ValueError(
                f"recordings {before} and {number} of {name}, counted from 0, are the same: they "
                "might be in two parts of the data, so drop one"
            )
