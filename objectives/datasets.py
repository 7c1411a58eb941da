"""Data sets known by name: the published ones that torchvision downloads, and scikit-learn's digits."""

import contextlib
import difflib
import hashlib
import os
import pickle
import socket
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DOWNLOAD_TIMEOUT_S = 30.0
DIGITS_LABEL_LIMITS = {"flip": 0, "flip_vertical": 0, "turn": 0, "rotate": 90}
"""A mirrored digit is none; a 6 on its head is a 9."""


class DataError(Exception):
    """The data are missing, damaged or of the wrong form; the message alone is for the user."""

    user_message = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Everything but a published test set."""

    name: str
    x: NDArray[np.generic]
    """uint8 (N, C, H, W), or float32 (N, D)."""
    y: NDArray[np.int64] | NDArray[np.float32]
    """(N,): classes 0 to K - 1, or the numbers to predict."""
    classes: tuple[str, ...]
    """Empty where numbers are predicted."""
    validation: int | float = 0.2
    """Count or fraction where the study says nothing."""
    tested_elsewhere: bool = False
    """A test set was published apart: none of these examples is needed for it."""
    label_limits: Mapping[str, float] = field(default_factory=dict)
    """Augmentation -> the strength beyond which an example no longer shows what its label says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A data set that torchvision can download."""

    title: str
    torchvision_class: str
    urls: tuple[str, ...]
    folder: str
    algorithm: str
    files: Mapping[str, str]
    """The training files, which are all that a search reads: name -> digest of its content."""
    test_files: Mapping[str, str]
    """The same of the test files."""
    classes: tuple[str, ...]
    validation: int
    parse: Callable[[Iterable[bytes]], tuple[NDArray[np.uint8], NDArray[np.int64]]]
    label_limits: Mapping[str, float] = field(default_factory=dict)


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
        names = (*PUBLISHED, "digits", "imdb")
        raise DataError(
            f"[data] name: must be one of {', '.join(names)}, got {name!r}.{closest(str(name), names)} "
            "Data of your own are named by path."
        )
    x, y = published.parse(_contents(published, published.files, data_dir=data_dir, progress=progress))
    return Examples(
        name=str(name),
        x=x,
        y=y,
        classes=published.classes,
        validation=published.validation,
        tested_elsewhere=True,
        label_limits=published.label_limits,
    )


def published_test(name: str, *, data_dir: Path, progress: Callable[[str], None]) -> Examples:
    """Load the test set of a published data set: for objectives.test_set, and nobody else.

    Raises:
        DataError: its files are missing or damaged.
    """
    published = PUBLISHED[name]
    x, y = published.parse(_contents(published, published.test_files, data_dir=data_dir, progress=progress))
    return Examples(name=name, x=x, y=y, classes=published.classes, tested_elsewhere=True)


def closest(word: str, words: Iterable[str]) -> str:
    """A hint at the word that was probably meant, or nothing."""
    matches = difflib.get_close_matches(word, list(words), n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def _digits() -> Examples:
    """The 1,797 handwritten digits of 8 x 8 pixels; their values 0 to 16 become 0 to 255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    return Examples(
        name="digits",
        x=x,
        y=digits.target.astype(np.int64),
        classes=tuple("0123456789"),
        label_limits=DIGITS_LABEL_LIMITS,
    )


# ---------------------------------------------------------------- published sets


def _contents(
    published: Published, files: Mapping[str, str], *, data_dir: Path, progress: Callable[[str], None]
) -> Iterator[bytes]:
    """The contents of some of its files, checked; all are downloaded where one of them is missing."""
    folder = data_dir / published.folder
    if not all((folder / file).is_file() for file in files):
        _download(published, data_dir=data_dir, progress=progress)
    return (_verified(folder / file, expected, published) for file, expected in files.items())


def _verified(path: Path, expected: str, published: Published) -> bytes:
    """The content of a file whose digest was checked on these very bytes."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}. Repair it or name another --data-dir.") from error
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
    new_folders = [folder for folder in (data_dir, *data_dir.parents) if not folder.exists()]
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
        for folder in new_folders:
            with contextlib.suppress(OSError):
                folder.rmdir()
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
    x = np.array(np.frombuffer(images, np.uint8, offset=16).reshape(-1, 1, 28, 28))  # torch warns of what is read-only
    return x, np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)


# Source: md5 of CIFAR-10's files and the addresses: torchvision.datasets 0.29 (CIFAR10, MNIST, FashionMNIST).
# sha256 of the idx files: of training, computed from files whose .gz has the md5 that torchvision publishes; of
# testing, from the t10k files beside these, parsed as torchvision 0.29 does.
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
        test_files={"test_batch": "40351d587109b95175f43aff81a1287e"},
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
        test_files={
            "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
        classes=tuple("0123456789"),
        validation=10_000,
        parse=_parsed_idx,
        label_limits=DIGITS_LABEL_LIMITS,
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
        test_files={
            "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
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
