"""The policy that a command is given by name: a folder, a bundle, a revision of git, or what the configuration has."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

from ..config import Config
from ..errors import PolicyError
from ..opa.entry_points import PACKAGE, package_of
from ..plugin.manager import Plugins
from ..policy.bundle import read_bundle
from ..policy.bundle_file import sources_of_bundle
from ..policy.folders import is_configured, policy_data, policy_folders
from ..policy.snapshot import place_of, policy_files, read_unchanged
from ..policy.sources import MOST_BYTES, PolicySources, gathered, text_of
from ..tier.tried import sources_of
from .git_revision import Repository, home_of

_PACKAGE = re.compile(r"^[ \t]*package[ \t]+([A-Za-z_][\w.]*)", re.MULTILINE)
_GIT = "git:"
_ENTRY_POINT = "decision.rego"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A policy, and how messages call it."""

    name: str
    sources: PolicySources
    notes: tuple[str, ...] = ()
    """What it is made of, where that is not evident."""
    commit: str = ""
    """Which one a revision of git was, in full; where there are several repositories, that of each."""

    @property
    def revision(self) -> str:
        """Digest over all that decides."""
        return self.sources.revision


def in_force(config: Config, plugins: Plugins) -> Chosen:
    """What the configuration has in force. Raises `PolicyError`, `ConfigError`."""
    return Chosen("the policy in force", sources_of(config, plugins))


def chosen(name: str, config: Config, plugins: Plugins) -> Chosen:
    """What `name` means: a folder, else a file, which is a bundle, else a revision. Raises `PolicyError`.

    A folder stands for those of policy.paths, and for each plugin's own whose packages it has; KRIe's entry point
    in its own folder of rules decides nothing. At a revision, each folder that decides now and is tracked by git is
    taken as that revision has it, in the repositories of policy.paths and of the working folder. A bundle is all there
    is, but for the configuration's names of executables.
    """
    path = Path(name)
    if not name.startswith(_GIT):
        if path.is_dir():
            return of_folders((path,), config, plugins)
        if os.path.lexists(path):
            return _of_bundle(path, config)
    return _at_revision(name.removeprefix(_GIT), config, plugins)


def of_folders(
    named: Sequence[Path], config: Config, plugins: Plugins, without: frozenset[str] = frozenset()
) -> Chosen:
    """What these folders stand for, together; `without`: packages of theirs that are left out. Raises `PolicyError`."""
    for each in named:
        if _is_checkout(each):
            rules = place_of(each / "policies")
            raise PolicyError(f"{place_of(each)}: is a copy of KRIe itself, and no folder of policies: name {rules}")
    own = packages_of(named)
    shipped = policy_folders(config, plugins)[: -len(config.policy.paths) or None]
    kept = [each for each in shipped if not own & packages_of([each])]
    homes = [each.resolve() for each in named]
    replaced = [
        place_of(each)
        for each in shipped
        if each not in kept and not any(each.resolve().is_relative_to(home) for home in homes)
    ]
    folders = (*kept, *named)

    def texts() -> Iterator[tuple[str, str, str]]:
        for each in folders:
            for file in policy_files(each):
                text = text_of(_read(file), place_of(file))
                package = package_of(text) if file.name.endswith(".rego") else None
                if package is None or ".".join(package) not in {PACKAGE, *without}:
                    yield place_of(file), place_of(each), text

    sources = read_unchanged(folders, lambda: gathered(texts(), policy_data(config)))
    name = ", ".join(map(place_of, named))
    return Chosen(name, sources, (f"{name} stands for {', '.join(replaced)}",) if replaced else ())


def is_copy_of_shipped(folder: Path) -> bool:
    """Whether it is KRIe's own folder of rules, one of those in it, or a copy: KRIe's entry point is there, or above.

    No folder of anybody's rules may have that. A copy of KRIe itself counts, too; `of_folders` says how to name it.
    """
    entries = (each / _ENTRY_POINT for each in (folder, folder.resolve().parent))
    return _is_checkout(folder) or any(
        each.is_file() and _is_entry_point(text_of(_read(each), place_of(each))) for each in entries
    )


def _is_checkout(folder: Path) -> bool:
    return (folder / "policies" / _ENTRY_POINT).is_file()


def _is_entry_point(text: str) -> bool:
    return package_of(text) == tuple(PACKAGE.split("."))


def packages_of(folders: Iterable[Path]) -> frozenset[str]:
    """Names of all packages that files in these folders begin with. Raises `PolicyError`."""
    rego = (file for folder in folders for file in policy_files(folder) if file.name.endswith(".rego"))
    return frozenset(name for file in rego for name in _PACKAGE.findall(text_of(_read(file), place_of(file))))


