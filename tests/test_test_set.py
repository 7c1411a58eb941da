"""The test set: what it holds, what is measured on it, and that nothing else reads it."""

import ast
import gc
import json
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import cross_entropy

from objectives.classification import Classification
from objectives.data import DataError, Dataset, load
from objectives.regression import Regression
from objectives.saved import CheckpointError
from objectives.supervised import SupervisedObjective
from objectives.test_set import TestSet, load_test
from search.contract import Admit, Measure, Measured, Replicate
from tests.histories import put_mlflow_database
from tests.running import PROJECT
from tests.test_architecture import MODULES, imports
from tests.test_trainer import Session

NOWHERE = Path("nowhere")
TRIAL: dict[str, Any] = {"model": "mlp", "width": 16, "depth": 1, "batch_size": 64, "lr": 1e-2, "optimizer": "adam"}


def set_apart(data: dict[str, object], *, data_dir: Path = NOWHERE, numeric: bool = False) -> TestSet:
    return load_test(data, data_dir=data_dir, progress=lambda _: None, numeric=numeric)


def searched(data: dict[str, object], *, seed: int = 0, data_dir: Path = NOWHERE, numeric: bool = False) -> Dataset:
    return load(data, data_dir=data_dir, seed=seed, device="cpu", progress=lambda _: None, numeric=numeric)


def check_partition(x: Tensor, y: Tensor, data: dict[str, object], *, seed: int = 0, numeric: bool = False) -> None:
    """Test, training and validation part are each some of the examples x and y, and together all, none twice."""
    test, seen = set_apart(data, numeric=numeric), searched(data, seed=seed, numeric=numeric)
    index = torch.cat([test.index, seen.train_index, seen.val_index])
    assert index.sort().values.equal(torch.arange(len(y)))
    assert torch.equal(torch.cat([test.x, seen.x_train, seen.x_val]), x[index])
    assert torch.equal(torch.cat([test.y, seen.y_train, seen.y_val]), y[index])
    assert test.searched == seen.checksum != test.checksum
    assert test.index.diff().gt(0).all()


# ---------------------------------------------------------------- what it holds


@pytest.mark.parametrize("test", [None, 0.1, 0.37, 300])
def test_digits_are_parted_into_test_training_and_validation(test: float | None) -> None:
    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(np.rint(images * (255 / 16)).astype(np.uint8)).view(-1, 1, 8, 8)
    check_partition(x, torch.from_numpy(labels), {"name": "digits"} | ({} if test is None else {"test": test}))


@given(
    n=st.integers(12, 60),
    test=st.one_of(st.floats(0.1, 0.4), st.integers(1, 4)),
    seed=st.integers(0, 2**63),
    numeric=st.booleans(),
)
@settings(deadline=None, max_examples=50)
def test_listed_examples_are_parted_into_test_training_and_validation(
    n: int, test: float, seed: int, numeric: bool
) -> None:
    x, y = np.random.default_rng(n).normal(size=(n, 2)).astype(np.float32), np.arange(n) % 2
    data: dict[str, object] = {"x": x.tolist(), "y": y.tolist(), "test": test}
    labels = torch.from_numpy(y).float() if numeric else torch.from_numpy(y)
    check_partition(torch.from_numpy(x), labels, data, seed=seed, numeric=numeric)


@pytest.mark.parametrize("test", [0.2, 0.34, 7])
def test_own_npz_is_parted_into_test_training_and_validation(tmp_path: Path, test: float) -> None:
    x, y = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32), np.tile([0, 1, 2], 20)
    np.savez(tmp_path / "mine.npz", x=x, y=y)
    data: dict[str, object] = {"path": str(tmp_path / "mine.npz"), "test": test}
    check_partition(torch.from_numpy(x), torch.from_numpy(y), data)
    assert set_apart(data).index.equal(set_apart(data | {"validation": 0.4, "scaling": "none"}).index)


