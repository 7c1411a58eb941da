"""Regression: the mean squared error of one number to predict.

P slots, B examples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from objectives.hyperparameters import Hyperparameter
from objectives.numbers import Draws
from objectives.supervised import Supervised, Told


@dataclass(frozen=True, slots=True)
class SquaredError:
    """Satisfies objectives.supervised.Loss."""

    HYPERPARAMETERS: ClassVar[Mapping[str, Hyperparameter]] = {}
    METRICS: ClassVar[Mapping[str, str]] = {"loss": "minimize"}
    numeric: ClassVar[bool] = True

    def gradient(self, outputs_PB1: Tensor, targets_PB: Tensor, draws: Draws) -> Tensor:
        return (outputs_PB1 - targets_PB.unsqueeze(2).to(outputs_PB1.dtype)).mul_(2 / targets_PB.shape[1])

    def measured(self, outputs_PB1: Tensor, targets_PB: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return (outputs_PB1.squeeze(2) - targets_PB.to(outputs_PB1.dtype)).square(), {}

    def told(self, loss: float, sums: Mapping[str, Any], n: int) -> Told:
        return {"loss": loss}, None


Regression = Supervised(loss=SquaredError())
