"""A study file: what is accepted, what is refused and in which words, and what makes two studies the same."""

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from objectives import OBJECTIVES
from objectives.classification import Classification
from search import space
from search.contract import HyperparameterRule, Value
from search.definition import (
    StudyDefinition,
    baseline_raw,
    check_objective,
    differences,
    fingerprint,
    hyperparameters,
    load,
    structure,
)
from search.errors import DefinitionError
from search.workspace import Workspace
from tests.studies import TABLE, definition

ROOT = Path(__file__).parent.parent


def rules_of(objective: Any) -> dict[str, HyperparameterRule]:
    fields = [field.name for field in dataclasses.fields(HyperparameterRule)]
    return {
        name: HyperparameterRule(**{field: getattr(rule, field) for field in fields})
        for name, rule in objective.HYPERPARAMETERS.items()
    }


RULES = rules_of(Classification)
METRICS = Classification.METRICS
FILE = """
title = "A study"
question = "What helps?"
epochs = 9

[data]
name = "digits"
validation = 0.2

[fixed]
model = "mlp"
hidden = [64, 32]

[pruning]
kind = "successive_halving"
eta = 3

[baseline]
lr = 1e-3
l2 = 0
dropout = 0.0

[space.lr]
kind = "log_float"
low = 1e-4
high = 3e-2

[space.l2]
kind = "log_float"
low = 1e-6
high = 1e-1
regularizer = true
off_below = 1.78e-5

[space.dropout]
kind = "float"
low = 0.0
high = 0.6
regularizer = true
off = 0.0
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "mine.toml").write_text(FILE)
    return Workspace(tmp_path)


def refusal(workspace: Workspace, **overrides: Any) -> list[str]:
    """The lines of the message that refuses studies/mine.toml."""
    with pytest.raises(DefinitionError) as error:
        load("mine", workspace, overrides)
    return str(error.value).splitlines()


# ---------------------------------------------------------------- what is accepted


def test_a_file_is_completed_by_defaults(workspace: Workspace) -> None:
    loaded = load("mine", workspace, {})
    assert loaded.name == "mine"
    assert (loaded.n_trials, loaded.epochs, loaded.sampler, loaded.metric, loaded.maximize) == (
        40,
        9,
        "tpe",
        "val_accuracy",
        True,
    )
    assert (loaded.pruning.eta, loaded.pruning.min_epochs, loaded.pruning.patience) == (3, 1, None)
    assert loaded.fixed["hidden"] == (64, 32)
    assert loaded.origin == "studies/mine.toml"


def test_a_study_is_found_by_name_or_path(workspace: Workspace, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere.toml"
    outside.write_text(FILE)
    assert load("mine", workspace, {}) == load("studies/mine.toml", workspace, {})
    assert load(str(outside), workspace, {}).name == "elsewhere"


def test_options_win_over_the_file_and_none_says_nothing(workspace: Workspace) -> None:
    options = {"name": "other", "n_trials": 7, "epochs": None, "timeout_s": 1.5, "seed": 3, "trainers": 0}
    loaded = load("mine", workspace, options)
    assert (loaded.name, loaded.n_trials, loaded.epochs, loaded.timeout_s, loaded.seed, loaded.trainers) == (
        "other",
        7,
        9,
        1.5,
        3,
        0,
    )


def test_another_data_set_makes_another_study(workspace: Workspace) -> None:
    assert load("mine", workspace, {"dataset": "mnist"}).name == "mine-mnist"
    assert load("mine", workspace, {"dataset": "mnist"}).data == {"name": "mnist"}
    assert load("mine", workspace, {"dataset": "mnist", "name": "chosen"}).name == "chosen"


def test_the_file_s_own_data_set_named_again_changes_nothing(workspace: Workspace) -> None:
    assert load("mine", workspace, {"dataset": "digits"}) == load("mine", workspace, {})


@pytest.mark.filterwarnings("error")
def test_a_definition_survives_the_ledger(workspace: Workspace) -> None:
    loaded = load("mine", workspace, {})
    again = StudyDefinition.model_validate(json.loads(json.dumps(loaded.model_dump(mode="json"))))
    assert again.model_dump() == loaded.model_dump()
    assert fingerprint(again) == fingerprint(loaded)
    assert again.origin == "study mine"


def test_a_definition_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        definition().epochs = 3


def test_defining_a_study_loads_no_heavy_package() -> None:
    code = (
        "import sys, search.definition, search.pruning, search.cohort\n"
        "print(sorted({'torch', 'optuna', 'mlflow', 'sqlalchemy', 'numpy', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


# ---------------------------------------------------------------- what is refused, and in which words

REFUSED = [
    ("epochs = 9", "epochs = 0", "epochs: must be greater than or equal to 1, got 0. Raise it."),
    ("epochs = 9", 'epochs = "9"', "epochs: must be a valid integer, got 9. Write a whole number, without quotes."),
    ("epochs = 9", "epochs = 9.5", "epochs: must be a valid integer, got 9.5. Write a whole number, without quotes."),
    ("epochs = 9", "epochs = true", "epochs: must be a valid integer, got true. Write a whole number, without quotes."),
    ("epochs = 9", "epoch = 9", "epoch: there is no such key. Did you mean 'epochs'? The keys are title, question, *"),
    ("epochs = 9", 'name = "x"', "name: a study is named by its file, got name = 'x'. Remove the key, and *"),
    ("epochs = 9", "path = 9", "path: there is no such key. The keys are *"),
    ("epochs = 9", "timeout_s = 0", "timeout_s: must be greater than 0, got 0. Raise it."),
    ("epochs = 9", "timeout_s = nan", "timeout_s: must be *, got nan. *"),
    ("epochs = 9", "seed = -1", "seed: must be greater than or equal to 0, got -1. Raise it."),
    (
        "epochs = 9",
        'sampler = "tpo"',
        "sampler: must be 'tpe', 'random', 'gp', 'cmaes', 'qmc' or 'grid', got tpo. Did you mean 'tpe'?",
    ),
    ("epochs = 9", 'direction = "up"', "direction: must be 'maximize' or 'minimize', got up. Choose one of them."),
    ("epochs = 9", 'device = "gpu"', "device: must be auto, cpu, cuda or cuda:N, got gpu. Correct it."),
    (
        "epochs = 9",
        'objective = "a.b"',
        'objective: must be a built-in name or "package.module:Name", got a.b. Correct it.',
    ),
    ('question = "What helps?"', "", "question: must be given. Add it."),
    ('title = "A study"', "title = 3", "title: must be a valid string, got 3. Write a text in quotes."),
    ("eta = 3", "eta = 1", "pruning.eta: must be greater than or equal to 2, got 1. Raise it."),
    ("eta = 3", "min_epoch = 2", "pruning.min_epoch: there is no such key. Did you mean 'min_epochs'? *"),
    ("eta = 3", "patience = 0", "pruning.patience: must be greater than or equal to 1, got 0. Raise it."),
    (
        "eta = 3",
        "min_epochs = 10",
        "epochs: must be at least pruning.min_epochs = 10, got 9. Raise epochs, or lower pruning.min_epochs.",
    ),
    (
        'kind = "successive_halving"\neta = 3',
        'kind = "none"\neta = 4',
        'pruning.eta: has no effect with kind = "none", got 4. Remove it, or change kind.',
    ),
    ('"successive_halving"', '"sucessive_halving"', "pruning.kind: must be *. Did you mean 'successive_halving'?"),
    ('name = "digits"\nvalidation = 0.2', "", "data: must hold at least 1, got {}. Add one."),
    ("validation = 0.2", "validation = 2026-11-23", "data.validation: *JSON*, got *"),
    ('model = "mlp"', "model = nan", "fixed.model: must be a finite number, got nan. Change it."),
    ("[64, 32]", "[64, 0.5]", "fixed.hidden: must be true or false, a number, a text, or a list of whole numbers, *"),
    (
        'model = "mlp"',
        "dropout = 0.5",
        "fixed.dropout: a hyperparameter is either fixed or sampled, but [space] has it too. Remove one.",
    ),
    (
        "lr = 1e-3",
        "",
        "baseline.lr: must be given: the baseline has every parameter of the space. Add lr = VALUE.",
    ),
    (
        "lr = 1e-3",
        "lr = 1e-3\ndropuot = 0.0",
        "baseline.dropuot: is not a parameter of the space. Did you mean 'dropout'? Remove it; *",
    ),
    (
        "lr = 1e-3",
        "lr = 0.5",
        "baseline.lr: must be a number from 0.0001 to 0.03, as [space.lr] says, got 0.5. Change one of them.",
    ),
    ("l2 = 0", "l2 = 1e-6", "baseline.l2: must be 0 (off), or from 1.78e-05 to 0.1, as [space.l2] says, got 1e-06. *"),
    ("l2 = 0", "l2 = false", "baseline.l2: must be 0 (off), *, got false. Change one of them."),
    (
        "low = 1e-4",
        "low = 0",
        'space.lr: low must be positive on a log scale, got 0.0. Raise low, or use kind = "float".',
    ),
    ("low = 1e-4", "low = 1", "space.lr: low must be less than high, got low = 1.0, high = 0.03. *"),
    ("low = 1e-4", 'low = "tiny"', "space.lr.low: must be a valid number, got tiny. Write a number, without quotes."),
    ("low = 1e-4", "lo = 1e-4", "space.lr.lo: there is no such key. Did you mean 'low'? The keys are regularizer, *"),
    ("low = 1e-4", "", "space.lr.low: must be given. Add it."),
    (
        'kind = "float"',
        'kind = "flaot"',
        "space.dropout: there is no kind \"flaot\". Did you mean 'float'? The kinds are float, log_float, *",
    ),
    ('kind = "float"', "", "space.dropout: must say its kind. Add kind = one of float, log_float, *"),
    (
        "off_below = 1.78e-5",
        "",
        "space.l2: a regularizer must say what turns it off, got neither. Add off = VALUE or *",
    ),
    ("off_below = 1.78e-5", "off_below = 1e-7", "space.l2: off_below must lie between low = 1e-06 and high = 0.1, *"),
    ("epochs = 9", "epochs =", "this is not valid TOML: *(at line 4, column 9). Correct that place."),
]


@pytest.mark.parametrize(("before", "after", "told"), REFUSED, ids=[told[:50] for _, _, told in REFUSED])
def test_a_wrong_file_is_refused_with_file_key_rule_value_and_remedy(
    workspace: Workspace, before: str, after: str, told: str
) -> None:
    assert before in FILE
    workspace.definition("mine").write_text(FILE.replace(before, after, 1))
    lines = refusal(workspace)
    pieces = f"studies/mine.toml: {told}".split("*")
    assert any(_holds(line, pieces) for line in lines), lines


def _holds(line: str, pieces: list[str]) -> bool:
    position = 0
    for piece in pieces:
        position = line.find(piece, position)
        if position < 0:
            return False
    return line.startswith(pieces[0]) and line.endswith(pieces[-1])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "a grid needs parameters of finitely many values, got kind = log_float*choice"),
        (
            {"space": {"depth": {"kind": "int", "low": 1, "high": 3}}, "baseline": {"depth": 1}},
            "must be at most 3, the points of the grid, got 20. Lower n_trials.",
        ),
    ],
)
def test_a_grid_that_cannot_be_asked_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told.replace("*", ".*")):
        definition(sampler="grid", **changes)


def test_several_problems_are_told_together_a_line_each(workspace: Workspace) -> None:
    text = FILE.replace("epochs = 9", "epochs = 0\nepoch = 9").replace("low = 1e-4", "low = -1.0")
    workspace.definition("mine").write_text(text)
    lines = refusal(workspace)
    assert len(lines) == 3
    assert {line.split(": ")[1] for line in lines} == {"epochs", "epoch", "space.lr"}


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"epochs": 0}, "--epochs: must be greater than or equal to 1, got 0. Raise it."),
        ({"n_trials": -1}, "--n-trials: must be greater than or equal to 1, got -1. Raise it."),
        ({"timeout_s": -1.0}, "--timeout: must be greater than 0, got -1.0. Raise it."),
        ({"device": "gpu"}, "--device: must be auto, cpu, cuda or cuda:N, got gpu. Correct it."),
        ({"name": "../x"}, "--name: must be 1 to 64 of a-z, 0-9, _ and -, beginning with a letter or digit, got *"),
        ({"dataset": "CIFAR 10"}, '--dataset: must be 1 to 64 *, got "mine-CIFAR 10". Rename the file, or use --name.'),
    ],
)
def test_a_wrong_option_is_refused_by_its_own_name(workspace: Workspace, overrides: dict[str, Any], told: str) -> None:
    (line,) = refusal(workspace, **overrides)
    assert _holds(line, told.split("*")), line


def test_too_few_epochs_for_the_first_rung_are_told_by_the_option_that_asked_for_them(workspace: Workspace) -> None:
    workspace.definition("mine").write_text(FILE.replace("eta = 3", "min_epochs = 3"))
    (line,) = refusal(workspace, epochs=2)
    assert line.startswith("--epochs: must be at least pruning.min_epochs = 3, got 2.")


def test_a_misspelt_study_is_asked_about_and_the_others_are_listed(workspace: Workspace) -> None:
    (workspace.studies / "cifar_reg.toml").write_text(FILE)
    with pytest.raises(DefinitionError) as error:
        load("cifar_rge", workspace, {})
    assert str(error.value) == (
        "cifar_rge: there is no such study. Did you mean 'cifar_reg'? Studies here: cifar_reg, mine."
    )


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="holds no study file"):
        load("mine", Workspace(tmp_path), {})
    with pytest.raises(DefinitionError, match=r"mine\.toml: there is no such file"):
        load("mine.toml", Workspace(tmp_path), {})


def test_a_file_that_is_not_utf_8_is_told(workspace: Workspace) -> None:
    workspace.definition("mine").write_bytes(FILE.replace("A study", "Une étude").encode("latin-1"))
    assert refusal(workspace)[0].startswith("studies/mine.toml: this is not UTF-8: ")


# ---------------------------------------------------------------- against the objective


def objective_problems(**changes: Any) -> list[str]:
    with pytest.raises(DefinitionError) as error:
        check_objective(definition(**changes), RULES, METRICS)
    return str(error.value).splitlines()


def with_parameter(name: str, table: dict[str, Any], baseline: Value) -> dict[str, Any]:
    return {
        "space": {**TABLE["space"], name: table},
        "baseline": {**TABLE["baseline"], name: baseline},
        "fixed": {},
    }


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"fixed": {"modle": "mlp"}},
            "fixed.modle: the objective 'classification' has no such hyperparameter. Did you *",
        ),
        ({"fixed": {"model": "mpl"}}, "fixed.model: must be one of mlp, cnn, got mpl. Change the value."),
        ({"fixed": {"step_size": 0}}, "fixed.step_size: must be a whole number at least 1, got 0. Change the value."),
        ({"fixed": {"batch_size": 1.5}}, "fixed.batch_size: must be a whole number at least 0, got 1.5. *"),
        ({"fixed": {"momentum": 1}}, "fixed.momentum: must be a number at least 0 and below 1, got 1. *"),
        ({"fixed": {"nesterov": 1}}, "fixed.nesterov: must be true or false, got 1. *"),
        ({"fixed": {"hidden": [3, 0]}}, "fixed.hidden: must be a list of positive whole numbers, or a text *"),
        ({"fixed": {"hidden": "3-x"}}, 'fixed.hidden: must be *such as "256-128", got 3-x. *'),
        ({"fixed": {"clip_norm": True}}, "fixed.clip_norm: must be a number at least 0, got true. *"),
        (
            with_parameter("dropout", {"kind": "float", "low": 0.0, "high": 1.0}, 0.0),
            "space.dropout: every value must be a number at least 0 and below 1, *this float parameter can be 1.0. *",
        ),
        (
            with_parameter("width", {"kind": "float", "low": 8.0, "high": 64.0}, 8.0),
            "space.width: every value must be a whole number at least 1, but this float parameter can be 8.0. *",
        ),
        (
            with_parameter("activation", {"kind": "choice", "choices": ["relu", "rleu"]}, "relu"),
            "space.activation: every value must be one of relu, leaky_relu, gelu, tanh, *can be rleu. *",
        ),
        (
            with_parameter("batch_norm", {"kind": "int", "low": 0, "high": 1}, 0),
            "space.batch_norm: every value must be true or false, but this int parameter can be 0. *",
        ),
        (
            with_parameter("lr", {"kind": "float", "low": 0.0, "high": 1.0}, 0.5),
            "space.lr: every value must be a number above 0, but this float parameter can be 0.0. *",
        ),
        (with_parameter("dorpout", {"kind": "bool"}, False), "space.dorpout: *has no such *Did you mean 'dropout'? *"),
        (
            {"metric": "val_acuracy"},
            "metric: *cannot be judged by 'val_acuracy'. Did you mean 'val_accuracy'? It reports *",
        ),
        ({"metric": "penalty"}, "metric: the objective 'classification' cannot be judged by 'penalty'. *"),
        ({"metric": "val_loss"}, 'direction: must be "minimize" for val_loss, got "maximize". *'),
    ],
)
def test_what_the_objective_does_not_accept_is_refused(changes: dict[str, Any], told: str) -> None:
    (line,) = objective_problems(**changes)
    assert _holds(line, f"study study: {told}".split("*")), line


def test_several_misfits_are_told_together() -> None:
    assert len(objective_problems(fixed={"modle": "mlp", "batch_size": -1}, metric="accuracy")) == 3


def test_a_strength_that_is_off_below_a_threshold_may_be_zero_only_where_the_rule_allows_it() -> None:
    table = {"kind": "log_float", "low": 1e-4, "high": 1e-1, "regularizer": True, "off_below": 1e-3}
    check_objective(definition(**with_parameter("weight_decay", table, 0.0)), RULES, METRICS)
    (line,) = objective_problems(**with_parameter("lr", table, 0.0))
    assert "must be a number above 0, but this log_float parameter can be 0.0" in line


# ---------------------------------------------------------------- the same study, or another


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"title": "Other"},
        {"question": "Other?"},
        {"n_trials": 99},
        {"timeout_s": 9.0},
        {"trainers": 2},
        {"device": "cpu"},
        {"checkpoints": 9},
        {"slots": 2},
    ],
)
def test_what_changes_no_result_does_not_change_the_fingerprint(changes: dict[str, Any]) -> None:
    assert fingerprint(definition(**changes)) == fingerprint(definition())
    assert differences(definition().model_dump(mode="json"), definition(**changes).model_dump(mode="json")) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"epochs": 12}, ["epochs: 9 -> 12"]),
        ({"seed": 1}, ["seed: 0 -> 1"]),
        ({"sampler": "random"}, ['sampler: "tpe" -> "random"']),
        ({"precision": "float32"}, ['precision: "auto" -> "float32"']),
        ({"replicates": 2}, ["replicates: 1 -> 2"]),
        ({"stop_diverged": False}, ["stop_diverged: true -> false"]),
        (
            {"data": {"name": "mnist", "size": [8, 8]}},
            ['data.name: "digits" -> "mnist"', "data.size: absent -> [8, 8]"],
        ),
        ({"pruning": {"eta": 4, "patience": 3}}, ["pruning.eta: 3 -> 4", "pruning.patience: null -> 3"]),
        ({"fixed": {"model": "cnn"}}, ["fixed.batch_size: 64 -> absent", 'fixed.model: "mlp" -> "cnn"']),
        ({"metric": "val_loss", "direction": "minimize"}, ["direction: *", "metric: *"]),
    ],
)
def test_what_changes_a_result_changes_the_fingerprint_and_is_named(changes: dict[str, Any], told: list[str]) -> None:
    old, new = definition(), definition(**changes)
    assert fingerprint(new) != fingerprint(old)
    found = differences(old.model_dump(mode="json"), new.model_dump(mode="json"))
    assert [_holds(line, each.split("*")) for line, each in zip(found, told, strict=True)] == [True] * len(told), found


def test_every_field_is_fingerprinted_unless_named() -> None:
    """So that a field added later is not forgotten."""
    changed = {
        "objective": "a.b:C",
        "metric": "x",
        "direction": "minimize",
        "epochs": 8,
        "seed": 1,
        "sampler": "qmc",
        "replicates": 2,
        "folds": 3,
        "precision": "float64",
        "stop_diverged": False,
        "data": {"name": "x"},
        "fixed": {},
        "pruning": {"kind": "none"},
        "baseline": {**definition().baseline, "width": 32},
        "space": {**definition().model_dump()["space"], "depth": {"kind": "int", "low": 1, "high": 5}},
    }
    told = {"name", "title", "question", "n_trials", "timeout_s", "trainers", "device", "checkpoints", "slots"}
    assert changed.keys() | told == StudyDefinition.model_fields.keys()
    for key, value in changed.items():
        assert fingerprint(definition(**{key: value})) != fingerprint(definition()), key


def test_the_order_of_a_file_s_keys_and_the_way_a_number_is_written_mean_nothing(workspace: Workspace) -> None:
    before = load("mine", workspace, {})
    head, *tables = FILE.split("\n[")
    turned = "\n[".join([head, *reversed(tables)]).replace("low = 0.0", "low = 0").replace("1e-3", "0.001")
    workspace.definition("mine").write_text(turned)
    assert fingerprint(load("mine", workspace, {})) == fingerprint(before)


# ---------------------------------------------------------------- what is trained


def test_hyperparameters_are_defaults_then_constants_then_effective_values() -> None:
    wanted = definition(fixed={"model": "cnn", "momentum": 0})
    trained = hyperparameters(wanted, baseline_raw(wanted) | {"weight_decay": 1e-5, "dropout": 0.3}, RULES)
    assert trained.keys() == RULES.keys()
    assert trained["activation"] == RULES["activation"].default
    assert (trained["model"], trained["weight_decay"], trained["dropout"]) == ("cnn", 0.0, 0.3)
    assert repr(trained["momentum"]) == "0.0"


def test_the_baseline_is_trained_as_the_file_says() -> None:
    wanted = definition()
    trained = hyperparameters(wanted, baseline_raw(wanted), RULES)
    assert {name: trained[name] for name in wanted.baseline} == wanted.baseline


def test_structure_names_what_differs_from_the_defaults_in_the_order_of_the_rules() -> None:
    defaults = {name: rule.default for name, rule in RULES.items()}
    assert structure(defaults, RULES) == "default"
    chosen = defaults | {
        "batch_norm": True,
        "depth": 3,
        "width": 512,
        "hidden": (5, 4),
        "norm_position": "after",
        "lr": 0.5,
    }
    assert structure(chosen, RULES) == "width=512 depth=3 hidden=5,4 norm_position=after"


STRUCTURAL = {
    "text": HyperparameterRule(kind="choice", default="a", structural=True),
    "layers": HyperparameterRule(kind="layers", default=(1,), structural=True),
    "number": HyperparameterRule(kind="float", default=0.5, structural=True),
    "count": HyperparameterRule(kind="int", default=1, structural=True),
    "flag": HyperparameterRule(kind="bool", default=False, structural=True),
    "fusible": HyperparameterRule(kind="float", default=0.0, structural=False),
}
VALUES = st.fixed_dictionaries(
    {
        "text": st.sampled_from(["a", "b", 'b" layers=2', "a b", "", "true", '"b"', "b layers=1"]),
        "layers": st.lists(st.integers(1, 3), max_size=3).map(tuple),
        "number": st.sampled_from([0.5, 1, 1.0, 2.5, 1e-30]),
        "count": st.integers(1, 3),
        "flag": st.booleans(),
        "fusible": st.floats(0, 1),
    }
)


@settings(deadline=None)
@given(VALUES, VALUES)
def test_two_trials_have_the_same_structure_exactly_if_all_structural_values_are_equal(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    equal = all(one[name] == other[name] for name, rule in STRUCTURAL.items() if rule.structural)
    assert (structure(one, STRUCTURAL) == structure(other, STRUCTURAL)) == equal


# ---------------------------------------------------------------- the studies that come with the project

STUDIES = ("cifar_reg", "cifar_cnn", "digits_reg")


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "studies").glob("*.toml")))
def test_a_study_that_comes_with_the_project_fits_its_objective(name: str) -> None:
    loaded = load(name, Workspace(ROOT), {})
    module, _, attribute = OBJECTIVES[loaded.objective].partition(":")
    objective = getattr(importlib.import_module(module), attribute)
    check_objective(loaded, rules_of(objective), objective.METRICS)
    question = (ROOT / "studies" / f"{name}.toml").read_text().split(".\n")[0]
    assert name not in STUDIES or question.startswith("# Which regularization ")
    assert loaded.question.endswith("?")


@pytest.mark.parametrize("name", STUDIES)
def test_a_baseline_has_every_regularizer_off(name: str) -> None:
    loaded = load(name, Workspace(ROOT), {})
    regularizers = {key for key, parameter in loaded.space.items() if parameter.regularizer}
    assert {"weight_decay", "l1", "l2", "dropout", "batch_norm", "label_smoothing", "shift"} <= regularizers
    assert all(space.is_off(loaded.space[key], loaded.baseline[key]) for key in regularizers)
    assert loaded.baseline["lr"] == 1e-3


def test_cifar_reg_asks_what_was_agreed() -> None:
    """So that results of different times can be compared: these ranges are fixed."""
    loaded = load("cifar_reg", Workspace(ROOT), {})
    ranges = {name: space.extremes(parameter) for name, parameter in loaded.space.items()}
    assert ranges == {
        "lr": (1e-4, 3e-2),
        "weight_decay": (0.0, 1.78e-5, 1e-1),
        "l1": (0.0, 1e-6, 1e-3),
        "l2": (0.0, 1.78e-5, 1e-1),
        "dropout": (0.0, 0.6),
        "width": (128, 1024),
        "depth": (1, 4),
        "batch_norm": (False, True),
        "label_smoothing": (0.0, 0.2),
        "flip": (False, True),
        "shift": (0, 4),
    }
    assert loaded.fixed == {"model": "mlp", "batch_size": 128, "optimizer": "adamw", "schedule": "one_cycle"}
    assert (loaded.n_trials, loaded.epochs, loaded.pruning.eta, loaded.pruning.min_epochs) == (40, 9, 3, 1)
    assert loaded.data == {"name": "cifar10", "validation": 5000}


def test_a_study_of_colour_images_may_be_run_on_digits() -> None:
    loaded = load("cifar_reg", Workspace(ROOT), {"dataset": "digits"})
    assert (loaded.name, loaded.data) == ("cifar_reg-digits", {"name": "digits"})


def test_study_may_not_take_the_folder_of_the_dashboards_files() -> None:
    with pytest.raises(ValidationError, match="studies/artifacts"):
        definition(name="artifacts")


def test_layers_are_sampled_as_texts_and_trained_as_lists() -> None:
    listed = {"kind": "choice", "choices": ["256-128", "64"]}
    base = definition()
    space_of_it = {**base.model_dump()["space"], "hidden": listed}
    chosen = definition(space=space_of_it, baseline={**base.baseline, "hidden": "64"})
    rules = {"hidden": HyperparameterRule(kind="layers", default=(), structural=True)}
    for text, layers in (("256-128", (256, 128)), ("64", (64,))):
        raw = {**baseline_raw(chosen), "hidden": text}
        assert hyperparameters(chosen, raw, rules) == {"hidden": layers}
