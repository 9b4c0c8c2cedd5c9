"""No code runs in a root process that somebody else could change: KRIe's own, a plugin's, or what it imports.

What is imported already has run; that somebody else could change it is still said, before anything is attached.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from .errors import ConfigError
from .trust import Stat, require_all_trusted

_OWN_PACKAGES = ("krie", "krie.bpf", "krie.plugins", "krie.policies")


def require_own_code_trusted() -> None:
    """KRIe's files (its C and its rules, too), all modules imported so far, and where others are looked for.

    Raises `UntrustedFileError`; `ConfigError` for what cannot be looked at.
    """
    _require([*_interpreter(), *_files_below(_OWN_PACKAGES), *_imported()])


def require_package_trusted(module: str) -> None:
    """All files of the packages that this module lies in, besides KRIe's own. Raises `UntrustedFileError`."""
    parts = module.split(".")
    packages = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    for each in packages:  # one after the other: to look for the next one imports the one before it
        if each not in _OWN_PACKAGES:
            _require(_files_below((each,)))


@contextmanager
def only_trusted_imports() -> Iterator[None]:
    """Within: a module that others could change is not run; its import raises `UntrustedFileError`."""
    finder = _TrustedFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _TrustedFinder(MetaPathFinder):
    """Finds what the others find, and looks at the files before any of it runs."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        for finder in sys.meta_path:
            if isinstance(finder, _TrustedFinder):
                continue
            if (spec := finder.find_spec(fullname, path, target)) is not None:
                _require(_files_of(spec))
                return spec
        return None


def _require(files: Iterable[Path]) -> None:
    lstat = cache(Path.lstat)  # thousands of files, for which a guest of the lab asks another machine
    try:
        require_all_trusted(_existing(files, lstat), lstat)
    except OSError as error:
        raise ConfigError(str(error.filename), f"cannot be looked at: {error.strerror}") from error


def _files_of(spec: ModuleSpec | None) -> Iterator[Path]:
    if spec is not None and spec.has_location:
        yield from (Path(each) for each in (spec.origin, spec.cached) if each)


def _files_below(packages: Iterable[str]) -> Iterator[Path]:
    for package in packages:
        try:
            spec = find_spec(package)
        except ValueError:  # it was made in memory
            continue
        yield from _files_of(spec)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            yield Path(folder)
            yield from Path(folder).rglob("*")


def _imported() -> Iterator[Path]:
    for module in list(sys.modules.values()):
        # What lies in sys.modules may be any object, and say anything of itself.
        for name in ("__file__", "__cached__"):
            if isinstance(file := getattr(module, name, None), str):
                yield Path(file)


def _interpreter() -> Iterator[Path]:
    """Python itself, and what decides where it looks for modules."""
    yield Path(sys.executable)
    yield Path(sys.prefix) / "pyvenv.cfg"
    for folder in map(Path, sys.path):
        yield folder
        yield from folder.glob("*.pth")


def _existing(paths: Iterable[Path], lstat: Stat) -> Iterator[Path]:
    """Each path, or of one that is not there (a cache that is not written, a part of an archive) what is above it:
    who may make it decides what it will hold."""
    for path in dict.fromkeys(paths):
        there = path.absolute()
        while not _exists(there, lstat):
            there = there.parent
        yield there


def _exists(path: Path, lstat: Stat) -> bool:
    try:
        lstat(path)
    except (OSError, ValueError):
        return False
    return True
