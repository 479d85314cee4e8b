"""Refuse compositions whose parts do not go together, before data are read."""

from collections.abc import Callable
from pathlib import Path

from ..common.lookup import find_named
from ..data.files import TABLE_SUFFIXES
from ..data.named_datasets import NAMED_DATASETS, SEQUENCE_SETS
from ..data.text_lines import TEXT_SUFFIXES
from .composition import Composition
from .contexts import COLUMNS, GIVEN, SOME_LABELS
from .posteriors import POSTERIORS

IMAGE_NETWORKS = ("conv", "pixelcnn")
"""Networks that take neighbours in an image."""

Rule = Callable[[Composition], str | None]
"""A rule returns the reason why it refuses a composition, or ``None``."""


def check_composition(composition: Composition) -> None:
    """Refuse a composition whose parts do not go together.

    Raises:
        ValueError: with the reason, and what to choose.
    """
    for rule in RULES:
        reason = rule(composition)
        if reason is not None:
            raise ValueError(reason)
    composition.make_objective()  # which checks its parameters together


def _kl_is_weighed(c: Composition) -> str | None:
    objective = c.objective.part
    if c.beta is not None and not objective.takes_beta:
        return (
            f"the objective {c.objective.name} has no KL for --beta to weigh: leave --beta out, or "
            "take --objective elbo or total-correlation"
        )
    if c.free_bits and not objective.takes_free_bits:
        return (
            f"the objective {c.objective.name} has no free bits: leave --free-bits out, or take "
            "--objective elbo"
        )
    if c.free_bits and c.is_without_kl:
        return "--free-bits are of the KL, which --beta 0 leaves out: leave one of the two out"
    return None


def _point_has_no_density(c: Composition) -> str | None:
    if c.has_density:
        return None
    if c.prior.name == "vamp":
        return (
            "the posterior is a point without a density, which the prior vamp cannot mix: take "
            "another posterior, or another prior"
        )
    if c.objective.part.needs_density or (c.objective.name == "info" and c.objective["alpha"] < 1):
        return (
            f"the posterior is on one point, which has no density, and the objective "
            f"{c.objective} needs one: take --objective elbo, or info:alpha=1"
        )
    if (c.beta is not None and not c.is_without_kl) or c.free_bits:
        return (
            "the posterior is on one point, which has no KL to weigh: leave --beta and --free-bits "
            "out, or take --beta 0"
        )
    if c.objective.name == "elbo" and c.objective["num_particles"] > 1:
        return "the posterior is on one point: all particles are the same, leave num_particles out"
    return None


def _prior_suits_objective(c: Composition) -> str | None:
    if c.objective.name == "info" and c.prior.name in ("mixture", "vamp"):
        return (
            f"the prior {c.prior.name} cannot be drawn with a gradient to its parameters, as the "
            "objective info needs: take --prior standard, flow or conditional"
        )
    return None


def _kl_splits_into_dimensions(c: Composition) -> str | None:
    if c.objective.name != "total-correlation":
        return None
    for axis, choice, products in (
        ("posterior", c.posterior, ("diagonal",)),
        ("prior", c.prior, ("standard", "conditional")),
    ):
        if choice.name not in products:
            return (
                f"the {axis} {choice.name} is no product over dimensions, which the objective "
                f"total-correlation takes apart: take --{axis} {' or '.join(products)}"
            )
    return None


def _context_reaches_the_parts(c: Composition) -> str | None:
    if c.prior.name == "conditional" and not c.is_conditional:
        return "the prior conditional needs a context: add --given labels, or --given quadrant"
    if c.prior.name == "vamp" and c.is_conditional:
        return (
            f"with --given {c.given} the posterior takes a context, which the pseudo-inputs of the "
            "prior vamp do not have: take --prior standard, mixture, flow or conditional"
        )
    if c.network.name in IMAGE_NETWORKS and c.given.name.startswith("quadrant"):
        return (
            f"with --given {c.given} x is what is left of an image, and no image for the network "
            f"{c.network.name}: take --network mlp"
        )
    return None


