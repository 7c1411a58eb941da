"""What is wrong with a study file, in words: where, what must hold, what was got, what to do."""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from search import space

REMEDIES = {
    "string_type": "Write a text in quotes.",
    "int_type": "Write a whole number, without quotes.",
    "int_from_float": "Write a whole number.",
    "float_type": "Write a number, without quotes.",
    "bool_type": "Write true or false, without quotes.",
    "finite_number": "Write a finite number.",
    "greater_than": "Raise it.",
    "greater_than_equal": "Raise it.",
    "less_than": "Lower it.",
    "less_than_equal": "Lower it.",
}
"""By pydantic's type of error."""
PATTERNS = {
    "name": ("1 to 64 of a-z, 0-9, _ and -, beginning with a letter or digit", "Rename the file, or use --name."),
    "objective": ('a built-in name or "package.module:Name"', "Correct it."),
    "device": ("auto, cpu, cuda or cuda:N", "Correct it."),
}
"""Field with a pattern -> what it must be, and the remedy."""


def messages(error: ValidationError, root: type[BaseModel], origin: str, options: Mapping[str, str]) -> Iterator[str]:
    """Yield a line per problem.

    Args:
        root: the model that was validated.
        origin: the file.
        options: key of the table -> the command line option that gave it, to be named in place of file and key.
    """
    for each in error.errors(include_url=False):
        loc = [str(part) for part in each["loc"]]
        context = each.get("ctx", {})
        keys = loc[:2] + loc[3:] if loc[:1] == ["space"] else loc  # pydantic puts the kind in between
        if each["type"] == "problems":
            found = [([*keys, *filter(None, key.split("."))], text) for key, text in context["problems"]]
        elif each["type"] == "extra_forbidden":
            found = [(keys, _unknown_key(loc, root))]
        else:
            found = [(keys, _worded(each["type"], each["msg"], loc, each["input"], context))]
        for where, text in found:
            option = options.get(where[0])
            yield f"{option}: {text}" if option else f"{origin}: {'.'.join(where)}: {text}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean ...?", or nothing where no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def shown(value: object) -> str:
    """Return a value on one line as a study file writes it, but a text of one word without quotes."""
    match value:
        case bool():
            return str(value).lower()
        case str() if re.fullmatch(r"[\w.-]+", value):
            return value
        case tuple():
            return ",".join(map(str, value)) or "[]"
        case str() | list() | dict():
            return json.dumps(value, default=str)
        case _:
            return str(value)


def _unknown_key(loc: list[str], root: type[BaseModel]) -> str:
    match loc:
        case ["space", _, kind, _]:
            keys = [*space.KINDS[kind].model_fields]
        case [key, _] if isinstance(nested := root.model_fields[key].annotation, type) and issubclass(
            nested, BaseModel
        ):
            keys = [*nested.model_fields]
        case _:
            keys = [key for key in root.model_fields if key != "name"]  # a study is named by its file
    return f"there is no such key.{did_you_mean(loc[-1], keys)} The keys are {', '.join(keys)}."


def _worded(kind: str, message: str, loc: list[str], value: object, context: Mapping[str, Any]) -> str:
    """One of pydantic's own complaints."""
    got = f"got {shown(value)}"
    match kind:
        case "missing":
            return "must be given. Add it."
        case "union_tag_invalid":
            tag = str(context["tag"])
            return f'there is no kind "{tag}".{did_you_mean(tag, space.KINDS)} The kinds are {", ".join(space.KINDS)}.'
        case "union_tag_not_found":
            return f"must say its kind. Add kind = one of {', '.join(space.KINDS)}."
        case "literal_error":
            near = did_you_mean(str(value), re.findall(r"'(\w+)'", context["expected"]))
            return f"must be {context['expected']}, {got}.{near or ' Choose one of them.'}"
        case "string_pattern_mismatch":
            rule, remedy = PATTERNS[loc[-1]]
            return f"must be {rule}, {got}. {remedy}"
        case "too_short":
            return f"must hold at least {context['min_length']}, {got}. Add one."
        case "value_error":
            return f"{context['error']}, {got}. Change it."
    rule = message.replace("Input should be", "must be").replace("Input should have", "must have")
    return f"{rule[:1].lower()}{rule[1:]}, {got}. {REMEDIES.get(kind, 'Change it.')}"
