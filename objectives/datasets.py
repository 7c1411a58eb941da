"""Where examples come from: torchvision's published files, scikit-learn's digits, an .npz file, a folder of images."""

import difflib
import hashlib
import os
import pickle
import socket
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DOWNLOAD_TIMEOUT_S = 30.0


class DataError(Exception):
    """The data are missing, damaged or of the wrong form; the message alone is for the user."""

    user_message = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Everything but a published test set."""

    name: str
    x: NDArray[np.generic]
    """uint8 (N, C, H, W), or float32 (N, D)."""
    y: NDArray[np.int64]
    """(N,), 0 to K - 1."""
    classes: tuple[str, ...]
    validation: int | float = 0.2
    """Count or fraction where the study says nothing."""
    tested_elsewhere: bool = False
    """A test set was published apart: none of these examples is needed for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A data set that torchvision can download, and its training files, which are all that is read."""

    title: str
    torchvision_class: str
    urls: tuple[str, ...]
    folder: str
    algorithm: str
    files: Mapping[str, str]
    """File name -> digest of its content."""
    classes: tuple[str, ...]
    validation: int
    parse: Callable[[Iterable[bytes]], tuple[NDArray[np.uint8], NDArray[np.int64]]]


def named(name: object, *, size: object, data_dir: Path, progress: Callable[[str], None]) -> Examples:
    """Load a data set by its name; a published one is downloaded if it is missing.

    Raises:
        DataError: there is no such data set, or its files are missing or damaged.
    """
    if size is not None:
        raise DataError(f"[data] size: the images of {name} have a fixed size. Remove the key.")
    if name == "digits":
        return _digits()
    published = PUBLISHED.get(name) if isinstance(name, str) else None
    if published is None:
        names = (*PUBLISHED, "digits")
        raise DataError(
            f"[data] name: must be one of {', '.join(names)}, got {name!r}.{closest(str(name), names)} "
            "Data of your own are named by path."
        )
    folder = data_dir / published.folder
    if not all((folder / file).is_file() for file in published.files):
        _download(published, data_dir=data_dir, progress=progress)
    x, y = published.parse(_verified(folder / file, published) for file in published.files)
    return Examples(
        name=str(name),
        x=x,
        y=y,
        classes=published.classes,
        validation=published.validation,
        tested_elsewhere=True,
    )


def own(path: object, *, size: object) -> Examples:
    """Load the user's own .npz file or folder of images; a relative path starts at the current folder.

    Raises:
        DataError: nothing is there, or it does not hold what it must.
    """
    if not isinstance(path, str) or not path:
        raise DataError(f"[data] path: must be the path of an .npz file or of a folder of images, got {path!r}.")
    place = Path(path).expanduser()
    if place.is_dir():
        return _folder(place, size=_checked_size(size))
    if not place.is_file():
        raise DataError(f"[data] path: there is no file or folder {place.absolute()}.")
    if size is not None:
        raise DataError("[data] size: only a folder of images is resized. Remove the key.")
    return _npz(place)


def closest(word: str, words: Iterable[str]) -> str:
    """A hint at the word that was probably meant, or nothing."""
    matches = difflib.get_close_matches(word, list(words), n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""


# ---------------------------------------------------------------- published sets


def _verified(path: Path, published: Published) -> bytes:
    """The content of a file whose digest was checked on these very bytes."""
    content = path.read_bytes()
    expected = published.files[path.name]
    found = hashlib.new(published.algorithm, content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise DataError(
            f"{path}: this file is damaged or is not the published one: its {published.algorithm} must be {expected}, "
            f"found {found}. Delete it and run again; it is then downloaded anew."
        )
    return content


def _download(published: Published, *, data_dir: Path, progress: Callable[[str], None]) -> None:
    """Let torchvision download into a folder beside the final one, then move the files that are missing there."""
    import torchvision

    progress(f"{published.title} is not in {data_dir / published.folder}: downloading it from {published.urls[0]}")
    previous = socket.getdefaulttimeout()
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=data_dir, prefix=".download-") as temporary:
            socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)  # torchvision sets none, and would wait for ever
            getattr(torchvision.datasets, published.torchvision_class)(temporary, download=True)
            (data_dir / published.folder).mkdir(parents=True, exist_ok=True)
            for file in (Path(temporary) / published.folder).iterdir():
                if not (target := data_dir / published.folder / file.name).exists():
                    os.replace(file, target)
    except (OSError, RuntimeError, HTTPException, EOFError, zlib.error) as error:
        raise DataError(_missing(published, data_dir, error)) from error
    finally:
        socket.setdefaulttimeout(previous)


def _missing(published: Published, data_dir: Path, error: Exception) -> str:
    files = "\n".join(f"  {data_dir / published.folder / f}" for f in published.files)
    return (
        f"{published.title} is missing and could not be downloaded from {' or '.join(published.urls)}: "
        f"{' '.join(str(error).split()) or type(error).__name__}.\n"
        f"Download it where there is a network, unpack it, and put these files here:\n{files}\n"
        "Or name the folder that has them with --data-dir or SEARCH_DATA_DIR. Or run the same command with "
        "--dataset digits (scikit-learn's handwritten digits, built in)."
    )


def _parsed_cifar(contents: Iterable[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    batches = [pickle.loads(content, encoding="bytes") for content in contents]  # noqa: S301 - digests were checked
    x = np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32)
    return x, np.concatenate([np.asarray(batch[b"labels"], np.int64) for batch in batches])


def _parsed_idx(contents: Iterable[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Source: LeCun, Cortes, Burges, "The MNIST database": headers of 16 bytes (images) and 8 bytes (labels)."""
    images, labels = contents
    x = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 1, 28, 28)
    return x, np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)


