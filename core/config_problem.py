"""What is wrong with a configuration, in words that name the fix."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, TypeGuard, get_args

from pydantic import BaseModel

KEY = "[key]"
"""What pydantic adds to the place of an error that is in a key, not in its value."""


def worded(model: type[BaseModel], error: dict[str, Any]) -> str:
    """In words: what is wrong, and the nearest name where there is one. `error`: one of pydantic's."""
    *parents, key = error["loc"] or ("",)  # a rule about the whole file
    if error["type"] == "extra_forbidden":
        known = _keys(model, parents)
        near = difflib.get_close_matches(str(key), known, 1)
        if near:
            return f"no such key; did you mean {near[0]!r}?"
        return "no such key" + (f"; known are {', '.join(known)}" if known else "; see the plugin's manual")
    message = str(error["msg"]).removeprefix("Value error, ").partition(" or instance of ")[0]
    if key == KEY or isinstance(error["input"], Mapping):  # a model's own rule, whose message says what it is about
        return message
    reason = "; an error must not enforce" if key == "on_error" and error["input"] in ("override", "kill") else ""
    return f"{message}, not {error['input']!r}{reason}"


def _is_model(annotation: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _keys(model: type[BaseModel], parents: list[Any]) -> list[str]:
    fields = model.model_fields
    for parent in parents:
        if isinstance(parent, int) or parent not in fields:  # within a list or a table, whose models were found already
            continue
        annotation = fields[parent].annotation
        model_of = next((each for each in (annotation, *get_args(annotation)) if _is_model(each)), None)
        if model_of is None:
            return []
        fields = model_of.model_fields
    return sorted(fields)
