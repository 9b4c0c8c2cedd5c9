"""The kernels that the lab knows by name, and how each is had."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import LabError
from .archive import Archive, archive_of
from .build import PACKAGE, build
from .cache import Cache
from .toolchain import toolchain

_MANIFEST = "kernel.json"
_HEADERS = "headers"
_HEADER_PACKAGES = r"linux-(headers-.*-common|kbuild-.*)"


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel that can be booted."""

    name: str
    release: str
    """As `uname -r` shows it; empty where only the file is known."""
    image: Path
    headers: Path | None = None
    """A folder with what its modules are built with, as Debian's packages lay it out; None where that is unknown."""


PATTERNS: Mapping[str, str] = {
    "debian-5.10": r"linux-image-5\.10\.[0-9]+-[0-9]+-amd64",
    "debian-6.1": r"linux-image-6\.1\.[0-9]+-[0-9]+-amd64",
    "debian-6.12": r"linux-image-6\.12\.[0-9]+[+]deb12([.][0-9]+)?-amd64",
    "debian-newest": r"linux-(image|binary)-[0-9]+\.[0-9]+(\.[0-9]+)?([+]deb[0-9]+([.][0-9]+)?)?(-[0-9]+)?-amd64",
}
"""Names of Debian's signed kernel packages, the newest of which is taken."""
OVERRIDE = "override"
NAMES = (*PATTERNS, OVERRIDE)


def known(name: str, cache: Cache) -> Kernel | None:
    """The kernel of this name, if it was fetched. Raises `LabError` for a name that the lab does not know."""
    if name not in NAMES:
        raise LabError(f"no kernel is named {name!r}; known are {', '.join(NAMES)}, or --kernel PATH")
    folder = cache.folder(name)
    if not (folder / _MANIFEST).exists() or not (folder / _HEADERS).exists():
        return None
    manifest = _manifest(name, cache)
    return Kernel(name, manifest["release"], folder / manifest["image"], folder / _HEADERS)


def find(name: str, cache: Cache, say: Callable[[str], None]) -> Kernel:
    """The kernel of this name or at this path; fetched if need be. Raises `LabError`."""
    if "/" in name:
        path = Path(name).resolve()
        if not path.is_file():
            raise LabError(f"there is no kernel image at {path}")
        return Kernel(path.name, "", path)
    return known(name, cache) or fetch(name, cache, say)


def fetch(name: str, cache: Cache, say: Callable[[str], None]) -> Kernel:
    """Have the newest kernel of this name in the cache; `say` gets what takes time. Raises `LabError`."""
    with cache.locked(name):
        before = known(name, cache)
        say(f"{name}: asking Debian's archive")
        archive = archive_of(cache)
        packages = _packages(name, archive)
        versions = {package: archive.version(package) for package in packages}
        if before is not None and _manifest(name, cache)["packages"] == versions:
            return before
        tools = toolchain(cache, say) if name == OVERRIDE else None
        with cache.making(name) as folder:
            if tools is not None:
                release, image = build(archive, tools, folder, say)
            else:
                release, image = _unpacked(archive, packages, folder, lambda text: say(f"{name}: {text}"))
            manifest = {"release": release, "image": str(image.relative_to(folder)), "packages": versions}
            (folder / _MANIFEST).write_text(json.dumps(manifest))
    fetched = known(name, cache)
    assert fetched is not None
    return fetched


def newest(name: str, cache: Cache) -> str:
    """The release of the newest kernel of this name in Debian's archive; nothing is fetched but the archive's lists.

    Raises `LabError`.
    """
    return _release(_packages(name, archive_of(cache)))


def _release(packages: list[str]) -> str:
    """Debian names its packages so."""
    return packages[0].split("-", 2)[2]


def _manifest(name: str, cache: Cache) -> dict[str, Any]:
    return dict(json.loads((cache.folder(name) / _MANIFEST).read_text()))


def _packages(name: str, archive: Archive) -> list[str]:
    if name == OVERRIDE:
        return [PACKAGE]
    found = archive.names(PATTERNS[name])
    if not found:
        raise LabError(f"Debian's archive has no package {PATTERNS[name]}")
    parts = found[-1].replace("-image-", "-binary-", 1)
    return _with_companions(parts if parts in found else found[-1])


def _with_companions(package: str) -> list[str]:
    """Newer kernels come in parts, of which the image's package only names the others."""
    if package.startswith("linux-binary-"):
        return [package, *(package.replace("binary", part, 1) for part in ("modules", "base"))]
    return [package]


def _unpacked(archive: Archive, packages: list[str], folder: Path, say: Callable[[str], None]) -> tuple[str, Path]:
    """Release and image."""
    release = _release(packages)
    say(f"downloading {release} (some 100 MB)")
    archive.unpack(packages, folder)
    headers = f"linux-headers-{release}"
    (folder / _HEADERS).mkdir()
    archive.unpack([headers, *archive.dependencies(headers, _HEADER_PACKAGES)], folder / _HEADERS)
    say("preparing its modules")
    return release, _prepared(folder, release)


def _prepared(folder: Path, release: str) -> Path:
    """The image's path, once the list of its modules is made."""
    places = (folder / "boot", folder / "usr/lib/modules" / release)
    images = [image for place in places for image in place.glob("vmlinuz*") if release in str(image)]
    roots = [each for each in (folder / "usr", folder) if (each / "lib/modules" / release).is_dir()]
    if not images or not roots:
        raise LabError(f"the packages of {release} are laid out in a way that the lab does not know")
    depmod = shutil.which("depmod", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if depmod is None:
        raise LabError("depmod is missing: install kmod")
    subprocess.run([depmod, "-b", str(roots[0]), release], check=True, capture_output=True)
    return images[0]
