"""What is locked, as data: `locked.toml` and what an administrator adds."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Literal

from krie import ConfigError, numbers_of
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from .maps import COMPAT, OF_KERNEL, Right

FIRST_CONFIGURED = 32
MOST_CONFIGURED = 16
KERNEL_EXECVE = "kernel_execve"
"""Stands among the system calls: by which the kernel starts programs itself."""
_FILE = "locked.toml"
GAINS: Mapping[str, int] = {"euid0": 1 << 0, "caps": 1 << 1, "userns": 1 << 2, "uid": 1 << 3}
"""What credentials may have that the task's own have not, with its bit in records and maps."""
RIGHTS: Mapping[str, tuple[Right, str]] = {
    "users": (Right.OF_USERS, "CAP_SETUID, or to have had these users before"),
    "user_namespace": (Right.OF_NAMESPACE, "to have made the user namespace, or CAP_SYS_ADMIN in it"),
    "program": (Right.OF_PROGRAM, "the same real user, and capabilities within the bounding set"),
}
"""What it takes to gain it, asked of the task's credentials again: its bit in maps, and in words."""
Symbol = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$", max_length=63)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Function(_Model):
    """A locked function."""

    number: Annotated[int, Field(ge=1, lt=FIRST_CONFIGURED + MOST_CONFIGURED)]
    why: Annotated[str, Field(min_length=1)]


class Indirect(_Model):
    """A function that is called by a pointer, and who does so."""

    callers: list[Symbol] = []
    """Every call by a pointer in these may lead to it."""
    jumps: list[Symbol] = []
    """These jump to it by a pointer as the last thing that they do: who calls them has called it."""
    why: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _by_somebody(self) -> Indirect:
        if not self.callers and not self.jumps:
            raise ValueError("say who calls it: callers or jumps")
        return self


class SystemCall(_Model):
    """A system call in which credentials may gain something."""

    gain: Annotated[list[Literal["euid0", "caps", "userns", "uid"]], Field(min_length=1)]
    right: Literal["users", "user_namespace", "program"]
    why: Annotated[str, Field(min_length=1)]


class Act(_Model):
    """What only a right permits, and is judged again where it is done."""

    number: Annotated[int, Field(ge=1, le=255)]
    right: Annotated[str, Field(min_length=1)]
    judged: Annotated[str, Field(min_length=1)]
    why: Annotated[str, Field(min_length=1)]


class _File(_Model):
    schema_: Annotated[Literal[1], Field(alias="schema")]
    functions: dict[Symbol, Function]
    indirect: dict[Symbol, Indirect] = {}
    gains: dict[Symbol, SystemCall] = {}
    acts: dict[Symbol, Act] = {}


@dataclass(frozen=True, slots=True)
class Declaration:
    """All functions and system calls that are locked, and what may reach them."""

    functions: Mapping[str, Function]
    indirect: Mapping[str, Indirect]
    gains: Mapping[str, SystemCall]
    acts: Mapping[str, Act]

    def paths(self) -> dict[int, int]:
        """Bits of what may be gained and of the right to it by number of the system call; those of 32-bit callers have
        a bit more."""
        found: dict[int, int] = {}
        for name, each in self.gains.items():
            for number in _keys(name):
                found[number] = sum(GAINS[gain] for gain in set(each.gain)) | RIGHTS[each.right][0]
        return found

    def jumps(self) -> dict[str, list[str]]:
        """Functions that jump by a pointer, by the function that they come to."""
        return {name: each.jumps for name, each in self.indirect.items() if each.jumps}

    def with_functions(self, configured: Sequence[str]) -> Declaration:
        """And these, of the configuration."""
        further = [each for each in sorted(configured) if each not in self.functions]
        added = {
            name: Function(number=FIRST_CONFIGURED + index, why="is named by `functions` in [plugins.cfi]")
            for index, name in enumerate(further)
        }
        return Declaration({**self.functions, **added}, self.indirect, self.gains, self.acts)


def parse(text: str, place: str) -> Declaration:
    """Raises `ConfigError`, which names `place`, for what does not follow the schema."""
    try:
        found = _File.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(place, f"is not valid TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(place, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    numbers = [each.number for each in found.functions.values()]
    for name, function in found.functions.items():
        if numbers.count(function.number) > 1 or function.number >= FIRST_CONFIGURED:
            problem = f"must be below {FIRST_CONFIGURED} and no other function's"
            raise ConfigError(place, f"functions.{name}.number: {function.number} {problem}")
    _each_its_own(place, {name: each.number for name, each in found.acts.items()})
    for name in found.gains:
        if not _keys(name):
            raise ConfigError(place, f"gains.{name}: no system call that KRIe knows has this name")
    return Declaration(found.functions, found.indirect, found.gains, found.acts)


def _keys(system_call: str) -> tuple[int, ...]:
    if system_call == KERNEL_EXECVE:
        return (OF_KERNEL,)
    numbers = numbers_of(system_call)
    return (*numbers.native, *(COMPAT | ia32 for ia32 in numbers.ia32))


def _each_its_own(place: str, numbers: Mapping[str, int]) -> None:
    for name, number in numbers.items():
        if [*numbers.values()].count(number) > 1:
            raise ConfigError(place, f"acts.{name}.number: {number} must be no other act's")


def shipped() -> Declaration:
    """What KRIe locks."""
    resource = files(__package__).joinpath(_FILE)
    return parse(resource.read_text(), str(resource))
