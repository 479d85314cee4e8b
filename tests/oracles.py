"""Models whose answers are known, and programs that a user might have written."""

import itertools

import pyro
import pyro.distributions as dist
import torch
from sklearn.datasets import make_blobs
from torch import nn

from latente.guides import DiagonalNormal
from latente.models import VAE, ConditionalNormal, Hierarchy, Normal, StandardNormal, mlp


def empty(*args):
    """The guide of a model in which nothing is latent, or all of it is summed out."""


def linear_data(observed_dim, latent_dim, num_data, seed=7):
    """Data of a linear Gaussian model with noise of 0.7, float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    signal = normal(num_data, latent_dim) @ normal(latent_dim, observed_dim)
    return signal + 0.7 * normal(num_data, observed_dim) + normal(observed_dim)


def four_gaussians(num_data=1000, seed=0):
    """The course's data: points in the plane around four centres, float64."""
    centers = [[-2.0, -2.0], [-2.0, 2.0], [2.0, -2.0], [2.0, 2.0]]
    points, _ = make_blobs(num_data, centers=centers, cluster_std=0.5, random_state=seed)
    return torch.from_numpy(points)


class LinearGaussian:
    """x = W z + b + σ ε with z, ε standard normal: log p(x) and p(z|x) in closed form.

    With ``orthogonal`` columns of W the posterior's covariance is diagonal.
    """

    def __init__(
        self,
        num_latent: int,
        num_observed: int = 8,
        scale: float = 0.7,
        seed: int = 0,
        *,
        orthogonal: bool = False,
    ):
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.randn(num_observed, num_latent, generator=generator).double()
        if orthogonal:
            self.weight = torch.linalg.qr(self.weight)[0] * self.weight.norm(dim=0)
        self.bias = torch.randn(num_observed, generator=generator).double()
        self.scale = scale
        eye = torch.eye(num_observed).double()
        self.marginal = dist.MultivariateNormal(
            self.bias, self.weight @ self.weight.T + scale**2 * eye
        )
        self.precision = torch.eye(num_latent).double() + self.weight.T @ self.weight / scale**2
        self.covariance = self.precision.inverse()

    def sample(self, num: int, seed: int = 1) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(num, self.weight.shape[1], generator=generator).double()
        noise = torch.randn(num, len(self.bias), generator=generator).double()
        return z @ self.weight.T + self.bias + self.scale * noise

    def posterior_mean(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.bias) @ self.weight @ self.covariance / self.scale**2

    def posterior(self, x: torch.Tensor) -> dist.MultivariateNormal:
        return dist.MultivariateNormal(self.posterior_mean(x), self.covariance)

    def exact_guide(self, x: torch.Tensor) -> None:
        """The posterior itself, as a Pyro program."""
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.posterior(x))

    def pair(self, widen: float = 1.0, shift: float = 0.0) -> tuple[VAE, DiagonalNormal]:
        """The model as a VAE, with the diagonal guide of its posterior's marginals.

        Args:
            widen: factor on the guide's standard deviations.
            shift: added to the guide's means, in posterior standard deviations.
        """
        num_observed, num_latent = self.weight.shape
        decoder = mlp(num_latent, out=num_observed)
        encoder = mlp(num_observed, out=2 * num_latent)
        vae = VAE(StandardNormal(num_latent), decoder, Normal((num_observed,), self.scale))
        guide = DiagonalNormal(encoder, num_latent)
        vae.double(), guide.double()
        sd = self.covariance.diagonal().sqrt()
        slope = self.covariance @ self.weight.T / self.scale**2
        with torch.no_grad():
            decoder[1].weight.copy_(self.weight)
            decoder[1].bias.copy_(self.bias)
            encoder[1].weight.copy_(torch.cat([slope, torch.zeros_like(slope)]))
            mean = -slope @ self.bias + shift * sd
            encoder[1].bias.copy_(torch.cat([mean, (widen * sd).log()]))
        return vae, guide


