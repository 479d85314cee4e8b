"""Vector quantization, a learned prior over codes, and relaxed indicators of codes."""

import itertools
import json
import math

import numpy as np
import pyro
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from latente.guides import FiniteScalar, GumbelSoftmax, VectorQuantized
from latente.inference import (
    AuxiliaryLoss,
    Beta_ELBO,
    enumerated_evidence,
    evaluate,
    fit,
    load_run,
    log_evidence,
)
from latente.inference.cli.app import app
from latente.inference.recipes.plan import Plan, complete
from latente.inference.training import preparation
from latente.inference.training.step import Step
from latente.models import (
    VAE,
    AutoregressiveCodes,
    Bernoulli,
    Codebook,
    MaskedMLP,
    PixelCNN,
    StraightThrough,
    UniformCodes,
    UniformConcrete,
    mlp,
)

SIZE, NUM_CODES, DIM = 5, 6, 3


def pair(positions=2, seed=0, **options):
    torch.manual_seed(seed)
    codebook = Codebook(NUM_CODES, DIM, positions, **options)
    with torch.no_grad():
        codebook.vectors.copy_(torch.randn(NUM_CODES, DIM))
    shape = tuple(codebook.event_shape)
    model = VAE(UniformCodes(codebook), mlp(shape, 8, out=SIZE), Bernoulli((SIZE,)))
    guide = VectorQuantized(mlp(SIZE, 8, out=math.prod(shape)), codebook)
    with torch.no_grad():  # codes and pixels that differ from datum to datum
        for p in (*model.decoder.parameters(), *guide.encoder.parameters()):
            p.mul_(4)
    return model, guide


def data(num=40, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, (num, SIZE), generator=generator).float()


def loss(**weights):
    return AuxiliaryLoss(Beta_ELBO(), weights)


def fitted(model, guide, x, objective=None, **options):
    options = {"epochs": 4, "batch_size": 32, "show_progress": False, **options}
    return fit(model, guide, x, objective=objective, **options)


def bound_by_hand(model, guide, x):
    z = guide.codebook.codes(guide.indices(x))
    nats = guide.codebook.num_positions * math.log(guide.codebook.num_codes)
    return model.likelihood(model.decoder(z)).log_prob(x) - nats


@pytest.mark.parametrize("positions", [(), 3, (2, 2)])
@pytest.mark.parametrize("decay", [0.99, None])
def test_features_go_to_the_nearest_vector_and_the_gradient_passes(positions, decay):
    torch.manual_seed(0)
    codebook = Codebook(7, 3, positions, decay=decay).double().eval()
    features = torch.randn(20, *codebook.event_shape).double().requires_grad_()
    value = codebook.quantize(features)
    rows = features.detach().movedim(1, -1)
    nearest = (rows.unsqueeze(-2) - codebook.vectors).square().sum(-1).argmin(-1)
    assert torch.equal(codebook.indices(features), nearest)
    assert torch.equal(value.movedim(1, -1), codebook.vectors[nearest])
    assert torch.equal(codebook.indices(value), nearest)
    assert codebook.contains(value).all()
    assert not codebook.contains(value + 0.1).any()
    slope = torch.randn(value.shape).double()
    (given,) = torch.autograd.grad((value * slope).sum(), features, retain_graph=True)
    assert torch.equal(given, slope)
    if decay is None:  # the code is part of p(x|z), so the bound has a gradient to it
        (moved,) = torch.autograd.grad((value * slope).sum(), codebook.vectors)
        by_hand = torch.zeros_like(moved).index_add_(
            0, nearest.flatten(), slope.movedim(1, -1).reshape(-1, 3)
        )
        assert torch.allclose(moved, by_hand, atol=1e-12)


