"""Data sets: what is read, what is refused, and how it is split."""

import gzip
import hashlib
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor

from objectives.data import SCALINGS, DataError, Dataset, load
from objectives.datasets import PUBLISHED
from objectives.parts import stratified_split

REFUSED_PORT = "http://127.0.0.1:9/"
X = np.random.default_rng(0).normal(5, 3, (40, 3))


def loaded(data: dict[str, object], *, seed: int = 0, data_dir: Path = Path("nowhere")) -> Dataset:
    return load(data, data_dir=data_dir, seed=seed, device="cpu", progress=lambda _: None)


def everything(dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Both parts together, in the order of their positions, with gaps where test examples were."""
    order = torch.cat([dataset.train_index, dataset.val_index]).argsort()
    return torch.cat([dataset.x_train, dataset.x_val])[order], torch.cat([dataset.y_train, dataset.y_val])[order]


# ---------------------------------------------------------------- the split


@given(
    y=npst.arrays(np.int64, st.integers(1, 200), elements=st.integers(0, 6)),
    part=st.floats(0, 1),
    seed=st.integers(0, 2**64 - 1),
)
def test_split_gives_every_class_its_share_exactly(y: NDArray[np.int64], part: float, seed: int) -> None:
    n_val = int(part * len(y))
    train, val = stratified_split(y, n_val=n_val, seed=seed)
    assert len(val) == n_val
    assert sorted([*train, *val]) == list(range(len(y)))
    assert (np.diff(train) > 0).all()
    assert (np.diff(val) > 0).all()
    shares = np.bincount(y) * n_val / len(y)
    assert (np.abs(np.bincount(y[val], minlength=len(shares)) - shares) < 1).all()


def test_split_takes_each_example_equally_often() -> None:
    y = np.repeat([0, 1], [30, 10])
    times = np.zeros(40)
    for seed in range(2_000):
        times[stratified_split(y, n_val=8, seed=seed)[1]] += 1
    # Binomial(2000, 0.2) has a deviation of 17.9; five of them
    assert np.abs(times - 400).max() < 90


def test_split_is_the_same_on_every_machine_and_version() -> None:
    """Against a plain second implementation over PCG64's raw words, whose stream NumPy guarantees."""
    y = np.array([2, 0, 1, 1, 0, 2, 2, 0, 1, 0])
    words = np.random.PCG64(7).random_raw(10)
    expected = [min((words[i], i) for i in range(10) if y[i] == label)[1] for label in (0, 1, 2)]
    assert stratified_split(y, n_val=3, seed=7)[1].tolist() == sorted(expected)


# ---------------------------------------------------------------- digits


def test_digits_hold_back_a_test_part_and_split_the_rest_80_20() -> None:
    digits = loaded({"name": "digits"})
    assert (len(digits.y_train), len(digits.y_val)) == (1150, 288)
    used = torch.cat([digits.train_index, digits.val_index])
    assert len(set(used.tolist())) == 1797 - 359
    images, labels = load_digits(return_X_y=True)
    x, y = everything(digits)
    positions = used.sort().values
    torch.testing.assert_close(y, torch.from_numpy(labels)[positions])
    scaled = torch.from_numpy(images)[positions].reshape(-1, 1, 8, 8) * 255 / 16
    assert (x.double() - scaled).abs().max() <= 0.5


def test_test_part_does_not_depend_on_the_seed() -> None:
    first, second = loaded({"name": "digits"}, seed=1), loaded({"name": "digits"}, seed=2)
    assert not torch.equal(first.val_index, second.val_index)
    assert first.checksum == second.checksum
    assert torch.equal(everything(first)[0], everything(second)[0])


def test_statistics_are_those_of_the_training_part_alone() -> None:
    digits = loaded({"name": "digits", "validation": 0.5})
    train, both = digits.x_train.double() / 255, everything(digits)[0].double() / 255
    torch.testing.assert_close(digits.mean, train.mean((0, 2, 3)).float())
    torch.testing.assert_close(digits.std, train.std((0, 2, 3), correction=0).float())
    assert not torch.allclose(digits.mean, both.mean((0, 2, 3)).float(), rtol=1e-5)


def test_same_seed_gives_the_same_data() -> None:
    first, second = loaded({"name": "digits"}, seed=2**63), loaded({"name": "digits"}, seed=2**63)
    assert torch.equal(first.train_index, second.train_index)
    assert torch.equal(first.x_train, second.x_train)


def test_each_scaling_takes_the_training_part_where_it_says() -> None:
    """Of images by their values, of vectors by the numbers themselves, the validation part left out."""
    digits = {scaling: loaded({"name": "digits", "scaling": scaling}) for scaling in SCALINGS}
    vectors = {
        scaling: loaded({"y": [0, 1] * 20, "x": X.tolist(), "scaling": scaling, "test": 4, "validation": 12})
        for scaling in SCALINGS
    }
    for sets, unit, dims in ((digits, 255, (0, 2, 3)), (vectors, 1, (0,))):
        scaled = {}
        for scaling, each in sets.items():
            x = each.x_train.double() / unit
            shape = (1, -1, *(1,) * (x.ndim - 2))
            scaled[scaling] = (x - each.mean.double().view(shape)) / each.std.double().view(shape)
        raw = scaled["none"]
        assert torch.equal(raw, sets["none"].x_train.double() / unit)
        torch.testing.assert_close(scaled["half"], 2 * raw - 1)
        assert torch.allclose(scaled["minmax"].amin(dims), torch.zeros(()).double(), atol=1e-6)
        assert torch.allclose(scaled["minmax"].amax(dims), torch.ones(()).double(), atol=1e-6)
        for scaling, correction in (("standard", 0), ("sample", 1)):
            assert scaled[scaling].mean(dims).abs().max() < 1e-6
            assert torch.allclose(scaled[scaling].std(dims, correction=correction), torch.ones(()).double(), rtol=1e-6)


def test_examples_may_stand_in_the_study_file_and_be_measured_themselves() -> None:
    listed = loaded({"x": [[1, 2.5], [3, 4], [5, 6]], "y": [2, 0, 2], "validation": "train"})
    assert (listed.name, listed.classes, listed.validation) == ("inline", ("0", "2"), "train")
    assert listed.x_train.tolist() == [[1, 2.5], [3, 4], [5, 6]]
    assert listed.y_train.tolist() == [1, 0, 1]
    assert torch.equal(listed.x_val, listed.x_train)
    assert torch.equal(listed.y_val, listed.y_train)


def test_examples_may_have_no_features() -> None:
    assert loaded({"y": [0, 1, 1], "validation": "train"}).x_train.shape == (3, 0)


def test_numbers_to_predict_are_read_as_numbers_and_split_without_classes(tmp_path: Path) -> None:
    y = np.arange(60) / 7
    table: dict[str, object] = {**saved(tmp_path, x=np.arange(60.0)[:, None], y=y), "test": 15, "validation": 9}
    mine = load(table, data_dir=tmp_path, seed=0, device="cpu", progress=print, numeric=True)
    assert (mine.classes, mine.y_train.dtype, len(mine.y_train), len(mine.y_val)) == ((), torch.float32, 36, 9)
    assert np.array_equal(mine.y_train.numpy(), y[mine.train_index.numpy()].astype(np.float32))
    with pytest.raises(DataError, match="digits has classes, and no numbers"):
        load({"name": "digits"}, data_dir=tmp_path, seed=0, device="cpu", progress=print, numeric=True)


# ---------------------------------------------------------------- published sets


@pytest.mark.real_data
def test_cifar10_is_split_45000_to_5000_with_500_of_each_class(data_dir: Path) -> None:
    cifar = loaded({"name": "cifar10"}, data_dir=data_dir)
    assert cifar.x_train.shape == (45_000, 3, 32, 32)
    assert cifar.x_train.dtype == torch.uint8
    assert cifar.y_val.bincount().tolist() == [500] * 10
    assert cifar.y_train.bincount().tolist() == [4_500] * 10
    assert torch.cat([cifar.train_index, cifar.val_index]).sort().values.equal(torch.arange(50_000))
    # Source: the figures everyone normalizes CIFAR-10 with, of all 50,000 images
    torch.testing.assert_close(cifar.mean, torch.tensor([0.4914, 0.4822, 0.4465]), atol=2e-3, rtol=0)
    torch.testing.assert_close(cifar.std, torch.tensor([0.2470, 0.2435, 0.2616]), atol=2e-3, rtol=0)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("cifar10", torchvision.datasets.CIFAR10),
        ("mnist", torchvision.datasets.MNIST),
        ("fashion_mnist", torchvision.datasets.FashionMNIST),
    ],
)
def test_examples_are_those_torchvision_reads(data_dir: Path, name: str, reference: Any) -> None:
    published = reference(data_dir, train=True)
    images = torch.as_tensor(published.data)
    images = images.permute(0, 3, 1, 2) if images.ndim == 4 else images[:, None]
    x, y = everything(loaded({"name": name}, data_dir=data_dir))
    assert torch.equal(x, images)
    assert torch.equal(y, torch.as_tensor(published.targets))


