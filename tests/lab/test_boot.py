"""How a guest can end, and what it cannot touch. Boots a real kernel, so each test takes some ten seconds."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from krie.errors import LabError
from krie.testing.lab import boot
from krie.testing.lab.cache import Cache
from krie.testing.lab.kernels import Kernel, find
from krie.testing.lab.modules import build_module

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    return find("debian-6.12", Cache(), print)


def in_guest(
    kernel: Kernel, script: str, *, timeout_s: float = 60, results: Path | None = None
) -> tuple[bytes, boot.Outcome]:
    said: list[bytes] = []
    command = ["bash", "-c", script]
    outcome = boot.run(kernel, command, boot.Machine(), timeout_s=timeout_s, results=results, output=said.append)
    return b"".join(said), outcome


def test_a_command_runs_as_root_and_leaves_nothing_but_its_results(kernel: Kernel, tmp_path: Path) -> None:
    mark = ROOT / f"touched-by-a-guest-{os.getpid()}"
    script = (
        f"id -u; uname -r; pwd; command -v python; touch {mark} /etc/{mark.name} && echo touched; "
        "echo mine > $KRIE_LAB_RESULTS/file; exit 3"
    )
    said, outcome = in_guest(kernel, script, results=tmp_path / "results")
    python = str(Path(sys.executable).with_name("python"))
    assert (outcome.end, outcome.status) == (boot.End.EXITED, 3), outcome.console
    assert said.decode().split() == ["0", kernel.release, str(Path.cwd()), python, "touched"]
    assert (tmp_path / "results/file").read_text() == "mine\n"
    assert not mark.exists()
    assert not Path("/etc", mark.name).exists()


def test_a_panic_is_no_failed_command(kernel: Kernel) -> None:
    said, outcome = in_guest(kernel, "echo before; sync; echo c > /proc/sysrq-trigger; sleep 60")
    assert outcome.end is boot.End.PANICKED
    assert said == b"before\n"
    panic = "Kernel panic - not syncing: sysrq triggered crash"
    (said_at,) = (number for number, line in enumerate(outcome.console) if panic in line)
    assert any("Trigger a crash" in line for line in outcome.console[:said_at])  # what led to it, too


def test_output_streams_and_a_hang_is_ended(kernel: Kernel) -> None:
    came: list[float] = []
    start = time.monotonic()
    outcome = boot.run(
        kernel,
        ["bash", "-c", "echo started; sleep 1000"],
        boot.Machine(),
        timeout_s=6,
        output=lambda _: came.append(time.monotonic() - start),
    )
    assert outcome.end is boot.End.TIMED_OUT
    assert len(came) == 1
    assert outcome.seconds - came[0] > 1


def test_what_is_no_kernel_is_a_lost_guest(tmp_path: Path) -> None:
    image = tmp_path / "vmlinuz"
    image.write_bytes(bytes(1 << 16))
    outcome = boot.run(Kernel("none", "", image), ["true"], boot.Machine(boot_s=8), timeout_s=5, output=lambda _: None)
    assert (outcome.end, outcome.status) == (boot.End.LOST, -1)
    assert outcome.console


def test_the_command_line_tells_the_ends_apart(kernel: Kernel) -> None:
    krie = [sys.executable, "-c", "from krie.cli import main; main()", "lab", "run", "--kernel", kernel.name]
    ended = subprocess.run([*krie, "--timeout", "1", "--", "sleep", "99"], capture_output=True, text=True)
    assert ended.returncode == 124
    assert "was ended, its time was over" in ended.stderr
    exited = subprocess.run([*krie, "--", "bash", "-c", "echo out; exit 5"], capture_output=True, text=True)
    assert (exited.returncode, exited.stdout) == (5, "out\n")


def test_what_is_not_installed_is_named(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    there = shutil.which
    missing = ("busybox", "file")
    monkeypatch.setattr("shutil.which", lambda name, **options: None if name in missing else there(name, **options))
    with pytest.raises(LabError, match="apt-get install busybox-static file$"):
        in_guest(kernel, "true")


def test_the_test_module_is_refused_unless_the_boot_allows_it(kernel: Kernel) -> None:
    module = build_module(kernel, ROOT / "tests/kernel/kmod", Cache(), print)
    said, outcome = in_guest(kernel, f"insmod {module}; dmesg | tail -n 1")
    assert b"Operation not permitted" in said
    assert b"krie_test: refused: boot with krie.test_module=allow" in said
    assert outcome.status == 0
