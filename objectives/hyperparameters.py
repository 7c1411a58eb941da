"""What an objective accepts: names, kinds, ranges and defaults. Nothing here needs torch."""

from collections.abc import Mapping
from dataclasses import dataclass

Value = bool | int | float | str | tuple[int, ...]


class HyperparameterError(Exception):
    """A combination of hyperparameters that cannot be trained; the message is for the user."""

    user_message = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameter:
    """One name's rule; the fields are explained in search/contract.py."""

    kind: str
    default: Value
    structural: bool = False
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    choices: tuple[str, ...] = ()


def _strength(default: float = 0.0) -> Hyperparameter:
    return Hyperparameter(kind="float", default=default, low=0.0)


def _choice(*choices: str, structural: bool = True) -> Hyperparameter:
    return Hyperparameter(kind="choice", default=choices[0], choices=choices, structural=structural)


TRAINING: Mapping[str, Hyperparameter] = {
    # Read by population.py, whatever the network and the loss: an objective of one's own declares these too.
    "optimizer": _choice("adamw", "adam", "sgd"),
    "batch_size": Hyperparameter(kind="int", default=128, low=0, structural=True),  # 0: all examples
    "lr": Hyperparameter(kind="float", default=1e-3, low=0.0, low_open=True),
    "momentum": Hyperparameter(kind="float", default=0.9, low=0.0, high=1.0, high_open=True),  # Adam's beta1
    "nesterov": Hyperparameter(kind="bool", default=False, structural=True),
    "weight_decay": _strength(),  # decoupled
    "l1": _strength(),
    "l2": _strength(),
    "exempt": _choice("biases_and_norms", "none", "output"),  # from the three above; "output": the last layer as well
    "clip_norm": _strength(),  # 0: off
    "schedule": _choice("constant", "cosine", "one_cycle", "step"),
    "warmup": Hyperparameter(kind="float", default=0.0, low=0.0, high=1.0, high_open=True),  # part of all updates
    "peak": Hyperparameter(kind="float", default=0.3, low=0.0, high=1.0, low_open=True, high_open=True),  # one_cycle
    "step_size": Hyperparameter(kind="int", default=3, low=1),  # step: epochs
    "gamma": Hyperparameter(kind="float", default=0.1, low=0.0, high=1.0, low_open=True),  # step
}

NETWORK: Mapping[str, Hyperparameter] = {
    "model": _choice("mlp", "cnn"),
    "width": Hyperparameter(kind="int", default=128, low=1, structural=True),
    "depth": Hyperparameter(kind="int", default=2, low=0, structural=True),
    "hidden": Hyperparameter(kind="layers", default=(), structural=True),  # listed: width and depth are not used
    "pool": Hyperparameter(kind="layers", default=(), structural=True),  # a CNN's blocks that end in one; (): all
    "dense": Hyperparameter(kind="layers", default=(), structural=True),  # a CNN's layers behind its blocks
    "reference_class": Hyperparameter(kind="bool", default=False, structural=True),  # the first has the logit 0
    "batch_norm": Hyperparameter(kind="bool", default=False),
    "norm_position": _choice("before", "after"),  # the activation
    "activation": _choice("relu", "leaky_relu", "gelu", "tanh"),
    "dropout": Hyperparameter(kind="float", default=0.0, low=0.0, high=1.0, high_open=True),
    "initialization": _choice("kaiming", "xavier", "normal", "uniform", "torch", structural=False),
    "init_std": Hyperparameter(kind="float", default=0.01, low=0.0, low_open=True),  # normal
    "init_bound": Hyperparameter(kind="float", default=0.05, low=0.0, low_open=True),  # uniform, from -bound to bound
    "init_seed": Hyperparameter(kind="int", default=-1, low=-1),  # of the weights; -1: the trial's own
    "init_skip": Hyperparameter(kind="int", default=0, low=0),  # numbers that init_seed gave others before
}

EXAMPLES: Mapping[str, Hyperparameter] = {
    "train_fraction": Hyperparameter(kind="float", default=1.0, low=0.0, low_open=True, high=1.0, structural=True),
    "n_features": Hyperparameter(kind="int", default=0, low=0),  # those that tell most of the target; 0: all
}

AUGMENTATION: Mapping[str, Hyperparameter] = {
    "flip": Hyperparameter(kind="bool", default=False),  # left to right, each image with probability 1/2
    "flip_vertical": Hyperparameter(kind="bool", default=False),  # upside down, likewise
    "turn": Hyperparameter(kind="bool", default=False),  # by 0, 90, 180 or 270 degrees, each as likely
    "enlarge": Hyperparameter(kind="int", default=0, low=0),  # by so many pixels, then cut at random to its size
    "salt_pepper": Hyperparameter(kind="float", default=0.0, low=0.0, high=1.0),  # part of pixels, half of them black
    "shift": Hyperparameter(kind="int", default=0, low=0),  # at most, pixels, in both directions
    "rotate": Hyperparameter(kind="float", default=0.0, low=0.0, high=180.0),  # at most, degrees, either way
    "cutout": Hyperparameter(kind="int", default=0, low=0),  # side of the square, pixels
    "word_dropout": Hyperparameter(kind="float", default=0.0, low=0.0, high=1.0),  # part of the words left out
    "word_swap": Hyperparameter(kind="float", default=0.0, low=0.0, high=1.0),  # part of them replaced by any others
    "noise": _strength(),  # standard deviation, of normalized inputs
}


def completed(given: Mapping[str, Value], declared: Mapping[str, Hyperparameter]) -> dict[str, Value]:
    """Return the given values with the defaults of all others.

    Raises:
        HyperparameterError: a name is not declared.
    """
    if unknown := sorted(set(given) - set(declared)):
        raise HyperparameterError(
            f"hyperparameters: {', '.join(unknown)}: not known to this objective. It accepts {', '.join(declared)}."
        )
    return {name: rule.default for name, rule in declared.items()} | dict(given)


def number(hyperparameters: Mapping[str, Value], name: str) -> float:
    """Return a value that the rules declare as a number."""
    value = hyperparameters[name]
    assert isinstance(value, (bool, int, float)), name
    return float(value)
