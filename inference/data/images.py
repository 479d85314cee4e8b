"""Images of Pillow, and image files, as arrays; what would be misread in silence is refused."""

from pathlib import Path
from typing import Any

import numpy as np

from .source import reading

GREY_MODES = ("1", "L", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")
"""Pillow's modes of images without colour: bits, 8, 32 and 16 bits, floats."""
COLOUR_MODES = ("RGB",)
ALPHA_MODES = ("LA", "RGBA")
"""Modes whose last channel says how opaque a pixel is."""
OPAQUE_NOTE = "alpha channels, all opaque, dropped"
UPRIGHT_NOTE = "turned upright, as the EXIF data say"
ORIENTATION_TAG, PHOTOMETRIC_TAG = 274, 262
"""Tags of EXIF and of TIFF."""


def is_image(values: Any) -> bool:
    """Whether a value is an image of Pillow, found without importing it."""
    return all(hasattr(values, name) for name in ("getbands", "mode", "tobytes"))


def image_values(image: Any, name: str) -> tuple[np.ndarray, set[str]]:
    """The values of an image of Pillow, (H, W) or (H, W, C); also returns notes.

    Raises:
        ValueError: if it has a palette, transparent pixels, or colours other than red, green, blue.
    """
    if image.mode not in (*GREY_MODES, *COLOUR_MODES, *ALPHA_MODES) or "transparency" in image.info:
        kind = f"of mode {image.mode}" if "transparency" not in image.info else "transparent"
        raise ValueError(f"{name} is {kind}: convert it, by image.convert('RGB') or ('L')")
    values = np.asarray(image)
    if image.mode == "I" and image.format == "PNG":  # how older versions of Pillow read 16 bits
        values = values.astype(np.uint16)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    return _without_alpha(values, name) if image.mode in ALPHA_MODES else (values, set())


def read_image(path: Path) -> tuple[np.ndarray, set[str]]:
    """Read an image file, (H, W) or (H, W, C); also returns notes.

    Raises:
        ValueError: if the file is truncated or no image, holds several images, or is of a kind
            that would lose values.
    """
    from PIL import Image, ImageOps  # slow to import, and seldom needed

    with reading(path):
        image = Image.open(path)
    with image:
        num_images = getattr(image, "n_frames", 1)
        if num_images > 1:
            raise ValueError(f"{path} holds {num_images} images: save each in a file")
        if image.mode not in GREY_MODES and any(";16" in kind for kind in _raw_modes(image)):
            values = _read_deep_colour(path)
            return _without_alpha(values, str(path)) if values.shape[-1] == 4 else (values, set())
        if image.mode.startswith("I;16") and _is_inverted(image):
            raise ValueError(f"{path} holds 16 bits where 0 is white: save it with 0 as black")
        with reading(path):
            image.load()
            turned = image.getexif().get(ORIENTATION_TAG, 1) != 1
        values, notes = image_values(image, str(path))
        if turned:
            upright = ImageOps.exif_transpose(image)
            values, notes = image_values(upright, str(path))
            notes = {*notes, UPRIGHT_NOTE}
        return values, notes


def _without_alpha(values: np.ndarray, name: str) -> tuple[np.ndarray, set[str]]:
    opaque = np.iinfo(values.dtype).max
    if (values[..., -1] != opaque).any():
        raise ValueError(
            f"{name} has transparent pixels, which have no colour of their own: paste it on a "
            "background, and save it without alpha channel"
        )
    values = values[..., :-1]
    return (values[..., 0] if values.shape[-1] == 1 else values), {OPAQUE_NOTE}


def _raw_modes(image: Any) -> list[str]:
    """How the values lie in a file that is not yet loaded, as Pillow calls it."""
    return [str(tile[3] if isinstance(tile[3], str) else tile[3][0]) for tile in image.tile]


def _read_deep_colour(path: Path) -> np.ndarray:
    """Read colours of 16 bits, which Pillow cuts to the first 8: once more, for the last 8.

    Raises:
        ValueError: if the file is not PNG, or holds grey values with an alpha channel.
    """
    from PIL import Image  # slow to import, and seldom needed

    halves = []
    for order in ("16B", "16L"):  # PNG has the high byte first
        with reading(path), Image.open(path) as image:
            (kind,) = _raw_modes(image)
            if image.format != "PNG" or kind not in ("RGB;16B", "RGBA;16B"):
                break
            tile: Any = (*image.tile[0][:3], kind.replace("16B", order))
            image.tile = [tile]
            halves.append(np.asarray(image).astype(np.uint16))
    if len(halves) < 2:
        raise ValueError(
            f"{path} has several channels of 16 bits, which cannot be read from such a file: save "
            "it as a PNG of 16 bits, red, green, blue, or all as one .npy"
        )
    return 256 * halves[0] + halves[1]


def _is_inverted(image: Any) -> bool:
    return image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC_TAG) == 0