@pytest.mark.parametrize("test", [0.2, 5])
def test_folder_of_images_is_parted_into_test_training_and_validation(tmp_path: Path, test: float) -> None:
    levels = np.arange(40, dtype=np.uint8)
    for number, level in enumerate(levels):
        place = tmp_path / ("cat", "dog")[number // 20] / f"{number:02d}.png"
        place.parent.mkdir(exist_ok=True)
        Image.new("L", (3, 2), int(level)).save(place)
    x = torch.from_numpy(levels).view(-1, 1, 1, 1).expand(-1, 1, 2, 3)
    check_partition(x, torch.arange(40) // 20, {"path": str(tmp_path), "test": test})


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("cifar10", torchvision.datasets.CIFAR10),
        ("mnist", torchvision.datasets.MNIST),
        ("fashion_mnist", torchvision.datasets.FashionMNIST),
    ],
)
def test_published_test_set_is_the_one_torchvision_reads(data_dir: Path, name: str, reference: Any) -> None:
    published, found = reference(data_dir, train=False), set_apart({"name": name}, data_dir=data_dir)
    images = torch.as_tensor(published.data)
    assert torch.equal(found.x, images.permute(0, 3, 1, 2) if images.ndim == 4 else images[:, None])
    assert torch.equal(found.y, torch.as_tensor(published.targets))
    assert torch.equal(found.index, torch.arange(10_000))
    reproduction = searched({"name": name, "validation": "original_test"}, data_dir=data_dir)
    assert (found.checksum, found.searched) == (reproduction.test_checksum, reproduction.checksum)


@pytest.mark.real_data
def test_reviews_set_apart_are_the_published_ones(data_dir: Path) -> None:
    with np.load(data_dir / "imdb/imdb_flat.npz") as arrays:
        ranks, offsets, y = (arrays[name] for name in ("x_test_flat", "x_test_offsets", "y_test"))
    found = set_apart({"name": "imdb", "n_words": 30}, data_dir=data_dir)
    assert found.x.shape == (25_000, 30)
    assert found.y.numpy().tolist() == y.tolist()
    for review in (0, 12_345, 24_999):
        words = {rank for rank in ranks[offsets[review] : offsets[review + 1]].tolist() if rank <= 30}
        assert set((found.x[review].nonzero().flatten() + 1).tolist()) == words


@pytest.mark.parametrize("validation", ["train", "original_test"])
def test_study_that_held_nothing_out_is_told_that_it_has_no_test_set_left(validation: str) -> None:
    with pytest.raises(DataError, match=rf"validation: '{validation}' measures the .*--name NEW"):
        set_apart({"name": "mnist", "validation": validation})


def test_own_file_of_a_published_name_is_not_measured_on_the_published_test_set(tmp_path: Path) -> None:
    np.savez(tmp_path / "mnist.npz", x=np.zeros((60, 28, 28), np.uint8), y=np.tile([0, 1, 2], 20))
    with pytest.raises(DataError, match="mnist has no published test set"):
        searched({"path": str(tmp_path / "mnist.npz"), "validation": "original_test"})


# ---------------------------------------------------------------- what is measured on it


def opened(data: dict[str, object], factory: Any = Classification) -> SupervisedObjective:
    objective: SupervisedObjective = factory(
        data=data, data_dir=NOWHERE, seed=0, device="cpu", precision="float32", progress=lambda _: None
    )
    return objective


def trained(
    objective: SupervisedObjective, path: Path, *, epochs: int = 3, fold: int | None = None, **trial: Any
) -> None:
    """Save the weights of a network trained for a few epochs."""
    population = objective.build(TRIAL | trial, epochs=epochs)
    population.admit(0, hyperparameters=TRIAL | trial, seed=1, fold=fold)
    for _ in range(epochs * population.n_updates):
        population.update()
    population.keep(0)
    population.save(0, path)


def plain_outputs(path: Path, x: Tensor) -> Tensor:
    """The logits of a saved MLP of one hidden layer, written out in float64."""
    weights = {name: tensor.double() for name, tensor in load_file(path).items()}
    with safe_open(path, framework="pt") as file:
        found = json.loads(file.metadata()["configuration"])
    mean, std = (torch.tensor(found[name], dtype=torch.float64) for name in ("mean", "std"))
    if mean.ndim == 1 and x.ndim == 4:
        mean, std = mean.view(-1, 1, 1), std.view(-1, 1, 1)
    hidden = ((x.double() / (255 if x.dtype == torch.uint8 else 1) - mean) / std).flatten(1)
    matrices, biases = ([t for t in weights.values() if t.ndim == n] for n in (2, 1))
    first, last = sorted(matrices, key=lambda matrix: matrix.shape[1] != hidden.shape[1])
    by_size = {len(bias): bias for bias in biases}
    return (hidden @ first.T + by_size[len(first)]).relu() @ last.T + by_size[len(last)]


