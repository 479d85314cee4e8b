"""The axis ``--likelihood``: distributions p(x|z) by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import nn

from ...models import (
    Bernoulli,
    Categorical,
    ColumnLikelihood,
    ContinuousBernoulli,
    DiscretizedLogistic,
    Likelihood,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
)
from ..data.binarization import Binarization
from ..data.text_lines import TEXT_SUFFIXES
from .axis import Axis, Part
from .parameters import Count, at_least, word_or_number
from .sizes import Sizes

DataKind = Literal["bits", "unit interval", "levels", "codes", "counts", "reals", "columns"]
"""Kinds of data values."""

Scale = Annotated[float | str, word_or_number("learned", "shared", "predicted")]
"""A positive quantity: one learned for each element, one for all of them, predicted by the decoder
for each datum and element, or fixed at a number."""

Learned = Annotated[float | str, word_or_number("learned")]
"""A positive number for all elements: learned, or fixed."""

SCALE_AT_START = 0.5
"""Initial value of learned scales."""

DEGREES_OF_FREEDOM_AT_START = 4.0
"""Initial value of learned degrees of freedom."""


@dataclass(frozen=True)
class LikelihoodPart(Part):
    """A likelihood and its kind of data; built from sizes."""

    build: Callable[..., Likelihood]
    data: DataKind

    @property
    def binarize(self) -> Binarization:
        """How its data are binarized, if a plan does not decide."""
        return "dynamic" if self.data == "bits" else "none"


def _quantity(scale: float | str, start: float, sizes: Sizes) -> float | nn.Parameter | None:
    """A positive quantity, as an argument of a likelihood."""
    if not isinstance(scale, str):
        return scale
    if scale == "predicted":
        return None
    shape = sizes.event_shape if scale == "learned" else ()
    return nn.Parameter(torch.full(shape, start))


def _normal(sizes: Sizes, *, scale: Scale = "learned") -> Normal:
    return Normal(sizes.event_shape, scale=_quantity(scale, SCALE_AT_START, sizes))


def _student_t(sizes: Sizes, *, df: Learned = "learned", scale: Scale = "learned") -> StudentT:
    degrees = nn.Parameter(torch.tensor(DEGREES_OF_FREEDOM_AT_START)) if df == "learned" else df
    of_element = _quantity(scale, SCALE_AT_START, sizes)
    return StudentT(sizes.event_shape, df=degrees, scale=of_element)  # pyright: ignore[reportArgumentType]


def _logistic(
    sizes: Sizes, *, components: Count = 1, levels: Annotated[int, at_least(2)] = 256
) -> DiscretizedLogistic:
    return DiscretizedLogistic(sizes.event_shape, components, levels=levels)


def _negative_binomial(sizes: Sizes, *, total_count: Scale = "learned") -> NegativeBinomial:
    return NegativeBinomial(sizes.event_shape, _quantity(total_count, 1.0, sizes))


def _columns(sizes: Sizes) -> ColumnLikelihood:
    if not sizes.columns:
        raise ValueError(
            "the likelihood columns is for tables whose columns have kinds (normal, count, "
            "categorical, …), and these data have none: take another likelihood"
        )
    return ColumnLikelihood(sizes.columns)


LIKELIHOODS: Axis[LikelihoodPart] = Axis(
    "likelihood",
    LikelihoodPart(
        "bernoulli",
        "bits; grey values in [0, 1] are binarized",
        "Kingma and Welling 2014, arXiv 1312.6114",
        lambda sizes: Bernoulli(sizes.event_shape),
        "bits",
    ),
    LikelihoodPart(
        "continuous-bernoulli",
        "grey values in [0, 1]",
        "Loaiza-Ganem and Cunningham 2019, arXiv 1907.06845",
        lambda sizes: ContinuousBernoulli(sizes.event_shape),
        "unit interval",
    ),
    LikelihoodPart(
        "logistic",
        "grey levels k / (levels − 1): a mixture of discretized logistics",
        "Salimans et al. 2017, arXiv 1701.05517",
        _logistic,
        "levels",
    ),
    LikelihoodPart(
        "normal",
        "real numbers; the scale is learned for each element, shared, predicted or a number",
        "Kingma and Welling 2014, arXiv 1312.6114, appendix C.2",
        _normal,
        "reals",
    ),
    LikelihoodPart(
        "student-t",
        "real numbers with outliers",
        "Takahashi et al. 2018, Student-t variational autoencoder",
        _student_t,
        "reals",
    ),
    LikelihoodPart(
        "categorical",
        "codes of classes 0 … C − 1",
        "Kingma and Welling 2014, arXiv 1312.6114",
        lambda sizes: Categorical(sizes.event_shape, sizes.num_classes),
        "codes",
    ),
    LikelihoodPart(
        "poisson",
        "counts; the encoder reads log(1 + x)",
        "Lopez et al. 2017, arXiv 1709.02082",
        lambda sizes: Poisson(sizes.event_shape),
        "counts",
    ),
    LikelihoodPart(
        "negative-binomial",
        "counts that vary more than a Poisson's; the encoder reads log(1 + x)",
        "Lopez et al. 2017, arXiv 1709.02082",
        _negative_binomial,
        "counts",
    ),
    LikelihoodPart(
        "columns",
        "tables: a family for each column; the encoder reads standardized numbers and indicators",
        "Nazábal et al. 2020, arXiv 1807.03653",
        _columns,
        "columns",
    ),
)
"""The likelihoods; each builds a :class:`Likelihood` from :class:`Sizes`."""


def likelihood_of(data: str) -> str:
    """The likelihood of a step of sequences, for recipes that leave it to the data.

    >>> likelihood_of("jsb-chorales"), likelihood_of("spoken-digits"), likelihood_of("poems.txt")
    ('bernoulli', 'normal', 'categorical')
    """
    if data.lower().endswith(TEXT_SUFFIXES):
        return "categorical"
    return "bernoulli" if data == "jsb-chorales" else "normal"
