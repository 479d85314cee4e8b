"""The conditional variational autoencoder (``examples/cvae``): the plate's size is not given."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from .example import Example, bernoulli, digits, grid

PIXELS = 64
HIDDEN = -1
"""What stands in the input for a pixel that is to be predicted."""


class Encoder(nn.Module):
    def __init__(self, z_dim, hidden_dim):
        super().__init__()
        self.fc1 = nn.Linear(PIXELS, hidden_dim)
        self.fc21 = nn.Linear(hidden_dim, z_dim)
        self.fc22 = nn.Linear(hidden_dim, z_dim)

    def forward(self, x, y):
        both = x.clone()
        both[x == HIDDEN] = y[x == HIDDEN]
        hidden = torch.relu(self.fc1(both.view(-1, PIXELS)))
        return self.fc21(hidden), torch.exp(self.fc22(hidden))


class CVAE(nn.Module):
    def __init__(self, z_dim=2, hidden_dim=32):
        super().__init__()
        self.z_dim = z_dim
        self.baseline_net = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, PIXELS), nn.Sigmoid())
        self.prior_net = Encoder(z_dim, hidden_dim)
        self.recognition_net = Encoder(z_dim, hidden_dim)
        self.generation_net = nn.Sequential(
            nn.Linear(z_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, PIXELS), nn.Sigmoid()
        )

    def model(self, xs, ys=None):
        pyro.module("generation_net", self)
        batch_size = xs.shape[0]
        with pyro.plate("data"):
            with torch.no_grad():
                y_hat = self.baseline_net(xs).view(xs.shape)
            prior_loc, prior_scale = self.prior_net(xs, y_hat)
            zs = pyro.sample("z", dist.Normal(prior_loc, prior_scale).to_event(1))
            loc = self.generation_net(zs)
            if ys is not None:
                # Only the hidden pixels are scored.
                mask_loc = loc[(xs == HIDDEN).view(-1, PIXELS)].view(batch_size, -1)
                mask_ys = ys[xs == HIDDEN].view(batch_size, -1)
                pyro.sample("y", dist.Bernoulli(mask_loc).to_event(1), obs=mask_ys)
            else:
                pyro.deterministic("y", loc.detach())
            return loc

    def guide(self, xs, ys=None):
        with pyro.plate("data"):
            if ys is None:
                y_hat = self.baseline_net(xs).view(xs.shape)
                loc, scale = self.prior_net(xs, y_hat)
            else:
                loc, scale = self.recognition_net(xs, ys)
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))


def build() -> Example:
    """Predict three quadrants of a digit from the upper left one."""
    torch.manual_seed(0)
    cvae = CVAE()
    ys = digits(50)[0]
    xs = torch.full_like(ys, HIDDEN)
    xs[:, :4, :4] = ys[:, :4, :4]

    def exact() -> Tensor:
        points, log_weights = grid(cvae.z_dim, 40)
        hidden = (xs[0] == HIDDEN).flatten()
        with torch.no_grad():
            loc, scale = cvae.prior_net(xs, cvae.baseline_net(xs).view(xs.shape))
            probs = cvae.generation_net(loc[:, None] + scale[:, None] * points.float())
        seen = ys.view(-1, 1, PIXELS)[..., hidden]
        likelihood = bernoulli(probs[..., hidden], seen).squeeze(-2)
        return (likelihood + log_weights).logsumexp(-1)

    return Example(cvae.model, cvae.guide, (xs, ys), Trace_ELBO(), exact=exact)
