"""Sound of piano rolls, and sound files."""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from scipy.io import wavfile

from ..data.chorales import LOWEST

OVERTONES = 6
"""Partial tones of a note, with amplitudes 1, 1/2, 1/3, …"""


def piano_sound(
    roll: Any, *, steps_per_second: float = 2.0, lowest: int = LOWEST, sample_rate: int = 16_000
) -> np.ndarray:
    """Make sound of a piano roll, by adding sine tones.

    A note that is held over several steps is one tone, which starts at once and fades. Keys are in
    equal temperament, with MIDI pitch 69 at 440 Hz.

    Args:
        roll: bits (T, keys), one row a step.
        steps_per_second: a quarter note at 120 a minute takes half a second.
        lowest: the MIDI pitch of the first key; 21 for the 88 keys of a piano.
        sample_rate: samples a second.

    Returns:
        samples in [−1, 1], float32.

    Raises:
        ValueError: if the roll is not (T, keys), or a rate is not positive.

    >>> roll = np.zeros((3, 88))
    >>> roll[:2, 48] = 1  # an A of 440 Hz, for two steps of three
    >>> sound = piano_sound(roll)
    >>> sound.shape, bool(abs(sound[-8000:]).max() < 1e-6 < abs(sound[:8000]).max())
    ((24000,), True)
    """
    bits = np.asarray(roll) > 0.5
    if bits.ndim != 2 or not bits.size:
        raise ValueError(f"a piano roll has the shape (T, keys), got {bits.shape}")
    if not (steps_per_second > 0 and sample_rate > 0):
        raise ValueError("steps_per_second and sample_rate must be positive")
    size = sample_rate / steps_per_second
    sound = np.zeros(round(len(bits) * size))
    for key in np.flatnonzero(bits.any(0)):
        edges = np.diff(bits[:, key].astype(int), prepend=0, append=0)
        for start, stop in zip(np.flatnonzero(edges > 0), np.flatnonzero(edges < 0), strict=True):
            here = slice(round(start * size), round(stop * size))
            frequency = 440 * 2 ** ((lowest + int(key) - 69) / 12)
            sound[here] += _tone(frequency, here.stop - here.start, sample_rate)
    return (0.9 * sound / max(1e-9, float(np.abs(sound).max()))).astype(np.float32)


def _tone(frequency: float, num_samples: int, sample_rate: int) -> np.ndarray:
    """A note: its partial tones below half the sample rate, fading, without clicks at its ends."""
    seconds = np.arange(num_samples) / sample_rate
    partials = [n for n in range(1, OVERTONES + 1) if n * frequency < sample_rate / 2]
    tone = sum(
        (np.sin(2 * np.pi * n * frequency * seconds) / n for n in partials), np.zeros(num_samples)
    )
    ramp = np.minimum(1, seconds / 0.01) * np.minimum(1, (seconds[-1] - seconds) / 0.02)
    return tone * ramp * np.exp(-1.5 * seconds)


def save_sound(path: str | Path | BinaryIO, sound: Any, sample_rate: int) -> None:
    """Write samples in [−1, 1] to a ``.wav`` file of 16 bits; larger ones are made to fit.

    Args:
        path: the file, or one that is open.
        sound: (L,).
        sample_rate: samples a second.

    Raises:
        ValueError: if there are none, or some are not finite.
    """
    values = np.asarray(sound, np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError("sound is samples (L,), at least one and all of them finite")
    values = values / max(1.0, float(np.abs(values).max()))
    wavfile.write(path, sample_rate, np.round(values * (2**15 - 1)).astype(np.int16))
