"""The arguments and options of the command line, each with its help and its panel."""

from pathlib import Path
from typing import Annotated

import typer

DATA_PANEL, COMPOSITION_PANEL, FIT_PANEL, RUN_PANEL = "Data", "Composition", "Fit", "Run"
"""Panels of the help of ``latente train``."""

RECIPE_DEFAULT = "the recipe's"
"""Default of the options that a recipe has a choice for."""


RunFolder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run.")]


RecipeName = Annotated[
    str | None,
    typer.Argument(
        metavar="RECIPE",
        help="What to fit: see `latente recipes`.",
        show_default="vae for the image sets and with --likelihood, dmm for sequences, vae-normal "
        "for other data",
    ),
]


DataName = Annotated[
    str,
    typer.Option(
        help="digits, mnist, fashion-mnist, kmnist, freyfaces, jsb-chorales, spoken-digits; image "
        "folder; .npy, .npz, .mat, .h5, .csv, .tsv, .xlsx, .parquet, .feather, .h5ad, .txt.",
        rich_help_panel=DATA_PANEL,
    ),
]


LabelColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of a table, or array of a file, that holds labels.",
        show_default="none",
        rich_help_panel=DATA_PANEL,
    ),
]


Delimiter = Annotated[
    str | None,
    typer.Option(
        help="What stands between the cells of a CSV file: one character, tab or space.",
        show_default="found in the text",
        rich_help_panel=DATA_PANEL,
    ),
]


Decimal = Annotated[
    str | None,
    typer.Option(
        help="Decimal mark of a CSV file: a point or a comma.",
        show_default="found in the text",
        rich_help_panel=DATA_PANEL,
    ),
]


Header = Annotated[
    bool | None,
    typer.Option(
        "--header/--no-header",
        help="Whether the first row of a CSV file holds the names of the columns.",
        show_default="found in the text",
        rich_help_panel=DATA_PANEL,
    ),
]


Scale = Annotated[
    float | None,
    typer.Option(
        help="What values are divided by, as 255 for grey levels.",
        show_default="the largest level of the image sets; 255 for bytes",
        rich_help_panel=DATA_PANEL,
    ),
]


ShapeText = Annotated[
    str | None,
    typer.Option(
        "--shape",
        help="Shape of a datum whose values are the columns of a table, as in 28,28.",
        show_default="as it is",
        rich_help_panel=DATA_PANEL,
    ),
]


LayoutName = Annotated[
    str | None,
    typer.Option(
        "--layout",
        help="Where the channels of images are: channels_first or channels_last.",
        show_default="told from the shape",
        rich_help_panel=DATA_PANEL,
    ),
]


TestText = Annotated[
    str,
    typer.Option(
        "--test",
        metavar="FRACTION|FILE",
        help="The test set: a fraction of the data that have none of their own, or a file.",
        rich_help_panel=DATA_PANEL,
    ),
]


Validation = Annotated[
    float, typer.Option(help="Fraction of the data to validate on.", rich_help_panel=DATA_PANEL)
]


SplitText = Annotated[
    str,
    typer.Option(
        "--split",
        help="random, by-class, in-order, or the column of a table that says train, validation or "
        "test.",
        rich_help_panel=DATA_PANEL,
    ),
]


Groups = Annotated[
    str | None,
    typer.Option(
        help="Column of a table: rows of equal values are in the same part.",
        show_default="none",
        rich_help_panel=DATA_PANEL,
    ),
]


Order = Annotated[
    str | None,
    typer.Option(
        help="Column of a table that sorts the rows of --split in-order.",
        show_default="none",
        rich_help_panel=DATA_PANEL,
    ),
]


Drop = Annotated[
    str | None,
    typer.Option(
        help="Columns of a table that are not modelled, such as identifiers: names as in id,date.",
        show_default="none",
        rich_help_panel=DATA_PANEL,
    ),
]


Kinds = Annotated[
    str | None,
    typer.Option(
        help="Kinds of columns for the likelihood columns, as in age=count,stage=ordinal.",
        show_default="as found in the table",
        rich_help_panel=DATA_PANEL,
    ),
]