@pytest.mark.parametrize(
    ("data", "trial"),
    [
        ({}, {}),
        ({"scaling": "minmax", "test": 150}, {"dropout": 0.3, "train_fraction": 0.5}),
        ({"folds": 4}, {"fold": 2, "n_features": 30}),
    ],
    ids=["plain", "fraction", "fold and features"],
)
def test_test_metrics_equal_those_recomputed_from_predictions_and_from_the_weights(
    data: dict[str, object], trial: dict[str, Any], tmp_path: Path
) -> None:
    objective = opened({"name": "digits"} | data)
    trained(objective, tmp_path / "w.safetensors", **trial)
    told = objective.measure(tmp_path / "w.safetensors", tmp_path / "p.npz", part="test")

    test = set_apart({"name": "digits"} | {key: value for key, value in data.items() if key != "folds"})
    predictions = np.load(tmp_path / "p.npz")
    assert predictions["outputs"].dtype == np.float32
    assert np.array_equal(predictions["targets"], test.y.numpy())
    assert np.array_equal(predictions["index"], test.index.numpy())
    plain = plain_outputs(tmp_path / "w.safetensors", test.x)
    np.testing.assert_allclose(predictions["outputs"], plain.numpy(), rtol=1e-4, atol=1e-4)
    outputs = torch.from_numpy(predictions["outputs"]).double()
    assert told.metrics == {
        "test_loss": pytest.approx(cross_entropy(outputs, test.y).item(), rel=1e-6),
        "test_accuracy": pytest.approx((outputs.argmax(1) == test.y).double().mean().item(), rel=1e-12),
    }
    assert told.metrics["test_accuracy"] > 0.5  # of ten classes
    assert (told.n_examples, told.checksum) == (len(test.y), test.checksum)


def test_numbers_are_tested_by_their_squared_error(tmp_path: Path) -> None:
    x = np.linspace(-1, 1, 80, dtype=np.float32)[:, None]
    data: dict[str, object] = {"x": x.tolist(), "y": (2 * x[:, 0]).tolist()}
    objective = opened(data, Regression)
    trained(objective, tmp_path / "w.safetensors", batch_size=16)
    told = objective.measure(tmp_path / "w.safetensors", tmp_path / "p.npz", part="test")
    predictions = np.load(tmp_path / "p.npz")
    np.testing.assert_allclose(predictions["targets"], 2 * x[predictions["index"], 0], rtol=1e-6)
    error = ((predictions["outputs"][:, 0] - predictions["targets"]) ** 2).mean()
    assert told.metrics == {"test_loss": pytest.approx(error, rel=1e-5)}
    assert told.n_examples == len(predictions["index"]) == 16


def test_validation_is_measured_as_before_and_reads_no_test_set(tmp_path: Path) -> None:
    objective = opened({"name": "digits"})
    objective._load_test_set = pytest.fail
    trained(objective, tmp_path / "w.safetensors")
    told = objective.measure(tmp_path / "w.safetensors", tmp_path / "p.npz")
    assert set(told.metrics) == {"val_loss", "val_accuracy"}
    assert (told.n_examples, told.checksum) == (288, "")


def test_test_set_is_read_once(tmp_path: Path) -> None:
    objective, reads = opened({"name": "digits"}), []
    whole = objective._load_test_set
    objective._load_test_set = lambda: reads.append(1) or whole()  # type: ignore[func-returns-value]
    trained(objective, tmp_path / "w.safetensors")
    first, second = (
        objective.measure(tmp_path / "w.safetensors", tmp_path / name, part="test") for name in ("p.npz", "q.npz")
    )
    assert first == second
    assert reads == [1]


