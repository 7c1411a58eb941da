"""The README's page "Your own network", as somebody follows it."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from objectives import saved
from tests.histories import put_mlflow_database
from tests.running import command
from tests.test_readme import own_network


def test_own_module_and_own_images_are_searched_as_the_page_says(tmp_path: Path) -> None:
    """Thirty lines, from images to the champion's checkpoint."""
    code, study = own_network()
    assert len([line for line in (code + study).splitlines() if line.strip()]) <= 30
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    (tmp_path / "mine.toml").write_text(study, encoding="utf-8")
    draw = np.random.default_rng(0)
    for label, name in enumerate(("dark", "bright")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(40):
            pixels = draw.integers(80 * label, 80 * label + 120, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    put_mlflow_database(tmp_path / "mlruns")
    result = command(tmp_path, "--study", "mine.toml", "--n-trials", "3", "--epochs", "4", "--trainers", "1")
    assert result.returncode == 0, result.stderr
    assert "mine:build: on a CPU convolutions gain nothing from company" in " ".join(result.stdout.split())
    assert "3 of 3 trials finished: " in result.stdout
    (best,) = re.findall(r"Weights of the best trial: (\S+)", result.stdout)
    assert saved.configuration(tmp_path / best)["network"] == "mine:build"
