"""Objectives whose networks are modules of one's own; `objective = "package.module:Name"` in a study file."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from objectives.classification import CrossEntropy
from objectives.fused import Fused
from objectives.hyperparameters import Hyperparameter
from objectives.network import Build, path_of
from objectives.regression import SquaredError
from objectives.supervised import Loss, Supervised

Rules = Mapping[str, Hyperparameter]


def classification_of(build: Build, hyperparameters: Rules = MappingProxyType({})) -> Supervised:
    """Return the classification by one's own networks.

    Args:
        build: called as build(hyperparameters, input_shape=(C, H, W) or (D,), n_outputs=K), it returns a module for
            normalized inputs (B, ...) whose outputs are logits (B, K). It is found again by its name in its module.
        hyperparameters: what `build` reads. All are structural but `dropout`; those of training and augmentation may be
            among them, for another default.

    Raises:
        NetworkError: `build` does not stand in a module under its name.
    """
    return _learned(CrossEntropy(), build, hyperparameters)


def regression_of(build: Build, hyperparameters: Rules = MappingProxyType({})) -> Supervised:
    """Return the regression by one's own networks, of one output; else as `classification_of`."""
    return _learned(SquaredError(), build, hyperparameters)


def _learned(loss: Loss, build: Build, hyperparameters: Rules) -> Supervised:
    path_of(build)
    known = Supervised(loss=loss, networks=Fused(build, {})).HYPERPARAMETERS
    rules = {
        name: replace(rule, structural=known[name].structural if name in known else name != "dropout")
        for name, rule in hyperparameters.items()
    }
    return Supervised(loss=loss, networks=Fused(build, rules))