def _codes_suit_the_parts(c: Composition) -> str | None:
    part, over_codes = c.posterior.part, sorted({n for p in POSTERIORS.values() for n in p.priors})
    if not part.priors:
        fitting = [name for name, other in POSTERIORS.items() if c.prior.name in other.priors]
        if c.prior.name in over_codes:
            return (
                f"the prior {c.prior.name} is over codes: take --posterior {' or '.join(fitting)}"
            )
        return None
    if c.prior.name not in part.priors:
        return (
            f"the posterior {part.name} is over codes, and the prior {c.prior.name} is not over "
            f"these: take --prior {' or '.join(part.priors)}"
        )
    if c.is_hierarchy or c.is_conditional:
        return (
            f"the posterior {part.name} is for one latent variable without a context: leave "
            "--levels and --given out"
        )
    if part.is_mass and (c.objective.name != "elbo" or c.objective["num_particles"] > 1):
        return (
            f"the posterior {part.name} is a mass on one value, so that all draws are the same: "
            "take --objective elbo"
        )
    if part.is_mass and c.free_bits:
        return (
            f"the posterior {part.name} is a mass on one code, whose KL is −log p(z): leave "
            "--free-bits out"
        )
    return None


def _pseudo_inputs_are_readable(c: Composition) -> str | None:
    if c.prior.name == "vamp" and c.likelihood.part.data == "counts":
        return (
            f"the encoder of the likelihood {c.likelihood.name} reads log(1 + x), which the "
            "pseudo-inputs of the prior vamp are free to leave: take --prior mixture or flow"
        )
    if c.prior.name == "vamp" and c.likelihood.part.data == "columns":
        return (
            "the encoder of the likelihood columns reads indicators of classes, which "
            "pseudo-inputs of the prior vamp cannot learn: take --prior mixture or flow"
        )
    return None


def _columns_are_no_image(c: Composition) -> str | None:
    if c.likelihood.part.data != "columns":
        return None
    of_images = c.network.name in IMAGE_NETWORKS
    if of_images or c.given.name.startswith("quadrant"):
        what = f"the network {c.network.name} is" if of_images else f"--given {c.given} is"
        return f"{what} for images, and the likelihood columns for tables: leave one of them out"
    if c.binarize != "none":
        return "the likelihood columns takes values as they are: leave --binarize out"
    return None


def _labels_are_enumerated(c: Composition) -> str | None:
    if not c.is_half_labelled:
        return None
    if c.objective.name not in ("elbo", "iwae"):
        return (
            f"--given {c.given} takes the sum over all labels, and the objective "
            f"{c.objective.name} takes draws alone: take --objective elbo or iwae"
        )
    if not c.has_density:
        return f"--given {c.given} needs a posterior with a density: leave point out"
    return None


def _levels_suit_the_parts(c: Composition) -> str | None:
    if not c.is_hierarchy:
        return None
    if c.levels.name == "draw":
        return _drawing_suits_the_parts(c) or _several_latents_suit_the_parts(c)
    if len(c.levels["dims"]) != len(c.levels["widths"]):
        return (
            f"--levels {c.levels} has {len(c.levels['dims'])} dims and {len(c.levels['widths'])} "
            "widths: give both, one number for each level"
        )
    if c.levels.name == "maps" and len(c.levels["dims"]) < 2:
        return f"--levels {c.levels} has no maps under the top level: give two dims or more"
    if c.levels.name == "maps" and c.likelihood.part.data == "columns":
        return "--levels maps is for images, and the likelihood columns for tables: leave one out"
    return _several_latents_suit_the_parts(c)


def _drawing_suits_the_parts(c: Composition) -> str | None:
    kind = c.likelihood.part.data
    if kind in ("codes", "counts", "columns"):
        return (
            f"--levels draw reads what x still differs from the mean, and the likelihood "
            f"{c.likelihood.name} is for {kind}: take bernoulli, continuous-bernoulli, logistic, "
            "normal or student-t"
        )
    if c.prior.name not in ("standard", "conditional"):
        return (
            f"the prior {c.prior.name} is of one vector, and --levels draw has one for each step: "
            "take --prior standard"
        )
    return None


