"""The unit and the folders for systemd, as systemd's own tools see them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONTRIB = Path(__file__).parents[2] / "contrib"
KRIE = Path(sys.executable).parent / "krie"


def run(*command: str | Path) -> str:
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"this machine has no {command[0]}")
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """With the command where it is here."""
    unit = tmp_path / "krie.service"
    unit.write_text((CONTRIB / "krie.service").read_text().replace("/opt/krie/bin/krie", str(KRIE)))
    return unit


def test_systemd_understands_the_unit(unit: Path) -> None:
    assert "krie.service" not in run("systemd-analyze", "verify", "--man=no", unit)


def test_systemd_says_how_exposed_it_is(unit: Path) -> None:
    """It is root with the kernel's interfaces in reach, for reasons in the unit; no setting may get lost."""
    run("systemd-analyze", "security", "--offline=yes", "--threshold=90", unit)


def test_the_folders_are_made(tmp_path: Path) -> None:
    run("systemd-tmpfiles", "--create", f"--root={tmp_path}", CONTRIB / "krie.tmpfiles.conf")
    modes = {each: (tmp_path / each).stat().st_mode & 0o777 for each in ("etc/krie", "var/log/krie", "var/lib/krie")}
    assert modes == {"etc/krie": 0o755, "var/log/krie": 0o700, "var/lib/krie": 0o700}
