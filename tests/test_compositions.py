"""Choices on all axes together: each composition trains, or is refused before data are read.

Not all compositions, but a covering design of them: each pair of choices on two axes is met in one
that trains, where there is one, else in one that is refused.
"""

import itertools
import math
import random
import re

import numpy as np
import pytest

from latente.inference import load_run
from latente.inference.recipes.axes import AXES as REGISTRIES
from latente.inference.recipes.plan import Plan, complete
from latente.inference.recipes.train import train

DATA_KINDS = {
    "bernoulli": "bits",
    "continuous-bernoulli": "unit",
    "logistic:components=2": "levels",
    "normal": "reals",
    "student-t:scale=predicted": "reals",
    "categorical": "codes",
    "poisson": "counts",
    "negative-binomial:total_count=shared": "counts",
}
AXES = {
    "levels": ("one", "bottom-up:3-2,4-4", "top-down:3-2,4-4", "ladder:3-2,4-4,skip=true",
               "residual:3-2,4-4", "maps:3-2,4-4"),
    "prior": ("standard", "mixture:components=3", "vamp:components=3", "flow", "conditional"),
    "posterior": ("diagonal", "full-rank", "planar:transforms=1", "iaf", "spline", "point"),
    "likelihood": tuple(DATA_KINDS),
    "network": ("mlp", "conv:residual_blocks=1,channels=2-3",
                "pixelcnn:receptive_field=1,layers=1,channels=4,features=2"),
    "objective": ("elbo", "elbo:num_particles=2", "iwae:k=2,gradient=dreg", "info:strength=2",
                  "info:alpha=0.5,strength=2", "total-correlation", "score-function"),
    "beta": (None, "0", "4", "warmup:1", "cyclical:1,rise=0.3"),
    "free_bits": (None, 0.1),
    "given": ("none", "labels", "quadrant", "quadrants:2"),
    "data": ("digits", "own"),
    "binarize": (None, "dynamic"),
}  # fmt: skip
"""``own`` are data of the likelihood's kind, in a file."""


def refusals(row):
    """Why a composition makes no sense, before data are read: in words of each reason."""
    name = {axis: str(row[axis]).split(":")[0] for axis in row}
    point, given = row["posterior"] == "point", row["given"] != "none"
    several = name["levels"] != "one"
    reasons = {
        "need a posterior with a density": several and point,
        "is for one latent variable, and not for --levels": several and name["network"] != "mlp",
        "take no context yet": several and (given or name["prior"] == "conditional"),
        "gives no posterior of the top level": name["levels"] == "bottom-up"
        and name["prior"] == "vamp",
        "compares one latent variable with its prior": several
        and name["objective"] in ("info", "total-correlation"),
        "has no KL for --beta": row["beta"] is not None
        and name["objective"] not in ("elbo", "total-correlation"),
        "has no free bits": row["free_bits"] and name["objective"] != "elbo",
        "which --beta 0 leaves out": row["free_bits"] and row["beta"] == "0",
        "a point without a density": point and name["prior"] == "vamp",
        "on one point, which has no density": point
        and row["objective"] not in ("elbo", "elbo:num_particles=2", "info:strength=2"),
        "no KL to weigh": point and (row["beta"] not in (None, "0") or row["free_bits"]),
        "all particles are the same": point and row["objective"] == "elbo:num_particles=2",
        "cannot be drawn with a gradient": name["objective"] == "info"
        and name["prior"] in ("mixture", "vamp"),
        "no product over dimensions": name["objective"] == "total-correlation"
        and (row["posterior"] != "diagonal" or name["prior"] not in ("standard", "conditional")),
        "needs a context": name["prior"] == "conditional" and not given,
        "pseudo-inputs of the prior vamp do not have": name["prior"] == "vamp" and given,
        "no image for the network": name["network"] != "mlp" and row["given"][:4] == "quad",
        "are free to leave": name["prior"] == "vamp"
        and DATA_KINDS[row["likelihood"]] == "counts",
        "holds grey values in": row["data"] == "digits"
        and row["binarize"] is None
        and DATA_KINDS[row["likelihood"]] in ("codes", "counts"),
        "has 17 grey levels": row["data"] == "digits"
        and row["binarize"] is None
        and name["likelihood"] == "logistic",
    }  # fmt: skip
    return [reason for reason, holds in reasons.items() if holds]


NUM_REASONS = 20
"""How many reasons there are."""


def refused_once_read(row):
    """Whether the values of the data turn out not to be what is asked for."""
    kind = DATA_KINDS[row["likelihood"]]
    return row["data"] == "own" and row["binarize"] and kind in ("reals", "codes", "counts")


def trains(row):
    return not refusals(row) and not refused_once_read(row)


def pairs_of(row):
    return set(itertools.combinations(row.items(), 2))


def improved(row, left):
    """A row that trains and meets more of the pairs that are left, by changes on one axis each."""
    gain, better = len(left & pairs_of(row)), True
    while better:
        better = False
        for axis, choices in AXES.items():
            for choice in choices:
                other = {**row, axis: choice}
                if len(left & pairs_of(other)) > gain and trains(other):
                    row, gain, better = other, len(left & pairs_of(other)), True
    return row


