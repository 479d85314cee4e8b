"""The sizes of data that parts are built to."""

from dataclasses import dataclass

from ...models import ColumnFamily


@dataclass(frozen=True)
class Sizes:
    """The sizes that a pair is built for."""

    event_shape: tuple[int, ...]
    latent_dim: int
    hidden: tuple[int, ...]
    """Widths of the hidden layers of the networks."""
    context: int = 0
    """Length of the context as a vector: how many classes there are, or how many elements."""
    num_classes: int = 0
    """How many values the data take, where they are codes of classes."""
    end: int | None = None
    """The token that ends each sequence of a text."""
    columns: tuple[ColumnFamily, ...] = ()
    """The families of the columns, where the data are a table of several."""
