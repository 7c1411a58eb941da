"""Both UIs as a person sees them: Chromium on a served study."""

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from search.events import StudyCreated
from search.follower import Follower
from search.ledger import Ledger
from search.mlflow_view import MlflowView
from search.optuna_view import OptunaView
from search.page import render
from search.report import keep
from search.workspace import Workspace
from tests.example_report import example_report
from tests.histories import history, put_champion, put_files, put_mlflow_database
from tests.test_serve import free_port, serving

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]
PATIENCE_MS = 30_000


@pytest.fixture(scope="module")
def page() -> Iterator["Page"]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        yield page
        browser.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, page: "Page") -> Iterator[tuple[str, str, MlflowView]]:
    """(dashboard's address, MLflow UI's address, the view that knows the runs) of a finished study."""
    places, study = Workspace(tmp_path_factory.mktemp("served")), "small_reg"
    put_mlflow_database(places.mlruns)
    put_files(places.study(study))
    put_champion(places.study(study))
    ledger = Ledger(places.ledger(study), create=True)
    ledger.append(*history())
    mlflow = MlflowView(study, places.mlflow_url, places.mlflow_artifacts, places.study(study))
    optuna = OptunaView(study, places.optuna_url, places.optuna_artifacts, places.figures(study), mlflow.run_url)
    for view in (mlflow, optuna):
        follower = Follower(view, ledger, on_trouble=pytest.fail)
        follower.start()
        assert follower.stop(drain_s=120)
    created = history()[0]
    assert isinstance(created, StudyCreated)
    assert keep(render(example_report()), created, places.mlflow_url)
    dashboard, ui = free_port(), free_port()
    with serving(places.root, "--port", str(dashboard), "--mlflow-port", str(ui), n_pages=2):
        yield f"http://127.0.0.1:{dashboard}", f"http://127.0.0.1:{ui}", mlflow


def run_page(ui: str, mlflow: MlflowView, trial: int) -> str:
    """The run's page on this test's port."""
    address = mlflow.run_url(trial, 1)
    assert address is not None
    return ui + address[address.index("/#/") :]


def expect_text(page: "Page", text: str) -> None:
    page.get_by_text(text).filter(visible=True).first.wait_for()


def expect_picture(page: "Page", selector: str) -> None:
    """Wait for a picture that has really been loaded."""
    page.wait_for_selector(selector, state="attached")
    page.wait_for_function(
        "s => { const i = document.querySelector(s); return i && i.naturalWidth > 100 }", arg=selector
    )


def test_dashboard_shows_the_study_and_its_history(page: "Page", served: tuple[str, str, MlflowView]) -> None:
    page.goto(f"{served[0]}/dashboard")
    expect_text(page, "small_reg")
    page.goto(f"{served[0]}/dashboard/studies/1")
    expect_text(page, "History")
    expect_text(page, "Timeline")
    page.wait_for_selector("g.trace.scatter")


def test_dashboard_shows_a_trial_with_its_values_matrix_and_run(
    page: "Page", served: tuple[str, str, MlflowView]
) -> None:
    page.goto(f"{served[0]}/dashboard/studies/1/trials?numbers=2")
    for text in ("Trial 2", "Complete", "Intermediate Values", "confusion_matrix.png"):
        expect_text(page, text)
    expect_picture(page, "img[src*='artifacts']")
    assert page.get_by_text("MLflow run").first.get_attribute("href") == served[2].run_url(2, 1)


def test_dashboard_note_leads_to_the_experiment(page: "Page", served: tuple[str, str, MlflowView]) -> None:
    page.goto(f"{served[0]}/dashboard/studies/1/note")
    expect_text(page, "Which regularization helps?")
    assert "/#/experiments/1" in (page.get_by_text("MLflow experiment").first.get_attribute("href") or "")


def test_mlflow_shows_a_nested_run_with_its_curves_and_matrix(
    page: "Page", served: tuple[str, str, MlflowView]
) -> None:
    address = run_page(served[1], served[2], 2)
    page.goto(address)
    for text in ("trial 2", "Parent run", "Finished", "best_val_accuracy"):
        expect_text(page, text)
    page.goto(f"{address}/model-metrics")
    expect_text(page, "epoch_s")
    page.wait_for_selector("g.trace.scatter")
    page.goto(f"{address}/artifacts/confusion_matrix.png")
    expect_picture(page, "img[src^='blob:'], img[src*='get-artifact']")


def test_mlflow_shows_the_experiment_and_the_registered_champion(
    page: "Page", served: tuple[str, str, MlflowView]
) -> None:
    page.goto(f"{served[1]}/#/experiments/1/runs?workflowType=machine_learning")
    expect_text(page, "small_reg")
    page.locator("[role=row] button[data-component-id*=runnamecellrenderer]").first.click()  # unfolds the parent run
    expect_text(page, "trial 4, attempt 2")
    page.goto(f"{served[1]}/#/models/small_reg")
    expect_text(page, "Version 1")
    expect_text(page, "champion")


def test_mlflow_shows_the_report_within_a_frame_of_its_own(page: "Page", served: tuple[str, str, MlflowView]) -> None:
    parent = served[2].parent_url()
    assert parent is not None
    page.goto(f"{served[1]}{parent[parent.index('/#/') :]}/artifacts/report/report.html")
    page.frame_locator("iframe").get_by_text("gains 4.1 points").first.wait_for()
