"""A study's definition: what its file must hold, what may be overridden, and what makes two of them the same."""

import hashlib
import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from search import contract, space
from search.contract import HyperparameterRule
from search.errors import DefinitionError
from search.rules import broken_rule, cast
from search.space import Parameter, invalid
from search.wording import did_you_mean, messages, shown
from search.workspace import Workspace

NOT_FINGERPRINTED = frozenset(
    {"name", "title", "question", "n_trials", "timeout_s", "trainers", "device", "checkpoints", "slots"}
)
"""What neither changes what a trial computes nor how it is judged."""
STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _value(value: object) -> contract.Value:
    match value:
        case float() if not math.isfinite(value):
            raise ValueError("must be a finite number")
        case bool() | int() | float() | str():
            return value
        case list() | tuple() if all(type(each) is int for each in value):
            return tuple(value)
    raise ValueError("must be true or false, a number, a text, or a list of whole numbers")


def _itself(value: contract.Value) -> contract.Value:
    return value


Value = Annotated[contract.Value, PlainValidator(_value), PlainSerializer(_itself)]


class Pruning(BaseModel):
    """When a trial ends before its last epoch."""

    model_config = STRICT

    kind: Literal["successive_halving", "none"] = "successive_halving"
    eta: int = Field(default=3, ge=2)
    """One trial in so many survives a rung."""
    min_epochs: int = Field(default=1, ge=1)
    """The first rung; the next are eta times as far."""
    patience: int | None = Field(default=None, ge=1)
    """Epochs without a better value after which a trial is complete; None: never."""

    @model_validator(mode="after")
    def _no_setting_without_effect(self) -> Self:
        idle = [key for key in ("eta", "min_epochs") if getattr(self, key) != type(self).model_fields[key].default]
        if self.kind == "none" and idle:
            raise invalid(
                [
                    (key, f'has no effect with kind = "none", got {getattr(self, key)}. Remove it, or change kind.')
                    for key in idle
                ]
            )
        return self


class StudyDefinition(BaseModel):
    """What a study file says, completed by defaults and the command line."""

    model_config = STRICT

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    title: str
    question: str
    objective: str = Field(default="classification", pattern=r"^\w+$|^\w+(\.\w+)*:\w+$")
    """A built-in name, or "package.module:Name"."""
    metric: str = "val_accuracy"
    direction: Literal["maximize", "minimize"] = "maximize"
    n_trials: int = Field(default=40, ge=1)
    epochs: int = Field(default=9, ge=1)
    timeout_s: float | None = Field(default=None, gt=0)
    seed: int = Field(default=0, ge=0, lt=2**63)
    sampler: Literal["tpe", "random", "gp", "cmaes", "qmc", "grid"] = "tpe"
    replicates: int = Field(default=1, ge=1)
    folds: int | None = Field(default=None, ge=2)
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    trainers: int | None = Field(default=None, ge=0)
    """None: one a core, or a GPU; 0: train in the coordinator's own process."""
    slots: int | None = Field(default=None, ge=1)
    """Most slots of a population; None: as many as pay."""
    checkpoints: int = Field(default=3, ge=0)
    """How many of the best trials keep their weights."""
    stop_diverged: bool = True
    data: Mapping[str, JsonValue] = Field(min_length=1)
    fixed: Mapping[str, Value] = Field(default_factory=dict)
    """Constant hyperparameters of the objective."""
    pruning: Pruning = Pruning()
    baseline: Mapping[str, Value]
    """The effective value of every parameter of the space."""
    space: Mapping[str, Parameter] = Field(min_length=1)

    _origin: str = PrivateAttr("")

    @property
    def origin(self) -> str:
        """The file it came from, for messages; "study NAME" where it was read from a ledger."""
        return self._origin or f"study {self.name}"

    @property
    def n_replicates(self) -> int:
        """Trainings a trial: with several seeds, on several folds, or each seed on each fold."""
        return self.replicates * (self.folds or 1)

    @property
    def maximize(self) -> bool:
        return self.direction == "maximize"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if problems := [*_inconsistencies(self)]:
            raise invalid(problems)
        return self


