"""The arguments and options of the command line, each with its help."""

from pathlib import Path
from typing import Annotated

import typer

RunFolder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run.")]


RecipeName = Annotated[
    str | None,
    typer.Argument(
        metavar="RECIPE",
        help="What to fit: see `latente recipes`.",
        show_default="vae for the image sets, vae-normal for other data",
    ),
]


DataName = Annotated[
    str,
    typer.Option(
        help="digits, mnist, fashion-mnist, kmnist, freyfaces, or a file: "
        ".npy, .npz, .csv, .parquet."
    ),
]


LabelColumn = Annotated[
    str | None, typer.Option(help="Column of a table that holds labels.", show_default="none")
]


Standardize = Annotated[
    bool, typer.Option("--standardize", help="Standardize each element by its training data.")
]


PosteriorName = Annotated[
    str | None,
    typer.Option(
        help="Family of q(z|x): diagonal, full-rank, planar, iaf, spline or point; see "
        "`latente recipes`.",
        show_default="the recipe's own, diagonal for most",
    ),
]


LatentDim = Annotated[int, typer.Option(help="Dimension K of the latent space.")]


Hidden = Annotated[
    str | None,
    typer.Option(
        help="Widths of the hidden layers, as in 400,400.",
        show_default="400,400; 200,200 for data of at most 256 values",
    ),
]


Epochs = Annotated[int, typer.Option(help="Passes over the data.")]


BatchSize = Annotated[
    int | None,
    typer.Option(help="Data in a minibatch.", show_default="128, or all data where they are fewer"),
]


LearningRate = Annotated[
    float, typer.Option(help="Adam's step size at the start; it falls to zero.")
]


ClipNorm = Annotated[
    float | None,
    typer.Option(help="Largest norm of the gradient per datum.", show_default="no limit"),
]


Patience = Annotated[
    int | None,
    typer.Option(
        help="Stop after so many epochs without a better validation ELBO, and keep the best.",
        show_default="never stop early",
    ),
]


Seed = Annotated[int, typer.Option(help="Decides split, weights, order and draws.")]


DrawSeed = Annotated[int, typer.Option(help="Seed of the draws.")]


Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


CompileName = Annotated[
    str,
    typer.Option(
        "--compile",
        help="How steps run: recorded (once that pays), inductor (needs a C++ compiler) or plain.",
    ),
]


PrecisionName = Annotated[
    str, typer.Option("--precision", help="Of the networks' products: float32, medium, bfloat16.")
]


Profile = Annotated[
    bool,
    typer.Option("--profile", help="Say where the time of a step goes, at the end."),
]


Out = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Folder for the run.", show_default="runs/DATA-RECIPE[-POSTERIOR]-kK"
    ),
]


Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on with the run in DIR, with its own settings; --epochs may be raised."
    ),
]
