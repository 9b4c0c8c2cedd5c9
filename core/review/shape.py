"""Whether a value has the shape that a JSON Schema of KRIe describes, looked at only where rules read it.

Schemas are those of events, processes, host and health: objects that name their fields, arrays, texts, whole numbers,
truth values, constants. Numbers are not truth values, and texts are not numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pydantic_core import CoreSchema, PydanticCustomError, SchemaValidator, ValidationError, core_schema

from ..policy.engine import Path

_LABEL = 80


class Fault(NamedTuple):
    """Something that a value is not."""

    where: tuple[str, ...]
    what: str
    """Why it cannot be; empty where it is not there."""


class Shape:
    """What rules may find at these paths."""

    def __init__(self, schema: Mapping[str, Any], paths: Iterable[Path]) -> None:
        """The schema of a whole document, and what is read of it. Raises `ValueError` for a schema of another kind."""
        self._validator = SchemaValidator(_read(schema, list(paths)))

    def faults(self, document: object) -> list[Fault]:
        """All of them; none if it has this shape."""
        try:
            self._validator.validate_python(document)
        except ValidationError as error:
            return [
                Fault(
                    tuple(str(part)[:_LABEL] for part in each["loc"]),
                    "" if each["type"] == "missing" else each["msg"][:1].lower() + each["msg"][1:],
                )
                for each in error.errors(include_url=False, include_context=False, include_input=False)
            ]
        return []


def _read(schema: Mapping[str, Any], paths: list[Path]) -> CoreSchema:
    """Of what is read only in part: those fields, which have to be there."""
    properties = schema.get("properties")
    if () in paths or properties is None:
        return _whole(schema)
    fields = {
        name: core_schema.typed_dict_field(_read(properties[name], [path[1:] for path in paths if path[0] == name]))
        for name in sorted({path[0] for path in paths} & properties.keys())
    }
    return core_schema.typed_dict_schema(fields, strict=True, extra_behavior="ignore")


def _whole(schema: Mapping[str, Any]) -> CoreSchema:
    """Of what is read as it is."""
    if "const" in schema or "enum" in schema:
        return core_schema.literal_schema([schema["const"]] if "const" in schema else list(schema["enum"]))
    match schema.get("type"):
        case "integer":
            return core_schema.int_schema(strict=True, ge=schema.get("minimum"), le=schema.get("maximum"))
        case "string":
            return core_schema.str_schema(strict=True, pattern=schema.get("pattern"))
        case "boolean":
            return core_schema.bool_schema(strict=True)
        case "array":
            items = core_schema.list_schema(_whole(schema["items"]), strict=True)
            if schema.get("uniqueItems"):
                return core_schema.no_info_after_validator_function(_all_different, items)
            return items
        case "object" if "properties" in schema:
            required = schema.get("required", ())
            fields = {
                name: core_schema.typed_dict_field(_whole(each), required=name in required)
                for name, each in schema["properties"].items()
            }
            return core_schema.typed_dict_schema(
                fields, strict=True, extra_behavior="ignore" if schema.get("additionalProperties", True) else "forbid"
            )
    raise ValueError(f"an unknown form of schema: {schema}")


def _all_different(items: list[Any]) -> list[Any]:
    if len(set(map(str, items))) != len(items):
        raise PydanticCustomError("unique", "an element is there twice")
    return items