def load(study: str, workspace: Workspace, overrides: Mapping[str, Any]) -> StudyDefinition:
    """Read and check a study file.

    Args:
        study: a name (studies/NAME.toml) or a path to a .toml file.
        overrides: fields of StudyDefinition, and `dataset`, which replaces [data] and, unless a name is given, makes
            another study of it; those that are None say nothing. Messages name their command line options.

    Raises:
        DefinitionError: there is no such file, or it does not hold what it must; every problem has a line.
    """
    path = _file(study, workspace)
    origin = str(path.relative_to(workspace.root)) if path.is_relative_to(workspace.root) else str(path)
    table = _parsed(path, origin)
    if "name" in table:
        raise DefinitionError(
            f"{origin}: name: a study is named by its file, got name = {table['name']!r}. "
            "Remove the key, and rename the file or use --name."
        )
    given = {key: value for key, value in overrides.items() if value is not None}
    table, options = _overridden(table, path.stem, given)
    try:
        definition = StudyDefinition.model_validate(table)
    except ValidationError as error:
        raise DefinitionError("\n".join(messages(error, StudyDefinition, origin, options))) from error
    definition._origin = origin
    return definition


def check_objective(
    definition: StudyDefinition, rules: Mapping[str, HyperparameterRule], metrics: Mapping[str, str]
) -> None:
    """Check a definition against what its objective accepts and reports.

    Raises:
        DefinitionError: it does not fit; every problem has a line.
    """
    problems = [*_metric_problems(definition, metrics)]
    for table, names in (("fixed", definition.fixed), ("space", definition.space)):
        problems += [
            f"{table}.{name}: the objective {definition.objective!r} has no such hyperparameter."
            f"{did_you_mean(name, rules)} It has {', '.join(rules)}."
            for name in names
            if name not in rules
        ]
    for name in definition.fixed.keys() & rules.keys():
        if broken := broken_rule(definition.fixed[name], rules[name]):
            problems.append(f"fixed.{name}: must be {broken}, got {shown(definition.fixed[name])}. Change the value.")
    for name in definition.space.keys() & rules.keys():
        for value in space.extremes(definition.space[name]):
            if broken := broken_rule(value, rules[name]):
                kind = definition.space[name].kind
                problems.append(
                    f"space.{name}: every value must be {broken}, but this {kind} parameter can be {shown(value)}. "
                    "Change its kind or its range."
                )
                break
    if problems:
        raise DefinitionError("\n".join(f"{definition.origin}: {problem}" for problem in sorted(problems)))


def fingerprint(definition: StudyDefinition) -> str:
    """Return a hash of whatever changes what a trial computes or how it is judged (sha256, hexadecimal)."""
    kept = {key: value for key, value in definition.model_dump(mode="json").items() if key not in NOT_FINGERPRINTED}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return a line like "pruning.eta: 3 -> 4" for each difference that changes the fingerprint of two dumps."""
    before, after = (dict(_flat({k: v for k, v in d.items() if k not in NOT_FINGERPRINTED})) for d in (old, new))
    return [
        f"{key}: {before.get(key, 'absent')} -> {after.get(key, 'absent')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def baseline_raw(definition: StudyDefinition) -> dict[str, contract.Value]:
    """What must be drawn so that the baseline is trained."""
    return space.raw_from(definition.space, definition.baseline)


def hyperparameters(
    definition: StudyDefinition, raw: Mapping[str, contract.Value], rules: Mapping[str, HyperparameterRule]
) -> dict[str, contract.Value]:
    """Return what is trained: the objective's defaults, the study's constants, the effective values of the drawn."""
    chosen = {**definition.fixed, **space.effective(definition.space, raw)}
    return {name: cast(chosen.get(name, rule.default), rule) for name, rule in rules.items()}


def structure(hyperparameters: Mapping[str, contract.Value], rules: Mapping[str, HyperparameterRule]) -> str:
    """Return what two trials have in common exactly if they can share a population, as "width=512 depth=3".

    Only what differs from the defaults is named, in the order of the rules.
    """
    values = {name: cast(hyperparameters[name], rule) for name, rule in rules.items() if rule.structural}
    named = (
        f"{name}={shown(value)}" for name, value in values.items() if value != cast(rules[name].default, rules[name])
    )
    return " ".join(named) or "default"


# ---------------------------------------------------------------- reading


def _file(study: str, workspace: Workspace) -> Path:
    path = Path(study)
    if path.suffix == ".toml":
        path = path if path.is_absolute() else workspace.root / path
        if path.is_file():
            return path
        raise DefinitionError(f"{study}: there is no such file. Give the path of a study file, or a study's name.")
    known = sorted(each.stem for each in workspace.studies.glob("*.toml"))
    if study in known:
        return workspace.definition(study)
    listed = f"Studies here: {', '.join(known)}." if known else f"{workspace.studies} holds no study file."
    raise DefinitionError(f"{study}: there is no such study.{did_you_mean(study, known)} {listed}")


def _parsed(path: Path, origin: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise DefinitionError(f"{origin}: this is not valid TOML: {error}. Correct that place.") from error
    except UnicodeDecodeError as error:
        raise DefinitionError(f"{origin}: this is not UTF-8: {error}. Save it as UTF-8 text.") from error
    except OSError as error:
        raise DefinitionError(f"{origin}: cannot be read: {error.strerror}. Check its permissions.") from error


def _overridden(table: Mapping[str, Any], stem: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the completed table, and the option that each replaced key came from."""
    result = {**table, "name": stem, **{key: value for key, value in given.items() if key != "dataset"}}
    options = {key: "--timeout" if key == "timeout_s" else "--" + key.replace("_", "-") for key in given}
    dataset = options.pop("dataset", None) and given["dataset"]
    own = table.get("data")
    if dataset is not None and not (isinstance(own, Mapping) and own.get("name") == dataset):
        result["data"] = {"name": dataset}
        options["data"] = "--dataset"
        if "name" not in given:
            result["name"] = f"{stem}-{dataset}"
            options["name"] = "--dataset"
    return result, options


