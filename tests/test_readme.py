"""What the README and the packages' docstrings say exists, and what exists they say."""

import importlib
import re
import tomllib
from dataclasses import asdict
from pathlib import Path

import click
import pytest

import objectives
import search
from objectives import OBJECTIVES
from objectives.classification import Classification
from search import ablate, confirm, delete, report, reproduce, run, serve, space
from search.contract import HyperparameterRule
from search.definition import Pruning, StudyDefinition, check_objective, load
from search.diagnosis import REMEDIES
from search.wording import shown
from search.workspace import Workspace
from tests.studies import TABLE

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS: dict[str, click.Command] = {
    "search.run": run.main,
    "search.confirm": confirm.main,
    "search.ablate": ablate.main,
    "search.report": report.main,
    "search.reproduce": reproduce.main,
    "search.serve": serve.main,
    "search.delete": delete.main,
}


def blocks(language: str) -> list[str]:
    """The contents of the README's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def section(heading: str) -> str:
    """What follows a heading, up to the next one."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", README, re.DOTALL | re.MULTILINE)
    assert found, f"the README has no heading {heading!r}"
    return found[1]


def rows(heading: str, title: str) -> list[list[str]]:
    """The cells of the table below a heading whose first column has this title."""
    found = re.search(rf"^\| {re.escape(title)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", section(heading), re.MULTILINE)
    assert found, f"the README has no table of {title!r} under {heading!r}"
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in found[1].splitlines()]


def own_network() -> tuple[str, str]:
    """The page of one's own network: mine.py and mine.toml."""
    return next(t for t in blocks("python") if "Mine =" in t), next(t for t in blocks("toml") if "mine:Mine" in t)


def named(cell: str) -> list[str]:
    """What stands in a cell as code."""
    return re.findall(r"`([^`]+)`", cell)


# ---------------------------------------------------------------- commands


@pytest.mark.parametrize("module", COMMANDS)
def test_every_option_is_explained_and_every_explained_option_exists(module: str) -> None:
    explained = [named(row[0])[0].split()[0] for row in rows(f"python -m {module}", "Option")]
    assert sorted(explained) == sorted(option for each in COMMANDS[module].params for option in each.opts)


def test_every_option_written_in_a_command_exists() -> None:
    written = re.findall(r"python -m (search\.\w+)([^`\n|#]*)", README)
    assert {module for module, _ in written} == set(COMMANDS)
    for module, rest in written:
        known = {option for each in COMMANDS[module].params for option in each.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known, (module, rest)


def test_every_study_in_a_command_has_a_file() -> None:
    names = set(re.findall(r"--study ([a-z0-9_-]+)(?=[\s`])", README))
    assert names == {path.stem for path in (ROOT / "studies").glob("*.toml")}


# ---------------------------------------------------------------- study files


@pytest.mark.parametrize("text", [t for t in blocks("toml") if "title" in t], ids=lambda t: t.partition("\n")[0])
def test_every_whole_study_in_the_readme_is_valid(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(own_network()[0], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "example.toml"
    path.write_text(text, encoding="utf-8")
    definition = load(str(path), Workspace(tmp_path), {})
    module, _, name = OBJECTIVES.get(definition.objective, definition.objective).partition(":")
    factory = getattr(importlib.import_module(module), name)
    rules = {key: HyperparameterRule(**asdict(each)) for key, each in factory.HYPERPARAMETERS.items()}
    check_objective(definition, rules, factory.METRICS)


@pytest.mark.parametrize("text", [t for t in blocks("toml") if "title" not in t])
def test_every_part_of_a_study_in_the_readme_is_valid(text: str) -> None:
    assert StudyDefinition.model_validate({"name": "example", **TABLE, **tomllib.loads(text)}).name == "example"


def test_every_key_of_a_study_file_is_explained() -> None:
    explained = {named(row[0])[0]: named(row[1]) or [row[1]] for row in rows("The study file", "Key")}
    fields = {name: field for name, field in StudyDefinition.model_fields.items() if name not in ("name", "pruning")}
    fields |= {f"pruning.{name}": field for name, field in Pruning.model_fields.items()}
    assert set(explained) == set(fields)
    for name, (told, *_) in explained.items():
        if isinstance(default := fields[name].default, bool | int | str):
            assert told.strip('"') == shown(default), name


def test_keys_that_may_change_are_those_told_as_free() -> None:
    from search.definition import NOT_FINGERPRINTED

    free = {named(row[0])[0] for row in rows("The study file", "Key") if row[2].endswith("Free.")}
    assert free == NOT_FINGERPRINTED - {"name"}


def test_every_kind_of_parameter_is_explained() -> None:
    explained = {named(row[0])[0]: named(row[1]) for row in rows("The study file", "Kind")}
    assert set(explained) == set(space.KINDS)
    for kind, keys in explained.items():
        assert set(" ".join(keys).split()) == set(space.KINDS[kind].model_fields) - {
            "kind",
            "regularizer",
            "off",
            "off_below",
        }


def test_every_hyperparameter_is_explained_with_its_default() -> None:
    explained: dict[str, tuple[str, str]] = {}
    for name_cell, default_cell, values in rows("The study file", "Hyperparameter"):
        names = named(name_cell)
        defaults = [text.strip("`") for text in default_cell.split(", ")]
        explained |= {n: (d, values) for n, d in zip(names, defaults * (len(names) // len(defaults)), strict=True)}
    rules = Classification.HYPERPARAMETERS
    assert set(explained) == set(rules)
    for name, (default, values) in explained.items():
        assert default == shown(rules[name].default), name
        assert values.startswith("structural") == rules[name].structural, name
        assert all(choice in values or choice == default for choice in rules[name].choices), name


# ---------------------------------------------------------------- everything else


def test_every_diagnosis_is_explained_with_its_remedy() -> None:
    explained = {named(label)[0]: remedy for label, _, remedy in rows("What the learning curves say", "Diagnosis")}
    assert list(explained.items()) == list(REMEDIES.items())


def test_every_python_snippet_compiles() -> None:
    assert blocks("python")
    for snippet in blocks("python"):
        compile(snippet, "README.md", "exec")


def test_every_relative_link_and_picture_exists() -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", README)
    local = [target for target in targets if "://" not in target]
    headings = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", README, re.M)}
    for target in local:
        path, _, anchor = target.partition("#")
        assert not path or (ROOT / path).is_file(), target
        assert not anchor or anchor in headings, target


def test_every_picture_is_small_and_used() -> None:
    pictures = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / ".github").glob("*.png")}
    assert set(pictures) == set(re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README))
    assert all(path.stat().st_size < 150_000 for path in pictures.values())


@pytest.mark.parametrize("package", [search, objectives])
def test_docstring_maps_every_file(package: object) -> None:
    text, folder = str(package.__doc__), Path(str(package.__file__)).parent  # type: ignore[attr-defined]
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    words = set(re.findall(r"\w+", text))
    assert files <= words
    if package is objectives:
        assert set(re.findall(r"^(\w+)  +", text, re.MULTILINE)) == files
