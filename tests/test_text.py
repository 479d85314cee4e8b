"""The text VAE: exact probabilities of sequences, decoding, and what the library makes of it."""

import itertools
import math
import runpy
from pathlib import Path

import numpy as np
import pyro
import pytest
import scipy.stats
import torch
from torch import nn

from latente.guides import DiagonalNormal
from latente.inference import (
    Beta_ELBO,
    Warmup,
    active_units,
    evaluate,
    fit,
    latent_information,
    load_data,
    log_evidence,
    simulate,
)
from latente.models import (
    VAE,
    Categorical,
    Conditional,
    FlattenEvent,
    Normal,
    OneHot,
    RecurrentLikelihood,
    RecurrentReader,
    SequenceEncoder,
    StandardNormal,
    beam_search,
    mlp,
)

from .test_recorded_steps import equal, run_steps

K, STEPS, DIM = 3, 4, 2


def all_sequences(steps=STEPS):
    """Every sequence of tokens 1, 2 that ends with 0 within T steps, and each that does not."""
    ended = [
        (*kept, *[0] * (steps - size))
        for size in range(steps)
        for kept in itertools.product((1, 2), repeat=size)
    ]
    return torch.tensor([*ended, *itertools.product((1, 2), repeat=steps)])


def recurrent(cell=nn.GRU, num_tokens=K, **options):
    """A likelihood of tokens with weights that are not small, in float64."""
    likelihood = RecurrentLikelihood(
        Categorical((), num_tokens), 6, latent_features=DIM, cell=cell, end=0, **options
    ).double()
    for value in likelihood.parameters():
        nn.init.normal_(value, std=0.7)
    return likelihood


def text_pair(num_tokens=K, cell=nn.GRU, dim=DIM, hidden=8, **options):
    likelihood = RecurrentLikelihood(
        Categorical((), num_tokens), hidden, latent_features=dim, cell=cell, end=0, **options
    )
    reader = RecurrentReader((), hidden, cell=cell, embed=nn.Embedding(num_tokens, 4))
    encoder = SequenceEncoder(reader, nn.Linear(hidden, 2 * dim), end=0)
    model = VAE(StandardNormal(dim), nn.Identity(), likelihood)
    return model, DiagonalNormal(encoder, dim)


def some_lines(num=60, steps=7, num_tokens=K):
    lengths = torch.randint(2, steps + 1, (num,))
    x = torch.randint(1, num_tokens, (num, steps))
    return x.masked_fill(torch.arange(steps) >= lengths[:, None] - 1, 0), lengths


# --- The likelihood.


