"""Latent Dirichlet allocation (``examples/lda.py``): documents are columns, topics summed out."""

import functools
from argparse import Namespace

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import TraceEnum_ELBO
from torch import nn
from torch.distributions import constraints

from .example import Example


def model(data=None, args=None, batch_size=None):
    with pyro.plate("topics", args.num_topics):
        topic_weights = pyro.sample("topic_weights", dist.Gamma(1.0 / args.num_topics, 1.0))
        topic_words = pyro.sample(
            "topic_words", dist.Dirichlet(torch.ones(args.num_words) / args.num_words)
        )
    with pyro.plate("documents", args.num_docs) as ind:
        if data is not None:
            assert data.shape == (args.num_words_per_doc, args.num_docs)
            data = data[:, ind]
        doc_topics = pyro.sample("doc_topics", dist.Dirichlet(topic_weights))
        with pyro.plate("words", args.num_words_per_doc):
            word_topics = pyro.sample(
                "word_topics", dist.Categorical(doc_topics), infer={"enumerate": "parallel"}
            )
            data = pyro.sample("doc_words", dist.Categorical(topic_words[word_topics]), obs=data)
    return topic_weights, topic_words, data


def guide(predictor, density, data, args, batch_size=None):
    topic_weights_posterior = pyro.param(
        "topic_weights_posterior",
        lambda: torch.ones(args.num_topics),
        constraint=constraints.positive,
    )
    topic_words_posterior = pyro.param(
        "topic_words_posterior",
        lambda: 0.6 + torch.rand(args.num_topics, args.num_words),
        constraint=constraints.greater_than(0.5),
    )
    with pyro.plate("topics", args.num_topics):
        pyro.sample("topic_weights", dist.Gamma(topic_weights_posterior, 1.0))
        pyro.sample("topic_words", dist.Dirichlet(topic_words_posterior))
    pyro.module("predictor", predictor)
    with pyro.plate("documents", args.num_docs, batch_size) as ind:
        data = data[:, ind]
        # The network sees counts of words.
        counts = torch.zeros(args.num_words, ind.size(0)).scatter_add(
            0, data, torch.ones(data.shape)
        )
        doc_topics = predictor(counts.transpose(0, 1))
        if density:
            pyro.sample("doc_topics", dist.Dirichlet(0.1 + args.num_topics * doc_topics))
        else:
            pyro.sample("doc_topics", dist.Delta(doc_topics, event_dim=1))


def build(density: bool = False, batch_size: int | None = 10) -> Example:
    """Words (12, 30) of 30 documents. The published guide puts a document's topics on one point.

    With ``density`` they have a Dirichlet distribution instead.
    """
    torch.manual_seed(0)
    args = Namespace(num_topics=2, num_words=6, num_words_per_doc=12, num_docs=30)
    topics = torch.tensor([[5.0, 5, 5, 1, 1, 1], [1, 1, 1, 5, 5, 5]])
    weights = dist.Dirichlet(torch.full((2,), 0.5)).sample([30])
    data = dist.Categorical(weights @ topics).sample([12])
    predictor = nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 2), nn.Softmax(-1))
    return Example(
        model,
        functools.partial(guide, predictor, density),
        {"data": data, "args": args, "batch_size": batch_size},
        TraceEnum_ELBO(max_plate_nesting=2),
        learning_rate=0.1,
    )
