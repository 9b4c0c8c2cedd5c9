"""Lock files: who may call the locked functions of one build of the kernel. Names and offsets, so that KASLR is no
matter; kept in git and reviewed there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Literal

from krie import ConfigError
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from .declaration import Symbol
from .derivation import Callers, Code

_Place = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*\+0x[0-9a-f]+$", max_length=128)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class LockedFunction(_Model):
    """One function of one build."""

    callers: list[_Place]
    """Return addresses behind direct calls."""
    taken: list[Symbol]
    """What leads to it and has its address taken: calls by a pointer may come through these."""
    open: list[_Place] = []
    """Return addresses behind calls by a pointer that were seen under ordinary work: `krie cfi learn`."""


class LockFile(_Model):
    """The file with the locks of one build of the kernel."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    release: str
    build_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,64}$")]
    functions: dict[Symbol, LockedFunction]

    def derived(self) -> LockFile:
        """Without what was learnt."""
        functions = {name: each.model_copy(update={"open": []}) for name, each in self.functions.items()}
        return self.model_copy(update={"functions": functions})

    def to_json(self) -> str:
        """As it lies in git."""
        text = self.model_dump(by_alias=True)
        for each in text["functions"].values():
            if not each["open"]:
                del each["open"]
        return json.dumps(text, indent=1) + "\n"


def lock_file_of(release: str, build_id: str, code: Code, callers: Mapping[str, Callers]) -> LockFile:
    """What was derived, by names."""
    functions = {
        name: LockedFunction(callers=sorted(map(code.name, each.returns)), taken=sorted(map(code.name, each.taken)))
        for name, each in sorted(callers.items())
    }
    fields = {"schema": 1, "release": release, "build_id": build_id, "functions": functions}
    return LockFile.model_validate(fields)


def read(place: Path | Traversable) -> LockFile:
    """Raises `ConfigError` for a file that cannot be read or does not follow the schema."""
    try:
        return LockFile.model_validate(json.loads(place.read_text()))
    except OSError as error:
        raise ConfigError(str(place), f"cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(str(place), f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except ValueError as error:
        raise ConfigError(str(place), f"is not valid JSON: {error}") from error


def shipped(build_id: str) -> LockFile | None:
    """That of a build, if KRIe has one. Raises `ConfigError` as `read` does."""
    place = files(__package__).joinpath("locks", f"{build_id}.json")
    return read(place) if place.is_file() else None


def differences(old: LockFile, new: LockFile) -> list[str]:
    """What `new` has and `old` has not, marked +, and the other way round, marked -."""
    lines = []
    for name in sorted({*old.functions, *new.functions}):
        if name not in new.functions or name not in old.functions:
            lines.append(f"{'-' if name not in new.functions else '+'} {name}")
            continue
        before, after = old.functions[name], new.functions[name]
        lines += [f"- {name} <- {each}" for each in before.callers if each not in after.callers]
        lines += [f"+ {name} <- {each}" for each in after.callers if each not in before.callers]
        lines += [f"- {name} <- pointers to {each}" for each in before.taken if each not in after.taken]
        lines += [f"+ {name} <- pointers to {each}" for each in after.taken if each not in before.taken]
        lines += [f"- {name} <- {each}, as was learnt" for each in before.open if each not in after.open]
        lines += [f"+ {name} <- {each}, as was learnt" for each in after.open if each not in before.open]
    return lines
