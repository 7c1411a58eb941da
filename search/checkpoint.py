"""Weights on disk: written whole or not at all, with a SHA-256 beside them."""

import hashlib
import os
from collections.abc import Callable, Collection
from pathlib import Path


def name(trial: int) -> str:
    """Return the checkpoint's path, relative to the study's folder."""
    return f"checkpoints/trial-{trial:05d}.safetensors"


def write_whole(path: Path, write: Callable[[Path], None]) -> str:
    """Let `write` fill a temporary file, move it to `path`, put its hash beside it, and return the hash.

    After a power cut `path` holds the old content or the new, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        digest = sha256(partial)
        _sync(partial)
        beside = hash_file(path)
        partial_hash = partial.with_suffix(".hash")
        partial_hash.write_text(f"{digest}  {path.name}\n")
        _sync(partial_hash)
        partial.replace(path)
        partial_hash.replace(beside)
        _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)
        partial.with_suffix(".hash").unlink(missing_ok=True)
    return digest


def hash_file(path: Path) -> Path:
    """Return where the hash of `path` lies, in the form that `sha256sum --check` reads."""
    return path.with_name(path.name + ".sha256")


def remove(path: Path) -> None:
    """Delete the checkpoint and its hash, if they are there."""
    path.unlink(missing_ok=True)
    hash_file(path).unlink(missing_ok=True)


def keep_only(folder: Path, names: Collection[str]) -> None:
    """Delete every checkpoint of the study's folder but these, and what is left of unfinished ones."""
    kept = {each for path in (folder / name for name in names) for each in (path, hash_file(path))}
    for pattern in ("trial-*.safetensors*", ".trial-*.safetensors.*"):
        for path in set((folder / "checkpoints").glob(pattern)) - kept:
            path.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
