"""Claims of the command line, as a user meets it: what is said, what is refused, and what is left on disk."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner, Result

from search import events
from search.run import main
from search.workspace import Workspace
from tests.running import PROJECT, command, events_of, files_in, folded, workplace, write_study

Command = Callable[..., Result]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the command in a folder, in this process: torch is imported already. With `--trainers 0` it stays here."""

    def run(root: Path, *options: str) -> Result:
        monkeypatch.chdir(root)
        monkeypatch.setattr(sys, "argv", ["search.run", *options])
        return CliRunner().invoke(main, options)

    return run


def assert_refused(result: Result, message: str, *, status: int = 1) -> None:
    assert result.exit_code == status, result.output
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)


# ---------------------------------------------------------------- refused at once, without a trace

MISTYPED = {
    "misspelt option": (["--study", "fake", "--n-trails", "3"], "No such option '--n-trails'. (Did you mean"),
    "no study": ([], "Missing option '--study'"),
    "no number": (["--study", "fake", "--n-trials", "many"], "'many' is not a valid integer"),
    "precision": (["--study", "fake", "--precision", "bf16"], "'bf16' is not one of 'auto', 'float32'"),
}  # fmt: skip
"""Options -> what click says."""
REFUSED = {
    "unknown study": (["--study", "fke"], "fke: there is no such study. Did you mean 'fake'? Studies here: broken,"),
    "unknown file": (["--study", "studies/none.toml"], "studies/none.toml: there is no such file."),
    "no trials": (["--study", "fake", "--n-trials", "0"], "--n-trials: must be greater than or equal to 1, got 0."),
    "no time": (["--study", "fake", "--timeout", "0"], "--timeout: must be greater than 0, got 0"),
    "no such time": (["--study", "fake", "--timeout", "nan"], "--timeout: must be"),
    "no epochs": (["--study", "fake", "--epochs", "0"], "--epochs: must be greater than or equal to 1, got 0."),
    "negative trainers": (["--study", "fake", "--trainers", "-1"], "--trainers: must be greater than or equal to 0"),
    "negative seed": (["--study", "fake", "--seed", "-1"], "--seed: must be greater than or equal to 0, got -1."),
    "device": (["--study", "fake", "--device", "gpu"], "--device: must be auto, cpu, cuda or cuda:N, got gpu."),
    "name": (["--study", "fake", "--name", "../else"], "--name: must be 1 to 64 of a-z, 0-9, _ and -"),
    "export's ending": (["--study", "fake", "--export", "all.xls"], "--export: the name must end in .csv, .parquet"),
    "export's folder": (["--study", "fake", "--export", "no/all.csv"], "does not exist. Create it."),
    "export to a folder": (["--study", "fake", "--export", "f.csv"], "--export: f.csv cannot be written."),
    "storage": (["--study", "fake", "--storage", "nonsense"], "is not a URL such as sqlite:////path/to/file.db"),
    "unknown storage": (["--study", "fake", "--storage", "foo://secret:word@x/y"], "Check that it can be reached"),
    "tracking": (["--study", "fake", "--tracking-uri", "nonsense"], "is not a URL such as"),
    "nobody tracks": (["--study", "fake", "--tracking-uri", "http://127.0.0.1:9"], "Check that it can be reached"),
    "data set": (["--study", "real", "--dataset", "cifar"], "cifar10"),
    "misspelt key": (["--study", "misspelt"], "misspelt.toml: epoch: there is no such key. Did you mean 'epochs'?"),
    "broken file": (["--study", "broken"], "studies/broken.toml: this is not valid TOML"),
    "unknown objective": (["--study", "built-in"], "objective: must be one of classification"),
    "unknown module": (["--study", "foreign"], "objective: there is no module 'nowhere', got 'nowhere:Net'."),
    "unknown class": (["--study", "classless"], "objective: tests.fakes has no 'Nothing'"),
    "unknown metric": (["--study", "unmeasured"], "cannot be judged by 'val_acuracy'. Did you mean 'val_accuracy'?"),
    "unknown hyperparameter": (["--study", "foreign-space"], "space.qualty: the objective"),
    "objective that refuses": (["--study", "refusing"], "error: the moon is full"),
}  # fmt: skip


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = workplace(tmp_path_factory.mktemp("refusing"), mlflow=False)
    (root / "f.csv").mkdir()
    write_study(root, "misspelt", epoch=3)
    write_study(root, "built-in", objective="clasification")
    write_study(root, "foreign", objective="nowhere:Net")
    write_study(root, "classless", objective="tests.fakes:Nothing")
    write_study(root, "unmeasured", metric="val_acuracy")
    space = {"qualty": {"kind": "float", "low": 0.0, "high": 1.0}}
    write_study(root, "foreign-space", space=space, baseline={"qualty": 0.5})
    write_study(root, "refusing", data={"refuse": "the moon is full"})
    (root / "studies" / "broken.toml").write_text("epochs = = 3\n")
    shutil.copy(PROJECT / "studies" / "digits_reg.toml", root / "studies" / "real.toml")
    return root


