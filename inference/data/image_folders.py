"""Folders of images: one class a subfolder, and one part of the split a subfolder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .array_source import from_array
from .checks import number_of
from .images import read_image
from .items import stack_items
from .parts import PART_WORDS, PARTS, join_parts
from .source import Source, join_notes

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
"""Suffixes of the images of a folder, in upper or lower case."""


def read_image_folder(folder: Path, labels: Any = None) -> Source:
    """Read the images in a folder, sorted by name: grey (N, H, W) or colour (N, H, W, C).

    If all images lie in subfolders, these are classes, which become labels, as for torchvision's
    ``ImageFolder``; or they are parts, such as ``train``, ``validation`` and ``test``, each a
    folder of images or of classes. Levels of 8 or 16 bits are divided by 255 or 65535.

    Args:
        labels: labels (N,) in the order of the names, for images without classes.

    Raises:
        ValueError: if there are no images, if some lie in subfolders and some do not, or if they
            are not of one size and kind.
    """
    parts = _find_parts(folder)
    listed = {part: _list_images(place) for part, place in parts.items()}
    paths = [path for images in listed.values() for path, _ in images]
    classes = [kind for images in listed.values() for _, kind in images]
    if len({kind is None for kind in classes}) > 1:
        loose = paths[classes.index(None)]
        raise ValueError(
            f"{folder} has images in subfolders, and {loose} beside them: subfolders are classes, "
            "so move each image into one, or all out of them"
        )
    if classes[0] is not None:
        if labels is not None:
            raise ValueError(f"{folder} has labels, its subfolders: leave labels= out")
        labels = classes
    notes: set[str] = set()

    def read(number: int) -> np.ndarray:
        values, found = read_image(paths[number])
        notes.update(found)
        return values

    values = stack_items(str(folder), len(paths), read, lambda number: str(paths[number]))
    sizes = {part: len(images) for part, images in listed.items()}
    note = join_notes(_describe(values, labels, sizes), *sorted(notes), _left_out(folder))
    source = from_array(str(folder), values, labels, note, are_images=True)
    return replace(source, **join_parts(sizes), channels_last=values.ndim == 4)


def _find_parts(folder: Path) -> dict[str, Path]:
    """The parts of the split with their folders, if subfolders are named after them."""
    names = [place.name for place in _subfolders(folder)]
    words = [PART_WORDS.get(name.lower()) for name in names]
    named = {word for word in words if word is not None}
    if "train" not in named or (len(named) == 1 and None in words):
        return {"train": folder}
    loose = [path.name for path in _files(folder) if path.parent == folder and _is_image(path)]
    if len(named) < len(names) or loose:
        raise ValueError(
            f"{folder} holds {', '.join([*names, *loose[:1]])}, which may be parts of a split or "
            "classes: leave in it one folder for each part, such as train and test"
        )
    places = {word: folder / name for name, word in zip(names, words, strict=True)}
    return {part: places[part] for part in PARTS if part in places}


def _list_images(folder: Path) -> list[tuple[Path, str | None]]:
    """The images of a folder, sorted, each with its class: the subfolder in which it lies."""
    found = []
    for path in filter(_is_image, _files(folder)):
        inside = path.relative_to(folder).parts
        found.append((path, inside[0] if len(inside) > 1 else None))
    if not found:
        ends = sorted({path.suffix or path.name for path in _files(folder)})
        held = f", but {', '.join(ends[:5])}" if ends else ""
        raise ValueError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)}){held}")
    return found


def _subfolders(folder: Path) -> list[Path]:
    """The subfolders that hold images."""
    inside = [path.relative_to(folder).parts for path in _files(folder) if _is_image(path)]
    return [folder / name for name in sorted({parts[0] for parts in inside if len(parts) > 1})]


def _files(folder: Path) -> list[Path]:
    """The files in a folder and its subfolders, sorted by name; none that is hidden."""
    found = []
    for path in sorted(folder.iterdir()):
        if not path.name.startswith("."):
            found.extend(_files(path) if path.is_dir() else [path])
    return found


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _left_out(folder: Path) -> str:
    """A note on files that are no images."""
    others = sum(not _is_image(path) for path in _files(folder))
    return f"{number_of(others, 'other file')} left out" if others else ""


def _describe(values: np.ndarray, labels: Any, sizes: dict[str, int]) -> str:
    kind = "colour" if values.ndim == 4 else "grey"
    size = "×".join(map(str, values.shape[1:3]))
    text = f"read {number_of(len(values), f'{kind} image')} of {size}, sorted by name"
    if len(sizes) > 1:
        text += f", {', '.join(f'{count} to {part}' for part, count in sizes.items())}"
    if isinstance(labels, list):
        text += f", {number_of(len(set(labels)), 'subfolder')} as labels"
    return text
