"""All recipes by name."""

from ..common.lookup import find_named
from .recipe import Recipe

KINGMA = "Kingma and Welling 2014, arXiv 1312.6114"
TOMCZAK = "Tomczak and Welling 2018, arXiv 1705.07120"
KRISHNAN = "Krishnan, Shalit and Sontag 2017, arXiv 1609.09869"
RAINFORTH = "Rainforth et al. 2018, arXiv 1802.04537"

_LIKELIHOODS = (
    Recipe(
        "vae",
        "VAE for images in [0, 1], binarized anew each epoch: Bernoulli likelihood",
        KINGMA,
    ),
    Recipe("vae-static", "the same on one fixed draw of the bits", KINGMA, binarize="static"),
    Recipe(
        "vae-normal",
        "VAE for continuous data: normal likelihood, one learned scale for each element",
        KINGMA,
        "normal",
    ),
    Recipe(
        "vae-normal-predicted",
        "VAE for continuous data: normal likelihood, scales predicted by the decoder",
        f"{KINGMA}, appendix C.2",
        "normal:scale=predicted",
    ),
    Recipe(
        "vae-student-t",
        "VAE for continuous data with outliers: Student's t, learned scales and degrees of freedom",
        "Takahashi et al. 2018, Student-t variational autoencoder",
        "student-t",
    ),
    Recipe(
        "vae-logistic",
        "VAE for images of 256 levels: discretized logistic likelihood",
        "Kingma et al. 2016, arXiv 1606.04934",
        "logistic",
    ),
    Recipe(
        "vae-logistic-mixture",
        "the same with a mixture of 5 logistics a pixel",
        "Salimans et al. 2017, arXiv 1701.05517",
        "logistic:components=5",
    ),
    Recipe(
        "vae-continuous-bernoulli",
        "VAE for grey images in [0, 1]: continuous Bernoulli likelihood",
        "Loaiza-Ganem and Cunningham 2019, arXiv 1907.06845",
        "continuous-bernoulli",
    ),
    Recipe(
        "vae-categorical",
        "VAE for codes of classes 0 … C − 1: categorical likelihood",
        KINGMA,
        "categorical",
    ),
    Recipe("vae-poisson", "VAE for counts: Poisson likelihood", KINGMA, "poisson"),
    Recipe(
        "vae-negative-binomial",
        "VAE for counts that vary more: negative binomial, one learned r for each element",
        "Lopez et al. 2017, arXiv 1709.02082",
        "negative-binomial",
    ),
    Recipe(
        "vae-table",
        "VAE for tables: each column has a family of its own, such as normal, count, categorical",
        "Nazábal et al. 2020, arXiv 1807.03653",
        "columns",
    ),
)


_NETWORKS = (
    Recipe(
        "vae-conv",
        "vae with convolutional networks",
        "Radford, Metz and Chintala 2016, arXiv 1511.06434",
        network="conv",
    ),
    Recipe(
        "vae-resnet",
        "vae with residual convolutional networks",
        "He et al. 2016, arXiv 1603.05027",
        network="conv:residual_blocks=1",
    ),
    Recipe(
        "pixelvae",
        "vae whose decoder also sees the pixels before: a gated PixelCNN, with z in each layer; "
        "the KL warmed up over 10 epochs, 0.1 nat of each latent dimension's free",
        "Gulrajani et al. 2017, arXiv 1611.05013",
        network="pixelcnn",
        beta="warmup:10",
        free_bits=0.1,
    ),
    Recipe(
        "vlae",
        "the same with the nearest pixels alone, which leaves the whole of an image to z, and with "
        "a masked autoregressive flow as its prior",
        "Chen et al. 2017, arXiv 1611.02731",
        prior="flow:transforms=3",
        network="pixelcnn:receptive_field=1",
        beta="warmup:10",
        free_bits=0.1,
    ),
)