Key = Annotated[
    str | None,
    typer.Option(
        help="Array of a .npz, .mat or .h5 file, sheet of .xlsx or layer of .h5ad that holds the "
        "data.",
        show_default="the only one",
        rich_help_panel=DATA_PANEL,
    ),
]


Tokens = Annotated[
    str | None,
    typer.Option(
        help="What the tokens of the lines of a text are: characters or words.",
        show_default="none",
        rich_help_panel=DATA_PANEL,
    ),
]


LengthsName = Annotated[
    str | None,
    typer.Option(
        "--lengths",
        help="Array of a file that holds the lengths of its padded sequences.",
        show_default="none",
        rich_help_panel=DATA_PANEL,
    ),
]


KeepDegenerate = Annotated[
    bool,
    typer.Option(
        "--keep-degenerate",
        help="Keep columns of a table that are constant, or copies of another.",
        rich_help_panel=DATA_PANEL,
    ),
]


Standardize = Annotated[
    bool,
    typer.Option(
        "--standardize",
        help="Standardize each element by its training data.",
        rich_help_panel=DATA_PANEL,
    ),
]


BinarizeName = Annotated[
    str | None,
    typer.Option(
        "--binarize",
        help="Draw bits of values in [0, 1]: none, static (once) or dynamic (anew each epoch).",
        show_default="dynamic for the likelihood bernoulli, else none",
        rich_help_panel=DATA_PANEL,
    ),
]


GivenText = Annotated[
    str | None,
    typer.Option(
        "--given",
        help="Context of a conditional model: none, labels, quadrant, quadrants:2, or columns of a "
        "table, as in age,site.",
        show_default=RECIPE_DEFAULT,
        rich_help_panel=DATA_PANEL,
    ),
]


LevelsText = Annotated[
    str | None,
    typer.Option(
        "--levels",
        help="Latent variables: one, or levels from the bottom up: bottom-up, top-down, ladder, "
        "residual or maps, as in ladder:dims=32-8,widths=200-100; or chain, of sequences.",
        show_default=RECIPE_DEFAULT,
        rich_help_panel=COMPOSITION_PANEL,
    ),
]


PriorText = Annotated[
    str | None,
    typer.Option(
        "--prior",
        help="p(z): standard, mixture, vamp, flow or conditional, as in vamp:components=100.",
        show_default=RECIPE_DEFAULT,
        rich_help_panel=COMPOSITION_PANEL,
    ),
]


PosteriorText = Annotated[
    str | None,
    typer.Option(
        "--posterior",
        help="q(z|x): diagonal, full-rank, planar, iaf, spline or point, as in iaf:transforms=4.",
        show_default=RECIPE_DEFAULT,
        rich_help_panel=COMPOSITION_PANEL,
    ),
]


LikelihoodText = Annotated[
    str | None,
    typer.Option(
        "--likelihood",
        help="p(x|z): bernoulli, continuous-bernoulli, logistic, normal, student-t, categorical, "
        "poisson, negative-binomial or columns (tables of several kinds), as in "
        "normal:scale=predicted.",
        show_default=RECIPE_DEFAULT,
        rich_help_panel=COMPOSITION_PANEL,
    ),
]


NetworkText = Annotated[
    str | None,
    typer.Option(
        "--network",
        help="Encoder and decoder: mlp or conv, as in conv:residual_blocks=1, or conv:dims=1 for "
        "signals.",
        show_default=RECIPE_DEFAULT,
        rich_help_panel=COMPOSITION_PANEL,
    ),
]


ObjectiveText = Annotated[
    str | None,
    typer.Option(
        "--objective",
        help="What is maximized: elbo, iwae, info, total-correlation, score-function or, of "
        "sequences, filtering, as in iwae:k=50,gradient=dreg.",
        show_default=RECIPE_DEFAULT,
        rich_help_panel=COMPOSITION_PANEL,
    ),
]


BetaText = Annotated[
    str | None,
    typer.Option(
        "--beta",
        help="Weight of the KL: a number, or a schedule, as in warmup:10 or cyclical:10.",
        show_default=f"{RECIPE_DEFAULT}, else the objective's",
        rich_help_panel=COMPOSITION_PANEL,
    ),
]