def test_weights_of_other_data_are_not_tested_and_no_test_set_is_read_for_them(tmp_path: Path) -> None:
    trained(opened({"name": "digits", "test": 0.3}), tmp_path / "w.safetensors")
    other = opened({"name": "digits"})
    other._load_test_set = pytest.fail
    with pytest.raises(CheckpointError, match="Measure on the data it was trained on"):
        other.measure(tmp_path / "w.safetensors", tmp_path / "p.npz", part="test")
    assert not (tmp_path / "p.npz").exists()


def test_file_that_changed_since_the_search_began_is_not_tested_on(tmp_path: Path) -> None:
    def written(n: int) -> dict[str, object]:
        np.savez(tmp_path / "mine.npz", x=np.random.default_rng(0).normal(size=(n, 3)), y=np.arange(n) % 3)
        return {"path": str(tmp_path / "mine.npz")}

    objective = opened(written(300))
    trained(objective, tmp_path / "w.safetensors")
    written(303)
    with pytest.raises(DataError, match="mine: the data have changed since they were loaded"):
        objective.measure(tmp_path / "w.safetensors", tmp_path / "p.npz", part="test")
    written(300)
    assert objective.measure(tmp_path / "w.safetensors", tmp_path / "p.npz", part="test").n_examples == 60


# ---------------------------------------------------------------- nothing else reads it: in the code


def named_in(module: str) -> Iterator[str]:
    """Every name that a module's code uses, imports, defines as an attribute, or spells as a text of its own."""
    for node in ast.walk(MODULES[module]):
        match node:
            case ast.Name():
                yield node.id
            case ast.Attribute():
                yield node.attr
            case ast.alias():
                yield node.name
            case ast.Constant(value=str(text)):
                yield text


def users(name: str) -> set[str]:
    return {module for module in MODULES if name in named_in(module)}


def test_only_one_module_reads_a_published_test_set() -> None:
    """All ways there are: by the files' names, by the table of them, by the readers."""
    assert {m for m in MODULES if any(n.startswith(("t10k", "test_batch")) for n in named_in(m))} == {
        "objectives.datasets"
    }
    assert users("test_files") == {"objectives.datasets"}
    assert users("published_test") == {"objectives.test_set"}
    parts = {
        (module, ast.unparse(node.args[0]))
        for module in MODULES
        for node in ast.walk(MODULES[module])
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("reviews")
    }
    assert parts == {("objectives.parts", "'train'"), ("objectives.test_set", "'test'")}
    assert users("reviews") == {"objectives.parts", "objectives.test_set"}


def test_only_measuring_and_declared_reproductions_use_the_module_that_does() -> None:
    using = {m for m in MODULES if "objectives.test_set" in {each.module for each in imports(m)}}
    assert using == {"objectives.data", "objectives.supervised"}
    assert users("load_test") == {"objectives.supervised"}
    assert users("published") & using == {"objectives.data"}
    reproduction = [
        ast.unparse(node.test)
        for node in ast.walk(MODULES["objectives.data"])
        if isinstance(node, ast.If) and any("test_set.published" in ast.unparse(line) for line in node.body)
    ]
    assert reproduction == ["validation == 'original_test'"]
    readers = [
        ast.unparse(node.test)
        for node in ast.walk(MODULES["objectives.supervised"])
        if isinstance(node, ast.If) and any("self._test_set" in ast.unparse(line) for line in node.body)
    ]
    assert readers == ["part == 'test'"]
    uses = ast.unparse(MODULES["objectives.supervised"]).count("self._test_set")
    assert uses == 1


# ---------------------------------------------------------------- nothing else reads it: while a study runs

WATCH = """
import os, sys

def watch(event, arguments):
    if event == "open" and any(word in str(arguments[0]) for word in ("t10k", "train-", "test_batch", "data_batch")):
        log = os.open(os.environ["OPENED"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(log, (os.path.basename(str(arguments[0])) + "\\n").encode())
        os.close(log)

sys.addaudithook(watch)
"""
STUDY = """
title = "Tiny"
question = "What does a search open?"
n_trials = 2
epochs = 1
precision = "float32"
checkpoints = 1
data = {{ name = "{name}", validation = {validation} }}
fixed = {{ model = "mlp", width = 4, depth = 1, batch_size = 1000 }}
baseline = {{ lr = 0.001 }}
space = {{ lr = {{ kind = "log_float", low = 1e-4, high = 1e-1 }} }}
"""