_PRIORS = (
    Recipe(
        "vae-mixture",
        "vae with a mixture of 500 normals as its prior; the KL warmed up over 10 epochs",
        TOMCZAK,
        prior="mixture:components=500",
        beta="warmup:10",
    ),
    Recipe(
        "vampprior",
        "vae with a VampPrior of 500 pseudo-inputs; the KL warmed up over 10 epochs",
        TOMCZAK,
        prior="vamp:components=500",
        beta="warmup:10",
    ),
    Recipe(
        "vae-flow-prior",
        "vae with a masked autoregressive flow as its prior; the KL warmed up over 10 epochs",
        "Chen et al. 2017, arXiv 1611.02731",
        prior="flow:transforms=3",
        beta="warmup:10",
    ),
)


_OBJECTIVES = (
    Recipe("beta-vae", "vae whose KL counts four times", "Higgins et al. 2017, beta-VAE", beta="4"),
    Recipe(
        "vae-warmup",
        "vae whose KL is warmed up over 10 epochs",
        "Sønderby et al. 2016, arXiv 1602.02282",
        beta="warmup:10",
    ),
    Recipe(
        "vae-cyclical",
        "vae whose KL is warmed up anew every 10 epochs",
        "Fu et al. 2019, arXiv 1903.10145",
        beta="cyclical:10",
    ),
    Recipe(
        "vae-free-bits",
        "vae in which 0.1 nat of each latent dimension's KL is free",
        "Kingma et al. 2016, arXiv 1606.04934",
        free_bits=0.1,
    ),
    Recipe(
        "iwae",
        "importance-weighted bound of 5 draws",
        "Burda, Grosse and Salakhutdinov 2016, arXiv 1509.00519",
        objective="iwae:k=5",
    ),
    Recipe(
        "iwae-stl",
        "the same, its gradient sticking the landing",
        "Roeder, Wu and Duvenaud 2017, arXiv 1703.09194",
        objective="iwae:k=5,gradient=stl",
    ),
    Recipe(
        "iwae-dreg",
        "the same, its gradient doubly reparameterized",
        "Tucker et al. 2019, arXiv 1810.04152",
        objective="iwae:k=5,gradient=dreg",
    ),
    Recipe(
        "miwae",
        "importance-weighted bound of 8 draws, averaged over 8 groups",
        RAINFORTH,
        objective="iwae:k=8,m=8",
    ),
    Recipe(
        "ciwae",
        "half the ELBO, half the importance-weighted bound of 64 draws",
        RAINFORTH,
        objective="iwae:k=64,elbo_weight=0.5",
    ),
    Recipe(
        "piwae",
        "the model by the bound of 64 draws, the guide by 8 groups of 8",
        RAINFORTH,
        objective="iwae:k=8,m=8,partial=true",
    ),
    Recipe(
        "info-vae",
        "no KL of each datum, but the discrepancy between aggregated posterior and prior",
        "Zhao, Song and Ermon 2019, arXiv 1706.02262",
        objective="info:alpha=1,strength=100",
    ),
    Recipe(
        "beta-tc-vae",
        "vae whose total correlation counts six times",
        "Chen et al. 2018, arXiv 1802.04942",
        objective="total-correlation",
        beta="6",
    ),
    Recipe(
        "autoencoder",
        "deterministic autoencoder: a point for a posterior, no KL",
        "Hinton and Salakhutdinov 2006",
        posterior="point",
    ),
)


_CODES = (
    Recipe(
        "fsq",
        "codes: features rounded to a grid, 16 codes of 64; a uniform prior",
        "Mentzer et al. 2023, arXiv 2309.15505",
        prior="codes",
        posterior="fsq",
    ),
    Recipe(
        "vqvae",
        "codes in a learned codebook, 16 of 64, moved by averages; a uniform prior",
        "van den Oord et al. 2017, arXiv 1711.00937",
        prior="codes",
        posterior="vq",
    ),
    Recipe(
        "vqvae-prior",
        "the same with an autoregressive prior over the codes, learned along",
        "van den Oord et al. 2017, arXiv 1711.00937",
        prior="learned-codes",
        posterior="vq",
    ),
    Recipe(
        "gumbel",
        "relaxed indicators of codes, 16 of 16, Gumbel-softmax; the decoder sees hard ones",
        "Jang et al. 2017, arXiv 1611.01144",
        prior="concrete",
        posterior="gumbel",
    ),
)