def test_objectives_and_evidence_give_the_bound():
    model, guide = (part.double().eval() for part in pair())
    x = data().double()
    by_hand = bound_by_hand(model, guide, x)
    for objective in (Beta_ELBO(), loss(commitment=0.25)):
        assert -objective.loss(model, guide, x) == pytest.approx(by_hand.sum().item(), abs=1e-9)
    evidence = log_evidence(model, guide, x, num_samples=10)
    assert torch.allclose(evidence.log_px, by_hand, rtol=0, atol=1e-10)
    assert evidence.point_masses == ("z",)
    figures = evaluate(model, guide, x)
    assert figures["elbo"] == pytest.approx(by_hand.mean().item(), abs=1e-10)
    assert figures["prior_gain"] == pytest.approx(0, abs=1e-10)
    share = len(guide.indices(x).unique()) / NUM_CODES
    assert (figures["codebook_share"], figures["num_codes"]) == (share, NUM_CODES)
    assert 1 < figures["codebook_perplexity"] <= NUM_CODES


@pytest.mark.parametrize("learned", [False, True])
def test_enumerated_evidence_is_the_sum_over_the_codebook(learned):
    model, guide = (part.double().eval() for part in pair(positions=3))
    x = data(6).double()
    if learned:
        model.prior = AutoregressiveCodes(guide.codebook, hidden=(7,)).double()
        with torch.no_grad():
            for p in model.prior.network.parameters():
                p.mul_(3)
    numbers = torch.tensor(list(itertools.product(range(NUM_CODES), repeat=3)))
    values = guide.codebook.vectors[numbers].movedim(-1, 1)
    log_prior = model.prior().log_prob(values)
    assert log_prior.exp().sum().item() == pytest.approx(1, abs=1e-12)
    likelihood = model.likelihood(model.decoder(values))
    by_hand = torch.stack([likelihood.log_prob(row) + log_prior for row in x], 1).logsumexp(0)
    exact = enumerated_evidence(model, guide, x)
    assert exact.num_values == NUM_CODES**3
    assert torch.allclose(exact.log_px, by_hand, rtol=0, atol=1e-10)
    assert (exact.bound < exact.log_px).all()


def test_two_vectors_that_are_the_same_are_two_codes():
    """The uniform prior counts both; a learned one cannot tell them apart, and is refused."""
    model, guide = (part.double().eval() for part in pair())
    guide.codebook.vectors[1] = guide.codebook.vectors[4]
    x = data(6).double()
    numbers = torch.cartesian_prod(*[torch.arange(NUM_CODES)] * 2)
    likelihood = model.likelihood(model.decoder(guide.codebook.vectors[numbers].movedim(-1, 1)))
    by_hand = torch.stack([likelihood.log_prob(row) for row in x], 1).logsumexp(0)
    exact = enumerated_evidence(model, guide, x)
    assert torch.allclose(exact.log_px, by_hand - 2 * math.log(NUM_CODES), rtol=0, atol=1e-10)
    model.prior = AutoregressiveCodes(guide.codebook, hidden=(7,)).double()
    with pytest.raises(ValueError, match=r"add up to .*, and not to 1"):
        enumerated_evidence(model, guide, x)


def test_averages_move_the_codebook_in_training_alone():
    _, guide = (part.double() for part in pair(decay=0.9, restart=0.0))
    codebook, x = guide.codebook, data().double()
    codebook.share.fill_(1 / NUM_CODES)
    codebook.sums.copy_(codebook.vectors / NUM_CODES)
    before = {name: value.clone() for name, value in codebook.state_dict().items()}
    assert before.keys() == {"vectors", "share", "sums"}

    def unmoved():
        return all(torch.equal(before[name], codebook.state_dict()[name]) for name in before)

    guide.eval()(x)
    with torch.no_grad():
        guide.train()(x)
    guide.encoder.requires_grad_(False)
    guide.posterior(x)
    guide.indices(x)
    assert unmoved()
    guide.encoder.requires_grad_(True)
    rows = guide.features(x).detach().movedim(1, -1).reshape(-1, DIM)
    nearest = codebook.indices(guide.features(x)).flatten()
    value = guide(x)
    for k in range(NUM_CODES):
        mine = rows[nearest == k]
        share = 0.9 / NUM_CODES + 0.1 * len(mine) / len(rows)
        sums = 0.9 * before["vectors"][k] / NUM_CODES + 0.1 * mine.sum(0) / len(rows)
        assert codebook.share[k].item() == pytest.approx(share, abs=1e-12)
        assert torch.allclose(codebook.vectors[k], sums / share, atol=1e-12)
    # The step's own value is in the codebook that the prior sees.
    assert codebook.contains(value).all()
    assert torch.equal(value.movedim(1, -1).reshape(-1, DIM), codebook.vectors[nearest])


