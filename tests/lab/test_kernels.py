"""Names of kernels, and what the archive is asked for."""

import json
import subprocess
from pathlib import Path

import pytest
from krie.errors import LabError
from krie.testing.lab import archive, kernels
from krie.testing.lab.cache import Cache

NAMES = """linux-image-5.10.0-9-amd64 linux-image-5.10.0-46-amd64 linux-image-5.10.0-46-rt-amd64
linux-image-6.1.0-56-amd64 linux-image-6.1.0-0.deb11.56-amd64 linux-image-6.12.9+deb12-amd64
linux-image-6.12.117+deb12-amd64 linux-image-6.12.117+deb12-cloud-amd64 linux-image-6.12.90+deb13-amd64
linux-binary-7.3.4+deb13-amd64 linux-binary-7.3.4+deb13-cloud-amd64 linux-image-7.3.4+deb13-amd64
linux-image-7.1.9+deb13-amd64""".split()


class FakeArchive(archive.Archive):
    """Debian's archive, without a network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def update(self) -> None: ...

    def _run(self, doing: str, command: list[str], folder: Path | None = None, output: Path | None = None) -> str:
        if command[:2] == ["apt-cache", "search"]:
            return "".join(f"{name} - Linux\n" for name in NAMES)
        if command[:2] == ["apt-cache", "depends"]:
            common = command[-1].rsplit("-", 1)[0] + "-common"
            return f"{command[-1]}\n  Depends: {common}\n |Depends: gcc-12\n  Depends: linux-kbuild-1\n"
        if command[:2] == ["apt-cache", "show"]:
            return f"Package: {command[-1]}\nVersion: 1.0-1\n"
        if command[:2] == ["apt-get", "download"]:
            assert folder is not None
            for name in command[2:]:
                (folder / f"{name}.deb").touch()
            return ""
        if command[0] == "dpkg-deb":
            assert output is not None
            output.write_text(Path(command[-1]).stem)
            return ""
        assert command[0] == "tar"
        target, package = Path(command[2]), Path(command[4]).read_text()
        release = package.split("-", 2)[2]
        places = [f"usr/src/{package}"] if target.name == "headers" else ["boot", f"lib/modules/{release}"]
        for place in places:
            (target / place).mkdir(parents=True, exist_ok=True)
        if target.name != "headers":
            (target / f"boot/vmlinuz-{release}").touch()
        return ""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setattr(archive, "Archive", FakeArchive)
    return Cache(tmp_path)


@pytest.mark.parametrize(
    ("name", "release"),
    [
        ("debian-5.10", "5.10.0-46-amd64"),
        ("debian-6.1", "6.1.0-56-amd64"),
        ("debian-6.12", "6.12.117+deb12-amd64"),
        ("debian-newest", "7.3.4+deb13-amd64"),
    ],
)
def test_the_newest_of_a_name_is_fetched_once(cache: Cache, name: str, release: str) -> None:
    said: list[str] = []
    assert kernels.known(name, cache) is None
    assert kernels.newest(name, cache) == release
    assert kernels.known(name, cache) is None
    fetched = kernels.fetch(name, cache, said.append)
    assert (fetched.release, fetched.image.name) == (release, f"vmlinuz-{release}")
    assert kernels.known(name, cache) == fetched
    assert any("downloading" in each for each in said)
    again: list[str] = []
    assert kernels.fetch(name, cache, again.append) == fetched
    assert not any("downloading" in each for each in again)


def test_headers_come_with_the_kernel(cache: Cache) -> None:
    fetched = kernels.fetch("debian-6.1", cache, lambda _: None)
    assert fetched.headers is not None
    assert {each.name for each in fetched.headers.glob("usr/src/*")} == {
        "linux-headers-6.1.0-56-amd64",
        "linux-headers-6.1.0-56-common",
        "linux-kbuild-1",
    }


def test_newer_kernels_come_in_parts(cache: Cache) -> None:
    kernels.fetch("debian-newest", cache, lambda _: None)
    manifest = json.loads((cache.folder("debian-newest") / "kernel.json").read_text())
    assert manifest["packages"] == {
        f"linux-{part}-7.3.4+deb13-amd64": "1.0-1" for part in ("binary", "modules", "base")
    }


def test_a_download_that_fails_leaves_the_kernel_before(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    before = kernels.fetch("debian-6.1", cache, lambda _: None)
    monkeypatch.setattr(FakeArchive, "unpack", lambda *_: (_ for _ in ()).throw(LabError("no space left")))
    monkeypatch.setitem(kernels.PATTERNS, "debian-6.1", kernels.PATTERNS["debian-5.10"])
    with pytest.raises(LabError, match="no space left"):
        kernels.fetch("debian-6.1", cache, lambda _: None)
    assert kernels.known("debian-6.1", cache) == before


def test_unknown_names_and_paths(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"no kernel is named 'debian-9'; known are debian-5\.10, "):
        kernels.find("debian-9", cache, lambda _: None)
    with pytest.raises(LabError, match=r"there is no kernel image at /nowhere/vmlinuz"):
        kernels.find("/nowhere/vmlinuz", cache, lambda _: None)
    (tmp_path / "vmlinuz").touch()
    assert kernels.find(f"{tmp_path}/vmlinuz", cache, lambda _: None).image == tmp_path / "vmlinuz"


def test_without_a_network_the_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if "indextargets" in command:
            return subprocess.CompletedProcess(command, 0, "http://mirror.example/debian/\n", "")
        return subprocess.CompletedProcess(command, 100, "", "W: slow\nE: Could not resolve 'mirror.example'\n")

    monkeypatch.setattr(archive.subprocess, "run", run)  # type: ignore[attr-defined]
    found = archive.Archive(tmp_path)
    assert "http://mirror.example/debian-security bookworm-security main" in (tmp_path / "sources.list").read_text()
    with pytest.raises(LabError, match="fetching the package lists failed: E: Could not resolve 'mirror.example'"):
        found.update()


def test_an_archive_needs_debians_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = subprocess.CompletedProcess([], 0, "http://mirror.example/ubuntu/\n", "")
    monkeypatch.setattr(archive.subprocess, "run", lambda *_, **__: nothing)  # type: ignore[attr-defined]
    with pytest.raises(LabError, match="knows no Debian archive"):
        archive.Archive(tmp_path)
