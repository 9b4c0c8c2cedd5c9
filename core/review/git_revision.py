"""Policy files as a revision in a git repository has them, read from its objects: nothing is checked out.

Only `git rev-parse`, `ls-tree` and `cat-file` run: they apply no filter, attribute or hook, and fetch nothing. What
somebody names as a revision reaches git on its standard input, where it cannot be an option.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import PolicyError
from ..policy.snapshot import MOST_ENTRIES
from ..policy.sources import MOST_BYTES, text_of

_TIMEOUT_S = 30
_HARMLESS = (
    "--no-pager",
    "--no-replace-objects",
    "--literal-pathspecs",
    "--no-optional-locks",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "protocol.allow=never",
    "-c",
    "core.sshCommand=false",
    "-c",
    "credential.helper=",
    "-c",
    "core.warnAmbiguousRefs=true",
)
_KEPT = ("PATH", "HOME", "XDG_CONFIG_HOME", "SUDO_UID", "GIT_CONFIG_GLOBAL", "GIT_CEILING_DIRECTORIES")
_REFUSED = re.compile(r"[\0-\x20\x7f]|^-|^$")
_LINK, _SUBMODULE, _TREE = "120000", "160000", "tree"


@dataclass(frozen=True, slots=True)
class Repository:
    """One that exists. Raises `PolicyError` for whatever git says no to."""

    top: Path

    @staticmethod
    def around(folder: Path) -> Repository | None:
        """The repository that a folder lies in."""
        answer = _git(folder, "rev-parse", "--show-toplevel", check=False)
        if answer.returncode:
            said = answer.stderr.decode(errors="backslashreplace").strip()
            if "not a git repository" in said:
                return None
            raise PolicyError(f"{folder}: git: {' '.join(said.split())}")
        return Repository(Path(os.fsdecode(answer.stdout.removesuffix(b"\n"))))

    def commit(self, revision: str) -> str:
        """The object name of what a revision names."""
        if _REFUSED.search(revision) or revision.count("{") != revision.count("}"):
            raise PolicyError(
                f"{revision!r} is not a git revision: it is empty, begins with -, has blanks in it or an open brace"
            )
        found = self._object(f"{revision}^{{commit}}")
        if found is None or found[1] != "commit":
            raise PolicyError(
                f"{revision}: git finds no commit of this name, or several, in {self.top}; for a folder or a bundle, "
                "give a path that exists"
            )
        if b"is ambiguous" in _git(self.top, "cat-file", "--batch-check", given=f"{revision}^{{commit}}\n").stderr:
            raise PolicyError(
                f"{revision} is several things in {self.top}, such as a branch and a tag: write "
                f"refs/heads/{revision} or refs/tags/{revision}"
            )
        return found[0]

    def has(self, commit: str, folder: PurePosixPath) -> bool:
        """Whether the commit has this folder."""
        return (found := self._object(f"{commit}:{_below(folder)}")) is not None and found[1] == _TREE

    def tracks(self, folder: PurePosixPath) -> bool:
        """Whether any file below the folder is tracked now."""
        return bool(_git(self.top, "ls-files", "-z", "--", str(folder)).stdout)

    def texts(self, commit: str, revision: str, folder: PurePosixPath) -> Iterator[tuple[str, str, str]]:
        """Place, folder and text of each policy file below a folder, in order; none where there is no such folder."""
        if not self.has(commit, folder):
            return
        listing = _git(self.top, "ls-tree", "-r", "-z", f"{commit}:{_below(folder)}").stdout
        wanted: list[tuple[str, str]] = []
        for entry in listing.split(b"\0")[:-1]:
            meta, _, raw = entry.partition(b"\t")
            mode, _, name = meta.decode().split()
            path = os.fsdecode(raw)
            if any(part.startswith((".", "_")) for part in path.split("/")):
                continue
            counts = path.endswith((".rego", ".json")) and not path.endswith("_test.rego")
            place = f"{revision}:{folder / path}"
            if mode == _SUBMODULE or (mode == _LINK and (counts or self._leads_to_folder(commit, folder / path, name))):
                what = "submodule" if mode == _SUBMODULE else "link"
                raise PolicyError(f"{place}: is a {what}, which is not followed; put the files themselves there")
            if counts and mode != _LINK:
                wanted.append((place, name))
        if len(wanted) > MOST_ENTRIES:
            raise PolicyError(f"{revision}:{folder}: has more than {MOST_ENTRIES} policy files")
        for (place, _), blob in zip(wanted, self._blobs([name for _, name in wanted], revision), strict=True):
            yield place, f"{revision}:{folder}", text_of(blob, place)

    def _leads_to_folder(self, commit: str, link: PurePosixPath, name: str) -> bool:
        (target,) = self._blobs([name], str(link))
        parts: list[str] = []
        for part in (*link.parent.parts, *os.fsdecode(target).split("/")):
            parts = parts[:-1] if part == ".." else parts if part in (".", "") else [*parts, part]
        return target.startswith(b"/") or self.has(commit, PurePosixPath(*parts))

    def _object(self, name: str) -> tuple[str, str, int] | None:
        """Object name, type and size; None where there is no such, or more than one."""
        if "\n" in name:
            return None
        answer = _git(self.top, "cat-file", "--batch-check", given=f"{name}\n").stdout
        found = os.fsdecode(answer).rstrip("\n").rsplit(" ", 2)
        if len(found) != 3 or not re.fullmatch("[0-9a-f]{40,64}", found[0]):
            return None
        return found[0], found[1], int(found[2])

    def _blobs(self, names: list[str], what: str) -> Iterator[bytes]:
        if not names:
            return
        listed = "".join(f"{name}\n" for name in names)
        sizes = _git(self.top, "cat-file", "--batch-check=%(objectsize)", given=listed).stdout.split()
        if len(sizes) != len(names) or not all(size.isdigit() for size in sizes):
            raise PolicyError(f"{what}: objects of it are missing in {self.top}; fetch them first")
        if sum(map(int, sizes)) > MOST_BYTES:
            raise PolicyError(f"{what}: all policies and data are larger than {MOST_BYTES >> 20} MiB")
        answer = _git(self.top, "cat-file", "--batch", given=listed).stdout
        at = 0
        for size in map(int, sizes):
            start = answer.index(b"\n", at) + 1
            yield answer[start : start + size]
            at = start + size + 1


def _below(folder: PurePosixPath) -> str:
    return "" if str(folder) == "." else str(folder)


def _git(folder: Path, *arguments: str, given: str = "", check: bool = True) -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name in _KEPT if (value := os.environ.get(name)) is not None}
    environment |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1"}
    try:
        answer = subprocess.run(
            ["git", *_HARMLESS, "-C", str(folder), *arguments],
            input=os.fsencode(given),
            capture_output=True,
            env=environment,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise PolicyError("there is no git here, which knows revisions; name a folder or a bundle") from error
    except subprocess.TimeoutExpired as error:
        raise PolicyError(f"{folder}: git gave no answer within {_TIMEOUT_S} s") from error
    if check and answer.returncode:
        said = " ".join(answer.stderr.decode(errors="backslashreplace").split())
        raise PolicyError(f"{folder}: git {arguments[0]}: {said or answer.returncode}")
    return answer


def home_of(folder: Path) -> Path:
    """Where the files of a folder really are: an installed one may consist of links to those of a repository."""
    real = Path(os.path.realpath(folder))
    homes: set[Path] = set()
    for path in _files(real):
        own = path.relative_to(real).parts
        found = Path(os.path.realpath(path))
        homes.add(found.parents[len(own) - 1] if found.parts[-len(own) :] == own else real)
    return homes.pop() if len(homes) == 1 else real


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*.rego") if path.is_file())
