"""One's own data: lists in the study file, an .npz file, or a folder of images with one folder a class.

Legend: N examples, C H W image, D features, K classes.
"""

import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from objectives.datasets import DataError, Examples


def inline(x: object, y: object, *, numeric: bool) -> Examples:
    """Take the examples that are listed in a study file; without `x` an example has no features.

    Args:
        x: rows of D numbers (N, D), or None.
        y: whole numbers, the classes; where `numeric`, numbers to predict.

    Raises:
        DataError: the lists do not have this form.
    """
    try:
        labels = np.array(y)
        features = np.zeros((labels.size, 0)) if x is None else np.array(x, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"[data] x: must be rows of equally many numbers, one for each of y: {error}.") from error
    return _examples("[data]", "inline", features, labels, None, numeric=numeric)


def own(path: object, *, size: object, numeric: bool) -> Examples:
    """Load the user's own .npz file or folder of images; a relative path starts at the current folder.

    Args:
        numeric: the y of an .npz file are numbers to predict, not classes.

    Raises:
        DataError: nothing is there, or it does not hold what it must.
    """
    if not isinstance(path, str) or not path:
        raise DataError(f"[data] path: must be the path of an .npz file or of a folder of images, got {path!r}.")
    place = Path(path).expanduser()
    if place.is_dir() and numeric:
        raise DataError(f"[data] path: {place} has classes, and no numbers to predict. Name an .npz file.")
    if place.is_dir():
        return _folder(place, size=_checked_size(size))
    if not place.is_file():
        raise DataError(f"[data] path: there is no file or folder {place.absolute()}.")
    if size is not None:
        raise DataError("[data] size: only a folder of images is resized. Remove the key.")
    arrays = _read_npz(place)
    for key in ("x", "y"):
        if key not in arrays:
            raise DataError(f"{place}: must hold the arrays x and y, found {', '.join(arrays) or 'none'}.")
    return _examples(str(place), place.stem, arrays["x"], arrays["y"], arrays.get("classes"), numeric=numeric)


def _examples(
    place: str,
    name: str,
    x: NDArray[np.generic],
    y: NDArray[np.generic],
    names: NDArray[np.generic] | None,
    *,
    numeric: bool,
) -> Examples:
    x = _shaped(place, x)
    targets, classes = (_numbers(place, y), ()) if numeric else _labelled(place, y, names)
    if len(x) != len(y):
        raise DataError(f"{place}: x and y must be equally long, got {len(x):,} examples and {len(y):,} labels.")
    return Examples(name=name, x=x, y=targets, classes=classes)


def _read_npz(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.lib.npyio.NpzFile):
            with archive:
                return {key: archive[key] for key in archive.files if key in ("x", "y", "classes")}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path}: cannot be read as an .npz file without pickle: {error}. "
            "Write it with numpy.savez(path, x=x, y=y), arrays of numbers only."
        ) from error
    raise DataError(f"{path}: must be an .npz file. Write it with numpy.savez(path, x=x, y=y).")


def _shaped(place: str, x: NDArray[np.generic]) -> NDArray[np.generic]:
    """Bring x into the form of Examples; channels count as first where both ends could hold them."""
    if x.dtype == np.uint8 and x.ndim == 3 and x.size:
        return x[:, None]
    if x.dtype == np.uint8 and x.ndim == 4 and x.size and x.shape[1] in (1, 3):
        return x
    if x.dtype == np.uint8 and x.ndim == 4 and x.size and x.shape[3] in (1, 3):
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    if x.dtype.kind == "f" and x.ndim == 2 and len(x):
        return _finite(place, "x", x)
    raise DataError(
        f"{place}: x must be images, uint8 of shape (N, H, W), (N, C, H, W) or (N, H, W, C) with 1 or 3 channels, "
        f"or vectors, floating point of shape (N, D); got {x.dtype} of shape {x.shape}."
    )


def _finite(place: str, key: str, values: NDArray[np.generic]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise DataError(f"{place}: {key} must be finite in float32, but holds NaN, infinite or too large values.")
    return narrow


def _numbers(place: str, y: NDArray[np.generic]) -> NDArray[np.float32]:
    if y.dtype.kind not in "iuf" or y.ndim != 1:
        raise DataError(f"{place}: y must be numbers of shape (N,), got {y.dtype} of shape {y.shape}.")
    return _finite(place, "y", y)


def _labelled(
    place: str, y: NDArray[np.generic], names: NDArray[np.generic] | None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels from 0, and the names of the classes: where none are given, the labels themselves, in order."""
    if y.dtype.kind not in "iu" or y.ndim != 1:
        raise DataError(f"{place}: y must be integers of shape (N,), got {y.dtype} of shape {y.shape}.")
    if names is None:
        values, y = np.unique(y, return_inverse=True)
        classes = tuple(str(value) for value in values)
    elif names.dtype.kind == "U" and names.ndim == 1:
        classes = tuple(names.tolist())
        if y.size and not 0 <= y.min() <= y.max() < len(classes):
            raise DataError(
                f"{place}: y must be 0 to {len(classes) - 1}, since there are {len(classes)} classes; "
                f"got {y.min()} to {y.max()}."
            )
    else:
        raise DataError(f"{place}: classes must be strings of shape (K,), got {names.dtype} of shape {names.shape}.")
    if len(set(classes)) < max(2, len(classes)):
        raise DataError(f"{place}: there must be at least two classes of different names, got {classes}.")
    return y.astype(np.int64), classes


def _checked_size(size: object) -> tuple[int, int] | None:
    match size:
        case None:
            return None
        case [int(height), int(width)] if height > 0 and width > 0:
            return height, width
    raise DataError(f"[data] size: must be [height, width] in pixels, got {size!r}.")


def _folder(root: Path, *, size: tuple[int, int] | None) -> Examples:
    classes = tuple(sorted(entry.name for entry in root.iterdir() if entry.is_dir() and entry.name[0] != "."))
    if len(classes) < 2:
        raise DataError(f"{root}: must hold one folder of images a class, and at least two, found {len(classes)}.")
    paths = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((root / name).iterdir())
        if path.name[0] != "."
    ]
    images = [_image(path, size=size) for path, _ in paths]
    channels = max((image.ndim for image in images), default=2)
    for (path, _), image in zip(paths, images, strict=True):
        if image.shape[:2] != images[0].shape[:2]:
            raise DataError(
                f"{path}: is {image.shape[0]} x {image.shape[1]} pixels, but {paths[0][0]} is "
                f"{images[0].shape[0]} x {images[0].shape[1]}. Give [data] size = [height, width] to resize them all."
            )
    if not images:
        raise DataError(f"{root}: its folders hold no images.")
    x = np.stack([np.stack([image] * 3, axis=2) if image.ndim < channels else image for image in images])
    x = x[:, None] if channels == 2 else np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return Examples(name=root.resolve().name, x=x, y=np.array([label for _, label in paths], np.int64), classes=classes)


def _image(path: Path, *, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """uint8 (H, W) where the file is grey, else (H, W, 3)."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            if file.mode[0] in "IF":
                raise DataError(f"{path}: must have 8 bits a channel, got mode {file.mode}. Convert it first.")
            image = file.convert("L" if file.mode in ("1", "L") else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image: {error}. Repair or remove it.") from error
    if size is not None:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(image)
