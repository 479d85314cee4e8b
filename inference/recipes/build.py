"""Build the pair of a composition."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from ...guides import (
    Amortized,
    BottomUp,
    Classifying,
    DrawPosterior,
    SequencePosterior,
    TopDown,
)
from ...models import (
    VAE,
    Categorical,
    ColumnFamily,
    ColumnFeatures,
    HalfLabelled,
    Hierarchy,
    Likelihood,
    StateSpaceModel,
)
from ..common.seeding import set_seed
from ..data.column import Column
from ..data.load_data import Data
from ..data.rows import BLOCK_ROWS, Rows
from ..data.vocabulary import END
from .columns import column_families
from .composition import Composition
from .hierarchy_parts import HierarchyParts
from .networks import Log1p, reading
from .plan import Plan, compose
from .posteriors import EncoderOfWidth
from .sequence_parts import SequenceParts
from .sizes import Sizes

Pair = tuple[
    VAE | Hierarchy | StateSpaceModel | HalfLabelled,
    Amortized | BottomUp | DrawPosterior | TopDown | SequencePosterior | Classifying,
]
"""A model and a guide."""

MAX_CLASSES = 1000
"""Largest number of classes: larger whole numbers are taken for counts or identifiers."""


def build_pair(composition: Composition, sizes: Sizes) -> Pair:
    """Build the model and the guide of a composition for data of some sizes.

    Weights are drawn from the global random state.

    Raises:
        ValueError: if a part cannot be built with these sizes.

    >>> sizes = Sizes(event_shape=(8, 8), latent_dim=2, hidden=(16,))
    >>> model, guide = build_pair(compose(Plan(recipe="vae", posterior="iaf")), sizes)
    >>> model(torch.zeros(5, 8, 8)).shape, guide(torch.zeros(5, 8, 8)).shape
    (torch.Size([5, 8, 8]), torch.Size([5, 2]))
    """
    read_context = composition.given.part.reader
    context = None if read_context is None else read_context(sizes.context)
    likelihood = composition.likelihood.build(sizes)
    reader = _reader(composition, sizes)
    if composition.takes_sequences:
        return composition.levels.build(_sequence_parts(composition, sizes, likelihood, reader))
    if composition.is_hierarchy:
        return composition.levels.build(_hierarchy_parts(composition, sizes, likelihood, reader))
    posterior = composition.posterior
    if posterior.part.latent_dim is not None:
        sizes = replace(sizes, latent_dim=posterior.part.latent_dim(posterior))
    read = sizes
    if isinstance(reader, ColumnFeatures):
        read = replace(sizes, event_shape=(reader.num_features,))
    element = likelihood
    encoder, decoder, likelihood = composition.network.build(read, element, context)
    if reader is not None:
        encoder = reading(reader, encoder)
    guide = posterior.build(encoder, sizes.latent_dim)
    prior = composition.prior.build(sizes, guide, context)
    before = posterior.part.reader(posterior)
    if before:
        decoder = nn.Sequential(*before, decoder)
    vae = VAE(prior, decoder, likelihood)
    if not composition.is_half_labelled:
        return vae, guide
    classifier = composition.network.build(read, element, None)[0]
    if reader is not None:
        classifier = reading(reader, classifier)
    return HalfLabelled(vae, sizes.context), Classifying(guide, classifier(out=sizes.context))


def _hierarchy_parts(
    composition: Composition, sizes: Sizes, likelihood: Likelihood, reader: nn.Module | None
) -> HierarchyParts:
    """What the choices on the other axes give to a hierarchy."""

    def prior(dim: int, guide: BottomUp | TopDown) -> nn.Module:
        return composition.prior.build(replace(sizes, latent_dim=dim), guide, None)

    def read(encoder: EncoderOfWidth) -> EncoderOfWidth:
        return encoder if reader is None else reading(reader, encoder)

    columns = isinstance(reader, ColumnFeatures)
    shape = (reader.num_features,) if columns else sizes.event_shape
    return HierarchyParts(shape, likelihood, composition.posterior.build, prior, read)


def _sequence_parts(
    composition: Composition, sizes: Sizes, likelihood: Likelihood, reader: nn.Module | None
) -> SequenceParts:
    """What the choices on the other axes give to a model of sequences."""

    def embed(width: int) -> nn.Module | None:
        if isinstance(likelihood, Categorical):
            return nn.Embedding(likelihood.num_classes, width)
        return reader

    posterior = composition.posterior.build
    return SequenceParts(sizes.event_shape, likelihood, posterior, embed, sizes.end)


def _reader(composition: Composition, sizes: Sizes) -> nn.Module | None:
    """What stands between x and the encoder; ``None``: nothing."""
    kind = composition.likelihood.part.data
    if kind == "columns":
        return ColumnFeatures(sizes.columns)
    return Log1p() if kind == "counts" else None


def build_planned(plan: Plan, sizes: Sizes) -> Pair:
    """Build the pair of a plan; its weights are drawn from the plan's seed."""
    with torch.random.fork_rng():
        set_seed(plan.seed)
        return build_pair(compose(plan), sizes)


def planned_sizes(
    plan: Plan,
    event_shape: tuple[int, ...],
    context: int = 0,
    num_classes: int = 0,
    columns: tuple[ColumnFamily, ...] = (),
) -> Sizes:
    """The sizes of a plan's pair for data of this shape; of sequences, those of one step."""
    if compose(plan).takes_sequences:
        event_shape = event_shape[1:]
    hidden = plan.hidden or ((400, 400) if math.prod(event_shape) > 256 else (200, 200))
    end = None if plan.tokens is None else END
    return Sizes(event_shape, plan.latent_dim, hidden, context, num_classes, end, columns)


def measure_sizes(plan: Plan, data: Data, columns: Sequence[Column] = ()) -> Sizes:
    """Find the sizes of a plan's pair in its data.

    Args:
        columns: the kinds of a table's columns, for the likelihood ``columns``.

    Raises:
        ValueError: if labels or codes are not classes 0, 1, ….
    """
    composition, shape = compose(plan), tuple(data.event_shape)
    if composition.given.name == "labels" or composition.is_half_labelled:
        labels = data.train_labels, data.validation_labels, data.test_labels
        context = _num_classes(data, labels)
    elif data.transform.has_lengths:
        context = 0
    else:
        context = sum(math.prod(part.shape[1:]) for part in data.train_context)
    kind, parts = composition.likelihood.part.data, (data.train, data.validation, data.test)
    num_classes = _num_classes(data, parts) if kind == "codes" else 0
    families = column_families(columns, data.train) if kind == "columns" and columns else ()
    return planned_sizes(plan, shape, context, num_classes, families)


def _num_classes(data: Data, parts: tuple[Rows | None, ...]) -> int:
    """One more than the largest code; the size of the vocabulary, where there is one."""
    if data.transform.vocabulary is not None:
        return len(data.transform.vocabulary)
    largest = max(
        int(part[start : start + BLOCK_ROWS].max())
        for part in parts
        if part is not None
        for start in range(0, len(part), BLOCK_ROWS)
    )
    if not 1 <= largest < MAX_CLASSES:
        raise ValueError(
            f"the largest code of {data.name} is {largest}: number the classes from 0, up to "
            f"{MAX_CLASSES - 1}"
        )
    return largest + 1