@pytest.mark.real_data
def test_published_test_files_are_not_needed(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "MNIST/raw").mkdir(parents=True)
    for file in (data_dir / "MNIST/raw").glob("train-*-ubyte"):
        (tmp_path / "MNIST/raw" / file.name).symlink_to(file)
    assert len(loaded({"name": "mnist"}, data_dir=tmp_path).y_val) == 10_000
    with pytest.raises(DataError, match="published test set"):
        loaded({"name": "mnist", "test": 0.1}, data_dir=tmp_path)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("cifar10", torchvision.datasets.CIFAR10),
        ("mnist", torchvision.datasets.MNIST),
        ("fashion_mnist", torchvision.datasets.FashionMNIST),
    ],
)
def test_reproduction_trains_on_the_whole_training_set_and_measures_the_published_test_set(
    data_dir: Path, name: str, reference: Any
) -> None:
    found = loaded({"name": name, "validation": "original_test"}, data_dir=data_dir)
    published = reference(data_dir, train=False)
    images = torch.as_tensor(published.data)
    images = images.permute(0, 3, 1, 2) if images.ndim == 4 else images[:, None]
    assert torch.equal(found.x_val, images)
    assert torch.equal(found.y_val, torch.as_tensor(published.targets))
    assert torch.equal(found.train_index, torch.arange(len(reference(data_dir, train=True).targets)))
    searched = loaded({"name": name}, data_dir=data_dir)
    assert found.checksum == searched.checksum
    assert found.facts["validation"] == "original_test"
    assert "test_checksum" in found.facts
    assert "test_checksum" not in searched.facts
    assert searched.facts["validation"] == "held_out"