@pytest.mark.parametrize("decay", [0.99, None])
def test_dead_codes_are_put_on_features(decay):
    model, guide = pair(decay=decay, restart=0.1)
    model.double(), guide.double()
    codebook, x = guide.codebook, data().double()
    codebook.share.copy_(torch.tensor([0.2, 0.0, 0.2, 0.2, 0.01, 0.2]))
    before = codebook.vectors.detach().clone()
    kept = torch.tensor([0, 2, 3, 5])
    features = guide.features(x)
    with torch.no_grad():
        codebook._restart(features.movedim(1, -1).reshape(-1, DIM))
    assert torch.equal(codebook.vectors[kept], before[kept])
    rows = features.movedim(1, -1).reshape(-1, DIM)
    for k in (1, 4):
        assert (rows == codebook.vectors[k]).all(1).any()
        assert codebook.share[k].item() == pytest.approx(1 / NUM_CODES)


def test_restarts_bring_codes_into_use():
    """Vectors far from all features are never the nearest, unless they are restarted."""
    shares = []
    for restart in (0.0, 0.1):
        model, guide = pair(restart=restart)
        with torch.no_grad():
            guide.codebook.vectors[1:].add_(100)
        guide.codebook.sums.copy_(guide.codebook.vectors * guide.codebook.share[:, None])
        fitted(model, guide, data(128), loss(commitment=0.25))
        shares.append(evaluate(model, guide, data(128))["codebook_share"])
    assert shares == [1 / NUM_CODES, 1.0]


@pytest.mark.parametrize("decay", [0.99, None])
def test_the_balance_of_the_terms_does_not_depend_on_the_size_of_a_batch(decay):
    """The gradient of the terms, and that of the bound, per datum, for a batch and for 4 of it."""
    model, guide = (part.double().eval() for part in pair(decay=decay))
    weights = {"commitment": 0.25} | ({} if decay else {"codebook": 1.0})
    parameters = [*guide.encoder.parameters(), *guide.codebook.parameters()]
    found = []
    for times in (1, 4):
        x = data(16).double().repeat(times, 1)
        gradients = []
        for objective in (Beta_ELBO(), loss(**weights)):
            value = objective.differentiable_loss(model, guide, x) / len(x)
            gradients.append(
                torch.cat([g.flatten() for g in torch.autograd.grad(value, parameters)])
            )
        plain, both = gradients
        found.append(torch.stack([plain, both - plain]))
    assert torch.allclose(found[0], found[1], rtol=0, atol=1e-10)
    assert (found[0].norm(dim=1) > 1e-3).all()
    # And by hand: the sum over positions and numbers, for each datum.
    features, z = guide.features(data(16).double()), guide.posterior(data(16).double()).sample()
    commitment = 0.25 * (features - z.detach()).square().sum((1, 2)).mean()
    encoder = list(guide.encoder.parameters())
    by_hand = torch.cat([g.flatten() for g in torch.autograd.grad(commitment, encoder)])
    assert torch.allclose(found[0][1][: len(by_hand)], by_hand, atol=1e-10)


