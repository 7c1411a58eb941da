"""The shape of the project: which package knows what, and what lies where."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): ast.parse(path.read_text())
    for package in ("search", "objectives")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.stem != "__init__"
}
BOOKKEEPING = {"optuna", "optuna_dashboard", "mlflow", "sqlalchemy"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    module: str
    """Dotted, down to one of MODULES where it is one of ours."""
    deferred: bool
    """Inside a function, or for type checkers only."""

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]


def imports(module: str) -> Iterator[Import]:
    yield from _imports(MODULES[module], deferred=False)


def _imports(node: ast.AST, *, deferred: bool) -> Iterator[Import]:
    match node:
        case ast.Import():
            for alias in node.names:
                yield Import(module=alias.name, deferred=deferred)
        case ast.ImportFrom():
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield Import(module=whole if whole in MODULES else str(node.module), deferred=deferred)
        case _:
            deferred |= isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            deferred |= isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for child in ast.iter_child_nodes(node):
                yield from _imports(child, deferred=deferred)


def importers(*packages: str, inside: str) -> set[str]:
    """Our modules in the package `inside` that import any of the packages, wherever in the file."""
    return {
        module
        for module in MODULES
        if module.startswith(f"{inside}.")
        if any(each.package in packages for each in imports(module))
    }


def reached(module: str) -> set[str]:
    """The module and all of ours that it imports, directly or not, wherever in the file."""
    found, waiting = set(), [module]
    while waiting:
        if (current := waiting.pop()) not in found:
            found.add(current)
            waiting += [each.module for each in imports(current) if each.module in MODULES]
    return found


# ---------------------------------------------------------------- who may import what


def test_only_opening_a_trainer_imports_objectives() -> None:
    assert importers("objectives", inside="search") == {"search.opening"}


def test_search_does_not_know_torch() -> None:
    """But for the trainer, and for the champion's one network, since MLflow logs a torch module, not a file of one."""
    assert importers("torch", "torchvision", inside="search") <= {"search.opening", "search.champion"}
    for module in ("search.opening", "search.champion"):
        assert all(each.deferred for each in imports(module) if each.package == "torch"), module


def test_objectives_know_neither_bookkeeping_nor_search() -> None:
    assert importers(*BOOKKEEPING, "search", inside="objectives") == set()


@pytest.mark.parametrize("module", ["search.contract", "search.trainer", "search.opening"])
def test_what_runs_on_a_device_host_needs_no_bookkeeping(module: str) -> None:
    needed = {each.package for ours in reached(module) for each in imports(ours)}
    assert needed.isdisjoint(BOOKKEEPING)


def test_contract_imports_nothing_but_the_standard_library() -> None:
    assert {each.package for each in imports("search.contract")} <= sys.stdlib_module_names


def test_no_module_imports_itself_in_a_circle() -> None:
    edges = {
        module: {each.module for each in imports(module) if each.module in MODULES and not each.deferred}
        for module in MODULES
    }
    while leaves := {module for module, targets in edges.items() if not targets}:
        edges = {module: targets - leaves for module, targets in edges.items() if module not in leaves}
    assert edges == {}


def test_everything_can_be_caught_in_one_place_only() -> None:
    """Where an objective's code runs: there any exception is a result."""
    catchers = {
        module
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        if node.type is None
        or {"Exception", "BaseException"} & {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)}
    }
    assert catchers <= {"search.trainer"}


# ---------------------------------------------------------------- what is loaded, what lies where


def python(code: str) -> str:
    """What the code prints in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "command", [f"search.{name}" for name in ("run", "confirm", "ablate", "report", "reproduce", "serve", "delete")]
)
def test_help_loads_nothing_heavy(command: str) -> None:
    printed = python(
        "import runpy, sys\n"
        f"sys.argv = ['{command}', '--help']\n"
        "try:\n"
        f"    runpy.run_module('{command}', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    print(); print(end.code, *sys.modules)\n"
    )
    status, *loaded = printed.splitlines()[-1].split()
    assert "Usage:" in printed
    assert status in ("0", "None")
    assert {"torch", "optuna", "mlflow", "pandas", "matplotlib", "sqlalchemy"}.isdisjoint(loaded)


def test_coordinator_process_never_loads_torch() -> None:
    assert python("import sys, search.session; print('torch' in sys.modules)") == "False\n"


def test_top_level_holds_what_it_should_and_nothing_else() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: no list of tracked files")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    top = {name.partition("/")[0] for name in tracked if name and not name.startswith(".")}
    assert top == {"pyproject.toml", "README.md", "search", "objectives", "tests", "mlruns", "studies"}