@pytest.mark.parametrize("cell", [nn.GRU, nn.LSTM, nn.RNN])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_probabilities_of_all_sequences_sum_to_one(cell, num_layers):
    likelihood = recurrent(cell, num_layers=num_layers)
    x, z = all_sequences(), torch.randn(4, 1, DIM).double()
    log_prob = likelihood(z, STEPS).log_prob(x)
    assert log_prob.shape == (4, len(x))
    assert torch.allclose(log_prob.exp().sum(-1), torch.ones(4).double(), rtol=0, atol=1e-12)
    with torch.no_grad():  # in parts that fit the memory
        assert torch.allclose(likelihood(z, STEPS).log_prob(x), log_prob, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cell", [nn.GRU, nn.LSTM])
def test_one_pass_is_the_product_of_the_steps(cell):
    likelihood, z = recurrent(cell), torch.randn(DIM).double()
    for x in all_sequences():
        state, before, total = likelihood.network.first_state(z[None]), None, 0.0
        for token in x:
            features, state = likelihood.network.advance(before, z[None], state)
            total += features[0].log_softmax(-1)[token].item()
            before = token[None]
            if token == 0:
                break
        assert likelihood(z, STEPS).log_prob(x).item() == pytest.approx(total, abs=1e-12)


def test_padding_changes_nothing():
    likelihood, z = recurrent(), torch.randn(1, DIM).double().requires_grad_()
    x = all_sequences()[:7]  # those that end
    short = likelihood(z, STEPS).log_prob(x)
    longer = torch.cat([x, torch.full((len(x), 3), 99)], 1)  # 99 is no token
    assert torch.equal(likelihood(z, STEPS + 3).log_prob(longer), short)
    assert likelihood(z, STEPS + 3).support.check(longer).all()
    lengths = (x != 0).sum(1) + 1
    vae = VAE(StandardNormal(DIM), nn.Identity(), likelihood)
    for rows in ((x,), (x, lengths), (longer, lengths)):
        with pyro.poutine.trace() as trace, pyro.condition(data={"z": z.expand(len(x), -1)}):
            vae(*rows)
        assert torch.equal(trace.trace.nodes["x"]["fn"].log_prob(rows[0]), short)


def test_draws_have_the_probabilities_of_sequences():
    """A χ² test whose false-alarm rate is 1e-4; the seed is fixed."""
    torch.manual_seed(0)
    likelihood, z, x = recurrent(), torch.randn(DIM).double(), all_sequences(3)
    for temperature, num in ((1.0, 20_000), (0.5, 20_000)):
        drawn = likelihood(z, 3).draw(temperature, sample_shape=(num,))
        codes, known = (part @ torch.tensor([9, 3, 1]) for part in (drawn, x))
        counts = (codes[:, None] == known).sum(0)
        assert counts.sum() == num  # no draw goes on after its end
        with torch.no_grad():
            steps = likelihood(z, 3)
            if temperature == 1:
                expected = steps.log_prob(x).exp()
            else:
                features = likelihood.network.read(x, z.expand(len(x), -1)) / temperature
                step = features.log_softmax(-1).gather(-1, x[..., None])[..., 0]
                expected = torch.where(steps.present_in(x), step, 0).sum(-1).exp()
        found = scipy.stats.chisquare(counts.numpy(), (expected * num).numpy())
        assert found.pvalue > 1e-4


def test_beam_search_finds_the_most_probable_sequence():
    torch.manual_seed(3)
    likelihood, z, x = recurrent(nn.LSTM), 2 * torch.randn(20, DIM).double(), all_sequences(5)
    with torch.no_grad():
        exact = likelihood(z[:, None], 5).log_prob(x)
    tokens, log_prob = beam_search(likelihood(z, 5), width=32)
    assert torch.equal(tokens, x[exact.argmax(-1)])
    assert torch.allclose(log_prob, exact.max(-1).values, rtol=0, atol=1e-12)
    greedy, of_greedy = beam_search(likelihood(z, 5), width=1)
    assert torch.equal(greedy, likelihood(z, 5).draw(0.0))
    for width in (2, 3):
        found, of_found = beam_search(likelihood(z, 5), width)
        with torch.no_grad():
            scored = likelihood(z, 5).log_prob(found)
        assert torch.allclose(scored, of_found, rtol=0, atol=1e-12)
        assert (of_found <= log_prob + 1e-12).all()
    assert (of_greedy < log_prob - 1e-6).any()  # so the search is worth something here


def test_beam_search_counts_no_step_beyond_given_lengths():
    torch.manual_seed(3)
    step, lengths = Categorical((), 3), torch.tensor([1, 4, 2])
    likelihood = RecurrentLikelihood(step, 6, latent_features=DIM).double()
    x = torch.tensor(list(itertools.product(range(3), repeat=4)))
    given = likelihood(2 * torch.randn(3, DIM).double(), torch.arange(4) < lengths[:, None])
    with torch.no_grad():
        best = torch.stack([given.log_prob(one.expand(3, 4)) for one in x]).max(0).values
    tokens, log_prob = beam_search(given, width=81)
    assert torch.allclose(log_prob, best, rtol=0, atol=1e-12)
    assert torch.allclose(log_prob, given.log_prob(tokens), rtol=0, atol=1e-12)
    assert not tokens[torch.arange(4) >= lengths[:, None]].any()


def test_word_dropout_hides_steps_in_training_alone():
    likelihood, x = recurrent(word_dropout=0.5, num_tokens=4), torch.tensor([[1, 3, 2, 3, 1, 0]])
    without, z = recurrent(num_tokens=4), torch.randn(1, DIM).double()
    without.load_state_dict(likelihood.state_dict())
    exact = without(z, 6).log_prob(x)
    likelihood.eval()
    assert torch.equal(likelihood(z, 6).log_prob(x), exact)
    likelihood.train()
    several = [likelihood(z, 6).log_prob(x).item() for _ in range(20)]
    assert len(set(several)) > 5
    torch.manual_seed(1)
    one = likelihood(z, 6).log_prob(x)
    torch.manual_seed(1)
    assert torch.equal(likelihood(z, 6).log_prob(x), one)
    likelihood.network.word_dropout = 1 - 1e-12
    hidden = likelihood.network.read(x, z)
    assert torch.equal(hidden, likelihood.network.read(x.flip(1), z))  # all steps are hidden
    assert not torch.equal(hidden, without.network.read(x, z))


def test_other_steps_than_tokens_and_nan_in_the_padding():
    likelihood = RecurrentLikelihood(Normal((2,), scale=0.5), 6, latent_features=DIM)
    likelihood = likelihood.double()
    x, lengths = torch.randn(3, 5, 2).double(), torch.tensor([5, 2, 3])
    present = torch.arange(5) < lengths[:, None]
    z = torch.randn(3, DIM).double()
    features = likelihood.network.read(x, z)
    by_hand = torch.distributions.Normal(features, 0.5).log_prob(x).sum(-1)
    x = x.masked_fill(~present[..., None], math.nan)
    log_prob = likelihood(z, present).log_prob(x)
    assert torch.allclose(log_prob, by_hand.masked_fill(~present, 0).sum(-1), rtol=0, atol=1e-12)
    log_prob.sum().backward()
    assert all(value.grad.isfinite().all() for value in likelihood.parameters())
    assert likelihood(z, present).support.check(x).all()
    drawn = likelihood(z, present).sample((4,))
    assert drawn.shape == (4, 3, 5, 2)
    assert torch.equal((drawn != 0).all(-1), present.expand(4, 3, 5))
    with pytest.raises(ValueError, match="a temperature is for sequences of tokens"):
        likelihood(z, present).draw(0.5)
    with pytest.raises(ValueError, match="beam_search is for sequences of tokens"):
        beam_search(likelihood(z, present))


def test_a_reset_draws_all_weights_anew():
    likelihood = recurrent(num_layers=2)
    before = {name: value.clone() for name, value in likelihood.named_parameters()}
    likelihood.reset_parameters()
    after = dict(likelihood.named_parameters())
    assert all(not (before[name] == value).any() for name, value in after.items())
    assert all(value.abs().max() < 5 for value in after.values())


# --- The encoder.


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
def test_an_encoder_reads_each_sequence_within_its_length(direction):
    reader = RecurrentReader((), 5, direction=direction, embed=nn.Embedding(K, 4))
    x, lengths = some_lines()
    cut = SequenceEncoder(reader, mlp(reader.num_features, out=4))
    features = cut(x, lengths)
    alone = [cut(row[None, :length]) for row, length in zip(x, lengths, strict=True)]
    assert torch.allclose(features, torch.cat(alone), atol=1e-6)
    by_end = SequenceEncoder(reader, cut.network, end=0)
    assert torch.allclose(by_end(x), features, atol=1e-6)
    assert torch.equal(by_end(x, torch.full_like(lengths, 7)), by_end(x))
    garbage = torch.where(torch.arange(7) < lengths[:, None], x, 99)
    assert torch.equal(by_end(garbage, lengths), by_end(x))


# --- In the library.


def test_evidence_is_the_integral_over_z():
    """Gauss–Hermite quadrature of one latent dimension; the error is below 4.5 standard errors of
    7 estimates, which fails by chance once in 20,000."""
    torch.manual_seed(0)
    model, guide = text_pair(dim=1)
    model, guide = model.double(), guide.double()
    for value in model.parameters():
        nn.init.normal_(value, std=0.7)
    x = all_sequences(3)[:7]
    lengths = (x != 0).sum(1) + 1
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    with torch.no_grad():
        log_px_given_z = model.likelihood(torch.from_numpy(nodes)[:, None, None], 3).log_prob(x)
    weights = torch.from_numpy(weights / weights.sum())
    exact = (log_px_given_z + weights.log()[:, None]).logsumexp(0)
    found = log_evidence(model, guide, (x, lengths), num_samples=4000)
    assert ((found.log_px - exact).abs() < 4.5 * found.standard_error).all()
    figures = evaluate(model, guide, (x, lengths), num_samples=200)
    per_token = -len(x) / lengths.sum().item()
    assert figures["num_steps"] == lengths.sum()
    for name, figure in (
        ("perplexity", "log_evidence"),
        ("perplexity_elbo", "elbo"),
        ("perplexity_reconstruction", "reconstruction"),
    ):
        assert figures[name] == pytest.approx(math.exp(figures[figure] * per_token), rel=1e-9)
    assert figures["perplexity"] < figures["perplexity_elbo"]


def test_figures_count_no_padding():
    torch.manual_seed(0)
    model, guide = text_pair()
    x, lengths = some_lines()
    wider = torch.cat([x, torch.zeros(len(x), 5, dtype=x.dtype)], 1)
    narrow, wide = (
        (
            evaluate(model, guide, rows, num_samples=20),
            latent_information(model, guide, rows).mutual_information,
        )
        for rows in ((x, lengths), (wider, lengths))
    )
    assert narrow[0] == pytest.approx(wide[0], rel=1e-5)
    assert narrow[1] == pytest.approx(wide[1], rel=1e-4)
    assert narrow[0]["num_steps"] == lengths.sum()


def test_a_collapsed_posterior_is_seen_and_free_bits_cure_it():
    torch.manual_seed(0)
    x, lengths = some_lines(200)
    model, guide = text_pair(hidden=16)
    nn.init.zeros_(guide.encoder.network.weight)
    nn.init.zeros_(guide.encoder.network.bias)
    assert latent_information(model, guide, (x, lengths)).collapsed
    assert evaluate(model, guide, (x, lengths), num_samples=10)["active_units"] == 0
    objective = Beta_ELBO(free_bits=1.0)
    settings = {"batch_size": 50, "learning_rate": 0.02, "show_progress": False}
    fit(model, guide, (x, lengths), objective=objective, epochs=8, **settings)
    found = latent_information(model, guide, (x, lengths))
    assert found.active_units == DIM
    assert found.mutual_information > 0.5
    assert active_units(guide.posterior(x, lengths).mean) == DIM


def test_a_fit_with_word_dropout_like_lengths_and_a_label():
    torch.manual_seed(0)
    x, lengths = some_lines()
    labels = torch.randint(0, 2, (len(x),))
    model, guide = text_pair(word_dropout=0.3)
    features = Conditional(mlp(DIM + 2, out=DIM), FlattenEvent((DIM,)), OneHot(2))
    model = VAE(StandardNormal(DIM), features, model.likelihood)
    run = fit(
        model, guide, (x, lengths, labels), objective=Beta_ELBO(Warmup(1)), epochs=2,
        batch_size=20, like_lengths=True, show_progress=False,
    )  # fmt: skip
    assert math.isfinite(run.history[-1]["elbo"])
    drawn, latent = simulate(model, guide, (x, lengths, labels), 30)
    after_end = (drawn[0] == 0).cumsum(1) > 0
    assert (drawn[0][after_end] == 0).all()
    assert (after_end.sum(1) != 7 - lengths[torch.arange(30)] + 1).any()  # ends of its own
    assert latent["z"].shape == (30, DIM)


def test_texts_come_back_through_the_vocabulary():
    torch.manual_seed(0)
    data = load_data(["to be", "or not", "to be or not"] * 10, tokens="words", test=0.2, seed=0)
    model, guide = text_pair(len(data.transform.vocabulary))
    run = fit(model, guide, data, epochs=1, batch_size=8, show_progress=False)
    words = {"to", "be", "or", "not", "<unknown>", ""}
    for texts in (run.sample(6), run.reconstruct(["to be", "or not"])):
        assert all(set(text.split(" ")) <= words for text in texts)
    # Draws end by themselves, and not where a line that lent its shape ends.
    drawn = run.sample(200, like=["to", "to be or not"])
    assert max(len(text.split()) for text in drawn[::2]) > 1
    first, second = run.encode(["to be", "or not"]).mean["z"].float()
    z = torch.lerp(first, second, torch.linspace(0, 1, 5)[:, None])
    between, _ = beam_search(model.likelihood(model.decoder(z), 6), width=4)
    assert len(data.transform.vocabulary.decode(between)) == 5
    figures = run.evaluate(["to be"], num_samples=20)
    assert figures["num_steps"] == 3


@pytest.mark.parametrize(("cell", "why"), [(nn.GRU, ""), (nn.LSTM, "a recording of it cannot")])
def test_steps_are_recorded_or_say_why_not(cell, why):
    torch.manual_seed(0)
    batches = [some_lines(20) for _ in range(6)]
    found = {}
    for compile in ("plain", "recorded"):
        torch.manual_seed(1)
        pair = text_pair(cell=cell, word_dropout=0.2)
        found[compile] = run_steps(pair, Beta_ELBO(), batches, compile=compile)
    assert equal(*found.values())
    step = found["recorded"][-1]
    note = step.note
    assert bool(step.loss_and_gradients.stays) == (not why)  # whether the last was a replay
    assert note.startswith(why) if why else not note


# --- What is refused.


def refused(rows, match, model=None, guide=None):
    own_model, own_guide = text_pair()
    with pytest.raises(ValueError, match=match) as error:
        fit(
            model or own_model, guide or own_guide, rows, epochs=1, batch_size=4,
            show_progress=False,
        )  # fmt: skip
    assert "\n" not in str(error.value)


def test_bad_sequences_are_refused_in_one_line():
    x, lengths = some_lines(20)
    for token in (7, -1):
        wrong = x.clone()
        wrong[4, 0] = token
        refused(
            (wrong, lengths),
            f"has the token {token}, which is not in the vocabulary of 3 .* in row 4",
        )
    for length, match in ((0, "of length 0 in row 3"), (9, "beyond its padding, of 7 steps: 9 in")):
        wrong = lengths.clone()
        wrong[3] = length
        refused((x, wrong), match)
    refused((x, lengths - 1), "length is not that up to their end, the token 0: length")
    refused((x, lengths[:-1]), "different lengths")
    refused((x[..., None], lengths), r"takes sequences .*of shape \(N, T\), got")
    with pytest.raises(ValueError, match="there are 3 lengths for 20 sequences"):
        text_pair()[0](x, lengths[:3])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"word_dropout": 1.0}, "word_dropout must be at least 0 and below 1"),
        ({"end": 3}, "end=3 is none of the 3 tokens"),
        ({"num_layers": 0}, "every size of a recurrent network must be at least 1"),
    ],
)
def test_arguments_that_make_no_likelihood_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        RecurrentLikelihood(Categorical((), 3), 4, latent_features=2, **options)


