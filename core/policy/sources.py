"""Gathers rules and data from folders, and gives the whole of them a revision."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable

from ..errors import PolicyError
from ..wire import Json
from .json_text import read_json
from .nesting import check_nesting


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
    files: list[PolicyFile] = []
    merged: dict[str, Json] = dict(data)
    owners = dict.fromkeys(data, "krie.toml")
    for folder in folders:
        if not folder.is_dir():
            raise PolicyError(f"{folder}: there is no such folder of policies")
        for file in _files(folder):
            if file.name.endswith(".rego"):
                files.append(PolicyFile(str(file), _text(file, read), str(folder)))
                check_nesting(files[-1].text, str(file))
                continue
            for key, value in _object(file, read).items():
                if key in owners:
                    raise PolicyError(f"{file}: sets data.{key}, which {owners[key]} sets too; rename one")
                owners[key] = str(file)
                merged[key] = value
    digest = hashlib.sha256()
    for text in sorted(file.text for file in files):
        digest.update(hashlib.sha256(text.encode()).digest())
    digest.update(json.dumps(merged, sort_keys=True).encode())
    return PolicySources(tuple(files), merged, digest.hexdigest()[:16], owners)


def _files(folder: Traversable) -> Iterator[Traversable]:
    for each in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if each.name.startswith((".", "_")):
            continue
        if each.is_dir():
            yield from _files(each)
        elif each.name.endswith((".rego", ".json")) and not each.name.endswith("_test.rego"):
            yield each


def _text(file: Traversable, read: Callable[[Traversable], bytes]) -> str:
    try:
        return read(file).decode()
    except UnicodeDecodeError as error:
        raise PolicyError(f"{file}: is no UTF-8 text: {error.reason} at byte {error.start}") from error


def _object(file: Traversable, read: Callable[[Traversable], bytes]) -> dict[str, Json]:
    content = read_json(_text(file, read), str(file))
    if not isinstance(content, dict):
        raise PolicyError(f"{file}:1: must hold one JSON object, whose keys become keys of data")
    return content