@pytest.mark.parametrize("case", [*MISTYPED, *REFUSED])
def test_error_is_one_clear_message_and_leaves_no_trace(refusing: Path, here: Command, case: str) -> None:
    options, message = (MISTYPED | REFUSED)[case]
    before = files_in(refusing)
    result = here(refusing, *options, *(() if "--trainers" in options else ("--trainers", "0")))
    assert_refused(result, message, status=2 if case in MISTYPED else 1)
    assert files_in(refusing) == before


def test_password_in_an_address_is_not_shown(refusing: Path, here: Command) -> None:
    result = here(refusing, "--study", "fake", "--storage", "foo://secret:word@x/y", "--trainers", "0")
    assert "word" not in result.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_gpu_that_is_not_there_is_refused_by_a_real_trainer(refusing: Path) -> None:
    before = files_in(refusing)
    done = command(refusing, "--study", "fake", "--device", "cuda")
    assert (done.returncode, done.stderr) == (
        1, "error: device: PyTorch finds no GPU here, got cuda. Use --device auto, or cpu.\n"
    )  # fmt: skip
    assert files_in(refusing) == before


def test_missing_data_set_without_a_network_says_what_to_put_where(
    refusing: Path, here: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    before = files_in(refusing)
    data = tmp_path / "data"
    result = here(refusing, "--study", "real", "--dataset", "cifar10", "--data-dir", str(data), "--trainers", "0")
    assert_refused(result, str(data))
    assert "cifar-10" in result.stderr
    assert "--dataset digits" in result.stderr
    assert files_in(refusing) == before
    assert not data.exists() or not files_in(data)


def test_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    root = workplace(tmp_path / "foreign", mlflow=False)
    (root / "studies").chmod(0o555)
    powerless = ["setpriv", "--bounding-set=-dac_override", "--"] if os.getuid() == 0 else []
    before = files_in(root)
    done = command(root, "--study", "fake", "--trainers", "0", prefix=powerless)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {root}/studies/fake: cannot be written: Permission denied.")
    assert done.stderr.count("\n") == 1
    assert files_in(root) == before


def test_file_in_the_place_of_the_studys_folder_is_told(tmp_path: Path, here: Command) -> None:
    root = workplace(tmp_path, mlflow=False)
    (root / "studies" / "fake").write_text("in the way")
    before = files_in(root)
    assert_refused(here(root, "--study", "fake", "--trainers", "0"), "studies/fake: cannot be written: ")
    assert files_in(root) == before


def test_study_that_another_process_begins_meanwhile_is_not_begun_twice(tmp_path: Path, here: Command) -> None:
    root = workplace(tmp_path, mlflow=False, data={"touch": str(Workspace(tmp_path).ledger("fake"))})
    result = here(root, "--study", "fake", "--trainers", "0")
    assert_refused(result, "another process has just begun this study. Run again to continue it.")


# ---------------------------------------------------------------- what a run does and says


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    root = workplace(tmp_path_factory.mktemp("finished"), n_trials=4)
    return root, command(root, "--study", "fake", "--trainers", "2", "--export", "all.csv")


def test_run_prints_a_plain_line_a_trial_and_the_result(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    root, done = finished
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0] == "fake: Does the service keep its promises?"
    assert [line.split("]")[0] for line in lines if line.startswith("[")] == [f"[{n} of 4" for n in range(1, 5)]
    assert any(line.startswith("4 of 4 trials finished: ") for line in lines)
    state = folded(root)
    best = state.ranked(maximize=True)[0]
    assert f"Best: trial {best.number}, val_accuracy {best.value:.2%}".replace("%", " %") in done.stdout
    assert "python -m search.serve" in done.stdout
    assert "All trials as a table: all.csv" in done.stdout
    assert len((root / "all.csv").read_text().splitlines()) == 1 + 4


def test_augmentation_that_makes_labels_wrong_is_warned_of_once(tmp_path: Path, here: Command) -> None:
    root = workplace(tmp_path, mlflow=False, n_trials=2, data={"label_limits": {"drop": 0.5, "quality": 1.0}})
    told = here(root, "--study", "fake", "--trainers", "0").stderr
    assert told.count("Warning") == 1
    assert told.startswith("Warning: drop = 0.6 changes what an example shows")
    assert told.rstrip().endswith("On these data it should be at most 0.5.")


def test_second_run_trains_nothing_and_prints_the_result_and_a_higher_number_adds_just_so_many(
    finished: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path, here: Command
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(finished[0], root)
    before = events_of(root)
    again = here(root, "--study", "fake")
    assert again.exit_code == 0
    assert "nothing is left to train" in again.output
    assert "4 of 4 trials finished" in again.output
    assert "--export trials.csv" in again.output
    assert events_of(root) == before
    more = here(root, "--study", "fake", "--n-trials", "6", "--trainers", "0")
    assert "6 of 6 trials finished" in more.output
    state = folded(root)
    assert len(state.trials) == len(state.finished) == 6
    assert events_of(root)[: len(before)] == before


def test_use_of_a_published_test_set_is_an_event_of_the_study_and_told(tmp_path: Path, here: Command) -> None:
    root = workplace(tmp_path / "it", n_trials=1, data={"validation": "original_test", "test_checksum": "0a1b"})
    for n_trials in (1, 2):
        result = here(root, "--study", "fake", "--n-trials", str(n_trials), "--trainers", "0")
        assert "measured on the published test set (checksum 0a1b)" in result.stdout
    assert "400 training and 100 published test examples" in result.stdout
    used = [event for event in events_of(root) if isinstance(event, events.TestSetUsed)]
    assert [(each.purpose, each.checksum) for each in used] == [("validation", "0a1b")]


def test_quiet_run_prints_nothing(tmp_path: Path, here: Command) -> None:
    root = workplace(tmp_path, n_trials=1)
    for _ in range(2):
        result = here(root, "--study", "fake", "--quiet", "--trainers", "0")
        assert (result.exit_code, result.output) == (0, "")
    assert len(folded(root).finished) == 1


def test_timeout_stops_in_order_and_says_how_to_go_on(tmp_path: Path, here: Command) -> None:
    root = workplace(tmp_path, data={"update_s": 0.1}, pruning={"kind": "none"})
    result = here(root, "--study", "fake", "--trainers", "0", "--timeout", "1.5")
    assert (result.exit_code, result.stderr) == (0, "")
    told = (
        "Stopped (timeout); nothing is lost. To continue: python -m search.run --study fake --trainers 0 --timeout 1.5"
    )
    assert told in result.output
    state = folded(root)
    assert state.trials
    assert not state.running
    assert len(state.finished) < 6
    assert [closed.reason for closed in state.closed] == ["timeout"]


def test_changed_definition_is_refused_with_what_differs_and_the_way_out(
    finished: tuple[Path, subprocess.CompletedProcess[str]], here: Command
) -> None:
    root, _ = finished
    before = events_of(root)
    result = here(root, "--study", "fake", "--epochs", "3", "--seed", "4", "--trainers", "0")
    assert_refused(result, "the study exists under another definition")
    assert "\n  epochs: 9 -> 3\n  seed: 0 -> 4\n" in result.stderr
    assert "--name NEW" in result.stderr
    assert events_of(root) == before


def test_changed_data_are_refused(
    finished: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path, here: Command
) -> None:
    root, _ = finished
    before = events_of(root)
    (tmp_path / "checksum").write_text("beef")
    result = here(root, "--study", "fake", "--n-trials", "9", "--data-dir", str(tmp_path), "--trainers", "0")
    assert_refused(result, "the data set must be the one the study began with, checksum f00d, got beef.")
    assert events_of(root) == before


def test_bad_address_is_refused_before_a_study_is_continued(
    finished: tuple[Path, subprocess.CompletedProcess[str]], here: Command
) -> None:
    root, _ = finished
    before = files_in(root)
    assert_refused(here(root, "--study", "fake", "--n-trials", "9", "--tracking-uri", "nonsense"), "is not a URL")
    assert files_in(root) == before


def test_other_data_set_makes_another_study(tmp_path: Path, here: Command) -> None:
    root = workplace(tmp_path)
    text = (PROJECT / "studies" / "digits_reg.toml").read_text().replace('name = "digits"', 'name = "mnist"')
    (root / "studies" / "small.toml").write_text(text)
    result = here(
        root, "--study", "small", "--dataset", "digits", "--n-trials", "1", "--epochs", "3", "--trainers", "0",
        "--precision", "float32", "--quiet",
    )  # fmt: skip
    assert (result.exit_code, result.output) == (0, "")
    assert folded(root, "small-digits").created.facts["data_set"] == "digits"  # type: ignore[union-attr]
    assert not (root / "studies" / "small").exists()


def test_dry_run_tells_the_cost_and_creates_nothing(tmp_path: Path, here: Command) -> None:
    root = workplace(tmp_path, mlflow=False)
    before = files_in(root)
    result = here(root, "--study", "fake", "--dry-run", "--trainers", "2")
    assert result.exit_code == 0, result.output
    told = " ".join(result.output.split())
    assert "largest network: 100 parameters, " in told
    assert " MiB in a trainer, " in told
    assert " s an epoch" in told
    assert "expected: 6 trials, the baseline of 9 epochs" in told
    assert "on 2 trainer(s): about " in told
    assert "Nothing was created." in told
    assert files_in(root) == before


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import runpy, sys; sys.argv = ['search.run', '--help']\n"
        "try: runpy.run_module('search.run', run_name='__main__')\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: ")
    heavy = {"torch", "optuna", "mlflow", "pandas", "rich", "sqlalchemy", "pydantic", "matplotlib", "objectives"}
    assert heavy.isdisjoint(done.stderr.split())


def test_help_names_every_option() -> None:
    told = CliRunner().invoke(main, ["--help"]).output
    for parameter in main.params:
        assert isinstance(parameter, click.Option)
        assert parameter.opts[0] in told
        assert parameter.name == "help" or parameter.help