_CONDITIONAL = (
    Recipe(
        "cvae",
        "vae that is given the label of each datum",
        "Kingma et al. 2014, arXiv 1406.5298",
        given="labels",
    ),
    Recipe(
        "m2",
        "vae with the label of each datum, known for a few of them (--given some-labels:known=100) "
        "and summed over for the others, beside a classifier",
        "Kingma et al. 2014, arXiv 1406.5298",
        given="some-labels",
    ),
    Recipe(
        "m1-m2",
        "the same for features such as the posterior means of a fitted vae: normal likelihood",
        "Kingma et al. 2014, arXiv 1406.5298",
        "normal:scale=predicted",
        given="some-labels",
    ),
    Recipe(
        "cvae-quadrant",
        "three quadrants of an image, given the lower left one: structured prediction",
        "Sohn, Lee and Yan 2015",
        prior="conditional",
        given="quadrant",
    ),
)


_LEVELS = (
    Recipe(
        "iwae-2layer",
        "two levels, 100 and 50 dimensions; importance-weighted bound of 5 draws",
        "Burda, Grosse and Salakhutdinov 2016, arXiv 1509.00519",
        levels="bottom-up",
        objective="iwae:k=5",
    ),
    Recipe(
        "hvae",
        "two levels of 40 dimensions, both seen by the decoder; the KL warmed up over 10 epochs",
        TOMCZAK,
        levels="top-down",
        beta="warmup:10",
    ),
    Recipe(
        "ladder",
        "ladder VAE of 5 levels, 64 to 4 dimensions; the KL warmed up over 10 epochs",
        "Sønderby et al. 2016, arXiv 1602.02282",
        levels="ladder",
        beta="warmup:10",
    ),
    Recipe(
        "vdvae-small",
        "levels of feature maps at three sizes of an image under a vector; bounded scales",
        "Child 2021, arXiv 2011.10650",
        levels="maps",
    ),
    Recipe(
        "draw",
        "DRAW: 10 steps of z, each of which adds to a canvas; its guide sees what it lacks so far; "
        "the KL warmed up over 10 epochs",
        "Gregor et al. 2015, arXiv 1502.04623",
        levels="draw",
        beta="warmup:10",
    ),
    Recipe(
        "draw-attention",
        "the same, which reads 2 × 2 and writes 5 × 5 pixels at a time, by Gaussian attention",
        "Gregor et al. 2015, arXiv 1502.04623",
        levels="draw:read=2,write=5",
        beta="warmup:10",
    ),
)


_SEQUENCES = (
    Recipe(
        "dmm",
        "deep Markov model of sequences: z at each step, a gated transition, a guide that reads "
        "from the end; the likelihood suits the data; the KL warmed up over 10 epochs",
        KRISHNAN,
        likelihood=None,
        levels="chain",
        beta="warmup:10",
    ),
    Recipe(
        "dmm-mean-field",
        "the same, in whose posterior the steps of z are independent given x",
        KRISHNAN,
        likelihood=None,
        levels="chain:guide=mean-field",
        beta="warmup:10",
    ),
    Recipe(
        "dmm-autoregressive",
        "the same as dmm, in which each element of a step depends on those before it, as notes of "
        "a chord do",
        KRISHNAN,
        likelihood=None,
        levels="chain:autoregressive=128",
        beta="warmup:10",
    ),
    Recipe(
        "text-vae",
        "one z for a whole line of text, or another sequence, which recurrent networks read and "
        "write; a quarter of the steps is hidden from the writer; the KL warmed up over 10 epochs",
        "Bowman et al. 2016, arXiv 1511.06349",
        likelihood=None,
        levels="sequence:word_dropout=0.25",
        beta="warmup:10",
    ),
)


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        *_LIKELIHOODS,
        *_NETWORKS,
        *_PRIORS,
        *_OBJECTIVES,
        *_CODES,
        *_CONDITIONAL,
        *_LEVELS,
        *_SEQUENCES,
    )
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        ValueError: if there is none, with the nearest name.
    """
    return find_named(name, RECIPES, "recipe")
