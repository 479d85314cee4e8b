"""The page on parts of your own: its code takes under 30 lines, fits, and is right."""

import math

import pytest
import torch
from pyro import poutine

from .pages import blocks

BLOCK, NETWORK = blocks("docs/own_parts.md", "python")
CODE = BLOCK.code


def test_the_page_takes_under_thirty_lines_of_code():
    assert sum(bool(line.strip()) for line in CODE.splitlines()) < 30


def test_the_parts_of_the_page_fit(capsys):
    torch.manual_seed(0)
    names: dict = {}
    exec(CODE.replace("epochs=20", "epochs=20, show_progress=False"), names)
    history = names["run"].history
    assert history[-1]["elbo"] > history[0]["elbo"] + 1
    assert names["vae"].prior.log_scale.abs().max() > 0.01
    assert "Evidence(" in capsys.readouterr().out
    x = names["x"].clone()
    x[3, 0] = -1.0
    with pytest.raises(ValueError, match=r"outside the support of Exponential .* row 3"):
        names["fit"](names["vae"], names["guide"], x, epochs=1, show_progress=False)


def test_the_network_of_the_page_sees_the_element_before(capsys):
    names: dict = {"torch": torch, "nn": torch.nn}
    exec(NETWORK.code, names)
    assert "tensor(" in capsys.readouterr().out
    x = torch.eye(6)[:1]
    logits = names["chain"].network(x)[0]
    assert logits[1] != logits[0]
    assert bool((logits[2:] == logits[0]).all())


def test_the_bound_of_the_page_is_renyis():
    """Against the formula on plain tensors, and between ELBO and importance-weighted bound."""
    torch.manual_seed(0)
    names: dict = {}
    exec(CODE.replace("epochs=20", "epochs=1, show_progress=False"), names)
    vae, guide, x = names["vae"].double(), names["guide"].double(), names["x"][:9].double()
    torch.manual_seed(1)
    loss = names["Renyi_ELBO"](num_particles=5).loss(vae, guide, x)
    torch.manual_seed(1)
    posterior = guide.posterior(x)
    z = posterior.rsample((5,))
    likelihood = vae.likelihood(vae.decoder(z)).log_prob(x)
    log_weight = likelihood + vae.prior().log_prob(z) - posterior.log_prob(z)
    by_hand = 2 * ((0.5 * log_weight).exp().mean(0).log()).sum()
    assert -loss == pytest.approx(by_hand.item(), abs=1e-9)
    bound = log_weight.logsumexp(0) - math.log(5)
    assert log_weight.mean(0).sum() < by_hand < bound.sum()
    assert poutine.trace(vae).get_trace(x).nodes["x"]["fn"].event_shape == (6,)
