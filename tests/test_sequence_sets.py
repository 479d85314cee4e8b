"""The named sets of sequences: chorales and spoken digits, made up and real."""

import json
import math

import numpy as np
import pytest
import torch

from latente.inference import load_data
from latente.inference.data.log_mel import LogMel
from latente.inference.data.named_datasets import data_root
from latente.inference.data.spoken_digits import read_spoken_digits
from latente.inference.data.transform_json import from_json, to_json

CHORALES = {
    "train": [[[60, 64], [], [21]], [[108]], [[60]] * 4],
    "valid": [[[62], [62, 65]]],
    "test": [[[50]] * 5, [[51]]],
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTE_DATA", str(tmp_path))
    return tmp_path


def write_chorales(root, content):
    text = content if isinstance(content, str) else json.dumps(content)
    (root / "jsb-chorales-quarter.json").write_text(text)


def test_chorales_become_keys_in_the_split_of_the_file(root):
    write_chorales(root, CHORALES)
    data = load_data("jsb-chorales", split="in-order")
    assert [len(data.train), len(data.validation), len(data.test)] == [3, 1, 2]
    assert data.train.shape == (3, 5, 88)
    assert data.train.dtype == torch.float32
    lengths = [part[0].tolist() for part in (data.train_context, data.test_context)]
    assert lengths == [[3, 1, 4], [5, 1]]
    keys = [row.nonzero().tolist() for row in data.train[:2]]
    assert keys == [[[0, 39], [0, 43], [2, 0]], [[0, 87]]]
    assert data.validation.nonzero().tolist() == [[0, 0, 41], [0, 1, 41], [0, 1, 44]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**CHORALES, "valid": [[]]}, "valid chorale 0 has length 0"),
        ({**CHORALES, "test": [[[60], [20]]]}, "test chorale 0 has the pitch 20 at step 1, which"),
        ({"train": [[[60]]]}, "must be JSON with lists of pitches for train, valid, test"),
        ("{", "must be JSON"),
        ({**CHORALES, "train": 7}, "must be JSON"),
    ],
)
def test_other_chorales_are_refused(root, content, message):
    write_chorales(root, content)
    with pytest.raises(ValueError, match=message):
        load_data("jsb-chorales")


@pytest.mark.parametrize(
    ("name", "told"),
    [("jsb-chorales", "jsb-chorales-quarter.json"), ("spoken-digits", "spoken-digits.npz")],
)
def test_what_is_not_there_is_told_with_what_to_put_where(root, name, told):
    with pytest.raises(FileNotFoundError, match=f"{name} is not at .*{told}: put .*LATENTE_DATA"):
        load_data(name)


def _is_real(name):
    if not (data_root() / name).is_file():
        pytest.skip(f"{name} is not in {data_root()}: set LATENTE_DATA to a folder that has it")


def test_the_real_chorales():
    _is_real("jsb-chorales-quarter.json")
    data = load_data("jsb-chorales")
    # Counts of sequences and steps as in Boulanger-Lewandowski et al. 2012.
    assert [len(data.train), len(data.validation), len(data.test)] == [229, 76, 77]
    steps = [int(data.rows(part)[1].sum()) for part in ("train", "validation", "test")]
    assert steps == [13_807, 4_602, 4_725]
    assert data.train.unique().tolist() == [0, 1]
    again = load_data("jsb-chorales", seed=7)
    assert torch.equal(again.test, data.test)
    assert torch.equal(again.validation, data.validation)


def recordings(num_takes=8):
    """Tones of another frequency for each digit, speaker and take."""
    rng = np.random.default_rng(0)
    rows = [(digit, 0, take) for digit in (0, 1) for take in range(num_takes)]
    parts = []
    for digit, _, take in rows:
        time = np.arange(400 + 100 * take) / 8000
        tone = 8000 * np.sin(2 * math.pi * (500 + 1000 * digit) * time)
        parts.append((tone + rng.normal(size=len(time)) * 20).astype(np.int16))
    digit, speaker, take = np.array(rows).T
    lengths = np.array([*map(len, parts)])
    samples = np.concatenate(parts)
    return {
        "samples": samples, "lengths": lengths, "digit": digit, "speaker": speaker, "take": take
    }  # fmt: skip


