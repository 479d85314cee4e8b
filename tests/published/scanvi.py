"""scANVI (``examples/scanvi``): cells with latent library size; labels known for some of them."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate
from torch import nn
from torch.distributions import constraints
from torch.nn.functional import softmax, softplus

from .example import Example

EPSILON = 1e-6


class Net(nn.Module):
    """A network with batch normalization, which wants its input in two dimensions."""

    def __init__(self, inputs, hidden, outputs):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs)
        )

    def forward(self, *parts):
        shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
        joined = torch.cat([part.expand(*shape, -1) for part in parts], -1)
        return self.layers(joined.reshape(-1, joined.size(-1))).reshape(*shape, -1)


class SCANVI(nn.Module):
    def __init__(self, num_genes, num_labels, l_loc, l_scale, latent_dim=2, alpha=0.1,
                 scale_factor=1.0):  # fmt: skip
        super().__init__()
        self.num_genes, self.num_labels, self.latent_dim = num_genes, num_labels, latent_dim
        self.l_loc, self.l_scale = l_loc, l_scale
        self.alpha, self.scale_factor = alpha, scale_factor
        self.z2_decoder = Net(latent_dim + num_labels, 8, 2 * latent_dim)
        self.x_decoder = Net(latent_dim, 8, 2 * num_genes)
        self.z2l_encoder = Net(num_genes, 8, 2 * latent_dim + 2)
        self.classifier = Net(latent_dim, 8, num_labels)
        self.z1_encoder = Net(latent_dim + num_labels, 8, 2 * latent_dim)

    def model(self, x, y=None):
        pyro.module("scanvi", self)
        theta = pyro.param(
            "inverse_dispersion", x.new_ones(self.num_genes), constraint=constraints.positive
        )
        with pyro.plate("batch", len(x)), poutine.scale(scale=self.scale_factor):
            z1 = pyro.sample("z1", dist.Normal(0, x.new_ones(self.latent_dim)).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(logits=x.new_zeros(self.num_labels)), obs=y)
            z2_loc, z2_scale = self.z2_decoder(z1, y).chunk(2, -1)
            z2 = pyro.sample("z2", dist.Normal(z2_loc, softplus(z2_scale)).to_event(1))
            l_scale = self.l_scale * x.new_ones(1)
            library = pyro.sample("l", dist.LogNormal(self.l_loc, l_scale).to_event(1))
            gate, mu = self.x_decoder(z2).chunk(2, -1)
            gate = EPSILON + (1 - 2 * EPSILON) * gate.sigmoid()
            logits = (theta + EPSILON).log() - (library * softmax(mu, -1) + EPSILON).log()
            x_dist = dist.ZeroInflatedNegativeBinomial(gate=gate, total_count=theta, logits=logits)
            pyro.sample("x", x_dist.to_event(1), obs=x)

    def guide(self, x, y=None):
        pyro.module("scanvi", self)
        with pyro.plate("batch", len(x)), poutine.scale(scale=self.scale_factor):
            z2_loc, l_loc, z2_scale, l_scale = self.z2l_encoder((1 + x).log()).split(
                [self.latent_dim, 1, self.latent_dim, 1], -1
            )
            pyro.sample("l", dist.LogNormal(l_loc, softplus(l_scale)).to_event(1))
            z2 = pyro.sample("z2", dist.Normal(z2_loc, softplus(z2_scale)).to_event(1))
            y_dist = dist.OneHotCategorical(logits=self.classifier(z2))
            if y is None:
                y = pyro.sample("y", y_dist)
            else:
                # The classifier learns from the labels too: a term that is no density.
                classification_loss = y_dist.log_prob(y)
                pyro.factor(
                    "classification_loss", -self.alpha * classification_loss, has_rsample=True
                )
            z1_loc, z1_scale = self.z1_encoder(z2, y).chunk(2, -1)
            pyro.sample("z1", dist.Normal(z1_loc, softplus(z1_scale)).to_event(1))


def build(supervised: bool = True) -> Example:
    """Cells of three types with labels and a factor in the guide; or without, y enumerated."""
    torch.manual_seed(0)
    num_cells, num_genes, num_labels = 90, 6, 3
    types = torch.arange(num_cells) % num_labels
    profiles = dist.Dirichlet(torch.full((num_genes,), 0.5)).sample([num_labels])
    size = dist.LogNormal(3.0, 0.3).sample([num_cells, 1])
    x = dist.Poisson(size * profiles[types]).sample()
    y = nn.functional.one_hot(types, num_labels).float()
    # As published, the ELBO is divided by the size of a minibatch and the number of genes.
    scanvi = SCANVI(num_genes, num_labels, 3.0, 0.3, scale_factor=1 / (30 * num_genes))
    guide = config_enumerate(scanvi.guide, "parallel", expand=True)
    objective = TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=not supervised)
    data = (x, y) if supervised else (x,)
    return Example(scanvi.model, guide, data, objective, learning_rate=0.03)
