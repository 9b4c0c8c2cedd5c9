"""Where compiled units come from: a folder that was compiled elsewhere, what was compiled here before, the compiler.

All are files by the unit's key, which covers sources and the kernel's types (`krie.loader.source`), so that kernels
with the same types share one. Only root can write there, and what comes out passes the kernel's verifier, the check of
offsets and the canaries, as any other programs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, KernelError, UntrustedFileError
from ..kernel.btf import Btf
from ..trust import read_trusted, require_trusted
from .compiler import compile_unit, identity
from .object import Object
from .origin import Origin
from .source import Unit

_KEY = re.compile(r"[0-9a-f]{64}")
_KEPT = 16
"""Translation units that are kept, youngest first: an agent's, and those of other configurations tried here."""


@dataclass(frozen=True, slots=True)
class Folders:
    """Where compiled units are looked for; empty: nowhere."""

    compiled: str = ""
    """Read only, as `krie compile` fills it."""
    cache: str = ""


@dataclass(frozen=True, slots=True)
class Obtained:
    """A compiled unit."""

    object: Object
    origin: Origin
    problem: str = ""
    """Why a folder was of no use; empty where all is well."""


class Store:
    """A folder of compiled units, one a file by its key, which others may not write."""

    def __init__(self, folder: Path) -> None:
        """It is made when something is kept."""
        self._folder = folder
        self.problem = ""
        """Why something that is there was not taken, or nothing could be kept; empty where all is well."""

    def find(self, key: str) -> Object | None:
        """What was kept under this key; None where nothing of use was.

        A file that others could have changed, or that is damaged, is of no use: `problem` says so.
        """
        file = self._folder / key
        if not os.path.lexists(file):
            return None
        try:
            return _decoded(read_trusted(file), key)
        except (ConfigError, UntrustedFileError) as error:
            self.problem = str(error)
        except (ValueError, RecursionError) as error:
            self.problem = f"{file}: {error}"
        return None

    def keep(self, key: str, made: Object, most: int | None = None) -> None:
        """Keep it and, where `most` is given, no more than so many, the youngest ones.

        Where the folder cannot be had, or others may change it, nothing is kept, and `problem` says so.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            require_trusted(self._folder)
            descriptor, partial = tempfile.mkstemp(dir=self._folder, prefix=".")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(_encoded(key, made))
                Path(partial).rename(self._folder / key)
            finally:
                Path(partial).unlink(missing_ok=True)
            if most is not None:
                self._remove_oldest(most)
        except (OSError, UntrustedFileError) as error:
            self.problem = self.problem or str(error)

    def _remove_oldest(self, most: int) -> None:
        """Whatever else lies there stays: what is not a compiled unit, also under a name that looks like a key."""
        named = (each for each in self._folder.iterdir() if _KEY.fullmatch(each.name))
        kept = sorted(named, key=lambda each: each.lstat().st_mtime_ns, reverse=True)
        for each in kept[most:]:
            with suppress(ConfigError, UntrustedFileError, ValueError, RecursionError):
                _decoded(read_trusted(each), each.name)
                each.unlink(missing_ok=True)

    def touch(self, key: str) -> None:
        """Make it the youngest."""
        with suppress(OSError):
            os.utime(self._folder / key)


def _encoded(key: str, made: Object) -> bytes:
    body = json.dumps({"key": key, **made.to_json()}, sort_keys=True).encode()
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def _decoded(content: bytes, key: str) -> Object:
    """Raises `ValueError`."""
    digest, _, body = content.partition(b"\n")
    if digest.decode(errors="replace") != hashlib.sha256(body).hexdigest():
        raise ValueError("is damaged")
    data = json.loads(body)
    if not isinstance(data, dict) or data.get("key") != key:
        raise ValueError("was made for another kernel or other sources, and renamed")
    return Object.from_json(data)


def obtain(
    unit: Unit, btf: Btf, flags: Sequence[str], folders: Folders, compile_: Callable[[Unit, Btf, Sequence[str]], Object]
) -> Obtained:
    """The unit for the kernel with these types, from the first place that has it.

    What the compiler raises goes through. Raises `KernelError` where there is no compiler and no folder has it.
    """
    key = unit.key(btf, flags)
    problems: list[str] = []
    if folders.compiled:
        ready = Store(Path(folders.compiled))
        if (found := ready.find(key)) is not None:
            return Obtained(found, Origin.COMPILED_DIR)
        what = f"this kernel and {', '.join(unit.sensors)}"  # without those that this kernel is nothing for
        missing = f"agent.compiled_dir: {folders.compiled} has nothing for {what} ({key})"
        problems.append(f"agent.compiled_dir: {ready.problem}" if ready.problem else missing)
    cache, own_key = None, hashlib.sha256(f"{key} {identity() or os.urandom(16).hex()}".encode()).hexdigest()
    if folders.cache:
        cache = Store(Path(folders.cache))
        if (found := cache.find(own_key)) is not None:
            cache.touch(own_key)
            return Obtained(found, Origin.CACHE, "; ".join(problems))
    try:
        made = compile_(unit, btf, flags)
    except KernelError as error:
        raise KernelError("; ".join([*problems, error.operation]), error.errno, error.hint) from error
    if cache is not None:
        cache.keep(own_key, made, _KEPT)
        problems += [f"agent.cache_dir: {cache.problem}"] if cache.problem else []
    return Obtained(made, Origin.COMPILED, "; ".join(problems))


def compile_into(tree: Path) -> Callable[[Unit, Btf, Sequence[str]], Object]:
    """For `obtain`: compile in this process, with the headers in this empty folder."""

    def compile_(unit: Unit, btf: Btf, flags: Sequence[str]) -> Object:
        unit.write(tree, btf)
        return compile_unit(unit.text, tree, flags)

    return compile_