@pytest.mark.parametrize("decay", [0.99, None])
def test_recorded_and_plain_fits_agree_and_raise_the_bound(decay, monkeypatch):
    made = []

    def step(*args, **options):
        made.append(Step(*args, **{**options, "record_after": 0.0}))
        return made[-1]

    monkeypatch.setattr(preparation, "Step", step)
    weights = {"commitment": 0.25} | ({} if decay else {"codebook": 1.0})
    x, rows = data(128), []
    for how in ("recorded", "plain"):
        model, guide = pair(decay=decay)
        run = fitted(model, guide, x, loss(**weights), epochs=8, learning_rate=0.02, compile=how)
        assert run.note == ""
        rows.append([row["loss"] for row in run.history])
        assert run.history[-1]["elbo"] == pytest.approx(
            bound_by_hand(model, guide, x).mean().item(), abs=1e-4
        )
    assert made[0].loss_and_gradients.stays  # the last step was run from its recording
    assert rows[0] == rows[1]
    assert rows[0][-1] < rows[0][0] - 0.3


def grid_pair(seed=0):
    torch.manual_seed(seed)
    model = VAE(UniformCodes((3, 3), 2), mlp((2, 2), 8, out=SIZE), Bernoulli((SIZE,)))
    return model, FiniteScalar(mlp(SIZE, 8, out=4), (3, 3), 2)


@pytest.mark.parametrize("make", [pair, grid_pair])
def test_runs_are_resumed_and_loaded(make, tmp_path):
    """The averages of a codebook are part of a run: an interruption changes nothing."""
    x, objective = data(96), loss(commitment=0.25) if make is pair else None
    whole = make()
    fitted(*whole, x, objective, epochs=4, out=tmp_path / "whole")
    parts = make()
    fitted(*parts, x, objective, epochs=2, out=tmp_path / "parts")
    parts = make(seed=5)
    fitted(*parts, x, objective, epochs=4, out=tmp_path / "parts", resume=True)
    model, guide = make(seed=7)
    loaded = load_run(tmp_path / "whole", model=model, guide=guide)
    for other in (parts, (loaded.model, loaded.guide)):
        for mine, theirs in zip(whole, other, strict=True):
            theirs = theirs.state_dict()
            assert mine.state_dict().keys() == theirs.keys()
            for name, value in mine.state_dict().items():
                assert torch.equal(value, theirs[name]), name
    assert not guide.training
    assert torch.equal(guide.indices(x), whole[1].indices(x))
    names = set(guide.state_dict())
    assert make is grid_pair or {f"codebook.{n}" for n in ("share", "sums", "vectors")} <= names


@pytest.mark.parametrize("make", [pair, grid_pair])
def test_a_learned_prior_raises_the_same_bound(make):
    """With all else frozen; by how much is what evaluate says, and what the sum says."""
    model, guide = make()
    x = data(100)
    fitted(model, guide, x, loss(commitment=0.25) if make is pair else None, epochs=2)
    before = evaluate(model, guide, x)
    others = {name: value.clone() for name, value in guide.state_dict().items()}
    model.requires_grad_(False)
    guide.requires_grad_(False)
    model.prior = AutoregressiveCodes(guide.codebook, hidden=(16,))
    fitted(model, guide, x, epochs=8, learning_rate=0.05)
    after = evaluate(model, guide, x)
    assert all(torch.equal(value, others[name]) for name, value in guide.state_dict().items())
    assert after["reconstruction"] == pytest.approx(before["reconstruction"], abs=1e-5)
    gain = after["elbo"] - before["elbo"]
    assert after["prior_gain"] == pytest.approx(gain, abs=1e-4)
    assert gain > 0.1
    exact = enumerated_evidence(model, guide, x)
    assert after["elbo"] < exact.mean


