"""A model of two classes whose labels are known for some rows, and its bounds by hand."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn


class TwoClasses(nn.Module):
    """y ~ Bernoulli class, z ~ N(0, 1), x ~ N(w[y] + v z, 1), and a guide q(y|x) q(z|x, y)."""

    def __init__(self):
        super().__init__()
        double = torch.float64
        self.logits = nn.Parameter(torch.tensor([0.3, -0.4], dtype=double))
        self.w = nn.Parameter(torch.tensor([-1.0, 1.5], dtype=double))
        self.v = nn.Parameter(torch.tensor(0.7, dtype=double))
        self.slope = nn.Parameter(torch.tensor([[-0.8], [0.9]], dtype=double))
        self.shift = nn.Parameter(torch.tensor([0.2, -0.1], dtype=double))
        self.offset = nn.Parameter(torch.tensor([0.3, -0.6], dtype=double))
        self.gain = nn.Parameter(torch.tensor([0.4, 0.5], dtype=double))
        self.log_scale = nn.Parameter(torch.tensor([-0.3, 0.1], dtype=double))

    def classes(self, x: Tensor) -> Tensor:
        """The logits of q(y|x), (N, 2)."""
        return x[:, None] * self.slope[:, 0] + self.shift

    def model(self, x: Tensor, y: Tensor) -> None:
        """The model; y is −1 where it is not known."""
        with pyro.plate("data", len(x)):
            prior = dist.Categorical(logits=self.logits)
            label = pyro.sample("y", prior, obs=y.clamp(min=0), obs_mask=y >= 0)
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
            pyro.sample("x", dist.Normal(self.w[label] + self.v * z, 1.0), obs=x)

    def guide(self, x: Tensor, y: Tensor) -> None:
        """The guide: the label where it is not known, then z."""
        with pyro.plate("data", len(x)):
            with poutine.mask(mask=y < 0):
                drawn = pyro.sample(
                    "y_unobserved",
                    dist.Categorical(logits=self.classes(x)),
                    infer={"enumerate": "parallel"},
                )
            label = torch.where(y < 0, drawn, y)
            pyro.sample("z", self.posterior(x, label))

    def posterior(self, x: Tensor, label: Tensor) -> dist.Normal:
        """q(z|x, y)."""
        return dist.Normal(self.gain[label] * x + self.offset[label], self.log_scale[label].exp())

    def log_weight(self, x: Tensor, label: int, z: Tensor) -> Tensor:
        """log p(x, y, z) − log q(z|x, y) at draws z (S, N)."""
        labels = torch.full(x.shape, label)
        log_p = self.logits.log_softmax(0)[label] + dist.Normal(0.0, 1.0).log_prob(z)
        log_p = log_p + dist.Normal(self.w[label] + self.v * z, 1.0).log_prob(x)
        return log_p - self.posterior(x, labels).log_prob(z)

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, y) exactly, for each y: (2, N)."""
        spread = (1 + self.v**2).sqrt()
        log_p = [dist.Normal(w, spread).log_prob(x) for w in self.w]
        return torch.stack(log_p) + self.logits.log_softmax(0)[:, None]

    @torch.no_grad()
    def set_exact(self) -> "TwoClasses":
        """Set the guide to the exact posterior p(y|x) p(z|x, y); returns the pair."""
        spread = 1 + self.v**2
        self.slope.copy_((self.w / spread)[:, None])
        self.shift.copy_(self.logits.log_softmax(0) - self.w**2 / (2 * spread))
        self.gain.fill_(self.v / spread)
        self.offset.copy_(-self.v * self.w / spread)
        self.log_scale.fill_(-spread.log() / 2)
        return self
