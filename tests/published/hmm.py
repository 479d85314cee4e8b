"""Hidden Markov model (``examples/hmm.py``, ``model_1``): states summed out, sequences at −2."""

from argparse import Namespace

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from pyro.infer.autoguide import AutoDelta
from torch import Tensor

from .example import Example


def model(sequences, lengths, args, batch_size=None, include_prior=True):
    num_sequences, max_length, data_dim = map(int, sequences.shape)
    assert lengths.shape == (num_sequences,)
    assert lengths.max() <= max_length
    with poutine.mask(mask=include_prior):
        probs_x = pyro.sample(
            "probs_x", dist.Dirichlet(0.9 * torch.eye(args.hidden_dim) + 0.1).to_event(1)
        )
        probs_y = pyro.sample(
            "probs_y", dist.Beta(0.1, 0.9).expand([args.hidden_dim, data_dim]).to_event(2)
        )
    tones_plate = pyro.plate("tones", data_dim, dim=-1)
    with pyro.plate("sequences", num_sequences, batch_size, dim=-2) as batch:
        lengths = lengths[batch]
        x = 0
        for t in pyro.markov(range(lengths.max())):
            with poutine.mask(mask=(t < lengths).unsqueeze(-1)):
                x = pyro.sample(
                    f"x_{t}", dist.Categorical(probs_x[x]), infer={"enumerate": "parallel"}
                )
                with tones_plate:
                    pyro.sample(
                        f"y_{t}", dist.Bernoulli(probs_y[x.squeeze(-1)]), obs=sequences[batch, t]
                    )


def build(batch_size: int | None = None) -> Example:
    """20 sequences of 3 to 5 steps of 4 tones; the global probabilities are points (MAP)."""
    torch.manual_seed(0)
    num, steps, states = 20, 5, 2
    args = Namespace(hidden_dim=states)
    lengths = torch.randint(3, steps + 1, (num,))
    tones = torch.tensor([[0.9, 0.9, 0.1, 0.1], [0.1, 0.1, 0.9, 0.9]])
    state = torch.zeros(num).long()
    sequences = torch.zeros(num, steps, 4)
    for t in range(steps):
        state = torch.where(torch.rand(num) < 0.8, state, 1 - state)
        sequences[:, t] = torch.bernoulli(tones[state]) * (t < lengths)[:, None]
    guide = AutoDelta(
        poutine.block(model, expose_fn=lambda site: site["name"].startswith("probs_"))
    )

    def exact() -> Tensor:
        """The forward algorithm, given the points of the guide."""
        with torch.no_grad(), poutine.block():
            points = guide(sequences, lengths, args)
        probs_x, probs_y = points["probs_x"].double(), points["probs_y"].double()
        alpha = probs_x[0].log().expand(num, states)
        for t in range(steps):
            if t:
                moved = (alpha[:, :, None] + probs_x.log()).logsumexp(1)
                alpha = torch.where((t < lengths)[:, None], moved, alpha)
            emission = dist.Bernoulli(probs_y).to_event(1).log_prob(sequences[:, t, None].double())
            alpha = alpha + emission * (t < lengths)[:, None]
        return alpha.logsumexp(1)

    return Example(
        model, guide, (sequences, lengths, args, batch_size),
        TraceEnum_ELBO(max_plate_nesting=2), learning_rate=0.05, exact=exact,
    )  # fmt: skip