def _read(file: Traversable) -> bytes:
    """What is in a file of whoever; only the engine looks at it. Raises `PolicyError` for what is not a file."""
    try:
        descriptor = os.open(str(file), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise PolicyError(f"{place_of(file)}: cannot be read: {getattr(error, 'strerror', error)}") from error
    with os.fdopen(descriptor, "rb") as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise PolicyError(f"{place_of(file)}: is not a regular file")
        try:
            text = opened.read(MOST_BYTES + 1) or b""  # None: /proc has files that are regular ones by name only
        except OSError as error:
            raise PolicyError(f"{place_of(file)}: cannot be read: {error.strerror}") from error
    if len(text) > MOST_BYTES:
        raise PolicyError(f"{place_of(file)}: is larger than {MOST_BYTES >> 20} MiB")
    return text


def _of_bundle(path: Path, config: Config) -> Chosen:
    bundle = read_bundle(_read(path), place_of(path))
    notes = (f"the signature of {place_of(path)} was not verified",) if config.bundle.keys else ()
    return Chosen(place_of(path), sources_of_bundle(bundle, policy_data(config)), notes)


def _at_revision(revision: str, config: Config, plugins: Plugins) -> Chosen:
    homes = {folder: _home(folder, config) for folder in policy_folders(config, plugins)}
    commits = {top: Repository(top).commit(revision) for top in _asked(homes, config)}
    if not commits:
        unread = "".join(f"; {home.where}" for home in homes.values() if isinstance(home, _Elsewhere) and home.refused)
        raise PolicyError(
            f"{revision}: there is no such folder or bundle; nor can it be a revision of git, since no repository of "
            f"policy.paths or of the working folder holds a folder of policies{unread}"
        )
    notes: list[str] = []

    def texts() -> Iterator[tuple[str, str, str]]:
        for folder, home in homes.items():
            where = home.where if isinstance(home, _Elsewhere) else f"another repository, {place_of(home.top)},"
            if isinstance(home, _Home) and (commit := commits.get(home.top)) is not None:
                repository, where = Repository(home.top), "no repository"
                if repository.has(commit, home.below) or repository.tracks(home.below):
                    yield from repository.texts(commit, revision, home.below)
                    continue
            notes.append(f"{place_of(folder)} is in {where} and is taken as it is")
            for file in policy_files(folder):
                yield place_of(file), place_of(folder), text_of(_read(file), place_of(file))

    sources = gathered(texts(), policy_data(config))
    return Chosen(revision, sources, tuple(notes), named(commits))


@dataclass(frozen=True, slots=True)
class _Home:
    """Where a folder lies in its repository."""

    top: Path
    below: PurePosixPath


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """Of a folder of which nobody can tell what a revision had."""

    where: str = "no repository"
    refused: bool = False
    """Whether it is one that git refuses to read."""


def _home(folder: Path, config: Config) -> _Home | _Elsewhere:
    home = home_of(folder)
    try:
        repository = Repository.around(home) if home.is_dir() else None
    except PolicyError as error:
        if is_configured(folder, config):
            raise
        # Such as KRIe's own clone, which belongs to root, for somebody else.
        return _Elsewhere(f"a repository that git does not read ({error})", refused=True)
    if repository is None:
        return _Elsewhere()
    return _Home(repository.top, PurePosixPath(home.relative_to(os.path.realpath(repository.top))))


def _asked(homes: Mapping[Path, _Home | _Elsewhere], config: Config) -> list[Path]:
    """Whose revisions are meant: those of repositories that hold a folder of policy.paths, or the working folder.

    KRIe's own rules and those of plugins may be in others, if they run out of clones.
    """
    tops = dict.fromkeys(home.top for home in homes.values() if isinstance(home, _Home))
    own = {home.top for folder, home in homes.items() if isinstance(home, _Home) and is_configured(folder, config)}
    try:
        here = Repository.around(Path())
    except PolicyError:  # whatever is wrong with it, it need not concern the policy
        here = None
    return [top for top in tops if top in own or (here is not None and top == here.top)]


def named(commits: Mapping[Path, str]) -> str:
    """How a report tells which commits a revision was, by repository: tomorrow a branch is another one."""
    if len(commits) == 1:
        return next(iter(commits.values()))
    return ", ".join(f"{commit} of {place_of(top)}" for top, commit in sorted(commits.items()))
