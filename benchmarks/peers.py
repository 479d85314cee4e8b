"""One step of the same VAE by latente, by hand, by Pyro, NumPyro and Pythae, for ``speed.py``.

The model is 784–H–K both ways, tanh, K = 20, bits of 28 × 28 pixels, N = 60,000. All start from the
same weights (drawn by PyTorch from one seed, encoder first), see the same batches in the same
order, and use Adam at 1e-3. What each is given the benefit of:

    by hand   an ``nn.Module``, logits to the fused cross-entropy, the KL in closed form or by the
              noise ε of the draw (no triangular solve), fused Adam
    Pyro      ``SVI.step`` of a module as in its VAE tutorial, all validation off; the full-rank
              KL is latente's, which Pyro finds once latente is imported
    NumPyro   ``SVI.update``, jitted with its state donated, waited for only at the end of a block;
              a full-rank KL is between two multivariate normals, the one closed form it has
    Pythae    its ``VAE`` and what its trainer does with a batch, one ``loss.item()`` included

Importance-weighted bounds are of 5 draws, one average for each datum: ``RenyiELBO`` in both Pyros.
"""

import contextlib
import importlib.util
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import infer
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from latente.guides import DiagonalNormal, FullRankNormal
from latente.inference import ImportanceWeighted_ELBO
from latente.inference.pairs.parameters import parameters
from latente.inference.pairs.programs import private_store
from latente.models import VAE, Bernoulli, StandardNormal, mlp

PIXELS, LATENT, NUM_DATA, DRAWS, RATE = 784, 20, 60_000, 5, 1e-3
GUIDES = ("diagonal", "full-rank")
OBJECTIVES = ("Trace_ELBO", "TraceMeanField_ELBO", "IWAE")


@dataclass(frozen=True)
class Case:
    """What is fitted: sizes, posterior family and objective."""

    batch: int
    hidden: int
    guide: str = "diagonal"
    objective: str = "TraceMeanField_ELBO"
    device: str = "cpu"

    @property
    def features(self) -> int:
        """How many numbers the encoder gives for a datum."""
        family = DiagonalNormal if self.guide == "diagonal" else FullRankNormal
        return family.num_features(LATENT)


@dataclass
class Contestant:
    """One way to take steps: ``step(i)`` takes the i-th and returns its loss, which may be late."""

    step: Callable[[int], Any]
    per: float
    """What its loss is divided by, for nats per datum."""
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    """What is to be active around its steps."""
    note: Callable[[], str] = str


