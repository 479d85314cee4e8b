"""How a convolutional network reads an event shape: channels, and the axes along which it goes."""

from typing import NamedTuple


class Kind(NamedTuple):
    """The words for data with some number of spatial axes."""

    noun: str
    elements: str
    axes: str


KINDS = {
    1: Kind("signal", "values", "length,"),
    2: Kind("image", "pixels", "height, width"),
    3: Kind("volume", "voxels", "depth, height, width"),
}
"""The kinds of data, by the number of their spatial axes."""

USUAL_CHANNELS = (1, 3, 4)
"""How many channels images have: grey, red–green–blue, and these with opacity."""

SLENDER = 4
"""How many times as long as the other one axis is where the other may be one of channels."""


class Layout(NamedTuple):
    """An event shape, read: its number of channels, and its sizes along the spatial axes."""

    channels: int
    sizes: tuple[int, ...]

    def __str__(self) -> str:
        kind = KINDS[len(self.sizes)]
        sizes = " × ".join(map(str, self.sizes))
        return f"a{'n' if kind.noun[0] in 'aeiou' else ''} {kind.noun} of {sizes} {kind.elements}"


def read_layout(event_shape: tuple[int, ...], dims: int | None = None) -> Layout:
    """Read an event shape as channels, 1 if it has no axis of them, and spatial sizes.

    Channels come first. Without ``dims``, one axis is a signal, two axes are an image, three are an
    image with channels, and four are a volume with channels.

    Args:
        event_shape: shape of one datum.
        dims: number of spatial axes: 1 for signals, 2 for images, 3 for volumes.

    Raises:
        ValueError: if the shape has too many or too few axes; if its last axis seems to be that of
            the channels; or if it can be read in two ways and ``dims`` is not given.

    >>> read_layout((3, 32, 32)), read_layout((3, 500), dims=1)
    (Layout(channels=3, sizes=(32, 32)), Layout(channels=3, sizes=(500,)))
    """
    shape = tuple(event_shape)
    if dims is not None and dims not in KINDS:
        raise ValueError(f"dims must be 1, 2 or 3, got {dims!r}")
    possible = {
        num: Layout(1, shape) if num == len(shape) else Layout(shape[0], shape[1:])
        for num in KINDS
        if len(shape) in (num, num + 1)
    }
    if min(shape, default=0) < 1 or not possible or dims not in (None, *possible):
        raise ValueError(_what_is_taken(shape, dims))
    if dims is None and _is_clear(shape):
        return possible[(len(shape) + 2) // 2]
    if dims is not None and not _has_channels_last(shape, dims):
        return possible[dims]
    raise ValueError(_readings(shape, dims, possible))


def _is_clear(shape: tuple[int, ...]) -> bool:
    """Whether a shape can be read without ``dims``."""
    if len(shape) == 2:
        return max(shape) < SLENDER * min(shape)
    if _may_have_channels_last(shape):
        return False
    return len(shape) != 3 or shape[0] <= max(USUAL_CHANNELS)


def _may_have_channels_last(shape: tuple[int, ...]) -> bool:
    return len(shape) > 1 and shape[-1] in USUAL_CHANNELS and shape[0] not in USUAL_CHANNELS


def _has_channels_last(shape: tuple[int, ...], dims: int) -> bool:
    """Whether a shape with an axis of channels has it last beyond doubt.

    Features such as (64, 4, 4), small along all spatial axes, may well have it first.
    """
    if len(shape) == dims or not _may_have_channels_last(shape):
        return False
    usual = max(USUAL_CHANNELS)
    return dims == 1 or (shape[0] > usual and max(shape[1:-1]) > usual)


def _what_is_taken(shape: tuple[int, ...], dims: int | None) -> str:
    taken = [
        f"{kind.noun}s ({kind.axes}) or (channels, {kind.axes.rstrip(',')})"
        for num, kind in KINDS.items()
        if dims in (None, num)
    ]
    given = "" if dims is None else f" with dims={dims}"
    return f"a convolutional network{given} takes {', '.join(taken)}; got the event shape {shape}"


def _readings(shape: tuple[int, ...], dims: int | None, possible: dict[int, Layout]) -> str:
    """The sentence that refuses a shape: the ways to read it, and what decides."""
    readings = [
        f"{layout}{'' if layout.sizes == shape else f' with {layout.channels} channels'} "
        f"(give dims={num})"
        for num, layout in possible.items()
        if dims is None and not _has_channels_last(shape, num)
    ]
    if _may_have_channels_last(shape):
        swapped = Layout(shape[-1], shape[:-1])
        first = (swapped.channels, *swapped.sizes)
        readings.append(f"{swapped} with the channels last (move them to the front, {first})")
    verb = "can be read as" if len(readings) > 1 else "seems to be"
    return f"the event shape {shape} of a convolutional network {verb} {', or as '.join(readings)}"