def opened_by_a_study(root: Path, data_dir: Path, *, name: str, validation: str, trainers: int) -> set[str]:
    """The data files that a run of the command opens, and every process that it starts."""
    (root / "studies").mkdir()
    (root / "studies/tiny.toml").write_text(STUDY.format(name=name, validation=validation))
    put_mlflow_database(root / "mlruns")
    (root / "hook").mkdir()
    (root / "hook/sitecustomize.py").write_text(WATCH)
    environment = os.environ | {"PYTHONPATH": f"{root / 'hook'}:{PROJECT}", "OPENED": str(root / "opened")}
    done = subprocess.run(
        [sys.executable, "-m", "search.run", "--study", "tiny", "--trainers", str(trainers), "--data-dir", data_dir],
        cwd=root, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 of 2 trials finished" in done.stdout
    return set((root / "opened").read_text().split())


TRAINING = {
    "mnist": {"train-images-idx3-ubyte", "train-labels-idx1-ubyte"},
    "cifar10": {f"data_batch_{number}" for number in range(1, 6)},
}
TESTING = {"mnist": {"t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"}, "cifar10": {"test_batch"}}


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("trainers", [0, 1])
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_no_process_of_a_search_opens_a_file_of_the_published_test_set(
    name: str, trainers: int, data_dir: Path, tmp_path: Path
) -> None:
    found = opened_by_a_study(tmp_path, data_dir, name=name, validation="0.2", trainers=trainers)
    assert found == TRAINING[name]


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_declared_reproduction_opens_them(name: str, data_dir: Path, tmp_path: Path) -> None:
    """So the hook would have seen a search that did."""
    found = opened_by_a_study(tmp_path, data_dir, name=name, validation='"original_test"', trainers=1)
    assert found == TRAINING[name] | TESTING[name]


def held_by(start: object) -> list[object]:
    """Everything that an object refers to, directly or not, but through modules, classes and global variables."""
    found: dict[int, object] = {}
    waiting = [start]
    while waiting:
        each = waiting.pop()
        if id(each) in found or isinstance(each, types.ModuleType | type):
            continue
        found[id(each)] = each
        waiting += (each.__closure__ or ()) if isinstance(each, types.FunctionType) else gc.get_referents(each)
    return list(found.values())


def images_held_by(start: object) -> set[bytes]:
    """Every image of digits among the tensors and arrays of whole numbers that an object holds."""
    held = (each.numpy() if isinstance(each, Tensor) else each for each in held_by(start))
    arrays: list[NDArray[np.generic]] = [each for each in held if isinstance(each, np.ndarray)]
    return {
        image.tobytes()
        for array in arrays
        if array.dtype == np.uint8 and array.shape[-2:] == (8, 8)
        for image in array.reshape(-1, 64)
    }


def test_trainer_of_digits_holds_no_example_of_the_test_set_until_it_is_to_measure_on_it(tmp_path: Path) -> None:
    """All digits lie in one file: so what counts is what stays."""
    weights = tmp_path / "w.safetensors"
    trained(opened({"name": "digits"}), weights)
    session = Session(objective="objectives.classification:Classification", name="digits")
    trial = Admit(trial=0, attempt=1, hyperparameters=TRIAL, structure="", replicates=(Replicate(seed=0),))
    for orders in ([trial], [], [], [Measure(checkpoint=str(weights), predictions=str(tmp_path / "v.npz"))]):
        session.sent(*orders)
    seen, test = searched({"name": "digits"}), set_apart({"name": "digits"})
    allowed, apart = ({each.numpy().tobytes() for each in x} for x in (torch.cat([seen.x_train, seen.x_val]), test.x))
    assert allowed.isdisjoint(apart)
    assert images_held_by(session.trainer) == allowed
    replies = session.sent(Measure(checkpoint=str(weights), predictions=str(tmp_path / "t.npz"), part="test"))
    (told,) = (each for each in replies if isinstance(each, Measured))
    assert (told.n_examples, told.checksum) == (359, test.checksum)
    assert images_held_by(session.trainer) == allowed | apart
