"""Classification: cross-entropy, accuracy and confusion counts.

P slots, B examples, K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

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
        gradient_PKB = torch.softmax(_by_class(logits_PBK), dim=1)
        smoothing_P11 = draws.numbers["label_smoothing"].to(gradient_PKB.dtype).view(-1, 1, 1)
        if draws.numbers.used("label_smoothing"):
            gradient_PKB -= smoothing_P11 / logits_PBK.shape[2]
        n_examples = targets_PB.shape[1]
        gradient_PKB.scatter_add_(1, targets_PB.unsqueeze(1), (smoothing_P11 - 1).expand(-1, 1, n_examples))
        return gradient_PKB.mul_(1 / n_examples).transpose(1, 2)

    def measured(self, logits_PBK: Tensor, targets_PB: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """As the protocol has it: counts (P, K, K) of [true class][predicted class]; of two classes the second one's
        probability."""
        n_slots, _, n_classes = logits_PBK.shape
        logits_PKB = _by_class(logits_PBK)
        log_likelihoods_PKB = torch.log_softmax(logits_PKB, dim=1)
        losses_PB = log_likelihoods_PKB.gather(1, targets_PB.unsqueeze(1)).squeeze(1).neg_()
        cells_PB = targets_PB * n_classes + logits_PKB.max(dim=1).indices
        counts = cells_PB.new_zeros(n_slots, n_classes**2).scatter_add_(1, cells_PB, torch.ones_like(cells_PB))
        sums = {"confusion": counts.view(n_slots, n_classes, n_classes)}
        if n_classes == 2:
            sums["positive"] = log_likelihoods_PKB[:, 1].exp().double().sum(dim=1)
        return losses_PB, sums

    def told(self, loss: float, sums: Mapping[str, Any], n: int) -> Told:
        """METRICS, and of two classes the mean probability of the second, "positive"."""
        counts = sums["confusion"]
        metrics = {"loss": loss, "accuracy": sum(row[i] for i, row in enumerate(counts)) / n}
        if "positive" in sums:
            metrics["positive"] = sums["positive"] / n
        return metrics, tuple(tuple(row) for row in counts)


def _by_class(logits_PBK: Tensor) -> Tensor:
    """Return (P, K, B): softmax over ten classes takes a CPU a tenth of the time where examples lie side by side."""
    return logits_PBK.transpose(1, 2).contiguous()


Classification = Supervised(loss=CrossEntropy())