def test_spoken_digits_are_frames_with_takes_to_test(root):
    arrays = recordings()
    np.savez(root / "spoken-digits.npz", **arrays)
    data = load_data("spoken-digits", validation=1 / 3, given="labels")
    assert [len(data.train), len(data.validation), len(data.test)] == [4, 2, 10]
    x, lengths, digits = data.rows("test")
    assert digits.tolist() == [0] * 5 + [1] * 5
    assert lengths.tolist() == [1 + (400 + 100 * take) // 80 for take in range(5)] * 2
    assert data.train.shape[1:] == (1 + 1100 // 80, 40)
    middle = x[torch.arange(10), lengths // 2]
    heard = LogMel().centres[middle.argmax(1)]
    torch.testing.assert_close(heard, 500.0 + 1000 * digits.double(), atol=60, rtol=0)
    assert from_json(json.loads(json.dumps(to_json(data.transform)))).log_mel == LogMel()


def test_a_recording_that_comes_twice_or_is_empty_is_refused(root):
    arrays = recordings(3)
    samples, lengths = arrays["samples"], arrays["lengths"]
    first = lengths[0]
    twice = arrays | {
        "samples": np.concatenate([samples[:first], samples[:first], samples[first:]]),
        "lengths": np.insert(lengths, 0, first),
    }
    twice |= {name: np.append(arrays[name], 1) for name in ("digit", "speaker", "take")}
    path = root / "spoken-digits.npz"
    np.savez(path, **twice)
    with pytest.raises(ValueError, match=r"recordings 0 and 1 of .* are the same"):
        read_spoken_digits(path)
    empty = twice | {"samples": samples, "lengths": np.insert(lengths, 2, 0)}
    np.savez(path, **empty)
    with pytest.raises(ValueError, match=r"recording 2 of .* has length 0"):
        read_spoken_digits(path)
    np.savez(path, **(arrays | {"lengths": lengths + 1}))
    with pytest.raises(ValueError, match="does not hold recordings"):
        read_spoken_digits(path)
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"cannot be read as \.npz"):
        read_spoken_digits(path)


def test_frames_are_those_of_the_definition():
    generator = torch.Generator().manual_seed(0)
    samples = torch.rand(1000, generator=generator, dtype=torch.float64) - 0.5
    log_mel = LogMel()
    frames = log_mel(samples)
    assert frames.shape == (1 + 1000 // 80, 40)
    # Frame 6 by the sum of the Fourier transform itself; frame t is centred at sample 80 t.
    piece = samples[6 * 80 - 128 : 6 * 80 + 128]
    n = torch.arange(256, dtype=torch.float64)
    window = 0.5 - 0.5 * torch.cos(2 * math.pi * n / 256)
    angles = -2 * math.pi * torch.outer(torch.arange(129, dtype=torch.float64), n) / 256
    spectrum = torch.complex(angles.cos(), angles.sin()) @ (window * piece).to(torch.complex128)
    expected = (log_mel.filters @ spectrum.abs().square() + log_mel.floor).log()
    torch.testing.assert_close(frames[6], expected)


def test_filters_are_triangles_and_their_power_is_undone():
    log_mel = LogMel()
    assert log_mel.filters.shape == (40, 129)
    assert (log_mel.filters.sum(1) > 0).all()
    # Between the first and the last centre, one filter falls as the next rises.
    bins = torch.linspace(0, 4000, 129, dtype=torch.float64)
    covered = log_mel.filters.sum(0)[(bins > log_mel.centres[0]) & (bins < log_mel.centres[-1])]
    torch.testing.assert_close(covered, torch.ones_like(covered))
    smooth = torch.linspace(1, 3, 129, dtype=torch.float64)[None]
    frames = (log_mel.filters @ smooth.T + log_mel.floor).log().T
    back = log_mel.power(frames)
    assert (log_mel.filters @ back.T).allclose(log_mel.filters @ smooth.T, rtol=1e-6)


@pytest.mark.slow
def test_the_real_spoken_digits():
    _is_real("spoken-digits.npz")
    data = load_data("spoken-digits")
    assert [len(data.train), len(data.validation), len(data.test)] == [2430, 270, 300]
    assert data.test_labels.bincount().tolist() == [30] * 10
    assert data.train.isfinite().all()
    assert max(part[0].max() for part in (data.train_context, data.validation_context)) == 229
