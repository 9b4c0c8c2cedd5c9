"""Gathers rules and data from folders, and gives the whole of them a revision."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable

from ..errors import PolicyError
from ..events.wire import Json
from ..opa.entry_points import entry_points
from ..printable import one_line
from .json_text import read_json
from .nesting import check_text
from .snapshot import place_of, policy_files

MOST_BYTES = 32 << 20
"""Of all rules and data, which the agent keeps to compile them again."""


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """One file of rules. `place` is its path, for messages."""

    place: str
    text: str
    owner: str = ""
    """The folder that was named, below which it lies: the owner of its package."""


@dataclass(frozen=True, slots=True)
class PolicySources:
    """Everything that decides, as read at one moment."""

    files: tuple[PolicyFile, ...]
    data: dict[str, Json]
    revision: str
    """Digest over all rules and data, whatever order or folder they came from."""
    data_places: Mapping[str, str] = field(default_factory=dict)
    """The file that each key of `data` comes from."""

    def decides_as(self, other: PolicySources) -> bool:
        """Whether both have the same rules and data: a revision may be what somebody chose."""
        mine, theirs = (sorted(file.text for file in each.files) for each in (self, other))
        return mine == theirs and json.dumps(self.data, sort_keys=True) == json.dumps(other.data, sort_keys=True)


def _read(file: Traversable) -> bytes:
    return file.read_bytes()


def read_sources(
    folders: Iterable[Traversable],
    data: Mapping[str, Json],
    read: Callable[[Traversable], bytes] = _read,
) -> PolicySources:
    """Read every `.rego` (but `*_test.rego`) and `.json` below the folders; `data` is added to what the files say.

    The keys of a data file become keys of `data`. Raises `PolicyError` for a file that cannot be read and for a key
    that two files set.
    """
    return gathered(
        ((place_of(file), place_of(folder), _text(file, read)) for folder in folders for file in policy_files(folder)),
        data,
    )


def gathered(texts: Iterable[tuple[str, str, str]], data: Mapping[str, Json]) -> PolicySources:
    """The same of texts, each with its file's place and the folder that was named. Raises `PolicyError`."""
    files: list[PolicyFile] = []
    merged: dict[str, Json] = dict(data)
    owners = dict.fromkeys(data, "krie.toml")
    left = MOST_BYTES
    for place, folder, text in texts:
        if any("\ud800" <= each <= "\udfff" for each in place):
            raise PolicyError(f"{one_line(place)}: the file's name is not UTF-8; rename it")
        left -= len(text)
        if left < 0:
            raise PolicyError(f"{place}: all policies and data are larger than {MOST_BYTES >> 20} MiB")
        if place.endswith(".rego"):
            files.append(PolicyFile(place, text, folder))
            check_text(text, place)
            continue
        for key, value in _object(text, place).items():
            if key in owners:
                raise PolicyError(f"{place}: sets data.{key}, which {owners[key]} sets too; rename one")
            owners[key] = place
            merged[key] = value
    rego = [file.text for file in files]
    revision = revision_of([*rego, *entry_points(rego).values()], merged)
    return PolicySources(tuple(files), merged, revision, owners)


def revision_of(texts: Iterable[str], data: Mapping[str, Json]) -> str:
    """Digest over all modules, KRIe's entry points among them, and all data: what a bundle's manifest says."""
    digest = hashlib.sha256()
    for text in sorted(texts):
        digest.update(hashlib.sha256(text.encode()).digest())
    digest.update(json.dumps(data, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _text(file: Traversable, read: Callable[[Traversable], bytes]) -> str:
    try:
        return text_of(read(file), place_of(file))
    except OSError as error:
        raise PolicyError(f"{place_of(file)}: cannot be read: {error.strerror}") from error


def text_of(raw: bytes, place: str) -> str:
    """A file's text. Raises `PolicyError`."""
    try:
        return raw.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise PolicyError(f"{place}: is not UTF-8: {error.reason} at byte {error.start}") from error


def _object(text: str, place: str) -> dict[str, Json]:
    content = read_json(text, place)
    if not isinstance(content, dict):
        raise PolicyError(f"{place}:1: must hold one JSON object, whose keys become keys of data")
    return content