def covering_design():
    """Rows that meet each pair of choices, as said above; the same rows each time."""
    rng = random.Random(0)
    drawn = [{axis: rng.choice(choices) for axis, choices in AXES.items()} for _ in range(40_000)]
    why = [refusals(row) for row in drawn]
    good = [
        (row, pairs_of(row))
        for row, reasons in zip(drawn, why, strict=True)
        if not reasons and not refused_once_read(row)
    ]
    possible = set().union(*(pairs for _, pairs in good))
    left, rows = set(possible), []
    while left:
        row, _ = max(good, key=lambda entry: len(left & entry[1]))
        rows.append(improved(row, left))
        left -= pairs_of(rows[-1])
    for first, second in itertools.combinations(AXES.items(), 2):
        for a, b in itertools.product(first[1], second[1]):
            if ((first[0], a), (second[0], b)) not in possible:
                plain = {axis: choices[0] for axis, choices in AXES.items()}
                rows.append({**plain, first[0]: a, second[0]: b})
    for reason in {reason for reasons in why for reason in reasons}:
        if not any(reason in refusals(row) for row in rows):
            rows.append(drawn[why.index([reason])])
    return rows


ROWS = covering_design()


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Data of each kind, 40 images of 8 × 8 with labels."""
    folder, rng = tmp_path_factory.mktemp("own"), np.random.default_rng(0)
    shape = 40, 8, 8
    values = {
        "bits": rng.integers(0, 2, shape).astype(np.float32),
        "unit": rng.random(shape, dtype=np.float32),
        "levels": rng.integers(0, 256, shape).astype(np.uint8),
        "reals": rng.normal(size=shape).astype(np.float32),
        "codes": rng.integers(0, 4, shape),
        "counts": rng.poisson(3.0, shape),
    }
    for kind, x in values.items():
        np.savez(folder / f"{kind}.npz", x=x, y=np.arange(40) % 3)
    return {likelihood: str(folder / f"{kind}.npz") for likelihood, kind in DATA_KINDS.items()}


pytestmark = pytest.mark.usefixtures("few_digits")  # one step goes by their kind, not number


def plan_of(row, own):
    data = "digits" if row["data"] == "digits" else own[row["likelihood"]]
    batch_size = 240 if row["data"] == "digits" else 32  # one step
    hidden = (4,) if row["levels"] == "one" else None
    return Plan(**{**row, "data": data}, hidden=hidden, epochs=1, batch_size=batch_size)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(map(str, row.values())))
def test_a_composition_trains_or_is_refused_before_data_are_read(row, own, tmp_path, monkeypatch):
    plan, reasons = plan_of(row, own), refusals(row)
    if reasons:
        monkeypatch.setattr("latente.inference.recipes.plan_data.load_data", pytest.fail)
        with pytest.raises(ValueError, match="|".join(map(re.escape, reasons))) as caught:
            train(plan, tmp_path / "run", device="cpu", show_progress=False)
        assert "\n" not in str(caught.value)
    elif refused_once_read(row):
        with pytest.raises(ValueError, match="cannot be binarized"):
            train(plan, tmp_path / "run", device="cpu", show_progress=False)
    else:
        run = train(plan, tmp_path / "run", device="cpu", show_progress=False)
        assert math.isfinite(run.history[0]["loss"])
        assert load_run(tmp_path / "run").epoch == 1
        return
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("axis", REGISTRIES)
def test_every_part_is_in_the_design(axis):
    """A new part joins by one entry in ``AXES``; the likelihood of tables is in test_columns.py,
    and parts of models of sequences in test_sequence_recipes.py."""
    names = {text.split(":")[0] for text in AXES[axis] if text is not None}
    numbers = {name for name in names if name.isdigit()}
    known = {name for name, part in REGISTRIES[axis].items() if not part.sequences}
    known -= {
        "columns",
        "draw",
        "some-labels",
    }  # of tables, test_draw.py, test_half_labelled_recipes
    known -= {"fsq", "vq", "gumbel", "codes", "learned-codes", "concrete"}  # test_codebooks.py
    assert names - numbers | ({"constant"} if numbers else set()) == known


def test_the_design_has_compositions_of_both_kinds():
    met = set().union(*map(pairs_of, ROWS))
    assert len(met) >= sum(len(a) * len(b) for a, b in itertools.combinations(AXES.values(), 2))
    assert sum(map(trains, ROWS)) >= 60
    assert len({reason for row in ROWS for reason in refusals(row)}) == NUM_REASONS


def test_compositions_drawn_from_all_are_refused_as_predicted(own):
    rng = random.Random(1)
    for _ in range(1500):
        row = {axis: rng.choice(choices) for axis, choices in AXES.items()}
        reasons = refusals(row)
        if reasons:
            with pytest.raises(ValueError, match="|".join(map(re.escape, reasons))):
                complete(plan_of(row, own))
        else:
            complete(plan_of(row, own))
