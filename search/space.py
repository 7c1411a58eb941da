"""The kinds of parameter a study may sample, and how what was drawn (raw) becomes what is trained (effective).

kind            keys                 draws                            told to Optuna as
"float"         low, high            uniform                          float
"log_float"     low, high            uniform in the logarithm         float, log
"int"           low, high, step = 1  low, low + step, ..., high       int
"power_of_two"  low, high            low, 2 low, 4 low, ..., high     categorical, so that people see the real values
"choice"        choices              one of the texts or numbers      categorical
"bool"                               true or false                    categorical

Both ends are inclusive. A regularizer says what turns it off: `off = VALUE`, or on a log scale, which cannot hold
zero, `off_below = VALUE`: what is drawn below it means 0, and the raw value for 0 is `low`.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeGuard

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError

from search.contract import Value

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def _option(value: object) -> str | int | float:
    if isinstance(value, str) or (_is_number(value) and math.isfinite(value)):
        return value
    raise ValueError("must be a text or a finite number")


Option = Annotated[str | int | float, PlainValidator(_option)]


class _Declared(BaseModel):
    """What every kind of parameter may say."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    regularizer: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        assert isinstance(self, Float | LogFloat | Int | PowerOfTwo | Choice | Bool)
        if problems := [*_range_problems(self)] or [*_off_problems(self)]:
            raise invalid([("", problem) for problem in problems])
        return self


class Float(_Declared):
    kind: Literal["float"]
    low: float
    high: float
    off: float | None = None


class LogFloat(_Declared):
    kind: Literal["log_float"]
    low: float
    high: float
    off: float | None = None
    off_below: float | None = None


class Int(_Declared):
    kind: Literal["int"]
    low: int
    high: int
    step: int = Field(default=1, ge=1)
    off: int | None = None


class PowerOfTwo(_Declared):
    kind: Literal["power_of_two"]
    low: int
    high: int
    off: int | None = None

    @property
    def powers(self) -> tuple[int, ...]:
        return tuple(1 << exponent for exponent in range(self.low.bit_length() - 1, self.high.bit_length()))


class Choice(_Declared):
    kind: Literal["choice"]
    choices: tuple[Option, ...] = Field(strict=False)
    off: Option | None = None


class Bool(_Declared):
    kind: Literal["bool"]
    off: bool | None = None


Parameter = Annotated[Float | LogFloat | Int | PowerOfTwo | Choice | Bool, Field(discriminator="kind")]
KINDS: Mapping[str, type[BaseModel]] = {
    "float": Float,
    "log_float": LogFloat,
    "int": Int,
    "power_of_two": PowerOfTwo,
    "choice": Choice,
    "bool": Bool,
}


def invalid(problems: list[tuple[str, str]]) -> PydanticCustomError:
    """The error of a pydantic validator that found several problems: (key below the validated table or "", text)."""
    return PydanticCustomError(
        "problems", "{text}", {"problems": problems, "text": "\n".join(text for _, text in problems)}
    )


def distribution(parameter: Parameter) -> "BaseDistribution":
    """Return what Optuna samples from: the raw values."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match parameter:
        case Float():
            return FloatDistribution(parameter.low, parameter.high)
        case LogFloat():
            return FloatDistribution(parameter.low, parameter.high, log=True)
        case Int():
            return IntDistribution(parameter.low, parameter.high, step=parameter.step)
        case PowerOfTwo():
            return CategoricalDistribution(parameter.powers)
        case Choice():
            return CategoricalDistribution(parameter.choices)
        case Bool():
            return CategoricalDistribution((False, True))


def effective(space: Mapping[str, Parameter], raw: Mapping[str, Value]) -> dict[str, Value]:
    """Return what is trained where `raw` was drawn, in the order of the space."""
    return {name: _effective(parameter, raw[name]) for name, parameter in space.items()}


def raw_from(space: Mapping[str, Parameter], effective: Mapping[str, Value]) -> dict[str, Value]:
    """Return what must be drawn so that these values are trained; they must lie in the space."""
    return {name: _raw(parameter, effective[name]) for name, parameter in space.items()}


def is_off(parameter: Parameter, effective_value: Value) -> bool:
    """Whether this is a regularizer, turned off."""
    if not parameter.regularizer:
        return False
    if isinstance(parameter, LogFloat) and parameter.off_below is not None:
        return effective_value == 0
    return effective_value == parameter.off


def turned_off(parameter: Parameter, effective_value: Value) -> Value:
    """The value that turns a regularizer off; of any other parameter the value as it is."""
    if not parameter.regularizer:
        return effective_value
    if isinstance(parameter, LogFloat) and parameter.off_below is not None:
        return 0.0
    assert parameter.off is not None, "a regularizer says what turns it off"
    return parameter.off


def clipped(parameter: Parameter, number: float) -> Value:
    """The number, or the end of the parameter's range that is nearest; of one without a range the nearest value."""
    match parameter:
        case Float() | LogFloat():
            return min(max(number, parameter.low), parameter.high)
        case _:
            numbers = [value for value in options(parameter) if _is_number(value)]
            return min(numbers, key=lambda value: abs(value - number), default=number)


