"""The deep Markov model (``examples/dmm``): masked sequences, packed for an RNN, annealed KL."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .example import Example


class Emitter(nn.Module):
    def __init__(self, input_dim, z_dim, emission_dim):
        super().__init__()
        self.hidden = nn.Linear(z_dim, emission_dim)
        self.out = nn.Linear(emission_dim, input_dim)

    def forward(self, z_t):
        return torch.sigmoid(self.out(torch.relu(self.hidden(z_t))))


class GatedTransition(nn.Module):
    def __init__(self, z_dim, transition_dim):
        super().__init__()
        self.gate = nn.Sequential(
            nn.Linear(z_dim, transition_dim), nn.ReLU(), nn.Linear(transition_dim, z_dim),
            nn.Sigmoid(),
        )  # fmt: skip
        self.proposed_mean = nn.Sequential(
            nn.Linear(z_dim, transition_dim), nn.ReLU(), nn.Linear(transition_dim, z_dim)
        )
        self.z_to_loc = nn.Linear(z_dim, z_dim)
        self.z_to_scale = nn.Linear(z_dim, z_dim)
        with torch.no_grad():
            self.z_to_loc.weight.copy_(torch.eye(z_dim))
            self.z_to_loc.bias.zero_()

    def forward(self, z_prev):
        gate, proposed = self.gate(z_prev), self.proposed_mean(z_prev)
        loc = (1 - gate) * self.z_to_loc(z_prev) + gate * proposed
        return loc, nn.functional.softplus(self.z_to_scale(torch.relu(proposed)))


class Combiner(nn.Module):
    def __init__(self, z_dim, rnn_dim):
        super().__init__()
        self.z_to_hidden = nn.Linear(z_dim, rnn_dim)
        self.hidden_to_loc = nn.Linear(rnn_dim, z_dim)
        self.hidden_to_scale = nn.Linear(rnn_dim, z_dim)

    def forward(self, z_prev, h_rnn):
        combined = 0.5 * (torch.tanh(self.z_to_hidden(z_prev)) + h_rnn)
        return (
            self.hidden_to_loc(combined),
            nn.functional.softplus(self.hidden_to_scale(combined)),
        )


class DMM(nn.Module):
    def __init__(self, input_dim=5, z_dim=1, hidden_dim=8):
        super().__init__()
        self.emitter = Emitter(input_dim, z_dim, hidden_dim)
        self.trans = GatedTransition(z_dim, hidden_dim)
        self.combiner = Combiner(z_dim, hidden_dim)
        self.rnn = nn.RNN(input_dim, hidden_dim, nonlinearity="relu", batch_first=True)
        self.z_0 = nn.Parameter(torch.zeros(z_dim))
        self.z_q_0 = nn.Parameter(torch.zeros(z_dim))
        self.h_0 = nn.Parameter(torch.zeros(1, 1, hidden_dim))

    def model(
        self,
        mini_batch,
        mini_batch_reversed,
        mini_batch_mask,
        mini_batch_seq_lengths,
        annealing_factor=1.0,
    ):
        steps = mini_batch.size(1)
        pyro.module("dmm", self)
        z_prev = self.z_0.expand(mini_batch.size(0), self.z_0.size(0))
        with pyro.plate("z_minibatch", len(mini_batch)):
            for t in pyro.markov(range(1, steps + 1)):
                z_loc, z_scale = self.trans(z_prev)
                mask = mini_batch_mask[:, t - 1 : t]
                with poutine.scale(scale=annealing_factor):
                    z_t = pyro.sample(f"z_{t}", dist.Normal(z_loc, z_scale).mask(mask).to_event(1))
                pyro.sample(
                    f"obs_x_{t}",
                    dist.Bernoulli(self.emitter(z_t)).mask(mask).to_event(1),
                    obs=mini_batch[:, t - 1, :],
                )
                z_prev = z_t

    def guide(
        self,
        mini_batch,
        mini_batch_reversed,
        mini_batch_mask,
        mini_batch_seq_lengths,
        annealing_factor=1.0,
    ):
        steps = mini_batch.size(1)
        pyro.module("dmm", self)
        h_0 = self.h_0.expand(1, mini_batch.size(0), self.rnn.hidden_size).contiguous()
        packed = mini_batch_reversed
        if isinstance(packed, Tensor):
            packed = pack(packed, mini_batch_seq_lengths)
        rnn_output, _ = self.rnn(packed, h_0)
        rnn_output, _ = pad_packed_sequence(rnn_output, batch_first=True, total_length=steps)
        rnn_output = reverse(rnn_output, mini_batch_seq_lengths)
        z_prev = self.z_q_0.expand(mini_batch.size(0), self.z_q_0.size(0))
        with pyro.plate("z_minibatch", len(mini_batch)):
            for t in pyro.markov(range(1, steps + 1)):
                z_loc, z_scale = self.combiner(z_prev, rnn_output[:, t - 1, :])
                with poutine.scale(scale=annealing_factor):
                    z_prev = pyro.sample(
                        f"z_{t}",
                        dist.Normal(z_loc, z_scale).mask(mini_batch_mask[:, t - 1 : t]).to_event(1),
                    )


def reverse(sequences: Tensor, lengths: Tensor) -> Tensor:
    """Reverse each sequence (N, T, D) within its length; the rest stays where it is."""
    time = torch.arange(sequences.size(1), device=sequences.device)
    index = torch.where(time < lengths[:, None], lengths[:, None] - 1 - time, time)
    return sequences.gather(1, index[..., None].expand_as(sequences))


def pack(sequences: Tensor, lengths: Tensor):
    return pack_padded_sequence(sequences, lengths.cpu(), batch_first=True, enforce_sorted=False)


def build(packed: bool = True) -> Example:
    """Sequences of 2 to 4 steps, packed by their author; ``packed=False``: by the guide.

    The fifth argument, the annealing factor of a step, is left at its default.
    """
    torch.manual_seed(0)
    dmm = DMM()
    num, steps = 40, 4
    lengths = torch.randint(2, steps + 1, (num,)).sort(descending=True).values
    mask = (torch.arange(steps) < lengths[:, None]).float()
    state = torch.randn(num, steps, 1).cumsum(1)
    notes = torch.bernoulli(torch.sigmoid(state * torch.linspace(-2, 2, 5))) * mask[..., None]
    backwards = reverse(notes, lengths)
    data = (notes, pack(backwards, lengths) if packed else backwards, mask, lengths)

    def exact() -> Tensor:
        """The forward algorithm on a grid of z, which has one dimension."""
        z = torch.linspace(-15, 15, 3001, dtype=torch.float64)
        log_step = (z[1] - z[0]).log()
        with torch.no_grad():
            first = dist.Normal(*(p.double() for p in dmm.trans(dmm.z_0)))
            loc, scale = (p.double() for p in dmm.trans(z[:, None].float()))
            emission = dist.Bernoulli(dmm.emitter(z[:, None].float()).double()).to_event(1)
            transition = dist.Normal(loc, scale).log_prob(z)
            alpha = first.log_prob(z) + log_step + torch.zeros(num, 1)
            for t in range(steps):
                if t:
                    peak = alpha.amax(1, keepdim=True)
                    moved = ((alpha - peak).exp() @ transition.exp()).log() + peak + log_step
                    alpha = torch.where(mask[:, t : t + 1] > 0, moved, alpha)
                seen = emission.log_prob(notes[:, t : t + 1].double())
                alpha = alpha + seen * mask[:, t : t + 1]
        return alpha.logsumexp(1)

    return Example(dmm.model, dmm.guide, data, Trace_ELBO(), exact=exact)
