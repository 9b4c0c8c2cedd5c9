"""What is locked, as data: `locked.toml` and what an administrator adds."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Literal

from krie import ConfigError
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

FIRST_CONFIGURED = 32
MOST_CONFIGURED = 16
_FILE = "locked.toml"
Symbol = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$", max_length=63)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Function(_Model):
    """A locked function."""

    number: Annotated[int, Field(ge=1, lt=FIRST_CONFIGURED + MOST_CONFIGURED)]
    why: Annotated[str, Field(min_length=1)]


class Indirect(_Model):
    """A function that is called by a pointer, and who does so."""

    callers: Annotated[list[Symbol], Field(min_length=1)]
    why: Annotated[str, Field(min_length=1)]


class _File(_Model):
    schema_: Annotated[Literal[1], Field(alias="schema")]
    functions: dict[Symbol, Function]
    indirect: dict[Symbol, Indirect] = {}


@dataclass(frozen=True, slots=True)
class Declaration:
    """All of it."""

    functions: Mapping[str, Function]
    indirect: Mapping[str, Indirect]

    def callers_by_pointer(self) -> dict[str, tuple[str, ...]]:
        """By function that is called by a pointer."""
        return {name: tuple(each.callers) for name, each in self.indirect.items()}

    def with_functions(self, configured: Sequence[str]) -> Declaration:
        """And these, of the configuration."""
        further = [each for each in sorted(configured) if each not in self.functions]
        added = {
            name: Function(number=FIRST_CONFIGURED + index, why="locked by the configuration")
            for index, name in enumerate(further)
        }
        return Declaration({**self.functions, **added}, self.indirect)


def parse(text: str, place: str) -> Declaration:
    """Raises `ConfigError`, which names `place`, for what does not follow the schema."""
    try:
        found = _File.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(place, f"is no TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(place, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    numbers = [each.number for each in found.functions.values()]
    for name, function in found.functions.items():
        if numbers.count(function.number) > 1 or function.number >= FIRST_CONFIGURED:
            problem = f"must be below {FIRST_CONFIGURED} and no other function's"
            raise ConfigError(place, f"functions.{name}.number: {function.number} {problem}")
    return Declaration(found.functions, found.indirect)


def shipped() -> Declaration:
    """What KRIe locks."""
    resource = files(__package__).joinpath(_FILE)
    return parse(resource.read_text(), str(resource))