def contains(parameter: Parameter, effective_value: object) -> bool:
    """Whether the value can be trained under this parameter."""
    value = effective_value
    match parameter:
        case Bool():
            return isinstance(value, bool)
        case Choice():
            return any(type(option) is type(value) and option == value for option in parameter.choices)
        case Float():
            return _is_number(value) and parameter.low <= value <= parameter.high
        case LogFloat():
            low = parameter.low if parameter.off_below is None else parameter.off_below
            return _is_number(value) and (
                low <= value <= parameter.high or (parameter.off_below is not None and value == 0)
            )
        case Int() | PowerOfTwo():
            return isinstance(value, int) and not isinstance(value, bool) and value in options(parameter)


def described(parameter: Parameter) -> str:
    """What `contains` accepts, in words that follow "must be"."""
    match parameter:
        case Bool():
            return "true or false"
        case Choice() | PowerOfTwo():
            return "one of " + ", ".join(map(repr, options(parameter)))
        case LogFloat(off_below=float(threshold)):
            return f"0 (off), or from {threshold:g} to {parameter.high:g}"
        case Int(step=step) if step > 1:
            return f"{parameter.low} to {parameter.high} in steps of {step}"
        case Int():
            return f"a whole number from {parameter.low} to {parameter.high}"
        case _:
            return f"a number from {parameter.low:g} to {parameter.high:g}"


def options(parameter: Parameter) -> tuple[Value, ...]:
    """All values of a parameter that has finitely many, raw and effective alike; none of one that has not."""
    match parameter:
        case Bool():
            return (False, True)
        case Choice():
            return parameter.choices
        case Int():
            return tuple(range(parameter.low, parameter.high + 1, parameter.step))
        case PowerOfTwo():
            return parameter.powers
        case _:
            return ()


def grid(space: Mapping[str, Parameter]) -> list[dict[str, Value]]:
    """Every combination of the parameters' values: the last parameter changes from one to the next."""
    return [
        dict(zip(space, point, strict=True))
        for point in itertools.product(*(options(parameter) for parameter in space.values()))
    ]


def extremes(parameter: Parameter) -> tuple[Value, ...]:
    """The effective values between which, or among which, all others lie."""
    match parameter:
        case Bool():
            return (False, True)
        case Choice():
            return parameter.choices
        case LogFloat(off_below=float(threshold)):
            return (0.0, threshold, parameter.high)
        case _:
            return (parameter.low, parameter.high)


def _effective(parameter: Parameter, raw: Value) -> Value:
    match parameter:
        case LogFloat(off_below=float(threshold)):
            assert isinstance(raw, int | float)
            return 0.0 if raw < threshold else float(raw)
        case Float() | LogFloat():
            assert isinstance(raw, int | float)
            return float(raw)
        case _:
            return raw


def _raw(parameter: Parameter, effective_value: Value) -> Value:
    if isinstance(parameter, LogFloat) and parameter.off_below is not None and effective_value == 0:
        return parameter.low
    if isinstance(parameter, Float | LogFloat):
        assert isinstance(effective_value, int | float)
        return float(effective_value)
    return effective_value


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _range_problems(parameter: Parameter) -> Iterator[str]:
    match parameter:
        case Bool():
            return
        case Choice():
            if len(parameter.choices) < 2:
                yield (
                    f"choices must hold at least two values, got {list(parameter.choices)}. "
                    "Add one, or move the parameter to [fixed]."
                )
            if len(set(parameter.choices)) < len(parameter.choices):
                yield f"choices must differ from each other, got {list(parameter.choices)}. Remove the repeated one."
            return
    low, high = parameter.low, parameter.high
    if low >= high:
        yield (
            f"low must be less than high, got low = {low}, high = {high}. "
            "Change one of them, or move the parameter to [fixed]."
        )
    match parameter:
        case LogFloat() if low <= 0:
            yield f'low must be positive on a log scale, got {low}. Raise low, or use kind = "float".'
        case PowerOfTwo():
            for key, value in (("low", parameter.low), ("high", parameter.high)):
                if value < 1 or value.bit_count() != 1:
                    yield f'{key} must be a power of two, got {value}. Change it, or use kind = "int".'
        case Int(step=step) if low < high and (high - low) % step:
            yield (
                f"high must be low plus a multiple of step, got low = {low}, high = {high}, step = {step}. "
                f"Lower high to {high - (high - low) % step}."
            )


def _off_problems(parameter: Parameter) -> Iterator[str]:
    threshold = parameter.off_below if isinstance(parameter, LogFloat) else None
    declared = parameter.off is not None or threshold is not None
    remedy = "off = VALUE or off_below = VALUE" if isinstance(parameter, LogFloat) else "off = VALUE"
    if parameter.regularizer and not declared:
        yield f"a regularizer must say what turns it off, got neither. Add {remedy}."
    if declared and not parameter.regularizer:
        yield (
            "off and off_below are for regularizers, got regularizer = false. Add regularizer = true, or remove them."
        )
    if parameter.off is not None and threshold is not None:
        yield f"off and off_below exclude each other, got {parameter.off} and {threshold}. Remove one."
    elif threshold is not None:
        assert isinstance(parameter, LogFloat)
        if not parameter.low < threshold < parameter.high:
            yield (
                f"off_below must lie between low = {parameter.low} and high = {parameter.high}, got {threshold}. "
                "Change one of the three."
            )
    elif parameter.off is not None and not contains(parameter, parameter.off):
        hint = (
            "Use off_below to turn it off on a log scale."
            if isinstance(parameter, LogFloat)
            else "Change off, or widen the range."
        )
        yield f"off must be {described(parameter)}, got {parameter.off!r}. {hint}"