def dense(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """What latente's ``mlp`` is, but for its reshaping of images."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs))


def networks(
    case: Case, make: Callable[..., nn.Sequential] = dense
) -> tuple[nn.Sequential, nn.Sequential]:
    """Encoder and decoder, their weights from the seed."""
    torch.manual_seed(0)
    encoder = make(PIXELS, case.hidden, case.features)
    decoder = make(LATENT, case.hidden, PIXELS)
    return encoder.to(case.device), decoder.to(case.device)


def pair(case: Case) -> tuple[nn.Module, nn.Module]:
    """Latente's model and guide."""
    encoder, decoder = networks(case, lambda *widths: mlp(*widths[:-1], out=widths[-1]))
    family = DiagonalNormal if case.guide == "diagonal" else FullRankNormal
    model = VAE(StandardNormal(LATENT), decoder, Bernoulli((28, 28)))
    return model.to(case.device), family(encoder, LATENT)


def latente(compiling: str, precision: str) -> Callable[..., Contestant]:
    """Latente's steps, compiled so and multiplying so."""

    def build(case: Case, batches: Sequence[Tensor]) -> Contestant:
        from latente.inference.training.step import Step

        @contextlib.contextmanager
        def around():
            with private_store(), pyro.validation_enabled(False):
                yield

        model, guide = pair(case)
        elbo = ImportanceWeighted_ELBO(DRAWS) if case.objective == "IWAE" else pyros(case)
        with around():
            named = parameters(model, guide, (batches[0],))
            optimizer = torch.optim.Adam(list(named.values()), lr=RATE, fused=True)
            step = Step(
                model,
                guide,
                elbo,
                named,
                optimizer,
                num_data=NUM_DATA,
                compile=compiling,
                precision=precision,
                record_after=0.0,  # at once: what is timed comes later
            )
        return Contestant(
            lambda i: step((batches[i % len(batches)],)), NUM_DATA, around, lambda: step.note
        )

    return build


class ByHand(nn.Module):
    """The VAE without any library."""

    def __init__(self, case: Case):
        super().__init__()
        self.encoder, self.decoder = networks(case)
        self.case = case
        self.register_buffer("below", torch.tril_indices(LATENT, LATENT, -1, device=case.device))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Means, log scales, and where the covariance is full its Cholesky factor."""
        features = self.encoder(x)
        if self.case.guide == "diagonal":
            return *features.chunk(2, -1), None
        mean, log_scale, rest = features.split([LATENT, LATENT, len(self.below[0])], -1)
        factor = torch.diag_embed(log_scale.exp())
        factor[:, self.below[0], self.below[1]] = rest
        return mean, log_scale, factor

    def forward(self, x: Tensor) -> Tensor:
        """The loss, summed over the batch."""
        x = x.flatten(1)
        mean, log_scale, factor = self.posterior(x)
        draws = (DRAWS,) if self.case.objective == "IWAE" else ()
        noise = torch.randn(*draws, *mean.shape, device=x.device)
        if factor is None:
            z = mean + log_scale.exp() * noise
        else:
            z = mean + torch.einsum("nij,...nj->...ni", factor, noise)
        logits = self.decoder(z)
        if self.case.objective == "IWAE":
            missed = cross_entropy(logits, x.expand_as(logits), reduction="none").sum(-1)
            log_ratio = 0.5 * (noise.square() - z.square()).sum(-1) + log_scale.sum(-1)
            return -(log_ratio - missed).logsumexp(0).sum() + len(x) * math.log(DRAWS)
        missed = cross_entropy(logits, x, reduction="sum")
        if self.case.objective == "Trace_ELBO":
            return missed + 0.5 * (z.square() - noise.square()).sum() - log_scale.sum()
        spread = (2 * log_scale).exp() if factor is None else factor.square().sum(-1)
        return missed + 0.5 * (spread + mean.square() - 1).sum() - log_scale.sum()


def by_hand(case: Case, batches: Sequence[Tensor]) -> Contestant:
    """Zero, forward, backward, step."""
    module = ByHand(case)
    optimizer = torch.optim.Adam(module.parameters(), lr=RATE, fused=True)

    def step(i: int) -> Tensor:
        optimizer.zero_grad()
        loss = module(batches[i % len(batches)])
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Contestant(step, case.batch)


class Tutorial(nn.Module):
    """The VAE in Pyro's plain distributions, model and guide methods of one module."""

    def __init__(self, case: Case):
        super().__init__()
        self.encoder, self.decoder = networks(case)
        self.case = case

    def model(self, x: Tensor) -> None:
        """p(x|z) p(z)."""
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            zero = x.new_zeros(len(x), LATENT)
            z = pyro.sample("z", dist.Normal(zero, torch.ones_like(zero)).to_event(1))
            distribution = dist.Bernoulli(logits=self.decoder(z), validate_args=False)
            pyro.sample("x", distribution.to_event(1), obs=x.flatten(1))

    def guide(self, x: Tensor) -> None:
        """q(z|x)."""
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            features = self.encoder(x.flatten(1))
            if self.case.guide == "diagonal":
                mean, log_scale = features.chunk(2, -1)
                distribution = dist.Normal(mean, log_scale.exp()).to_event(1)
            else:
                mean, log_scale, rest = features.split(
                    [LATENT, LATENT, self.case.features - 2 * LATENT], -1
                )
                rows, columns = torch.tril_indices(LATENT, LATENT, -1, device=x.device)
                factor = torch.diag_embed(log_scale.exp())
                factor[:, rows, columns] = rest
                distribution = dist.MultivariateNormal(mean, scale_tril=factor)
            pyro.sample("z", distribution)


def pyros(case: Case) -> infer.ELBO:
    """Pyro's objective of that name."""
    if case.objective == "IWAE":
        return infer.RenyiELBO(
            alpha=0, num_particles=DRAWS, vectorize_particles=True, max_plate_nesting=1
        )
    return getattr(infer, case.objective)()


def pyro_svi(case: Case, batches: Sequence[Tensor]) -> Contestant:
    """``pyro.infer.SVI.step``."""
    pyro.clear_param_store()
    module = Tutorial(case)
    adam = pyro.optim.Adam({"lr": RATE})  # pyright: ignore[reportAttributeAccessIssue]
    svi = infer.SVI(module.model, module.guide, adam, loss=pyros(case))
    return Contestant(
        lambda i: svi.step(batches[i % len(batches)]),
        case.batch,
        lambda: pyro.validation_enabled(False),
    )


def numpyro_programs(case: Case) -> tuple[Callable[[Any], None], Callable[[Any], None]]:
    """The pair in NumPyro, from the same weights."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as distributions

    halves = {}
    for name, network in zip(("encoder", "decoder"), networks(case), strict=True):
        layers = [layer for layer in network if isinstance(layer, nn.Linear)]
        values = [(part.weight.detach().T, part.bias.detach()) for part in layers]
        halves[name] = [tuple(value.cpu().numpy().copy() for value in both) for both in values]

    def network(name: str, value: Any) -> Any:
        for i, (weight, bias) in enumerate(halves[name]):
            value = jnp.tanh(value) if i else value
            value = value @ numpyro.param(f"{name}.weight{i}", weight)
            value = value + numpyro.param(f"{name}.bias{i}", bias)
        return value

    def model(x: Any) -> None:
        zero = jnp.zeros(LATENT)
        prior = distributions.Normal(zero, 1.0).to_event(1)
        if case.guide == "full-rank" and case.objective == "TraceMeanField_ELBO":
            prior = distributions.MultivariateNormal(zero, scale_tril=jnp.eye(LATENT))
        # The plate's own draw of indices is not used, and the compiler leaves it out.
        with numpyro.plate("data", NUM_DATA, subsample_size=len(x)):
            logits = network("decoder", numpyro.sample("z", prior))
            numpyro.sample("x", distributions.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(x: Any) -> None:
        features = network("encoder", x)
        mean, log_scale, rest = jnp.split(features, [LATENT, 2 * LATENT], -1)
        if case.guide == "diagonal":
            distribution = distributions.Normal(mean, jnp.exp(log_scale)).to_event(1)
        else:
            rows, columns = np.tril_indices(LATENT, -1)
            factor = jnp.exp(log_scale)[..., None] * jnp.eye(LATENT)
            distribution = distributions.MultivariateNormal(
                mean, scale_tril=factor.at[:, rows, columns].set(rest)
            )
        with numpyro.plate("data", NUM_DATA, subsample_size=len(x)):
            numpyro.sample("z", distribution)

    return model, guide


def numpyro_svi(case: Case, batches: Sequence[Tensor]) -> Contestant:
    """``numpyro.infer.SVI.update``."""
    import jax
    import numpyro
    from numpyro import infer as inference

    if case.objective == "IWAE":
        elbo: Any = inference.RenyiELBO(alpha=0, num_particles=DRAWS)
    else:
        elbo = getattr(inference, case.objective)()
    svi = inference.SVI(*numpyro_programs(case), numpyro.optim.Adam(RATE), elbo)
    rows = [jax.device_put(batch.flatten(1).cpu().numpy()) for batch in batches]
    update = jax.jit(svi.update, donate_argnums=0)
    state = svi.init(jax.random.key(0), rows[0])

    def step(i: int) -> Any:
        nonlocal state
        state, loss = update(state, rows[i % len(rows)])
        return loss

    return Contestant(step, NUM_DATA)


def pythae_vae(case: Case) -> nn.Module:
    """Pythae's ``VAE``, with the same networks."""
    from pythae.models import VAE as PythaeVAE
    from pythae.models import VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self, network: nn.Module):
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> Any:
            mean, log_scale = self.network(x.flatten(1)).chunk(2, -1)
            return ModelOutput(embedding=mean, log_covariance=2 * log_scale)

    class Decoder(BaseDecoder):
        def __init__(self, network: nn.Module):
            super().__init__()
            self.network = network

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.network(z).sigmoid())

    encoder, decoder = networks(case)
    config = VAEConfig((1, 28, 28), latent_dim=LATENT, reconstruction_loss="bce")
    return PythaeVAE(config, Encoder(encoder), Decoder(decoder)).to(case.device)