@pytest.mark.real_data
def test_only_a_reproduction_opens_the_test_files(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    read_bytes = Path.read_bytes

    def noted(path: Path) -> bytes:
        opened.append(path.name)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", noted)
    monkeypatch.setattr("builtins.open", lambda *_, **__: pytest.fail("data are read in one place"))
    for name, tests in (("mnist", ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]), ("cifar10", ["test_batch"])):
        for validation, expected in ((0.1, []), (100, []), ("train", []), ("original_test", tests)):
            opened.clear()
            loaded({"name": name, "validation": validation}, data_dir=data_dir)
            assert [file for file in opened if "train" not in file and "data_batch" not in file] == expected


class _Malicious:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


def test_damaged_cifar10_pickle_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    trace, folder = tmp_path / "executed", tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for number in range(1, 6):
        (folder / f"data_batch_{number}").write_bytes(pickle.dumps(_Malicious(trace)))
    found = hashlib.md5((folder / "data_batch_1").read_bytes()).hexdigest()
    with pytest.raises(DataError) as refused:
        loaded({"name": "cifar10"}, data_dir=tmp_path)
    for part in (str(folder / "data_batch_1"), "c99cafc152244af753f735de768cd75f", found, "Delete it"):
        assert part in str(refused.value)
    assert not trace.exists()
    pickle.loads((folder / "data_batch_1").read_bytes())
    assert trace.exists()  # it would have been executed


