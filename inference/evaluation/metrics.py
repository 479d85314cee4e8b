"""Metrics of a fitted pair, as ``evaluation.json`` holds them."""

import math
from dataclasses import replace
from typing import Any, Never

import torch
from pyro import poutine
from torch import Tensor

from ..common.arguments import refuse_more
from ..data.arguments import open_pair
from ..data.load_data import Data
from ..data.row_lengths import are_known_sequences, find_row_lengths
from ..data.rows import BLOCK_ROWS, Rows
from ..evidence.importance_sampling import Evidence, log_evidence
from ..pairs.chains import variance_over_data
from ..pairs.checks import explaining_data
from ..pairs.inspection import inspect_pair
from ..pairs.kept_rows import rows_kept
from ..pairs.log_terms import complete, draw, score, trace_model
from ..pairs.observed_values import find_observed_values
from ..pairs.parameters import place, placement
from ..pairs.programs import Program, evaluating
from ..pairs.sites import observed_sites
from ..pairs.structure import Structure
from ..simulation.predictive import posterior_means, steps_of_latents
from .classification import accuracy, are_known, label_probabilities
from .codebook_use import CodebookUse, codebook_figures, count_codes, priors_over_codes

PROBED_ROWS = 20
"""Rows by which it is told whether a model leaves the padding of its data out."""

ACTIVE_VARIANCE = 0.01
"""Variance of a posterior mean over the data above which its latent unit counts as active."""


def active_units(
    means: Tensor, threshold: float = ACTIVE_VARIANCE, *, present: Tensor | None = None
) -> int:
    """Count the latent dimensions j in use: Var_x(E_q[z_j|x]) > threshold.

    Args:
        means: posterior means (N,), (N, K), or (N, *event_shape).
        threshold: the least variance of an active unit.
        present: of latent variables (N, T, …) of sequences, which steps are there, (N, T): those
            of the padding do not count, and the variance is over the sequences that have the step.

    Source: Burda, Grosse and Salakhutdinov 2016 (arXiv 1509.00519).

    >>> import torch
    >>> active_units(torch.stack([torch.arange(10.0), torch.zeros(10)], dim=1))
    1
    """
    return int((variance_over_data(means, present) > threshold).sum())


