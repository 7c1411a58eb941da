"""What an objective's rules say of a value."""

import re
from collections.abc import Iterator, Mapping, Sequence

from search.contract import HyperparameterRule, Value
from search.wording import shown


def broken_rule(value: Value, rule: HyperparameterRule) -> str | None:
    """Return what the value must be, if it is not."""
    match rule.kind:
        case "bool":
            return None if isinstance(value, bool) else "true or false"
        case "choice":
            return None if value in rule.choices and isinstance(value, str) else "one of " + ", ".join(rule.choices)
        case "layers":
            listed = cast(value, rule)
            positive = isinstance(listed, tuple) and all(each > 0 for each in listed)
            return None if positive else 'a list of positive whole numbers, or a text such as "256-128"'
    kinds = int if rule.kind == "int" else int | float
    if isinstance(value, kinds) and not isinstance(value, bool) and _within(value, rule):
        return None
    low, high = ("" if end is None else f"{end:g}" for end in (rule.low, rule.high))
    bounds = [
        low and f"{'above' if rule.low_open else 'at least'} {low}",
        high and f"{'below' if rule.high_open else 'at most'} {high}",
    ]
    noun = "a whole number" if rule.kind == "int" else "a number"
    return f"{noun} {' and '.join(filter(None, bounds))}".rstrip()


def unsuited(values: Mapping[str, Sequence[Value]], limits: Mapping[str, float]) -> Iterator[str]:
    """Say which of the values that a study may train are beyond what leaves the labels of its data true."""
    for name in values.keys() & limits.keys():
        beyond = [value for value in values[name] if isinstance(value, int | float) and value > limits[name]]
        if beyond:
            allowed = f"at most {limits[name]:g}" if limits[name] else "off"
            yield (
                f"{name} = {shown(max(beyond))} changes what an example shows, not only how: its label is then wrong. "
                f"On these data it should be {allowed}."
            )


def cast(value: Value, rule: HyperparameterRule) -> Value:
    """The one form a value has under its rule: 1 and 1.0 are one float, "256-128" and (256, 128) the same layers."""
    if rule.kind == "layers" and isinstance(value, str) and re.fullmatch(r"\d+(-\d+)*", value):
        return tuple(int(width) for width in value.split("-"))
    return float(value) if rule.kind == "float" and isinstance(value, int) else value


def _within(value: float, rule: HyperparameterRule) -> bool:
    above = rule.low is None or value > rule.low or (value == rule.low and not rule.low_open)
    below = rule.high is None or value < rule.high or (value == rule.high and not rule.high_open)
    return above and below