def _several_latents_suit_the_parts(c: Composition) -> str | None:
    if not c.has_density:
        return "levels of latent variables need a posterior with a density: leave point out"
    if c.network.name != "mlp":
        return (
            f"the network {c.network.name} is for one latent variable, and not for --levels: leave "
            "it out; --levels maps has convolutions"
        )
    if c.is_conditional or c.prior.name == "conditional":
        return "levels of latent variables take no context yet: leave --given out"
    if c.prior.name == "vamp" and c.levels.name == "bottom-up":
        return (
            "the guide of --levels bottom-up gives no posterior of the top level given x, which "
            "the prior vamp mixes: take --levels top-down, ladder or residual"
        )
    if c.objective.name in ("info", "total-correlation"):
        return (
            f"the objective {c.objective.name} compares one latent variable with its prior, and "
            "--levels has several: take --objective elbo or iwae"
        )
    return None


def _sequences_suit_the_parts(c: Composition) -> str | None:
    if not c.takes_sequences:
        if c.objective.part.sequences:
            return (
                f"the objective {c.objective.name} goes along a chain of latent variables: take "
                "--levels chain, as the recipe dmm has, or --objective iwae"
            )
        return None
    if c.network.name != "mlp":
        return (
            f"the network {c.network.name} is for data of one shape, and not for --levels "
            f"{c.levels.name}"
        )
    if c.is_conditional:
        return "models of sequences take no context yet: leave --given out"
    if c.levels.name == "sequence" and c.levels["word_dropout"] == 1:
        return "with word_dropout=1 the decoder of --levels sequence would see no step: give less"
    if c.prior.name != "standard" and c.levels.name == "sequence":
        return "--levels sequence has a standard normal prior: leave --prior out"
    if c.prior.name != "standard":
        return (
            "the prior of a chain is its transition: leave --prior out, or take --levels "
            "chain:transition=linear"
        )
    if not c.has_density:
        return "models of sequences need a posterior with a density: leave point out"
    if c.levels.name == "chain" and c.objective.name in ("info", "total-correlation"):
        return (
            f"the objective {c.objective.name} compares one latent variable with its prior, and a "
            "chain has one at each step: take --objective elbo, iwae or filtering"
        )
    if c.likelihood.part.data == "columns":
        return f"the likelihood columns is for tables, and --levels {c.levels.name} for sequences"
    if c.objective.part.sequences and c.levels.name != "chain":
        return (
            f"the objective {c.objective.name} goes along a chain of latent variables: take "
            "--levels chain, or --objective iwae"
        )
    return None


RULES: tuple[Rule, ...] = (
    _sequences_suit_the_parts,
    _levels_suit_the_parts,
    _labels_are_enumerated,
    _kl_is_weighed,
    _point_has_no_density,
    _prior_suits_objective,
    _kl_splits_into_dimensions,
    _context_reaches_the_parts,
    _codes_suit_the_parts,
    _pseudo_inputs_are_readable,
    _columns_are_no_image,
)
"""All rules, in the order in which they are applied."""

GREY_LEVELS = {"digits": 17, "mnist": 256, "fashion-mnist": 256, "kmnist": 256, "freyfaces": 256}
"""Named data sets of grey images, k / (levels − 1), with their number of levels."""


def check_data_kind(
    c: Composition,
    data: str,
    *,
    labels: str | None = None,
    standardize: bool = False,
    shape: tuple[int, ...] | None = None,
    tokens: str | None = None,
) -> None:
    """Refuse a composition for which the data are of the wrong kind, as far as the name shows.

    Args:
        data: name of a data set, or a file.
        labels: column of the labels.
        standardize: whether the data are to be standardized.
        shape: the shape of a datum whose values are the columns of a table.
        tokens: what the tokens of a text are.

    Raises:
        ValueError: with the reason, and what to choose.
    """
    _check_sequences(c, data, tokens)
    is_table = data.lower().endswith(TABLE_SUFFIXES)
    if c.given.name == COLUMNS:
        _check_columns(c, data, is_table)
    if c.given.name in ("labels", SOME_LABELS):
        _check_labels(data, is_table, labels)
    is_table = is_table and shape is None
    if is_table and c.given.name.startswith("quadrant"):
        raise ValueError(f"--given {c.given} is for images, and {data} is a table: leave it out")
    if is_table and (c.levels.name == "maps" or _has_window(c)):
        raise ValueError(
            f"--levels {c.levels} is for images, and {data} is a table: leave it out, or give "
            "--shape if its columns are pixels"
        )
    if is_table and c.network.name == "conv" and c.network["dims"] != 1:
        raise ValueError(
            f"the network conv is for images, and {data} is a table: leave it out, or take "
            "--network conv:dims=1 if its columns are a signal, in order; or give --shape if they "
            "are pixels"
        )
    if is_table and c.network.name == "pixelcnn":
        raise ValueError(
            f"the network pixelcnn is for images, and {data} is a table: leave it out, or give "
            "--shape if its columns are pixels"
        )
    if standardize and c.likelihood.part.data == "columns":
        raise ValueError(
            f"the likelihood {c.likelihood.name} is for columns in their own units, of which the "
            "encoder reads standardized numbers anyhow: leave --standardize out"
        )
    if standardize and c.binarize == "none" and c.likelihood.part.data != "reals":
        raise ValueError(
            f"standardized data are real numbers, and the likelihood {c.likelihood.name} is for "
            f"{c.likelihood.part.data}: take --likelihood normal or student-t"
        )
    if data in GREY_LEVELS and c.binarize == "none" and not standardize:
        _check_grey(c, data, GREY_LEVELS[data])


