"""Attend, infer, repeat (``examples/air``): objects of an image, of a number that is latent."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import TraceGraph_ELBO
from torch import Tensor, nn

from .example import Example

CANVAS, WINDOW = 8, 4


class AIR(nn.Module):
    def __init__(self, num_steps=2, what_size=2, rnn_size=16, likelihood_sd=0.3):
        super().__init__()
        self.num_steps, self.what_size, self.likelihood_sd = num_steps, what_size, likelihood_sd
        inputs = CANVAS**2 + 3 + what_size + 1
        self.rnn = nn.LSTMCell(inputs, rnn_size)
        self.predict = nn.Linear(rnn_size, 1 + 3 + 3)
        self.encode = nn.Linear(WINDOW**2, 2 * what_size)
        self.decode = nn.Sequential(nn.Linear(what_size, WINDOW**2), nn.Sigmoid())
        self.baseline = nn.Linear(CANVAS**2 + 1, 1)
        # Not registered with Pyro, so not fitted.
        self.where_loc = nn.Parameter(torch.tensor([2.0, 0.0, 0.0]), requires_grad=False)
        self.where_scale = nn.Parameter(torch.tensor([0.2, 1.0, 1.0]), requires_grad=False)

    def prior_step(self, t, n, x, z_pres, presence):
        z_pres = pyro.sample(f"z_pres_{t}", dist.Bernoulli(presence * z_pres).to_event(1))
        # Where nothing is present, what follows has no part in the density.
        z_where = pyro.sample(
            f"z_where_{t}",
            dist.Normal(self.where_loc.expand(n, 3), self.where_scale.expand(n, 3))
            .mask(z_pres)
            .to_event(1),
        )
        z_what = pyro.sample(
            f"z_what_{t}",
            dist.Normal(z_pres.new_zeros(n, self.what_size), z_pres.new_ones(n, self.what_size))
            .mask(z_pres)
            .to_event(1),
        )
        drawn = window_to_image(z_where, self.decode(z_what))
        return x + drawn * z_pres.view(-1, 1, 1), z_pres

    def model(self, data, batch_size, presence=0.5):
        pyro.module("decode", self.decode)
        with pyro.plate("data", data.size(0)) as ix:
            batch = data[ix]
            n = batch.size(0)
            x, z_pres = data.new_zeros(n, CANVAS, CANVAS), data.new_ones(n, 1)
            for t in range(self.num_steps):
                x, z_pres = self.prior_step(t, n, x, z_pres, presence)
            pyro.sample(
                "obs",
                dist.Normal(x.view(n, -1), self.likelihood_sd).to_event(1),
                obs=batch.view(n, -1),
            )

    def guide(self, data, batch_size, presence=0.5):
        for name in ("rnn", "predict", "encode", "baseline"):
            pyro.module(name, getattr(self, name))
        with pyro.plate("data", data.size(0), subsample_size=batch_size) as ix:
            batch = data[ix]
            n = batch.size(0)
            state = data.new_zeros(n, self.rnn.hidden_size), data.new_zeros(n, self.rnn.hidden_size)
            z_pres, z_where = data.new_ones(n, 1), data.new_zeros(n, 3)
            z_what = data.new_zeros(n, self.what_size)
            flat = batch.view(n, -1)
            for t in range(self.num_steps):
                state = self.rnn(torch.cat([flat, z_where, z_what, z_pres], 1), state)
                logit, loc, log_scale = self.predict(state[0]).split([1, 3, 3], 1)
                value = self.baseline(torch.cat([flat, z_pres.detach()], 1)) * z_pres
                z_pres = pyro.sample(
                    f"z_pres_{t}",
                    dist.Bernoulli(logit.sigmoid() * z_pres).to_event(1),
                    infer={"baseline": {"baseline_value": value.squeeze(-1)}},
                )
                z_where = pyro.sample(
                    f"z_where_{t}",
                    dist.Normal(loc + self.where_loc, log_scale.exp() * self.where_scale)
                    .mask(z_pres)
                    .to_event(1),
                )
                attended = image_to_window(z_where, batch)
                what_loc, what_log_scale = self.encode(attended).chunk(2, 1)
                z_what = pyro.sample(
                    f"z_what_{t}",
                    dist.Normal(what_loc, what_log_scale.exp()).mask(z_pres).to_event(1),
                )


def _affine(scale: Tensor, shift: Tensor) -> Tensor:
    """Matrices (N, 2, 3) of x ↦ scale · x + shift."""
    return torch.cat([scale[:, None, None] * torch.eye(2), shift[:, :, None]], 2)


def window_to_image(z_where: Tensor, windows: Tensor) -> Tensor:
    n = len(windows)
    theta = _affine(z_where[:, 0], z_where[:, 1:])
    places = nn.functional.affine_grid(theta, [n, 1, CANVAS, CANVAS], align_corners=False)
    drawn = nn.functional.grid_sample(
        windows.view(n, 1, WINDOW, WINDOW), places, align_corners=False
    )
    return drawn.view(n, CANVAS, CANVAS)


def image_to_window(z_where: Tensor, images: Tensor) -> Tensor:
    n = len(images)
    theta = _affine(1 / z_where[:, 0], -z_where[:, 1:] / z_where[:, :1])
    places = nn.functional.affine_grid(theta, [n, 1, WINDOW, WINDOW], align_corners=False)
    seen = nn.functional.grid_sample(images.view(n, 1, CANVAS, CANVAS), places, align_corners=False)
    return seen.view(n, -1)


def build(batch_size: int = 20) -> Example:
    """Canvases with no, one or two bright squares; the guide draws the minibatch."""
    torch.manual_seed(0)
    air = AIR()
    images = torch.zeros(60, CANVAS, CANVAS)
    for n, image in enumerate(images):
        for row, column in torch.randint(0, 5, (n % 3, 2)).tolist():
            image[row : row + 3, column : column + 3] = 1
    objective = TraceGraph_ELBO()
    return Example(air.model, air.guide, (images, batch_size), objective, learning_rate=1e-2)
