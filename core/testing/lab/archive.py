"""Debian's archive through apt, with a configuration of its own: the machine's apt is only asked for its mirror.

apt checks the signatures of what it fetches against Debian's keyring.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path

from ...errors import LabError
from .cache import Cache

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SUITES = ("bullseye", "bookworm", "trixie", "trixie-backports")
_SECURITY_SUITES = ("bullseye-security", "bookworm-security", "trixie-security")


class Archive:
    """Package lists and packages. Raises `LabError` for what cannot be had."""

    def __init__(self, folder: Path) -> None:
        """`folder`: for apt's lists and configuration."""
        for program, package in (("apt-get", "apt"), ("dpkg-deb", "dpkg")):
            if shutil.which(program) is None:
                raise LabError(f"{program} is missing: kernels are fetched by Debian's {package}; use --kernel PATH")
        self._configuration = folder / "apt.conf"
        for each in ("lists/partial", "archives/partial"):
            (folder / each).mkdir(parents=True, exist_ok=True)
        (folder / "sources.list").write_text("".join(_sources()))
        self._configuration.write_text(
            f'Dir::Etc::sourcelist "{folder}/sources.list";\nDir::Etc::sourceparts "-";\n'
            f'Dir::State::lists "{folder}/lists";\nDir::Cache "{folder}";\nDir::Cache::archives "{folder}/archives";\n'
            'APT::Sandbox::User "root";\nAPT::Update::Error-Mode "any";\nAcquire::Retries "2";\n'
            'Acquire::Languages "none";\nAcquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";\n'
        )

    def update(self) -> None:
        """Fetch the package lists again."""
        self._run("fetching the package lists", ["apt-get", "update"])

    def names(self, pattern: str) -> list[str]:
        """All packages with a name that matches, by version numbers, oldest first."""
        output = self._run("searching packages", ["apt-cache", "search", "--names-only", pattern])
        found = {line.split(" ", 1)[0] for line in output.splitlines()}
        return sorted((each for each in found if re.fullmatch(pattern, each)), key=lambda name: (_numbers(name), name))

    def version(self, package: str) -> str:
        """The newest version of a package."""
        shown = self._run(f"asking for {package}", ["apt-cache", "show", "--no-all-versions", package])
        return next(line.removeprefix("Version: ") for line in shown.splitlines() if line.startswith("Version: "))

    def dependencies(self, package: str, pattern: str) -> list[str]:
        """Those packages that a package depends on, of which the name matches."""
        shown = self._run(f"asking for {package}", ["apt-cache", "depends", "--important", package])
        found = {line.split()[-1] for line in shown.splitlines() if "Depends:" in line}
        return sorted(each for each in found if re.fullmatch(pattern, each))

    def unpack(self, packages: Iterable[str], folder: Path) -> None:
        """Download the newest versions of packages and unpack them, without running anything of theirs."""
        self._unpack(["apt-get", "download", *packages], packages, folder)

    def unpack_system(self, packages: Iterable[str], suite: str, folder: Path) -> None:
        """Unpack packages of a suite with all that they depend on, so that their programs run with `folder` as root."""
        status = folder / ".status"
        status.touch()
        for name in ("bin", "sbin", "lib", "lib64"):
            (folder / "usr" / name).mkdir(parents=True)
            (folder / name).symlink_to(f"usr/{name}")
        command = ["apt-get", "install", "--download-only", "--yes", "--no-install-recommends", "-t", suite]
        places = (f"Dir::State::status={status}", f"Dir::Cache::archives={folder / '.debs'}")
        options = [word for place in places for word in ("-o", place)]
        (folder / ".debs/partial").mkdir(parents=True)
        self._unpack([*command, *options, *packages], packages, folder)
        status.unlink()

    def _unpack(self, command: list[str], packages: Iterable[str], folder: Path) -> None:
        debs = folder / ".debs"
        debs.mkdir(exist_ok=True)
        self._run(f"downloading {' '.join(packages)}", command, debs)
        for deb in sorted(debs.glob("*.deb")):
            unpacked = debs / "tar"
            self._run(f"unpacking {deb.name}", ["dpkg-deb", "--fsys-tarfile", str(deb)], debs, unpacked)
            # Unlike dpkg-deb's own, this does not replace /lib by a folder.
            tar = ["tar", "-C", str(folder), "-xf", str(unpacked), "--keep-directory-symlink", "--no-same-owner"]
            self._run(f"unpacking {deb.name}", tar)
        shutil.rmtree(debs)

    def _run(self, doing: str, command: list[str], folder: Path | None = None, output: Path | None = None) -> str:
        environment = {**os.environ, "APT_CONFIG": str(self._configuration), "LC_ALL": "C.UTF-8"}
        with output.open("wb") if output else nullcontext(subprocess.PIPE) as stdout:
            result = subprocess.run(
                command,
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        if result.returncode:
            said = [line for line in result.stderr.splitlines() if line.startswith(("E:", "dpkg-deb: error", "tar: "))]
            raise LabError(f"{doing} failed: {(said or [result.stderr.strip() or 'no reason given'])[0]}")
        return result.stdout or ""


def archive_of(cache: Cache) -> Archive:
    """The archive with fresh package lists, which lie in the cache."""
    with cache.locked("apt"):
        archive = Archive(cache.folder(".apt"))
        archive.update()
    return archive


def _sources() -> list[str]:
    if not _KEYRING.exists():
        raise LabError(f"{_KEYRING} is missing, which vouches for Debian's archive: install debian-archive-keyring")
    main, security = _mirrors()
    of_main = [f"deb [signed-by={_KEYRING}] {main} {suite} main\n" for suite in _SUITES]
    return of_main + [f"deb [signed-by={_KEYRING}] {security} {suite} main\n" for suite in _SECURITY_SUITES]


def _mirrors() -> tuple[str, str]:
    """The archive and its security part, from where this machine's apt has them."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    known = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    main = next((each for each in known if each.rstrip("/").endswith("/debian")), None)
    if main is None:
        raise LabError("apt on this machine knows no Debian archive (a source that ends with /debian); add one")
    security = next((each for each in known if each.rstrip("/").endswith("/debian-security")), None)
    return main, security or main.rstrip("/") + "-security"


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", name)))