class TutorialVAE(nn.Module):
    """A VAE in the manner of Pyro's tutorial: methods, ``pyro.module``, flattened images.

    It knows nothing of this library, switches validation of grey values off, and registers
    its networks by names that any other such VAE would use too.
    """

    def __init__(self, num_pixels: int = 64, latent_dim: int = 2, hidden: int = 16):
        super().__init__()
        self.num_pixels, self.latent_dim = num_pixels, latent_dim
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, hidden),
            nn.Softplus(),
            nn.Linear(hidden, num_pixels),
            nn.Sigmoid(),
        )
        self.encoder = nn.Sequential(nn.Linear(num_pixels, hidden), nn.Softplus())
        self.to_loc = nn.Linear(hidden, latent_dim)
        self.to_scale = nn.Linear(hidden, latent_dim)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            zeros = x.new_zeros(x.shape[0], self.latent_dim)
            z = pyro.sample("latent", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
            image = self.decoder(z)
            pixels = dist.Bernoulli(image, validate_args=False).to_event(1)
            pyro.sample("obs", pixels, obs=x.reshape(-1, self.num_pixels))
            return image

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        pyro.module("to_loc", self.to_loc)
        pyro.module("to_scale", self.to_scale)
        with pyro.plate("data", x.shape[0]):
            features = self.encoder(x.reshape(-1, self.num_pixels))
            posterior = dist.Normal(self.to_loc(features), self.to_scale(features).exp())
            pyro.sample("latent", posterior.to_event(1))


class OneBatchDimension(nn.Module):
    """A decoder that only takes (N, latent_dim), as many convolutional ones do."""

    def __init__(self, decoder: nn.Module, latent_dim: int):
        super().__init__()
        self.decoder, self.latent_dim = decoder, latent_dim

    def forward(self, z):
        if z.dim() != 2:
            raise RuntimeError(f"expected (N, {self.latent_dim}), got {tuple(z.shape)}")
        return self.decoder(z)


class GlobalMean:
    """xₙ ~ N(zₙ + w, 1), with zₙ local and w shared by all data; plain ``pyro.param`` guides."""

    def model(self, x):
        w = pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z + w, 1.0), obs=x)

    def guide(self, x):
        loc = pyro.param("loc", x.new_tensor(0.3))
        scale = pyro.param("scale", x.new_tensor(0.5), constraint=dist.constraints.positive)
        slope = pyro.param("slope", x.new_tensor(0.2))
        pyro.sample("w", dist.Normal(loc, scale))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(slope * x, 0.8))


class LinearHierarchy:
    """Levels z₃ → z₂ → z₁ → x, each linear in the one above with normal noise: all in closed form.

    Args:
        sizes: lengths of z₃, z₂, z₁ and x.
    """

    names = ("z3", "z2", "z1")

    def __init__(self, sizes: tuple[int, ...] = (1, 1, 1, 4), seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        self.sizes = sizes
        shapes = list(zip(sizes[1:], sizes, strict=False))
        self.weights = [torch.randn(*shape, generator=generator).double() for shape in shapes]
        self.biases = [torch.randn(size, generator=generator).double() for size in sizes[1:]]
        self.scales = [0.6, 0.8, 0.7]
        # Everything is an affine function of independent noise: (z₃, z₂, z₁, x) = mean + factor ε.
        total = sum(sizes)
        factor, mean = torch.zeros(total, total).double(), torch.zeros(total).double()
        factor[: sizes[0], : sizes[0]] = torch.eye(sizes[0])
        above, start = slice(0, sizes[0]), sizes[0]
        for weight, bias, scale in zip(self.weights, self.biases, self.scales, strict=True):
            own = slice(start, start + len(bias))
            factor[own] = weight @ factor[above]
            factor[own, own] = scale * torch.eye(len(bias)).double()
            mean[own] = weight @ mean[above] + bias
            above, start = own, own.stop
        self.mean, self.covariance = mean, factor @ factor.mT

    def blocks(self, *names: str) -> torch.Tensor:
        """Positions of some of z3, z2, z1, x in the joint vector."""
        starts = [sum(self.sizes[:i]) for i in range(5)]
        of = dict(zip((*self.names, "x"), itertools.pairwise(starts), strict=True))
        return torch.cat([torch.arange(*of[name]) for name in names])

    def conditional(
        self, name: str, *given: str
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """p(name | given) = N(gain · given + shift, covariance): gain, shift and covariance."""
        a, b = self.blocks(name), self.blocks(*given)
        gain = self.covariance[a][:, b] @ self.covariance[b][:, b].inverse()
        covariance = self.covariance[a][:, a] - gain @ self.covariance[b][:, a]
        return gain, self.mean[a] - gain @ self.mean[b], covariance

    @property
    def marginal(self) -> dist.MultivariateNormal:
        """p(x)."""
        x = self.blocks("x")
        return dist.MultivariateNormal(self.mean[x], self.covariance[x][:, x])

    def levels(self) -> dict[str, nn.Module]:
        """The levels of the model."""
        top, *below = self.sizes[:-1]
        parts: dict[str, nn.Module] = {"z3": StandardNormal(top)}
        for name, size, above, weight, bias, scale in zip(
            self.names[1:], below, self.sizes, self.weights, self.biases, self.scales, strict=False
        ):
            network = linear(
                above,
                torch.cat([weight, torch.zeros(size, above)]),
                torch.cat([bias, torch.full((size,), scale, dtype=bias.dtype).log()]),
            )
            parts[name] = ConditionalNormal(network, size)
        return {name: part.double() for name, part in parts.items()}

    def model(self, levels: dict[str, nn.Module]) -> Hierarchy:
        """The model as a Pyro program."""
        decoder = linear(self.sizes[-2], self.weights[-1], self.biases[-1])
        likelihood = Normal((self.sizes[-1],), self.scales[-1])
        return Hierarchy(levels, decoder, likelihood).double()


def linear(size: int, weight: torch.Tensor, bias: torch.Tensor) -> nn.Sequential:
    """The affine map weight · x + bias as a network, float64."""
    network = mlp(size, out=len(bias)).double()
    with torch.no_grad():
        network[1].weight.copy_(weight)
        network[1].bias.copy_(bias)
    return network