def holds_sequences(data: str) -> bool:
    """Whether the name of data says that they are sequences of different lengths.

    >>> holds_sequences("jsb-chorales"), holds_sequences("poems.txt"), holds_sequences("x.npz")
    (True, True, False)
    """
    return data in SEQUENCE_SETS or data.lower().endswith(TEXT_SUFFIXES)


def _check_sequences(c: Composition, data: str, tokens: str | None) -> None:
    is_text = data.lower().endswith(TEXT_SUFFIXES)
    if holds_sequences(data) and not c.takes_sequences:
        raise ValueError(
            f"{data} holds sequences of different lengths, and --levels {c.levels} is for data of "
            "one shape: take --levels chain, or the recipe dmm; or text-vae"
        )
    if c.takes_sequences and not holds_sequences(data):
        what = "images" if data in NAMED_DATASETS else "a table"
        if data in NAMED_DATASETS or data.lower().endswith(TABLE_SUFFIXES):
            raise ValueError(
                f"--levels {c.levels.name} is for sequences, and {data} holds {what}: take a "
                "recipe for data of one shape, such as vae"
            )
    if is_text and tokens is None:
        raise ValueError(f"{data} holds lines of text: give --tokens characters, or --tokens words")
    if is_text and c.likelihood.part.data != "codes":
        raise ValueError(
            f"{data} holds tokens, and the likelihood {c.likelihood.name} is for "
            f"{c.likelihood.part.data}: take --likelihood categorical"
        )
    if tokens is not None and not is_text:
        raise ValueError(f"--tokens is for a text ending in .txt, and {data} is none: leave it out")


def _has_window(c: Composition) -> bool:
    return c.levels.name == "draw" and bool(c.levels["read"] or c.levels["write"])


def _check_columns(c: Composition, data: str, is_table: bool) -> None:
    names = c.given["names"]
    if not names:
        raise ValueError(
            f"--given {str(c.given)!r} names no columns: give their names, as in --given age,site"
        )
    if not is_table:
        if len(names) == 1:
            find_named(names[0], GIVEN, GIVEN.name)  # raises an error with the nearest name
        raise ValueError(f"--given {c.given} names columns of a table, and {data} is none")


def _check_labels(data: str, is_table: bool, labels: str | None) -> None:
    if is_table and labels is None:
        raise ValueError(f"--given labels needs a column of {data}: name it with --labels")
    if data == "freyfaces" or Path(data).suffix == ".npy":
        raise ValueError(f"{data} has no labels that could be given")


def _check_grey(c: Composition, data: str, levels: int) -> None:
    kind = c.likelihood.part.data
    if kind == "columns":
        raise ValueError(f"the likelihood columns is for tables, and {data} holds images")
    if kind in ("bits", "codes", "counts"):
        raise ValueError(
            f"{data} holds grey values in [0, 1], and the likelihood {c.likelihood.name} is for "
            f"{kind}: add --binarize dynamic, or take --likelihood normal or continuous-bernoulli"
        )
    if kind == "levels" and (c.likelihood["levels"] - 1) % (levels - 1):
        raise ValueError(
            f"{data} has {levels} grey levels, and the likelihood logistic "
            f"{c.likelihood['levels']}: take --likelihood logistic:levels={levels}"
        )