@pytest.mark.parametrize("what", ["masked", "pixels"])
def test_a_prior_over_codes_is_drawn_as_it_is_scored(what):
    """χ² of 16 values at 4,000 draws; false alarm 1e-4 (quantile of χ² with 15: 44.3)."""
    torch.manual_seed(0)
    options = {"features_per_element": 2, "num_classes": 2}
    network = (
        MaskedMLP((2, 2), 8, **options)
        if what == "masked"
        else PixelCNN((2, 2), 4, receptive_field=1, layers=2, **options)
    )
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(3)
    prior = AutoregressiveCodes((2,), (2, 2), network=network).double()
    p = prior()
    listed = p.enumerate_support()
    chances = p.log_prob(listed).exp()
    assert chances.sum().item() == pytest.approx(1, abs=1e-12)
    assert chances.max() > 3 * chances.min()
    draws = p.sample((4000,))
    assert draws.shape == (4000, 1, 2, 2)
    counts = torch.stack([(draws == value).flatten(1).all(1).sum() for value in listed]).double()
    assert ((counts - 4000 * chances).square() / (4000 * chances)).sum() < 44.3
    assert (p.log_prob(listed + 0.3) == -math.inf).all()
    with pyro.plate("data", 7, dim=-1):
        site = pyro.poutine.trace(lambda: pyro.sample("z", prior())).get_trace().nodes["z"]
    assert site["value"].shape == (7, 1, 2, 2)


def gumbel_pair(*, hard, num_codes=4, positions=1):
    torch.manual_seed(0)
    shape = (positions, num_codes)
    network = mlp(shape, 8, out=SIZE)
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(3)
    decoder = nn.Sequential(StraightThrough(), network) if hard else network
    model = VAE(UniformConcrete(num_codes, positions), decoder, Bernoulli((SIZE,)))
    guide = GumbelSoftmax(mlp(SIZE, 8, out=math.prod(shape)), num_codes, positions)
    return model.double(), guide.double()


def test_relaxed_indicators_with_a_hard_decoder_bound_the_model_of_codes():
    """log p(x) by 40,000 draws is the sum over the codes; its error is under 0.002 for each of 4 x.

    The weights are at most (1/16)/(e^-20) large, and their spread is measured: within 5 of its own
    standard errors, false alarm 2e-6 for each.
    """
    model, guide = gumbel_pair(hard=True)
    x = data(4).double()
    codes = torch.eye(4).double()[:, None]
    log_px = model.likelihood(model.decoder(codes))
    exact = torch.stack([log_px.log_prob(row) for row in x], 1).logsumexp(0) - math.log(4)
    found = log_evidence(model, guide, x, num_samples=40_000)
    assert ((found.log_px - exact).abs() < 5 * found.standard_error).all()
    assert (found.standard_error < 0.05).all()
    assert found.elbo < exact.mean().item()
    # The relaxed decoder is another model: its log p(x) is no sum over codes.
    soft = log_evidence(*gumbel_pair(hard=False), x, num_samples=40_000)
    assert ((soft.log_px - exact).abs() > 10 * soft.standard_error).any()


def test_relaxed_indicators_are_fitted_and_their_codes_counted():
    model, guide = gumbel_pair(hard=True, positions=2)
    x = data(128).double()
    before = evaluate(model, guide, x, num_samples=20)["elbo"]
    run = fitted(model, guide, x, epochs=8, learning_rate=0.04)
    assert run.note == ""
    figures = evaluate(model, guide, x, num_samples=20)
    assert figures["elbo"] > before + 0.5
    assert figures["num_codes"] == 4
    assert 0 < figures["codebook_share"] <= 1
    assert "prior_gain" not in figures


def test_the_prior_of_relaxed_indicators_has_each_code_alike():
    """A χ² test of 5 codes at 5,000 draws; false alarm 1e-4 (quantile of χ² with 4: 23.5)."""
    torch.manual_seed(0)
    counts = UniformConcrete(5)().sample((5000,)).argmax(-1).bincount(minlength=5).double()
    assert ((counts - 1000).square() / 1000).sum() < 23.5
    # The extremes of float32: logits of ±10 at the lowest temperature.
    guide = GumbelSoftmax(nn.Identity(), 3, temperature=0.45)
    q = guide.family(torch.tensor([[1e4, -1e4, 0.0]]).expand(20_000, 3))
    assert q.log_prob(q.rsample()).isfinite().all()


