"""Latent variables of padded sequences: steps that are not there count nowhere."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.io import wavfile

from latente.guides import DiagonalNormal, SequencePosterior
from latente.inference import (
    Budget,
    calibrate,
    diagnose,
    encode,
    evaluate,
    latent_information,
    posterior_means,
    sample_prior,
    simulate,
)
from latente.inference.data.log_mel import LogMel
from latente.inference.diagnostics.budget import fitting
from latente.inference.evaluation.metrics import active_units
from latente.inference.reporting.sound import piano_sound, save_sound
from latente.inference.simulation import predictive
from latente.models import (
    Bernoulli,
    GatedTransition,
    MarkovChain,
    RecurrentReader,
    StateSpaceModel,
    mlp,
)

from .sequence_pair import there
from .state_space_oracle import LinearGaussianSequences, small_pair

LENGTHS = torch.tensor([6, 1, 4, 2, 6, 5, 3, 2])


def mean_field():
    """A pair of 8 keys whose posterior steps are independent, in float64."""
    torch.manual_seed(0)
    model = StateSpaceModel(GatedTransition(2, 4), mlp(2, 4, out=8), Bernoulli((8,)))
    reader = RecurrentReader(8, 5, direction="both")
    guide = SequencePosterior(reader, DiagonalNormal(mlp(10, out=4), 2))
    return model.double(), guide.double()


def rolls():
    x = torch.rand(8, 6, 8, generator=torch.Generator().manual_seed(1)).round().double()
    return x * there(x, LENGTHS)[..., None]


def padded(x, more):
    return torch.cat([x, x.new_full((len(x), more, *x.shape[2:]), 7.0)], 1)


def test_means_and_deviations_are_those_of_each_sequence_alone():
    model, guide = mean_field()
    x = rolls()
    codes = encode(model, guide, (x, LENGTHS), num_samples=20)
    for row, length in enumerate(LENGTHS.tolist()[:3]):
        alone = encode(model, guide, (x[row : row + 1, :length], LENGTHS[row : row + 1]),
                       num_samples=20)  # fmt: skip
        for mine, theirs in ((codes.mean, alone.mean), (codes.sd, alone.sd)):
            torch.testing.assert_close(mine["z"][row, :length], theirs["z"][0], rtol=0, atol=1e-12)
            assert mine["z"][row, length:].isnan().all()
    table = codes.to_frame()
    assert table["z_2_1_mean"].isna().tolist() == (LENGTHS < 2).tolist()


def test_means_of_a_chain_are_those_of_its_draws_with_padding_or_without():
    """Each number is within 5 standard errors of 1,000 draws: false alarm below 1e-5 in all."""
    oracle = LinearGaussianSequences(latent_dim=2)
    x = oracle.sample(3, 5)

    def guide(x, lengths):
        with pyro.plate("data", len(x)):
            pyro.sample("z", oracle.posterior(x, lengths))

    lengths = torch.tensor([5, 2, 3])
    codes = encode(oracle.model(), guide, (x, lengths), num_samples=20)
    longer = encode(oracle.model(), guide, (padded(x, 3), lengths), num_samples=20)
    for row, length in enumerate(lengths.tolist()):
        one = x[row : row + 1, :length], lengths[row : row + 1]
        alone = encode(oracle.model(), guide, one, num_samples=20)
        error = alone.sd["z"][0] * math.sqrt(2 / 1000)
        for found in (codes, longer):
            difference = (found.mean["z"][row, :length] - alone.mean["z"][0]).abs()
            assert (difference < 5 * error).all()
            ratio = found.sd["z"][row, :length] / alone.sd["z"][0]
            assert ((ratio - 1).abs() < 5 * math.sqrt(1 / 1000)).all()


def test_the_guide_reads_the_data_once_for_the_means_of_a_chain(monkeypatch):
    model, guide = small_pair()
    monkeypatch.setattr(predictive, "draws_at_once", lambda guide, args, trace, num: 1)
    calls = []
    read = type(guide.reader).forward

    def count(self, *args):
        calls.append(1)
        return read(self, *args)

    monkeypatch.setattr(type(guide.reader), "forward", count)
    x = torch.randn(4, 6, 4).double()
    posterior_means(model, guide, (x, torch.tensor([6, 1, 4, 2])))
    assert len(calls) < 30  # not 1,000


def test_units_are_counted_over_the_sequences_that_have_the_step():
    model, guide = mean_field()
    x = rolls()
    means, flags = posterior_means(model, guide, (x, LENGTHS))["z"], there(x, LENGTHS)
    variance = torch.full((6, 2), torch.nan).double()
    for step in range(6):
        values = means[flags[:, step], step]
        variance[step] = values.var(0)
    threshold = variance.median().item()
    assert active_units(means, threshold, present=flags) == int((variance > threshold).sum())
    assert active_units(means + 5 * flags[..., None], threshold) != active_units(
        means + 5 * flags[..., None], threshold, present=flags
    )
    found, longer = (
        evaluate(model, guide, (value, LENGTHS), num_samples=20) for value in (x, padded(x, 4))
    )
    assert found["latent_dim"] == longer["latent_dim"] == 12
    assert found["active_units"] == longer["active_units"] == active_units(means, present=flags)
    information = latent_information(model, guide, (padded(x, 4), LENGTHS))
    torch.testing.assert_close(information.mean_variance["z"][:6], variance)
    assert information.mean_variance["z"][6:].isnan().all()
    assert information.latent_dim == 12
    assert "different lengths" in information.note
    short = latent_information(model, guide, (x, LENGTHS))
    assert short.latent_dim == information.latent_dim
    assert not short.idle


def test_a_chain_of_steps_that_are_the_prior_is_idle_where_it_is():
    """The diagnostic fires: a posterior that is the prior has collapsed, its padding apart."""
    chain = {"num_steps": 6, "memoryless": True}

    def standard(z, steps):
        return dist.Normal(torch.zeros(z.shape[-2:] if z.dim() > 1 else z.shape), 1.0).to_event(1)

    def prior(x, lengths):
        start = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        return MarkovChain(start, standard, present=there(x, lengths), **chain)

    def model(x, lengths):
        with pyro.plate("data", len(x)):
            pyro.sample("z", prior(x, lengths))
            pyro.sample("x", dist.Bernoulli(torch.full_like(x, 0.5)).to_event(2), obs=x)

    def guide(x, lengths):
        with pyro.plate("data", len(x)):
            pyro.sample("z", prior(x, lengths))

    found = latent_information(model, guide, (rolls().float(), LENGTHS))
    assert found.collapsed
    assert found.active_units == 0


def test_the_prior_is_drawn_with_lengths_of_the_data_or_others():
    model, guide = mean_field()
    x = rolls()
    means, drawn = sample_prior(model, guide, 10, (x, LENGTHS))
    assert drawn.shape == (10, 6, 8)
    turns = LENGTHS[torch.arange(10) % 8]
    assert (drawn * ~there(drawn, turns)[..., None] == 0).all()
    assert means[0].min() > 0
    lengths = torch.tensor([1, 9, 3])
    means, drawn = sample_prior(model, guide, 3, (x, LENGTHS), lengths=lengths)
    assert drawn.shape == (3, 9, 8)
    beyond = ~there(drawn, lengths)
    assert (drawn[beyond] == 0).all()
    assert (means[beyond] == 0).all()
    assert (means[~beyond] > 0).all()
    assert sample_prior(model, guide, 2, (x, LENGTHS), lengths=4)[1].shape == (2, 4, 8)
    with pytest.raises(ValueError, match="these data have none"):
        sample_prior(model, guide, 2, x, lengths=4)
    with pytest.raises(ValueError, match="a sequence has at least 1 step"):
        sample_prior(model, guide, 2, (x, LENGTHS), lengths=[4, 0])


def test_ragged_sequences_are_simulated_and_a_wrong_guide_is_found():
    """The exact posterior passes (5 % false alarm, seed fixed); one with half the scales fails."""
    oracle = LinearGaussianSequences(latent_dim=1, observed_dim=2)
    model, lengths = oracle.model(), torch.tensor([4, 1, 2, 3])

    def guide_of(widen):
        def guide(x, lengths):
            with pyro.plate("data", len(x)):
                pyro.sample("z", oracle.posterior(x, lengths, widen))

        return guide

    like = oracle.sample(4, 4), lengths
    (x, drawn_lengths), values = simulate(model, guide_of(1.0), like, 6)
    assert drawn_lengths.tolist() == [4, 1, 2, 3, 4, 1]
    beyond = ~there(x, drawn_lengths)
    assert (x[beyond] == 0).all()
    assert (values["z"][beyond] == 0).all()
    assert (x[~beyond] != 0).all()
    settings = {"num_simulations": 400, "num_draws": 50, "seed": 1}
    assert not calibrate(model, guide_of(1.0), like, **settings).miscalibrated
    narrow = calibrate(model, guide_of(0.5), like, **settings)
    assert "overconfident" in narrow.miscalibrated.values()


def test_large_latents_make_the_defaults_smaller_and_the_page_says_so():
    assert fitting(Budget(), 129 * 64, 77).annealed_data == 0
    assert fitting(Budget(num_samples=900), 129 * 64, 77).num_samples == 900
    assert fitting(Budget(), 100, 77) == Budget()
    torch.manual_seed(0)
    steps, num = 16, 4
    model = StateSpaceModel(GatedTransition(64, 4), mlp(64, out=2), Bernoulli((2,)))
    guide = SequencePosterior(RecurrentReader(2, 4), DiagonalNormal(mlp(4, out=128), 64))
    x = torch.rand(num, steps, 2).round()
    budget = Budget(num_data=4, num_samples=20, simulations=0, replications=0, tree_samples=2)
    found = diagnose(model, guide, (x, torch.full((num,), steps)), budget=budget)
    told = {finding.topic: finding.sentence for finding in found.findings}
    for topic in ("annealing", "gap", "NUTS"):
        assert told[topic].startswith("Left out: a datum has 1,024 latent numbers")
    assert "draws for each in place of 300" in told["amount of work"]
    assert "Nothing can be said about: annealing, gap, NUTS" in found.verdict


def test_an_argument_named_lengths_that_holds_none():
    """Rings beside 3 measures of a fish: no figures per step; out of range, a line says why."""

    def model(x, lengths):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.1 * lengths.double(), 1.0))
            pyro.sample("x", dist.Normal(z[:, None].expand(x.shape), 1.0).to_event(1), obs=x)

    def guide(x, lengths):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.mean(1), 1.0))

    x = torch.randn(4, 3).double()
    figures = evaluate(model, guide, (x, torch.tensor([1, 2, 3, 1])), num_samples=9)
    assert not any("step" in name for name in figures)
    with pytest.raises(ValueError, match="the model's argument 'lengths': give that another name"):
        evaluate(model, guide, (x, torch.tensor([30, 25, 41, 37])), num_samples=9)


class TestSound:
    def test_a_key_sounds_at_its_pitch_while_it_is_held(self):
        roll = np.zeros((4, 88))
        roll[1:3, 60 - 21] = 1
        sound = piano_sound(roll, steps_per_second=1)
        assert sound.shape == (64_000,)
        assert abs(sound[:16_000]).max() == 0
        assert abs(sound[48_000:]).max() == 0
        spectrum = np.abs(np.fft.rfft(sound[16_000:48_000]))
        assert abs(spectrum.argmax() / 2 - 261.63) < 0.5  # middle C

    def test_what_is_no_roll_is_refused(self):
        with pytest.raises(ValueError, match=r"has the shape \(T, keys\)"):
            piano_sound(np.zeros(88))

    def test_sound_is_written_and_read_back(self, tmp_path):
        sound = np.sin(np.arange(1000) / 5)
        save_sound(tmp_path / "tone.wav", 3 * sound, 8000)
        rate, values = wavfile.read(tmp_path / "tone.wav")
        assert rate == 8000
        np.testing.assert_allclose(values / (2**15 - 1), sound / abs(sound).max(), atol=1e-4)
        with pytest.raises(ValueError, match="all of them finite"):
            save_sound(tmp_path / "none.wav", [math.nan], 8000)

    def test_frames_become_sound_with_such_frames(self):
        time = torch.arange(4000) / 8000
        tone = 0.5 * torch.sin(2 * math.pi * 700 * time * (1 + time))
        frames = LogMel()(tone)
        sound = LogMel().inverse(frames)
        assert sound.shape == (4000,)
        again = LogMel()(sound)
        loud = frames > frames.max() - 5
        assert (again - frames)[loud].abs().median() < 0.3
        assert torch.equal(sound, LogMel().inverse(frames))
        with pytest.raises(ValueError, match="two or more"):
            LogMel().inverse(frames[:1])