# ---------------------------------------------------------------- checking


def _inconsistencies(definition: StudyDefinition) -> Iterator[tuple[str, str]]:
    if definition.name == "artifacts":
        yield (
            "name",
            "the folder studies/artifacts holds what the dashboard shows, got 'artifacts'. Choose another name.",
        )
    pruning = definition.pruning
    if pruning.min_epochs > definition.epochs:
        yield (
            "epochs",
            f"must be at least pruning.min_epochs = {pruning.min_epochs}, got {definition.epochs}. "
            "Raise epochs, or lower pruning.min_epochs.",
        )
    if "folds" in definition.data:
        yield "data.folds", "belongs at the top of the file, since it makes trials of several trainings. Move it there."
    for name in sorted(definition.fixed.keys() & definition.space.keys()):
        yield f"fixed.{name}", "a hyperparameter is either fixed or sampled, but [space] has it too. Remove one."
    for name, value in definition.baseline.items():
        if name not in definition.space:
            yield (
                f"baseline.{name}",
                f"is not a parameter of the space.{did_you_mean(name, definition.space)} Remove it; "
                "constants belong in [fixed].",
            )
        elif not space.contains(definition.space[name], value):
            wanted = space.described(definition.space[name])
            yield (
                f"baseline.{name}",
                f"must be {wanted}, as [space.{name}] says, got {shown(value)}. Change one of them.",
            )
    for name in definition.space.keys() - definition.baseline.keys():
        yield f"baseline.{name}", f"must be given: the baseline has every parameter of the space. Add {name} = VALUE."
    if definition.sampler == "grid":
        yield from _grid_problems(definition)


def _grid_problems(definition: StudyDefinition) -> Iterator[tuple[str, str]]:
    endless = [name for name, parameter in definition.space.items() if not space.options(parameter)]
    for name in endless:
        yield (
            f"space.{name}",
            f"a grid needs parameters of finitely many values, got kind = {shown(definition.space[name].kind)}. "
            'Use kind = "choice", or another sampler.',
        )
    n_points = len(space.grid(definition.space))
    if not endless and definition.n_trials > n_points:
        yield (
            "n_trials",
            f"must be at most {n_points}, the points of the grid, got {definition.n_trials}. Lower n_trials.",
        )


def _metric_problems(definition: StudyDefinition, metrics: Mapping[str, str]) -> Iterator[str]:
    metric, told = definition.metric, {name: way for name, way in metrics.items() if way != "none"}
    if metric not in told:
        yield (
            f"metric: the objective {definition.objective!r} cannot be judged by {metric!r}."
            f"{did_you_mean(metric, told)} It reports {', '.join(told)}."
        )
    elif told[metric] != definition.direction:
        yield (
            f'direction: must be "{told[metric]}" for {metric}, got "{definition.direction}". '
            "Change direction, or metric."
        )


def _flat(value: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from _flat(below, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, json.dumps(value)
