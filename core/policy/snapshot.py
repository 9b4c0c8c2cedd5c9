"""Folders of policies at one moment: which files count, when they changed, and a reading of all of them that no change
falls into.

Folders change while they are read: Kubernetes swaps a mounted ConfigMap's `..data` link and removes the folder behind
it, a deployment copies file after file, a network file system goes away. None of that may be more than a clear error.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.resources.abc import Traversable
from typing import TypeVar

from ..errors import KrieError, PolicyError

_TRIES, _PAUSE_S = 5, 0.1
_DEEPEST = 32
MOST_ENTRIES = 4096
"""In all folders below the one that is named: they are looked at again and again."""
_T = TypeVar("_T")
Stamp = frozenset[tuple[str, tuple[int, ...]]]
"""Path with device, inode, size and times of each file, or with the error number of what could not be looked at."""


def place_of(file: object) -> str:
    """A path as messages show it, with what cannot be printed escaped: the end of a line would end the message."""
    text = os.fsencode(str(file)).decode(errors="backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def policy_files(folder: Traversable, *, tests: bool = False) -> Iterator[Traversable]:
    """The `.rego` (but `*_test.rego`) and `.json` files below a folder, in order; or the tests alone.

    Raises `PolicyError`.
    """
    try:
        if not folder.is_dir():
            what = (
                "is not a folder; name the folder that it is in"
                if folder.is_file()
                else "there is no such folder of policies"
            )
            raise PolicyError(f"{place_of(folder)}: {what}")
        yield from _below(folder, (), set(), itertools.count(1), tests)
    except OSError as error:
        raise PolicyError(f"{place_of(error.filename or folder)}: cannot be read: {error.strerror}") from error


def _below(
    folder: Traversable, above: tuple[str, ...], seen: set[str], counted: Iterator[int], tests: bool
) -> Iterator[Traversable]:
    real = os.path.realpath(str(folder))
    if real in above:
        raise PolicyError(f"{place_of(folder)}: leads back to a folder above it; remove the link")
    if real in seen:  # a few links could make millions of folders
        raise PolicyError(f"{place_of(folder)}: is {place_of(real)}, which is read already; remove the link")
    seen.add(real)
    if len(above) >= _DEEPEST:
        raise PolicyError(f"{place_of(folder)}: is more than {_DEEPEST} folders deep")
    for name in _names(str(folder), counted):
        each = folder / name
        if each.name.startswith((".", "_")):
            continue
        if each.is_dir():
            yield from _below(each, (*above, real), seen, counted, tests)
        elif each.name.endswith("_test.rego") is tests and each.name.endswith((".rego", ".json")):
            yield each


def _names(folder: str, counted: Iterator[int]) -> list[str]:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if next(counted) > MOST_ENTRIES:
                raise PolicyError(
                    f"{place_of(folder)}: with this there are more than {MOST_ENTRIES} files and folders; keep what is "
                    "not a policy elsewhere"
                )
            found.append(entry.name)
    return sorted(found)


def stamp_of(folders: Iterable[Traversable]) -> Stamp:
    """Tells whether anything has changed since another stamp. Never raises: what cannot be looked at is part of it."""
    found: set[tuple[str, tuple[int, ...]]] = set()
    for folder in folders:
        try:
            for file in policy_files(folder):
                found.add((str(file), _looked_at(str(file))))
        except PolicyError as error:  # it is not a folder, and may be the file of a bundle
            found.add((str(error), _looked_at(str(folder))))
    return frozenset(found)


def _looked_at(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def read_unchanged(
    folders: Iterable[Traversable], read: Callable[[], _T], pause: Callable[[float], None] = time.sleep
) -> _T:
    """What `read` makes of the folders while nothing in them changes; it is tried a few times.

    Raises what `read` raises about folders that stayed as they were, and `PolicyError` for folders that never do.
    """
    folders = tuple(folders)
    for attempt in range(_TRIES):
        if attempt:
            pause(_PAUSE_S)
        before = stamp_of(folders)
        failed: KrieError | None = None
        try:
            answer = read()
        except KrieError as error:
            failed = error
        if stamp_of(folders) == before:
            if failed is not None:
                raise failed
            return answer
    names = ", ".join(map(place_of, folders))
    raise PolicyError(f"{names}: changed {_TRIES} times while being read; put new files in place by one rename")