def test_straight_through_is_hard_with_the_gradient_of_the_relaxed():
    z = torch.tensor([[0.2, 0.5, 0.3], [0.9, 0.05, 0.05]], requires_grad=True)
    hard = StraightThrough()(z)
    assert torch.equal(hard, torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    slope = torch.randn(2, 3)
    (given,) = torch.autograd.grad((hard * slope).sum(), z)
    assert torch.equal(given, slope)


def test_what_does_not_go_together_is_refused():
    codebook = Codebook(NUM_CODES, DIM, positions=4)
    with pytest.raises(ValueError, match=r"takes 12 .* \(3, 11\), which 3 does not divide"):
        VectorQuantized(mlp(SIZE, out=11), codebook)(data(3))
    with pytest.raises(ValueError, match="decay must be at least 0 and less than 1, got 1"):
        Codebook(4, 2, decay=1.0)
    with pytest.raises(ValueError, match="at least 1 code of 1 number"):
        Codebook(4, 0)
    with pytest.raises(ValueError, match=r"leave positions=\(2, 2\) out"):
        UniformCodes(codebook, (2, 2))
    with pytest.raises(ValueError, match="two of them or more"):
        AutoregressiveCodes(Codebook(4, 2))
    with pytest.raises(ValueError, match="num_classes=6"):
        AutoregressiveCodes(codebook, network=MaskedMLP((4,), 8, features_per_element=6))
    with pytest.raises(ValueError, match=r"temperature must be at least 0\.45, got 0\.1"):
        UniformConcrete(4, temperature=0.1)
    with pytest.raises(ValueError, match="2 codes or more"):
        GumbelSoftmax(mlp(SIZE, out=4), 1)
    with pytest.raises(ValueError, match="takes 8 encoder features, 4 logits at 2 positions"):
        GumbelSoftmax(mlp(SIZE, out=7), 4, 2)(data(3))
    with pytest.raises(ValueError, match=r"1,679,616 values.*max_values=1,048,576"):
        enumerated_evidence(*pair(positions=8), data(2))
    other = VectorQuantized(mlp(SIZE, out=6), Codebook(NUM_CODES, DIM, 2))
    with pytest.raises(ValueError, match="'z' in the model, UniformCodesDistribution, is -inf"):
        log_evidence(pair()[0], other, data(20))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"recipe": "fsq", "prior": "standard"}, "take --prior codes or learned-codes"),
        ({"recipe": "gumbel", "prior": "codes"}, "take --prior concrete"),
        ({"prior": "learned-codes"}, "take --posterior fsq or vq"),
        ({"recipe": "vqvae", "given": "labels"}, "leave --levels and --given out"),
        ({"recipe": "vqvae", "objective": "iwae"}, "all draws are the same"),
        ({"recipe": "fsq", "free_bits": 0.1}, "leave --free-bits out"),
        ({"recipe": "fsq", "latent_dim": 5}, "leave --latent-dim out"),
    ],
)
def test_a_plan_whose_parts_are_not_of_codes_is_refused(options, reason):
    with pytest.raises(ValueError, match=reason):
        complete(Plan(**options))


@pytest.mark.usefixtures("few_digits")
def test_the_command_line_trains_judges_and_draws_codes(tmp_path):
    def latente(*arguments):
        result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(a) for a in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    out = tmp_path / "run"
    posterior = "vq:codes=8,dim=2,positions=3"
    latente("train", "vqvae-prior", "--posterior", posterior, "--hidden", "8", "--epochs", 1,
            "--batch-size", 60, "--out", out)  # fmt: skip
    said = latente("evaluate", out)
    assert "codes in use" in said
    assert "prior gain" in said
    figures = json.loads((out / "evaluation.json").read_text())
    loss = figures["elbo"] - figures["reconstruction"]
    assert figures["prior_gain"] == pytest.approx(3 * math.log(8) + loss, abs=1e-4)
    said = latente("score", out, "--num-samples", 10)
    assert "a lower bound" in said
    assert "± inf" not in said
    latente("sample", out, "--num", 4)
    drawn = np.load(out / "samples.npy")
    assert drawn.shape == (4, 8, 8)
    assert set(np.unique(drawn)) <= {0, 16}  # bits, in the units of the data