FreeBits = Annotated[
    float | None,
    typer.Option(
        help="Nats of each latent dimension's KL that are free.",
        show_default=f"{RECIPE_DEFAULT}, else 0",
        rich_help_panel=COMPOSITION_PANEL,
    ),
]


LatentDim = Annotated[
    int, typer.Option(help="Dimension K of the latent space.", rich_help_panel=COMPOSITION_PANEL)
]


Hidden = Annotated[
    str | None,
    typer.Option(
        help="Widths of the hidden layers, as in 400,400.",
        show_default="400,400; 200,200 for data of at most 256 values",
        rich_help_panel=COMPOSITION_PANEL,
    ),
]


Epochs = Annotated[int, typer.Option(help="Passes over the data.", rich_help_panel=FIT_PANEL)]


BatchSize = Annotated[
    int | None,
    typer.Option(
        help="Data in a minibatch.",
        show_default="128, or all data where they are fewer",
        rich_help_panel=FIT_PANEL,
    ),
]


LearningRate = Annotated[
    float,
    typer.Option(
        help="The optimizer's step size at the start; see --schedule.", rich_help_panel=FIT_PANEL
    ),
]


ScheduleName = Annotated[
    str,
    typer.Option(
        "--schedule",
        help="The learning rate: hold-then-fall (to zero), constant, or plateau (a tenth after "
        "every 10 epochs without a better validation loss).",
        rich_help_panel=FIT_PANEL,
    ),
]


OptimizerName = Annotated[
    str,
    typer.Option(
        "--optimizer",
        help="adam, adamw, sgd, rmsprop, adagrad, nadam, radam or adamax.",
        rich_help_panel=FIT_PANEL,
    ),
]


WeightDecay = Annotated[
    float, typer.Option(help="Decay of the networks' weights.", rich_help_panel=FIT_PANEL)
]


ClipNorm = Annotated[
    float | None,
    typer.Option(
        help="Largest norm of the gradient per datum.",
        show_default="no limit",
        rich_help_panel=FIT_PANEL,
    ),
]


Patience = Annotated[
    int | None,
    typer.Option(
        help="Stop after so many epochs without a better validation ELBO, and keep the best.",
        show_default="never stop early",
        rich_help_panel=FIT_PANEL,
    ),
]


Seed = Annotated[
    int, typer.Option(help="Decides split, weights, order and draws.", rich_help_panel=FIT_PANEL)
]


DrawSeed = Annotated[int, typer.Option(help="Seed of the draws: equal seeds, equal figures.")]


NumSamples = Annotated[
    int, typer.Option(help="Importance samples per datum; 2200 give k̂ its full threshold.")
]


NewData = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="FILE",
        help="New data, in the units and with the columns of the data of the fit.",
        show_default="the test data of the run",
    ),
]


NewLabels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="FILE.npy",
        help="Labels beside new data that are an array; a table has a column of them.",
        show_default="those in the file of the data",
    ),
]


MovedTo = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="Where the file of the run's data is now, if it has moved.",
        show_default="as it was, or as far from DIR as it was",
    ),
]


Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files of an earlier call; else they are kept.")
]


Device = Annotated[str, typer.Option(help="auto, cpu or cuda.", rich_help_panel=RUN_PANEL)]


CompileName = Annotated[
    str,
    typer.Option(
        "--compile",
        help="How steps run: recorded (once that pays), inductor (needs a C++ compiler) or plain.",
        rich_help_panel=RUN_PANEL,
    ),
]


PrecisionName = Annotated[
    str,
    typer.Option(
        "--precision",
        help="Of the networks' products: float32, medium, bfloat16.",
        rich_help_panel=RUN_PANEL,
    ),
]


Profile = Annotated[
    bool,
    typer.Option(
        "--profile",
        help="Say where the time of a step goes, at the end.",
        rich_help_panel=RUN_PANEL,
    ),
]


Out = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder for the run.",
        show_default="runs/DATA-RECIPE[-CHOICE…]-kK",
        rich_help_panel=RUN_PANEL,
    ),
]


Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue the run in DIR with its own settings; --epochs may be raised.",
        rich_help_panel=RUN_PANEL,
    ),
]