# Source: md5 of CIFAR-10's files and the addresses: torchvision.datasets 0.29 (CIFAR10, MNIST, FashionMNIST).
# sha256 of the idx files: computed from files whose .gz has the md5 that torchvision publishes.
PUBLISHED: Mapping[str, Published] = {
    "cifar10": Published(
        title="CIFAR-10",
        torchvision_class="CIFAR10",
        urls=("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
        folder="cifar-10-batches-py",
        algorithm="md5",
        files={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        validation=5_000,
        parse=_parsed_cifar,
    ),
    "mnist": Published(
        title="MNIST",
        torchvision_class="MNIST",
        urls=("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
        folder="MNIST/raw",
        algorithm="sha256",
        files={
            "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        },
        classes=tuple("0123456789"),
        validation=10_000,
        parse=_parsed_idx,
    ),
    "fashion_mnist": Published(
        title="Fashion-MNIST",
        torchvision_class="FashionMNIST",
        urls=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        folder="FashionMNIST/raw",
        algorithm="sha256",
        files={
            "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        },
        classes=(
            "T-shirt/top",
            "trouser",
            "pullover",
            "dress",
            "coat",
            "sandal",
            "shirt",
            "sneaker",
            "bag",
            "ankle boot",
        ),
        validation=10_000,
        parse=_parsed_idx,
    ),
}


# ---------------------------------------------------------------- without files, and the user's own


def _digits() -> Examples:
    """The 1,797 handwritten digits of 8 x 8 pixels; their values 0 to 16 become 0 to 255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    return Examples(name="digits", x=x, y=digits.target.astype(np.int64), classes=tuple("0123456789"))


def _npz(path: Path) -> Examples:
    arrays = _read_npz(path)
    for key in ("x", "y"):
        if key not in arrays:
            raise DataError(f"{path}: must hold the arrays x and y, found {', '.join(arrays) or 'none'}.")
    x, (y, classes) = _shaped(path, arrays["x"]), _labelled(path, arrays["y"], arrays.get("classes"))
    if len(x) != len(y):
        raise DataError(f"{path}: x and y must be equally long, got {len(x):,} examples and {len(y):,} labels.")
    return Examples(name=path.stem, x=x, y=y, classes=classes)


def _read_npz(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if isinstance(archive, np.lib.npyio.NpzFile):
                return {key: archive[key] for key in archive.files if key in ("x", "y", "classes")}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path}: cannot be read as an .npz file without pickle: {error}. "
            "Write it with numpy.savez(path, x=x, y=y), arrays of numbers only."
        ) from error
    raise DataError(f"{path}: must be an .npz file. Write it with numpy.savez(path, x=x, y=y).")


def _shaped(path: Path, x: NDArray[np.generic]) -> NDArray[np.generic]:
    """Bring x into the form of Examples; channels count as first where both ends could hold them."""
    if x.dtype == np.uint8 and x.ndim == 3 and x.size:
        return x[:, None]
    if x.dtype == np.uint8 and x.ndim == 4 and x.size and x.shape[1] in (1, 3):
        return x
    if x.dtype == np.uint8 and x.ndim == 4 and x.size and x.shape[3] in (1, 3):
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    if x.dtype.kind == "f" and x.ndim == 2 and x.size:
        if not np.isfinite(x).all():
            raise DataError(f"{path}: x holds NaN or infinite values. Replace them first.")
        return x.astype(np.float32)
    raise DataError(
        f"{path}: x must be images, uint8 of shape (N, H, W), (N, C, H, W) or (N, H, W, C) with 1 or 3 channels, "
        f"or vectors, floating point of shape (N, D); got {x.dtype} of shape {x.shape}."
    )


def _labelled(
    path: Path, y: NDArray[np.generic], names: NDArray[np.generic] | None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels from 0, and the names of the classes: where none are given, the labels themselves, in order."""
    if y.dtype.kind not in "iu" or y.ndim != 1:
        raise DataError(f"{path}: y must be integers of shape (N,), got {y.dtype} of shape {y.shape}.")
    if names is None:
        values, y = np.unique(y, return_inverse=True)
        classes = tuple(str(value) for value in values)
    elif names.dtype.kind == "U" and names.ndim == 1:
        classes = tuple(names.tolist())
        if y.size and not 0 <= y.min() <= y.max() < len(classes):
            raise DataError(
                f"{path}: y must be 0 to {len(classes) - 1}, since there are {len(classes)} classes; "
                f"got {y.min()} to {y.max()}."
            )
    else:
        raise DataError(f"{path}: classes must be strings of shape (K,), got {names.dtype} of shape {names.shape}.")
    if len(set(classes)) < max(2, len(classes)):
        raise DataError(f"{path}: there must be at least two classes of different names, got {classes}.")
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
    return Examples(name=root.name, x=x, y=np.array([label for _, label in paths], np.int64), classes=classes)


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
