"""Classification: cross-entropy, accuracy and confusion counts.

P slots, B examples, K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from objectives.hyperparameters import Hyperparameter
from objectives.numbers import Draws
from objectives.supervised import Supervised, Told


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """Satisfies objectives.supervised.Loss."""

    HYPERPARAMETERS: ClassVar[Mapping[str, Hyperparameter]] = {
        "label_smoothing": Hyperparameter(kind="float", default=0.0, low=0.0, high=1.0, high_open=True)
    }
    METRICS: ClassVar[Mapping[str, str]] = {"loss": "minimize", "accuracy": "maximize"}
    numeric: ClassVar[bool] = False

    def gradient(self, logits_PBK: Tensor, targets_PB: Tensor, draws: Draws) -> Tensor:
        """Return the gradient of each slot's mean cross-entropy: softmax minus target, over B.

        The target is spread evenly over all classes by its part `label_smoothing`.
        Source: Szegedy et al. (2016), as torch.nn.functional.cross_entropy(label_smoothing=) has it.
        """
        gradient_PBK = torch.softmax(logits_PBK, dim=2)
        smoothing_P11 = draws.numbers["label_smoothing"].to(gradient_PBK.dtype).view(-1, 1, 1)
        if draws.numbers.used("label_smoothing"):
            gradient_PBK -= smoothing_P11 / logits_PBK.shape[2]
        hard_PB1 = (smoothing_P11 - 1).expand(*targets_PB.shape, 1)
        gradient_PBK.scatter_add_(2, targets_PB.unsqueeze(2), hard_PB1)
        return gradient_PBK.mul_(1 / targets_PB.shape[1])

    def measured(self, logits_PBK: Tensor, targets_PB: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """As the protocol has it: counts (P, K, K) of [true class][predicted class]; of two classes the second one's
        probability."""
        n_slots, _, n_classes = logits_PBK.shape
        losses_PB = functional.cross_entropy(logits_PBK.flatten(0, 1), targets_PB.flatten(), reduction="none")
        cells_PB = targets_PB * n_classes + logits_PBK.argmax(dim=2)
        counts = cells_PB.new_zeros(n_slots, n_classes**2).scatter_add_(1, cells_PB, torch.ones_like(cells_PB))
        sums = {"confusion": counts.view(n_slots, n_classes, n_classes)}
        if n_classes == 2:
            sums["positive"] = torch.softmax(logits_PBK, dim=2)[..., 1].double().sum(dim=1)
        return losses_PB.view(n_slots, -1), sums

    def told(self, loss: float, sums: Mapping[str, Any], n: int) -> Told:
        """METRICS, and of two classes the mean probability of the second, "positive"."""
        counts = sums["confusion"]
        metrics = {"loss": loss, "accuracy": sum(row[i] for i, row in enumerate(counts)) / n}
        if "positive" in sums:
            metrics["positive"] = sums["positive"] / n
        return metrics, tuple(tuple(row) for row in counts)


Classification = Supervised(loss=CrossEntropy())