def pythae(case: Case, batches: Sequence[Tensor]) -> Contestant:
    """What Pythae's trainer does with a batch that it has."""
    model = pythae_vae(case).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)

    def step(i: int) -> float:
        inputs = {"data": batches[i % len(batches)]}
        loss = model(inputs, epoch=1, dataset_size=NUM_DATA, uses_ddp=False).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return Contestant(step, 1.0)


LATENTE = {
    "latente": ("recorded", "float32"),
    "latente, medium": ("recorded", "medium"),
    "latente, inductor": ("inductor", "float32"),
    "latente, inductor, medium": ("inductor", "medium"),
}
"""How each is compiled, and how it multiplies."""
PEERS = {"by hand": by_hand, "Pyro": pyro_svi, "NumPyro": numpyro_svi, "Pythae": pythae}
BUILDERS: dict[str, Callable[[Case, Sequence[Tensor]], Contestant]] = {
    **{name: latente(*settings) for name, settings in LATENTE.items()},
    **PEERS,
}


def missing(device: str) -> dict[str, str]:
    """The peers that cannot run here, and why."""
    lacking = {}
    for name in ("NumPyro", "Pythae"):
        if importlib.util.find_spec(name.lower()) is None:
            lacking[name] = f"{name} is not installed and left out: pip install latente[peers]"
    if "NumPyro" not in lacking:
        import jax

        if (jax.default_backend() == "cpu") != (device == "cpu"):
            lacking["NumPyro"] = (
                f"NumPyro is left out: JAX computes on {jax.default_backend()}, not on {device}"
            )
    return lacking


def suits(name: str, case: Case) -> bool:
    """Whether a contestant is timed in a case: Pythae has one model among them, timed once."""
    return name != "Pythae" or case == Case(128, 400, device=case.device)