@pytest.mark.real_data
def test_one_changed_bit_of_mnist_is_found(data_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "MNIST/raw"
    folder.mkdir(parents=True)
    for file in (data_dir / "MNIST/raw").glob("train-*-ubyte"):
        content = bytearray(file.read_bytes())
        content[-1] ^= 1 if "labels" in file.name else 0
        (folder / file.name).write_bytes(content)
    with pytest.raises(DataError, match="train-labels-idx1-ubyte: this file is damaged"):
        loaded({"name": "mnist"}, data_dir=tmp_path)


def test_failed_download_leaves_nothing_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", REFUSED_PORT + "cifar-10-python.tar.gz")
    said: list[str] = []
    with pytest.raises(DataError) as refused:
        load({"name": "cifar10"}, data_dir=tmp_path, seed=0, device="cpu", progress=said.append)
    assert "downloading" in said[0]
    assert list(tmp_path.iterdir()) == []
    for part in (str(tmp_path / "cifar-10-batches-py/data_batch_1"), "refused", "--data-dir", "--dataset digits"):
        assert part in str(refused.value)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that torchvision takes for the place where Fashion-MNIST is published."""
    folder = tmp_path / "served"
    folder.mkdir()
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [f"http://127.0.0.1:{http.server_port}/"])
    yield folder
    http.shutdown()
    http.server_close()
    thread.join()


def test_wrong_content_from_the_server_leaves_nothing(server: Path, tmp_path: Path) -> None:
    (server / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(DataError, match="corrupted"):
        loaded({"name": "fashion_mnist"}, data_dir=tmp_path / "new" / "data")
    assert not (tmp_path / "new").exists()


@pytest.mark.real_data
def test_missing_data_set_is_downloaded_once(
    server: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources = []
    for file in (data_dir / "FashionMNIST/raw").glob("*-ubyte"):
        packed = gzip.compress(file.read_bytes(), compresslevel=1)
        (server / f"{file.name}.gz").write_bytes(packed)
        resources.append((f"{file.name}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", resources)
    downloaded = loaded({"name": "fashion_mnist"}, data_dir=tmp_path / "data")
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == ["FashionMNIST"]
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [REFUSED_PORT])
    assert downloaded.checksum == loaded({"name": "fashion_mnist"}, data_dir=tmp_path / "data").checksum
    assert downloaded.checksum == loaded({"name": "fashion_mnist"}, data_dir=data_dir).checksum


# ---------------------------------------------------------------- one's own data: .npz

Y = np.tile([0, 1, 2], 20)


def saved(path: Path, **arrays: Any) -> dict[str, object]:
    np.savez(path / "mine.npz", **arrays)
    return {"path": str(path / "mine.npz")}


@pytest.mark.parametrize("shape", [(60, 5, 4), (60, 1, 5, 4), (60, 3, 5, 4), (60, 5, 4, 1), (60, 5, 4, 3)])
def test_npz_images_come_back_channels_first(tmp_path: Path, shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    mine = loaded(saved(tmp_path, x=images, y=Y, classes=np.array(["ant", "bee", "cat"])))
    n_channels = 3 if 3 in shape else 1
    assert mine.x_train.shape[1:] == (n_channels, 5, 4)
    assert mine.classes == ("ant", "bee", "cat")
    expected = images[mine.train_index.numpy()]
    if shape[-1] == n_channels:
        expected = np.moveaxis(expected, -1, 1)
    assert np.array_equal(mine.x_train.numpy().reshape(expected.shape), expected)


def test_npz_vectors_come_back_as_float32_with_statistics_per_feature(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(3, 2, (60, 4))
    vectors[:, 1] = 7
    mine = loaded(saved(tmp_path, x=vectors, y=Y - 1))
    assert mine.classes == ("-1", "0", "1")
    train = vectors[mine.train_index.numpy()].astype(np.float32)
    assert np.array_equal(mine.x_train.numpy(), train)
    np.testing.assert_allclose(mine.mean.numpy(), train.mean(0), rtol=1e-5)
    np.testing.assert_allclose(mine.std.numpy(), [*train.std(0)[:1], 1, *train.std(0)[2:]], rtol=1e-5)


def test_own_data_set_a_test_part_aside(tmp_path: Path) -> None:
    mine = loaded(saved(tmp_path, x=np.arange(60.0)[:, None], y=Y) | {"test": 15, "validation": 9})
    assert (len(mine.y_train), len(mine.y_val)) == (36, 9)
    assert mine.y_val.bincount().tolist() == [3, 3, 3]


def test_checksum_changes_with_any_example_label_or_class_name(tmp_path: Path) -> None:
    x, names = np.arange(60.0, dtype=np.float32)[:, None], np.array(["a", "b", "c"])
    plain = loaded(saved(tmp_path, x=x, y=Y, classes=names))
    used = int(plain.train_index[0])
    other_x, other_y = x.copy(), Y.copy()
    other_x[used] += 1e-3
    other_y[[used, used + 1]] = Y[[used + 1, used]]
    changed = [
        loaded(saved(tmp_path, x=other_x, y=Y, classes=names)),
        loaded(saved(tmp_path, x=x, y=other_y, classes=names)),
        loaded(saved(tmp_path, x=x, y=Y, classes=np.array(["a", "b", "d"]))),
    ]
    assert len({plain.checksum, *(mine.checksum for mine in changed)}) == 4


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.array([{}] * 60, dtype=object), "y": Y}, "without pickle"),
        ({"x": np.zeros((60, 2))}, "must hold the arrays x and y, found x"),
        ({"x": np.zeros((59, 2)), "y": Y}, "equally long, got 59 examples and 60 labels"),
        ({"x": np.zeros((60, 2), np.int32), "y": Y}, r"got int32 of shape \(60, 2\)"),
        ({"x": np.zeros((60, 2, 8, 8), np.uint8), "y": Y}, "1 or 3 channels"),
        ({"x": np.full((60, 2), np.nan), "y": Y}, "finite"),
        ({"x": np.full((60, 2), 1e300), "y": Y}, "finite in float32"),
        ({"x": np.zeros((60, 2)), "y": Y / 2}, r"y must be integers of shape \(N,\), got float64"),
        ({"x": np.zeros((60, 2)), "y": Y, "classes": np.array(["a", "b"])}, "y must be 0 to 1"),
        ({"x": np.zeros((60, 2)), "y": Y, "classes": np.array(["a", "a", "b"])}, "different names"),
        ({"x": np.zeros((60, 2)), "y": Y * 0}, "at least two classes"),
        (
            {"x": np.zeros((60, 2)), "y": Y, "classes": np.array(["a", "b", "c", "d"])},
            "no example of class 'd' is left",
        ),
    ],
)
def test_unusable_npz_is_refused_with_its_path(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        loaded(saved(tmp_path, **arrays) | {"test": 1, "validation": 2})


def test_pickled_object_in_an_npz_is_never_executed(tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    with pytest.raises(DataError):
        loaded(saved(tmp_path, x=np.array([_Malicious(trace)] * 60, dtype=object), y=Y))
    assert not trace.exists()


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "npy"])
def test_damaged_npz_is_refused(tmp_path: Path, damage: str) -> None:
    data = saved(tmp_path, x=np.random.default_rng(0).normal(size=(60, 50)), y=Y)
    path = tmp_path / "mine.npz"
    content = bytearray(path.read_bytes())
    match damage:
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "flipped":
            content[2_000] ^= 1
            path.write_bytes(content)
        case "text":
            path.write_text("x,y\n1,2\n")
        case "npy":
            with path.open("wb") as file:
                np.save(file, Y)
    with pytest.raises(DataError, match=r"mine\.npz.*numpy\.savez"):
        loaded(data)


# ---------------------------------------------------------------- one's own data: a folder of images


def painted(root: Path, *, modes: tuple[str, ...] = ("L", "L"), sizes: tuple[tuple[int, int], ...] = ((6, 4),)) -> None:
    """Ten PNGs for each of two classes, one brightness an image; class number k has the mode `modes[k]`."""
    for label, (name, mode) in enumerate(zip(("cat", "dog"), modes, strict=True)):
        (root / name).mkdir(parents=True)
        for number in range(10):
            level = 100 * label + number
            color = level if mode == "L" else (level, 0, 0)
            Image.new(mode, sizes[number % len(sizes)], color).save(root / name / f"{number}.png")


def test_folder_of_grey_images_has_one_class_a_folder(tmp_path: Path) -> None:
    painted(tmp_path / "pets")
    (tmp_path / "pets/.hidden").mkdir()
    (tmp_path / "pets/cat/.DS_Store").write_text("none")
    pets = loaded({"path": str(tmp_path / "pets"), "test": 4, "validation": 4})
    assert (pets.name, pets.classes) == ("pets", ("cat", "dog"))
    assert pets.x_train.shape == (12, 1, 4, 6)
    assert torch.equal(pets.x_train[:, 0, 0, 0], (pets.train_index % 10 + 100 * pets.y_train).to(torch.uint8))
    assert torch.equal(pets.y_train, pets.train_index // 10)


def test_folder_with_a_color_image_gets_three_channels(tmp_path: Path) -> None:
    painted(tmp_path, modes=("L", "RGB"))
    pets = loaded({"path": str(tmp_path)})
    corners, dog = pets.x_train[:, :, 0, 0], pets.y_train == 1
    assert (corners[dog, 1:] == 0).all()
    assert torch.equal(corners[~dog, 0], corners[~dog, 2])


def test_images_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    painted(tmp_path, sizes=((6, 4), (5, 5)))
    with pytest.raises(DataError, match=r"1\.png: is 5 x 5 pixels, but .*0\.png is 4 x 6.*size = \[height, width\]"):
        loaded({"path": str(tmp_path)})
    assert loaded({"path": str(tmp_path), "size": [3, 7]}).x_train.shape[1:] == (1, 3, 7)


def test_unreadable_image_is_named(tmp_path: Path) -> None:
    painted(tmp_path)
    whole = (tmp_path / "dog/3.png").read_bytes()
    flipped = bytes([*whole[:45], whole[45] ^ 255, *whole[46:]])
    for broken in (b"no image", whole[:40], flipped):
        (tmp_path / "dog/3.png").write_bytes(broken)
        with pytest.raises(DataError, match=r"3\.png: cannot be read as an image"):
            loaded({"path": str(tmp_path)})


def test_sixteen_bit_image_is_refused_instead_of_clipped(tmp_path: Path) -> None:
    painted(tmp_path)
    Image.fromarray(np.full((4, 6), 40_000, np.uint16)).save(tmp_path / "dog/3.png")
    with pytest.raises(DataError, match=r"3\.png: must have 8 bits a channel"):
        loaded({"path": str(tmp_path)})


def test_folder_without_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "only").mkdir()
    with pytest.raises(DataError, match="at least two, found 1"):
        loaded({"path": str(tmp_path)})
    (tmp_path / "second").mkdir()
    with pytest.raises(DataError, match="hold no images"):
        loaded({"path": str(tmp_path)})


# ---------------------------------------------------------------- the [data] table


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "digits", "validaton": 0.1}, r"\[data\] validaton: there is no such key. Did you mean 'validation'"),
        ({}, "exactly one of name, path, and y with its x"),
        ({"name": "digits", "path": "x.npz"}, "exactly one of name, path, .* got name, path"),
        ({"x": [[1.0]]}, "exactly one of name, path, and y with its x, got x"),
        ({"y": [0, 1], "x": [[1.0], [2.0, 3.0]]}, "rows of equally many numbers"),
        ({"y": [0, 1], "x": [[1.0]]}, "equally long, got 1 examples and 2 labels"),
        ({"y": [0.5, 1.5]}, "y must be integers"),
        ({"name": "digits", "scaling": "zscore"}, "must be one of standard, sample, minmax, half, none, got 'zscore'"),
        ({"name": "digits", "validation": "original_test"}, "digits has no published test set"),
        ({"name": "digits", "validation": "train", "test": 0.1}, "has no effect with validation = 'train'"),
        ({"name": "cifar"}, "Did you mean 'cifar10'"),
        ({"name": "digits", "n_words": 100}, "only the words of imdb are counted"),
        ({"name": "imdb", "n_words": 0}, "must be a whole number, at least 1, got 0"),
        ({"name": "imdb"}, "nowhere/imdb/imdb_flat.npz: the IMDB reviews cannot be read: No such file"),
        ({"name": 10}, "must be one of cifar10, mnist, fashion_mnist, digits, imdb, got 10"),
        ({"name": "digits", "size": [8, 8]}, "fixed size"),
        ({"name": "digits", "validation": 1.0}, "between 0 and 1 or a count"),
        ({"name": "digits", "validation": True}, "got True"),
        ({"name": "digits", "validation": 0}, "both sides of 1,438 examples, got 0"),
        ({"name": "digits", "validation": 1438}, "both sides"),
        ({"name": "digits", "test": 1e-6}, "which is 0 of them"),
        ({"path": "nowhere.npz"}, r"there is no file or folder /.*nowhere\.npz"),
        ({"path": 3}, "must be the path"),
        ({"path": ".", "size": [0, 8]}, r"must be \[height, width\]"),
        ({"path": ".", "size": 8}, r"must be \[height, width\]"),
        ({"path": __file__, "size": [8, 8]}, "only a folder of images is resized"),
    ],
)
def test_wrong_data_table_is_refused_with_its_key(data: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        loaded(data)


def test_data_errors_are_for_the_user() -> None:
    assert DataError.user_message


def test_flips_and_quarter_turns_are_known_to_break_digits_and_nothing_is_known_of_ones_own_data(
    tmp_path: Path,
) -> None:
    assert set(loaded({"name": "digits"}).label_limits) == {"flip", "flip_vertical", "turn", "rotate"}
    assert set(PUBLISHED["mnist"].label_limits) == {"flip", "flip_vertical", "turn", "rotate"}
    assert not PUBLISHED["cifar10"].label_limits