def test_other_misuse_is_refused():
    likelihood, z = recurrent(), torch.zeros(2, DIM).double()
    with pytest.raises(ValueError, match="an end is for sequences of tokens"):
        RecurrentLikelihood(Normal((2,)), 4, latent_features=2, end=0)
    with pytest.raises(ValueError, match="takes latent_features=2, but the decoder gave"):
        likelihood(torch.zeros(2, 3), 4)
    with pytest.raises(ValueError, match="temperature must be a number of at least 0"):
        likelihood(z, 4).draw(-1.0)
    with pytest.raises(ValueError, match="width of a beam must be at least 1, got 0"):
        beam_search(likelihood(z, 4), 0)
    vae = VAE(StandardNormal(2), mlp(2, out=2), likelihood)
    with pytest.raises(ValueError, match="leave start_at_mean out"):
        vae.start_at_mean(all_sequences())


def test_texts_that_cannot_be_read_are_refused(tmp_path):
    for name, content, match in (
        ("empty.txt", b"\n\n", "holds no text: all of its 2 lines are empty"),
        ("bytes.txt", b"ab\nc\xff\n", "is not UTF-8: the byte 0xff in line 2, at byte 2 of it"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=match):
            load_data(str(tmp_path / name), tokens="characters")


def test_smiles_are_checked_by_their_syntax():
    checked = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "smiles.py"))
    is_valid_smiles = checked["is_valid_smiles"]
    well_formed = [
        "CC(=O)Oc1ccccc1",
        "C1CC1",
        "[H]N=c1n(C)cc1",
        "CC(C1)C1",
        "C%12CC%12",
        "C[N+](C)C",
    ]
    wrong = ["", "C1CC", "C(C", "C)", "CX", "C=", "C()C", "C11", "C1C1", "C.", "(C)C", "CC(=)C"]
    assert all(map(is_valid_smiles, well_formed))
    assert not any(map(is_valid_smiles, [*wrong, "C[N+"]))
