"""Guide of DRAW: it looks at what the canvas still lacks, and says z step by step."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor

from ..models.likelihoods.likelihood import Likelihood
from ..models.networks.draw_decoder import DrawDecoder, Painting
from ..models.networks.gaussian_attention import GaussianAttention
from ..models.networks.layout import read_layout
from ..models.networks.recurrent_cell import CellState, RecurrentCell
from ..models.trial import trial
from .amortized import Amortized
from .own_features import OwnFeatures
from .steps import Steps


class _Drawing(NamedTuple):
    """What is known of a step before its z is drawn: the painting so far and the encoder's cell."""

    painting: Painting
    encoder: CellState


class DrawPosterior(PyroModule):
    """The posterior of DRAW, q(z|x) = ∏ₜ q(z_t | x, z₁ … z_{t−1}) (Gregor et al. 2015).

    It runs the model's own decoder to see what is on the canvas before each step::

        x̂_t = x − E[x | c_{t−1}]                    the error image
        r_t = read(x, x̂_t)                           whole, or a window that h^dec_{t−1} places
        h^enc_t = cell(h^enc_{t−1}, [r_t, h^dec_{t−1}])
        z_t ~ family(h^enc_t),   then the decoder paints c_t from z_t

    E[x | c] is the mean of the likelihood at the canvas, σ(c) of a :class:`Bernoulli`. The guide
    is a Pyro program ``guide(x)`` with the site ``"z"`` of shape (T, D) inside a plate named
    ``"data"`` at dimension −1. Under a :class:`StandardNormal` prior the KL of each step has a
    closed form, given the steps before, if that of the family has.

    Args:
        family: the posterior of one z_t, whose encoder takes h^enc (…, hidden), such as
            ``DiagonalNormal(mlp(hidden, out=2 * D), D)``.
        decoder: the model's decoder.
        likelihood: the model's likelihood, which must have a mean.
        hidden: width of the encoder's cell.
        window: N, to read N × N of x and x̂ by Gaussian attention. ``None``: all of them.

    Raises:
        ValueError: if family, decoder and likelihood do not fit one another, the likelihood has no
            mean, or there is a window and the data are no images; when run, if the data do not have
            the likelihood's shape.

    >>> from latente.guides import DiagonalNormal
    >>> from latente.models import Bernoulli, DrawDecoder, mlp
    >>> decoder = DrawDecoder((8, 8), latent_dim=(5, 2), hidden=16)
    >>> family = DiagonalNormal(mlp(16, out=4), latent_dim=2)
    >>> guide = DrawPosterior(family, decoder, Bernoulli((8, 8)), hidden=16, window=3)
    >>> guide(torch.zeros(7, 8, 8)).shape
    torch.Size([7, 5, 2])
    """

    def __init__(
        self,
        family: Amortized,
        decoder: DrawDecoder,
        likelihood: Likelihood,
        *,
        hidden: int,
        window: int | None = None,
    ):
        super().__init__()
        _check_parts(family, decoder, likelihood)
        self.family, self.decoder, self.likelihood = family, decoder, likelihood
        shape = decoder.event_shape
        if window is None:
            self.attention, width = None, 2 * math.prod(shape)
        else:
            self.attention = GaussianAttention(shape, decoder.hidden, window)
            width = 2 * read_layout(shape, 2).channels * window**2
        self.cell = RecurrentCell(width + decoder.hidden, hidden)
        with trial(self):
            self._check_likelihood()
            self.posterior(decoder.blank.bias.new_zeros(2, *shape))

    def posterior(self, x: Tensor) -> Steps:
        """q(z|x) of data (N, *event_shape): batch shape (N,), event shape (T, D)."""
        return self._posterior(x, None)

    def forward(self, x: Tensor) -> Tensor:
        """Run the program on data (N, *event_shape); returns z (…, N, T, D)."""
        return self._sample(self.posterior(x))

    def local_parameters(self, x: Tensor) -> tuple[Tensor, ...]:
        """Numbers of which each datum may have its own: the x that is read, and shifts.

        The shifts (N, T, features of the family), here 0, are added to what the family's encoder
        gives.
        """
        x = x if x.is_floating_point() else x.to(self.decoder.blank.bias.dtype)
        return x, x.new_zeros(len(x), self.decoder.num_steps, *self.family.feature_shape)

    def run_local(self, parameters: Sequence[Tensor]) -> Tensor:
        """Run the program with :meth:`local_parameters` of each datum's own; returns the draws."""
        return self._sample(self._posterior(*parameters))

    def _sample(self, posterior: Steps) -> Tensor:
        with pyro.plate("data", posterior.batch_shape[-1], dim=-1):
            return pyro.sample("z", posterior)

    def _posterior(self, x: Tensor, shifts: Tensor | None) -> Steps:
        self.likelihood.check_data(x)
        start = self.decoder.start()

        def step(known: Any, z: Tensor | None, t: int) -> tuple[dist.TorchDistribution, _Drawing]:
            if z is None:
                painting, encoder = start, self.cell.start()
            else:
                painting, encoder = self.decoder.advance(known.painting, z), known.encoder
            seen = self._read(x, painting)
            encoder = self.cell(seen, encoder)
            features = encoder.h if shifts is None else OwnFeatures(shifts[:, t], encoder.h)
            posterior = self.family.posterior_of_level(features, (), None)
            return posterior, _Drawing(painting, encoder)

        return Steps(step, self.decoder.num_steps)

    def _read(self, x: Tensor, painting: Painting) -> Tensor:
        """What the encoder's cell takes: [r_t, h^dec_{t−1}], (…, N, width)."""
        error = x - self.likelihood(painting.canvas).mean
        state = painting.state.h
        batch = error.shape[: error.dim() - len(self.decoder.event_shape)]
        images = torch.stack([x.expand(error.shape).to(error.dtype), error], len(batch))
        if self.attention is not None:
            planes = images.reshape(*batch, -1, self.attention.height, self.attention.width)
            images = self.attention.read(planes, self.attention(state))
        seen = images.reshape(*batch, -1)
        return torch.cat([seen, state.expand(*batch, -1)], -1)

    def _check_likelihood(self) -> None:
        """Refuse a likelihood that has no mean, or takes other features than the decoder gives."""
        canvas = self.decoder.start().canvas
        self.likelihood.check_features(canvas)
        try:
            mean = self.likelihood(canvas).mean
            known = mean.shape == self.likelihood.event_shape and bool(mean.isfinite().all())
        except NotImplementedError:
            known = False
        if not known:
            raise ValueError(
                f"the guide of DRAW reads x − E[x | canvas], and the likelihood {self.likelihood} "
                "has no mean: take Bernoulli, Normal, DiscretizedLogistic or the like"
            )


def _check_parts(family: Amortized, decoder: DrawDecoder, likelihood: Likelihood) -> None:
    """Refuse a family of another z_t than the decoder's, and a likelihood of other data."""
    if not isinstance(family, Amortized) or not isinstance(family.latent_dim, int):
        raise ValueError(
            "the family of a DrawPosterior is an amortized guide of a vector z_t, such as "
            f"DiagonalNormal(mlp(…), latent_dim=10), got {type(family).__name__}"
        )
    if not isinstance(decoder, DrawDecoder):
        raise ValueError(
            f"a DrawPosterior runs the decoder of the model, a DrawDecoder, got "
            f"{type(decoder).__name__}"
        )
    if family.latent_dim != decoder.latent_dim[1]:
        raise ValueError(
            f"z_t has {family.latent_dim} dimensions in the family and {decoder.latent_dim[1]} in "
            "the decoder: give both the same"
        )
    if tuple(likelihood.event_shape) != decoder.event_shape:
        raise ValueError(
            f"the likelihood is of data {tuple(likelihood.event_shape)}, and the decoder of "
            f"{decoder.event_shape}: give both the same event_shape"
        )
