"""The sparse gamma deep exponential family (``examples/sparse_gamma_def.py``): layers of gammas."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal, init_to_feasible
from torch.nn.functional import softplus

from .example import Example


class SparseGammaDEF:
    def __init__(self, top=4, mid=3, bottom=2, image=16):
        self.top_width = top
        self.alpha_z, self.beta_z = torch.tensor(0.1), torch.tensor(0.1)
        self.alpha_w, self.beta_w = torch.tensor(0.1), torch.tensor(0.3)
        self.shapes = {"top": (top, mid), "mid": (mid, bottom), "bottom": (bottom, image)}
        self.sizes = {layer: rows * columns for layer, (rows, columns) in self.shapes.items()}
        self.widths = {"top": top, "mid": mid, "bottom": bottom}

    def model(self, x):
        x_size = x.size(0)
        w = {}
        for layer, size in self.sizes.items():
            with pyro.plate(f"w_{layer}_plate", size):
                flat = pyro.sample(f"w_{layer}", dist.Gamma(self.alpha_w, self.beta_w))
            # A dimension of particles stays in front.
            w[layer] = flat.reshape(*(() if flat.dim() == 1 else (-1,)), *self.shapes[layer])
        with pyro.plate("data", x_size):
            z_top = pyro.sample(
                "z_top",
                dist.Gamma(self.alpha_z, self.beta_z).expand([self.top_width]).to_event(1),
            )
            mean_mid = torch.matmul(z_top, w["top"])
            z_mid = pyro.sample(
                "z_mid", dist.Gamma(self.alpha_z, self.beta_z / mean_mid).to_event(1)
            )
            mean_bottom = torch.matmul(z_mid, w["mid"])
            z_bottom = pyro.sample(
                "z_bottom", dist.Gamma(self.alpha_z, self.beta_z / mean_bottom).to_event(1)
            )
            mean_obs = torch.matmul(z_bottom, w["bottom"])
            pyro.sample("obs", dist.Poisson(mean_obs).to_event(1), obs=x)

    def guide(self, x):
        """The mean field: parameters of each weight, and of each datum's latent variables."""
        x_size = x.size(0)

        def gamma(name, *shape):
            alpha = softplus(pyro.param(f"alpha_q_{name}", lambda: 0.5 + 0.1 * torch.randn(shape)))
            mean = softplus(pyro.param(f"mean_q_{name}", lambda: 0.1 * torch.randn(shape)))
            return dist.Gamma(alpha, alpha / mean)

        for layer, size in self.sizes.items():
            with pyro.plate(f"w_{layer}_plate", size):
                pyro.sample(f"w_{layer}", gamma(f"w_{layer}", size))
        with pyro.plate("data", x_size):
            for layer, width in self.widths.items():
                pyro.sample(f"z_{layer}", gamma(f"z_{layer}", x_size, width).to_event(1))

    def clip_params(self):
        """Keep the gammas away from extremely small means; called after each gradient step."""
        for layer in self.widths:
            for kind in "wz":
                for parameter, smallest in (("alpha", -2.5), ("mean", -4.5)):
                    unclipped = pyro.param(f"{parameter}_q_{kind}_{layer}")
                    unclipped.data.clamp_(min=smallest)


def build(auto: bool = False) -> Example:
    """Counts (20, 16) with a mean-field guide of gammas; ``auto``: a normal autoguide."""
    torch.manual_seed(0)
    model = SparseGammaDEF()
    rates = torch.rand(20, 2) @ torch.rand(2, 16) * 10
    x = torch.poisson(rates)
    if auto:
        guide = AutoDiagonalNormal(model.model, init_loc_fn=init_to_feasible)
        return Example(model.model, guide, (x,), Trace_ELBO(), learning_rate=0.05)
    return Example(model.model, model.guide, (x,), TraceMeanField_ELBO(), learning_rate=0.05,
                   after_step=model.clip_params)  # fmt: skip
