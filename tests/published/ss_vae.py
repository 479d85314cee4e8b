"""The semi-supervised autoencoder M2 (``examples/vae/ss_vae_M2.py``): labels known, or not."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import TraceEnum_ELBO, config_enumerate
from torch import Tensor, nn

from .example import Example, bernoulli, digits, grid

PIXELS, LABELS = 64, 10


class SSVAE(nn.Module):
    def __init__(self, z_dim=2, hidden_dim=32):
        super().__init__()
        self.z_dim = z_dim
        self.encoder_y = nn.Sequential(
            nn.Linear(PIXELS, hidden_dim), nn.Softplus(), nn.Linear(hidden_dim, LABELS),
            nn.Softmax(-1),
        )  # fmt: skip
        self.encoder_z = nn.Sequential(
            nn.Linear(PIXELS + LABELS, hidden_dim), nn.Softplus(), nn.Linear(hidden_dim, 2 * z_dim)
        )
        self.decoder = nn.Sequential(
            nn.Linear(z_dim + LABELS, hidden_dim), nn.Softplus(), nn.Linear(hidden_dim, PIXELS),
            nn.Sigmoid(),
        )  # fmt: skip

    def model(self, xs, ys=None):
        pyro.module("ss_vae", self)
        batch_size = xs.size(0)
        with pyro.plate("data"):
            prior_loc = xs.new_zeros(batch_size, self.z_dim)
            prior_scale = xs.new_ones(batch_size, self.z_dim)
            zs = pyro.sample("z", dist.Normal(prior_loc, prior_scale).to_event(1))
            alpha_prior = xs.new_ones(batch_size, LABELS) / LABELS
            ys = pyro.sample("y", dist.OneHotCategorical(alpha_prior), obs=ys)
            loc = self.decoder(_cat(zs, ys))
            pyro.sample("x", dist.Bernoulli(loc, validate_args=False).to_event(1), obs=xs)
            return loc

    def guide(self, xs, ys=None):
        with pyro.plate("data"):
            if ys is None:
                ys = pyro.sample("y", dist.OneHotCategorical(self.encoder_y(xs)))
            loc, log_scale = self.encoder_z(_cat(xs, ys)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def _cat(*tensors: Tensor) -> Tensor:
    """Join along the last dimension: enumerated labels have a dimension more on the left."""
    shape = torch.broadcast_shapes(*(tensor.shape[:-1] for tensor in tensors))
    return torch.cat([tensor.expand(*shape, -1) for tensor in tensors], -1)


def build(supervised: bool = False) -> Example:
    """The part of the data without labels, where y is enumerated in the guide; or with labels."""
    torch.manual_seed(0)
    ss_vae = SSVAE()
    images, labels = digits(100)
    xs = images.reshape(-1, PIXELS)
    ys = nn.functional.one_hot(labels, LABELS).float()

    def exact() -> Tensor:
        points, log_weights = grid(ss_vae.z_dim, 60)
        with torch.no_grad():
            probs = ss_vae.decoder(_cat(points.float()[:, None], torch.eye(LABELS)))  # P, 10, 64
        joint = bernoulli(probs.reshape(-1, PIXELS), xs)
        joint = joint.reshape(len(xs), -1, LABELS) + log_weights[:, None]
        by_label = joint.logsumexp(1) - torch.tensor(float(LABELS)).log()
        return by_label[ys.bool()] if supervised else by_label.logsumexp(-1)

    guide = config_enumerate(ss_vae.guide, "parallel", expand=True)
    data = (xs, ys) if supervised else (xs,)
    objective = TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=not supervised)
    return Example(ss_vae.model, guide, data, objective, exact=exact)
