"""Results as JSON files: every repeat, and the machine it was measured on."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.benchmarks.table import Claim

RESULTS = Path(__file__).parent / "results"


def add(path: Path, row: str, claims: Sequence[Claim], detail: Mapping[str, Any], machine: Mapping[str, Any]) -> None:
    """Put a row into the file, in the place of an earlier one; rows measured elsewhere are dropped.

    So that a table can be filled row by row, in calls of their own.
    """
    found = _read(path)
    if {**found.get("machine", machine), "date": ""} != {**machine, "date": ""}:
        found = {}
    rows = found.get("rows", {}) | {row: {"claims": [asdict(c) for c in claims], "detail": detail}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1, default=str) + "\n")


def claims_of(path: Path) -> tuple[list[Claim], dict[str, Any]]:
    """Return the claims of a file, row by row, and its machine."""
    found = _read(path)
    rows: Iterable[Mapping[str, Any]] = found.get("rows", {}).values()
    return [Claim(**fields) for row in rows for fields in row["claims"]], found.get("machine", {})


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found