def evaluate(
    model: Program,
    guide: Program,
    data: Any,
    *more: Never,
    labels: Any = None,
    num_samples: int = 1000,
    data_plate: str | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> dict[str, float]:
    """Compute the evidence, the ELBO and its terms, in nats per datum, and posterior diagnostics.

    Args:
        data: x or (x, *context), all of which is used; of what :func:`load_data` returns, the
            test part is used.
        more: none: the data of programs of several arguments are one tuple or dict.
        labels: of a pair whose guide marks a discrete site to be enumerated, the true value of each
            row, 0 … C − 1, (N,), or −1 or NaN where it is not known; of what :func:`load_data`
            returns, those of the test part.
        num_samples: S of :func:`log_evidence`.
        data_plate: the name of the plate over the data, where two plates fit.
        seed: seed of the draws.
        show_progress: whether to show the data done.

    Returns:
        ``log_evidence`` and its Monte Carlo standard error ``log_evidence_se``; ``elbo`` =
        ``reconstruction`` − ``kl``; where there are several latent sites, the KL of each,
        ``kl_<site>``; ``gap`` = ``log_evidence`` − ``elbo``; for discrete data also
        ``bits_per_dimension``, of all observed sites together; ``active_units`` of ``latent_dim``;
        ``khat_bad_fraction``, the fraction of data above ``khat_threshold``; ``ess_median``;
        ``num_samples`` and ``num_data``. Where the data are sequences with lengths T, a datum is a
        sequence; ``log_evidence_per_step`` = Σ log p(x) / Σ T, ``log_evidence_per_step_se`` and
        ``elbo_per_step`` are in nats per step, of ``num_steps`` = Σ T in all;
        ``mean_log_evidence_per_step`` and ``mean_elbo_per_step`` are the mean over sequences of
        log p(x) / T, in which short ones count more. Latent variables of steps beyond the end of a
        sequence are neither active units nor part of ``latent_dim``. Where a step is one token,
        ``perplexity`` = exp(−Σ log p(x) / Σ T), of the importance-sampled log p(x);
        ``perplexity_elbo`` is that of the ELBO, an upper bound; and ``perplexity_reconstruction``
        that of E_q[log p(x|z)], which leaves the KL out and is no perplexity of a model. A guide
        that is a point has no evidence: the result then holds ``reconstruction``,
        ``active_units``, ``latent_dim`` and ``num_data`` alone. Of one that puts a mass of 1 on one
        value of a finite set, as :class:`latente.guides.FiniteScalar` does, it holds ``elbo`` and
        its terms besides: :func:`enumerated_evidence` gives log p(x) where the set is small. Where
        the prior is over codes, or relaxed indicators of them, ``codebook_perplexity`` of
        ``num_codes`` and ``codebook_share`` say how many are in use (:func:`codebook_use`); and
        ``prior_gain`` the nats by which a learned prior over codes raises the bound over that with
        a uniform one.
        Where the guide marks a discrete site y to be enumerated, ``accuracy`` is the share of
        ``labels`` that are the class of largest q(y|x). ``num_labelled`` rows have their y as data:
        their evidence is log p(x, y), and that of the others log p(x). Where there are both,
        ``log_evidence`` and ``elbo`` are means over both, and ``log_evidence_labelled``,
        ``log_evidence_unlabelled``, ``elbo_labelled`` and ``elbo_unlabelled`` those of each.

    Raises:
        ValueError: as :func:`log_evidence` does; if latent variables are global.
    """
    refuse_more("evaluate", more)
    model, guide, rows = open_pair(model, guide, data, data_plate=data_plate)
    structure, size, codes = _inspect(model, guide, rows)
    if structure.global_latents:
        raise ValueError(
            f"{structure.globals_stand_outside}, and these figures are of one datum: log_evidence "
            "gives those of the whole data set, log_predictive_density those of held-out data"
        )
    if structure.point_masses:
        return _bound_alone(model, guide, rows, structure, codes)
    if structure.points:
        return {
            "reconstruction": _reconstruction(model, guide, rows, structure),
            **_count_units(model, guide, rows, structure),
            "num_data": len(rows[0]),
        }
    evidence = log_evidence(
        model, guide, rows, num_samples=num_samples, seed=seed, show_progress=show_progress
    )
    lengths = find_row_lengths(model, rows, guide, data)
    known = are_known_sequences(guide, data)
    if lengths is not None and not known and _reads_beyond(model, guide, rows, lengths, structure):
        lengths = None  # an argument of that name, and no lengths of sequences
    numbers = size if lengths is None else _size_without_padding(size, rows[0], lengths)
    numbers = 0 if structure.all_values else numbers  # a label may be observed, or not
    bits = {"bits_per_dimension": -evidence.mean / numbers / math.log(2)} if numbers else {}
    return {
        "log_evidence": evidence.mean,
        "log_evidence_se": evidence.mean_standard_error,
        "elbo": evidence.elbo,
        "reconstruction": evidence.reconstruction.mean().item(),
        "kl": evidence.kl.mean().item(),
        **{f"kl_{name}": kl.mean().item() for name, kl in evidence.kl_by_site.items()},
        "gap": evidence.mean - evidence.elbo,
        **({} if lengths is None else _per_step(evidence, lengths)),
        **(
            {}
            if lengths is None or not numbers or len(rows[0].shape) != 2
            else _perplexities(evidence, lengths)
        ),
        **bits,
        **codebook_figures(count_codes(model, guide, rows, structure, codes)),
        **_of_labels(evidence, (model, guide, rows, structure), _true_labels(labels, data)),
        **_count_units(model, guide, rows, structure),
        "khat_bad_fraction": evidence.khat_bad_fraction,
        "khat_threshold": evidence.khat_threshold,
        "ess_median": evidence.ess.median().item(),
        "num_samples": num_samples,
        "num_data": len(rows[0]),
    }


def _bound_alone(
    model: Program,
    guide: Program,
    rows: tuple[Rows, ...],
    structure: Structure,
    codes: dict[str, Any],
) -> dict[str, float]:
    """The figures of a guide that puts all mass on one value: importance sampling adds nothing."""
    evidence = log_evidence(model, guide, rows, num_samples=2)
    uses = count_codes(model, guide, rows, structure, codes)
    return {
        "elbo": evidence.elbo,
        "reconstruction": evidence.reconstruction.mean().item(),
        "kl": evidence.kl.mean().item(),
        **{f"kl_{name}": kl.mean().item() for name, kl in evidence.kl_by_site.items()},
        **_prior_gain(uses, evidence.kl.mean().item(), len(rows[0])),
        **_count_units(model, guide, rows, structure),
        **codebook_figures(uses),
        "num_data": len(rows[0]),
    }


def _reads_beyond(
    model: Program, guide: Program, rows: tuple[Rows, ...], lengths: Tensor, structure: Structure
) -> bool:
    """Whether what stands in x beyond some lengths matters to the model: they are none then.

    The likelihood of a few rows is compared with that of the same rows, whose padding holds their
    steps again, at the same z.
    """
    ragged = (lengths < rows[0].shape[1]).nonzero().flatten()[:PROBED_ROWS]
    if rows_kept(guide) or not len(ragged):
        return False
    args = place(tuple(part[ragged] for part in rows), *placement(model, guide))
    x, of_each = args[0], lengths[ragged].to(args[0].device)
    steps = torch.arange(x.shape[1], device=x.device) % of_each[:, None]
    steps = steps[(..., *[None] * (x.dim() - 2))].expand(x.shape)
    with evaluating(model, guide), torch.random.fork_rng():
        draws = draw(guide, args, 1, structure)
        other = replace(draws, args=(x.gather(1, steps), *args[1:]))
        first, second = (score(model, some).log_likelihood for some in (draws, other))
    return not torch.allclose(first, second, rtol=1e-4, atol=1e-4)


def _prior_gain(uses: dict[str, CodebookUse], kl: float, num_data: int) -> dict[str, float]:
    """M log K − KL: what a learned prior over the codes adds to the bound with a uniform one."""
    if len(uses) != 1:
        return {}
    (use,) = uses.values()
    positions = int(use.counts.sum()) / num_data
    return {"prior_gain": positions * math.log(len(use.counts)) - kl}


def _per_step(evidence: Evidence, lengths: Tensor) -> dict[str, float]:
    """Figures in nats per step: sums over all data by the sum of their lengths, and the mean."""
    steps = int(lengths.sum())
    of_step = len(lengths) / steps
    log_px, elbo = evidence.log_px.double(), (evidence.reconstruction - evidence.kl).double()
    return {
        "log_evidence_per_step": evidence.mean * of_step,
        "log_evidence_per_step_se": evidence.mean_standard_error * of_step,
        "elbo_per_step": evidence.elbo * of_step,
        "mean_log_evidence_per_step": (log_px / lengths.cpu()).mean().item(),
        "mean_elbo_per_step": (elbo / lengths.cpu()).mean().item(),
        "num_steps": steps,
    }


def _perplexities(evidence: Evidence, lengths: Tensor) -> dict[str, float]:
    """exp of minus nats per token: of log p(x), of the ELBO, and of the reconstruction alone."""
    of_step = len(lengths) / int(lengths.sum())
    return {
        "perplexity": math.exp(-evidence.mean * of_step),
        "perplexity_elbo": math.exp(-evidence.elbo * of_step),
        "perplexity_reconstruction": math.exp(-evidence.reconstruction.mean().item() * of_step),
    }


def _size_without_padding(size: int, x: Rows, lengths: Tensor) -> float:
    """How many numbers of a sequence are no padding, on average; 0 if x is not all it observes."""
    padded = math.prod(x.shape[1:])
    return size * lengths.double().mean().item() / x.shape[1] if size == padded else 0


def _true_labels(labels: Any, data: Any) -> Tensor | None:
    """The labels that were given, or those of the test part of loaded data."""
    if labels is None and isinstance(data, Data):
        return data.test_labels
    return None if labels is None else torch.as_tensor(labels)


def _of_labels(
    evidence: Evidence,
    pair: tuple[Program, Program, tuple[Rows, ...], Structure],
    labels: Tensor | None,
) -> dict[str, float]:
    """The figures of a pair whose guide enumerates labels: accuracy, and what is evidence of."""
    if evidence.labelled is None:
        return {}
    figures: dict[str, float] = {"num_labelled": int(evidence.labelled.sum())}
    if 0 < figures["num_labelled"] < len(evidence.labelled):
        elbo = evidence.reconstruction - evidence.kl
        for name, rows in (("labelled", evidence.labelled), ("unlabelled", ~evidence.labelled)):
            figures[f"log_evidence_{name}"] = evidence.log_px[rows].mean().item()
            figures[f"elbo_{name}"] = elbo[rows].mean().item()
    if labels is None or len(pair[-1].all_values) != 1 or not bool(are_known(labels).any()):
        return figures
    if len(labels) != len(evidence.labelled):
        raise ValueError(f"{len(labels)} labels were given for {len(evidence.labelled)} rows")
    (probabilities,) = label_probabilities(*pair).values()
    return figures | {"accuracy": accuracy(probabilities, labels)}


def _count_units(
    model: Program, guide: Program, rows: tuple[Rows, ...], structure: Structure
) -> dict[str, float]:
    """The active units, of the sites that are no labels."""
    labels = dict(structure.all_values)
    found, present = (of(model, guide, rows) for of in (posterior_means, steps_of_latents))
    means = {name: value for name, value in found.items() if name not in labels}
    return {
        "active_units": sum(
            active_units(value, present=present.get(name)) for name, value in means.items()
        ),
        "latent_dim": sum(
            math.prod(value.shape[1:])
            if name not in present
            else int(present[name].any(0).sum()) * math.prod(value.shape[2:])
            for name, value in means.items()
        ),
    }


def _inspect(
    model: Program, guide: Program, rows: tuple[Rows, ...]
) -> tuple[Structure, int, dict[str, Any]]:
    """The structure of a pair, how many numbers of a datum it observes, and its priors over codes.

    The second, of all sites together, is 0 unless all are discrete data; a conditioned site's value
    is none.
    """
    args = place(tuple(part[: rows_kept(guide) or 2] for part in rows), *placement(model, guide))
    with evaluating(model, guide), torch.random.fork_rng():
        with explaining_data(model, args, "data"):
            structure = inspect_pair(model, guide, args)
        draws = complete(model, draw(guide, args, 1, structure))
        model_trace = trace_model(model, draws)
        sites, codes = observed_sites(model_trace), priors_over_codes(model_trace)
        held = find_observed_values(poutine.replay(model, trace=draws.trace), args).held
    size = sum(site["value"].numel() for site in sites.values()) // len(args[0])
    try:
        discrete = all(site["fn"].support.is_discrete for site in sites.values())
    except NotImplementedError:  # a user's distribution need not define its support
        return structure, 0, codes
    return structure, size if discrete and not held else 0, codes


def _reconstruction(
    model: Program, guide: Program, rows: tuple[Rows, ...], structure: Structure
) -> float:
    """E_q[log p(x|z)] in nats per datum, from one draw each."""
    total = 0.0
    with evaluating(model, guide), torch.random.fork_rng():
        for start in range(0, len(rows[0]), BLOCK_ROWS):
            block = tuple(part[start : start + BLOCK_ROWS] for part in rows)
            args = place(block, *placement(model, guide))
            total += score(model, draw(guide, args, 1, structure)).log_likelihood.sum().item()
    return total / len(rows[0])


def describe_posterior(metrics: dict[str, float]) -> str:
    """Describe the posterior in a sentence or two, from the metrics of :func:`evaluate`."""
    # With one datum the variance over the data is not defined, so no unit can count as active.
    # Indicators of codes vary little each, so that none counts: the use of the codes is told.
    several = metrics["num_data"] > 1 and "codebook_share" not in metrics
    if metrics["latent_dim"] and not metrics["active_units"] and several:
        return (
            "No latent dimension is in use: the posterior has collapsed onto the prior. A smaller "
            "KL weight, a warm-up of more epochs or free bits may prevent this: --beta warmup:100, "
            "--free-bits 0.1, in Python Beta_ELBO(Warmup(100)), Beta_ELBO(free_bits=0.1)."
        )
    fraction, threshold = metrics["khat_bad_fraction"], metrics["khat_threshold"]
    if fraction == 0:
        return f"Pareto k̂ is below {threshold:.2f} for all data: the weights are well behaved."
    return (
        f"Pareto k̂ is above {threshold:.2f} for {fraction:.1%} of the data: their log p(x), and "
        "the mean, may be too low by more than the ± shows. More samples or a better posterior "
        "help."
    )
