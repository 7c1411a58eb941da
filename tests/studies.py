"""Small valid study definitions for tests."""

from typing import Any

from search.definition import StudyDefinition

TABLE: dict[str, Any] = {
    "title": "A study",
    "question": "Which regularization helps?",
    "n_trials": 20,
    "epochs": 9,
    "data": {"name": "digits"},
    "fixed": {"model": "mlp", "batch_size": 64},
    "pruning": {"kind": "successive_halving", "eta": 3, "min_epochs": 1},
    "baseline": {"lr": 1e-3, "weight_decay": 0.0, "dropout": 0.0, "width": 64, "depth": 2, "batch_norm": False},
    "space": {
        "lr": {"kind": "log_float", "low": 1e-4, "high": 3e-2},
        "weight_decay": {
            "kind": "log_float",
            "low": 1e-6,
            "high": 1e-1,
            "regularizer": True,
            "off_below": 1.78e-5,
        },
        "dropout": {"kind": "float", "low": 0.0, "high": 0.6, "regularizer": True, "off": 0.0},
        "width": {"kind": "power_of_two", "low": 32, "high": 128},
        "depth": {"kind": "int", "low": 1, "high": 4},
        "batch_norm": {"kind": "bool", "regularizer": True, "off": False},
    },
}
"""As tomllib reads it from a file."""


def definition(**changes: Any) -> StudyDefinition:
    """TABLE with some keys replaced."""
    return StudyDefinition.model_validate({"name": "study", **TABLE, **changes})
