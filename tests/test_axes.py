"""Axes: the text of a choice is read once, printed as it was, and refused with a reason."""

import re

import pytest

from latente.inference import LIKELIHOODS, OBJECTIVES, PRIORS, Axis, Part
from latente.inference.recipes.axes import AXES
from latente.inference.recipes.parameters import text_of
from latente.inference.recipes.weights import WEIGHTS

PARTS = [(axis, part) for axis, known in AXES.items() for part in known.values()]


@pytest.mark.parametrize(("axis", "part"), PARTS, ids=[f"{a}-{p.name}" for a, p in PARTS])
def test_every_part_is_read_with_its_parameters_written_out(axis, part):
    plain = AXES[axis].parse(part.name)
    assert str(plain) == part.name
    assert part.summary
    assert part.paper
    assert [name for name, _ in plain.values] == [known.name for known in part.parameters]
    listed = ",".join(f"{name}={text_of(value)}" for name, value in plain.values)
    written = AXES[axis].parse(f"{part.name}:{listed}" if listed else part.name)
    assert written == plain
    assert hash(written) == hash(plain)
    assert [type(value) for _, value in written.values] == [type(v) for _, v in plain.values]


@pytest.mark.parametrize(
    ("axis", "text", "values"),
    [
        (PRIORS, "vamp:components=100", {"components": 100}),
        (PRIORS, "vamp:100", {"components": 100}),
        (
            OBJECTIVES,
            "iwae:50,gradient=dreg",
            {"k": 50, "m": 1, "gradient": "dreg", "elbo_weight": 0.0, "partial": False},
        ),
        (LIKELIHOODS, "normal:scale=0.10", {"scale": 0.1}),
        (LIKELIHOODS, "student-t:scale=predicted", {"df": "learned", "scale": "predicted"}),
        (WEIGHTS, "0.5", {"value": 0.5}),
        (WEIGHTS, "warmup:20, stop=2", {"epochs": 20.0, "start": 0.0, "stop": 2.0}),
    ],
)
def test_a_choice_prints_back_to_its_text(axis, text, values):
    choice = axis.parse(f" {text} ")
    assert str(choice) == text
    assert dict(choice.values) == values
    assert axis.parse(str(choice)) == choice


def test_choices_are_equal_where_their_values_are():
    parse = OBJECTIVES.parse
    assert parse("iwae") == parse("iwae:k=5") == parse("iwae:5") == parse("iwae:m=1,k=5")
    assert parse("iwae") != parse("iwae:k=6")
    assert WEIGHTS.parse("4") == WEIGHTS.parse("4.0") == WEIGHTS.parse("constant:4")


@pytest.mark.parametrize(
    ("axis", "text", "message"),
    [
        (PRIORS, "", "there is no prior '': there are standard, mixture, vamp, flow, conditional"),
        (
            PRIORS,
            "mixtur",
            "there is no prior 'mixtur': did you mean 'mixture'? there are",
        ),
        (PRIORS, "vamp:", "'vamp:' ends in a colon: write vamp, or vamp:components=500 with other"),
        (
            PRIORS,
            "vamp:0",
            "components of the prior vamp must be a whole number of at least 1, g",
        ),
        (PRIORS, "vamp:2.5", "must be a whole number of at least 1, got '2.5'"),
        (PRIORS, "vamp:3,4", "the prior vamp has no parameter for '4': write vamp, or"),
        (PRIORS, "vamp:3,components=4", "components of the prior vamp is given twice"),
        (PRIORS, "vamp:k=3", "the prior vamp has no parameter 'k': it takes components"),
        (PRIORS, "standard:3", "the prior standard has no parameter for '3': it takes no param"),
        (OBJECTIVES, "iwae:k=5,3", "without a name come first, unlike '3'"),
        (OBJECTIVES, "iwae:gradient=fast", "must be plain, stl or dreg, got 'fast'"),
        (
            OBJECTIVES,
            "iwae:partial=1",
            "partial of the objective iwae must be true or false, got",
        ),
        (
            OBJECTIVES,
            "iwae:elbo_weight=2",
            "elbo_weight of the objective iwae must be a number from",
        ),
        (
            OBJECTIVES,
            "info:strength=nan",
            "strength of the objective info must be a number of at",
        ),
        (LIKELIHOODS, "normal:scale=-1", "must be learned, shared, predicted or a positive number"),
        (WEIGHTS, "inf", "value of the KL weight constant must be a number of at least 0"),
        (
            WEIGHTS,
            "warmup:0",
            "epochs of the KL weight warmup must be a positive number, got '0'",
        ),
        (
            AXES["network"],
            "conv:channels=8-0",
            "channels of the network conv must be whole numbers",
        ),
        (AXES["given"], "quadrants:4", "num of the context quadrants must be 1, 2 or 3, got '4'"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_is_allowed(axis, text, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        axis.parse(text)
    assert "\n" not in str(caught.value)


def test_an_axis_of_ones_own():
    axis = Axis("prior", Part("a", "one", "none", lambda: 1), Part("b", "two", "none", lambda: 2))
    assert list(axis) == ["a", "b"]
    assert len(axis) == 2
    assert axis.parse("b").build() == 2
