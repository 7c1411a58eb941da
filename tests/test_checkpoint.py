"""Claims of search/checkpoint.py: whole or not at all, and hashed."""

import errno
import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from search.checkpoint import hash_file, keep_only, name, remove, sha256, write_whole


def content(data: bytes) -> Callable[[Path], None]:
    def write(partial: Path) -> None:
        partial.write_bytes(data)

    return write


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def full_disk(path: Path) -> None:
    path.write_bytes(b"half of it")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_written_file_has_its_hash_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "weights.safetensors"
    digest = write_whole(path, content(b"weights"))
    assert path.read_bytes() == b"weights"
    assert digest == hashlib.sha256(b"weights").hexdigest() == sha256(path)
    assert names_in(path.parent) == {"weights.safetensors", "weights.safetensors.sha256"}


def test_sha256sum_accepts_the_hash_and_finds_a_flipped_bit(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_whole(path, content(bytes(range(256))))
    check = ["sha256sum", "--check", "--status", hash_file(path).name]
    assert subprocess.run(check, cwd=tmp_path, check=False).returncode == 0
    path.write_bytes(bytes([1, *range(1, 256)]))
    assert subprocess.run(check, cwd=tmp_path, check=False).returncode != 0


def test_writer_that_raises_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "weights.safetensors", full_disk)
    assert names_in(tmp_path) == set()


def test_writer_that_raises_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    digest = write_whole(path, content(b"old"))
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, full_disk)
    assert path.read_bytes() == b"old"
    assert hash_file(path).read_text().split() == [digest, path.name]
    assert len(names_in(tmp_path)) == 2


def test_reader_never_sees_a_part(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    seen = []

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            for _ in range(3):
                file.write(b"part")
                file.flush()
                seen.append(path.exists())

    write_whole(path, write)
    assert seen == [False] * 3
    assert path.read_bytes() == b"part" * 3


def test_removed_checkpoint_is_gone_with_its_hash_and_may_be_removed_twice(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_whole(path, content(b"weights"))
    remove(path)
    remove(path)
    assert names_in(tmp_path) == set()


def test_only_the_named_checkpoints_are_kept_and_strangers_left_alone(tmp_path: Path) -> None:
    for trial in (1, 2, 3):
        write_whole(tmp_path / name(trial), content(b"weights"))
    for stranger in ("notes.txt", ".trial-00004.safetensors.77.partial", ".trial-00004.safetensors.77.hash"):
        (tmp_path / "checkpoints" / stranger).write_text("")
    keep_only(tmp_path, [name(2)])
    kept = {"trial-00002.safetensors", "trial-00002.safetensors.sha256", "notes.txt"}
    assert names_in(tmp_path / "checkpoints") == kept
    keep_only(tmp_path / "elsewhere", [])
    assert not (tmp_path / "elsewhere").exists()
