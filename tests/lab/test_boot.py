"""How a guest can end, and what it cannot touch. Boots a real kernel, so each test takes some ten seconds."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from krie.errors import LabError
from krie.testing.lab import boot
from krie.testing.lab.cache import Cache
from krie.testing.lab.kernels import Kernel, find
from krie.testing.lab.modules import build_module
from krie.testing.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]


KRIE = [sys.executable, "-c", "from krie.cli.main import main; main()", "lab", "run"]


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    return find("debian-6.12", Cache(), print)


def in_guest(kernel: Kernel, script: str) -> tuple[bytes, boot.GuestExit]:
    said: list[bytes] = []
    outcome = boot.run(kernel, ["bash", "-c", script], boot.Machine(), timeout_s=PATIENCE_S, output=said.append)
    return b"".join(said), outcome


@dataclass(frozen=True)
class Ran:
    """What became of one command that several tests are about: each boot takes a quarter of a minute."""

    status: int
    output: list[str]
    errors: str
    results: Path
    mark: Path


@pytest.fixture(scope="module")
def ran(kernel: Kernel, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    results = tmp_path_factory.mktemp("results")
    mark = ROOT / f"touched-by-a-guest-{os.getpid()}"
    module = build_module(kernel, ROOT / "tests/kernel/kmod", Cache(), print)
    script = (
        f"id -u; uname -r; pwd; command -v python; touch {mark} /etc/{mark.name} /usr/{mark.name} && echo touched; "
        f"echo mine > $KRIE_LAB_RESULTS/file; insmod {module}; dmesg | tail -n 1; exit 3"
    )
    command = [*KRIE, "--kernel", kernel.name, "--results", str(results), "--", "bash", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True)
    return Ran(done.returncode, done.stdout.splitlines(), done.stderr, results, mark)


def test_a_command_runs_as_root_and_leaves_nothing_but_its_results(kernel: Kernel, ran: Ran) -> None:
    python = str(Path(sys.executable).with_name("python"))
    assert ran.output[:5] == ["0", kernel.release, str(Path.cwd()), python, "touched"]
    assert (ran.results / "file").read_text() == "mine\n"
    assert not ran.mark.exists()
    assert not Path("/etc", ran.mark.name).exists()
    assert not Path("/usr", ran.mark.name).exists()


def test_its_exit_status_is_the_command_lines(ran: Ran) -> None:
    assert ran.status == 3, ran.errors


def test_the_test_module_is_refused_unless_the_boot_allows_it(ran: Ran) -> None:
    assert "Operation not permitted" in ran.output[5]
    assert "krie_test: refused: boot with krie.test_module=allow" in ran.output[6]


def test_a_panic_is_no_failed_command(kernel: Kernel) -> None:
    said, outcome = in_guest(kernel, "echo before; sync; echo c > /proc/sysrq-trigger; sleep 60")
    assert outcome.end is boot.End.PANICKED
    assert said == b"before\n"
    panic = "Kernel panic - not syncing: sysrq triggered crash"
    (said_at,) = (number for number, line in enumerate(outcome.console) if panic in line)
    assert any("Trigger a crash" in line for line in outcome.console[:said_at])  # what led to it, too


def test_what_a_guest_says_last_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However late somebody looks: here it has ended before the first look."""
    start = subprocess.Popen

    def ended(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] = start(*arguments, **options)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        return process

    monkeypatch.setattr("krie.testing.lab.boot.subprocess.Popen", ended)
    (tmp_path / "output").touch()
    command = ["sh", "-c", "echo 'Kernel panic - not syncing: at last'"]
    outcome = boot._Guest(command, tmp_path, (PATIENCE_S, PATIENCE_S), lambda _: None).wait()
    assert (outcome.end, len(outcome.console)) == (boot.End.PANICKED, 1)


def test_a_fault_is_shown_behind_which_the_kernel_went_on(kernel: Kernel) -> None:
    later = "for each in $(seq 100); do echo '<2>later' > /dev/kmsg; done"
    _, outcome = in_guest(kernel, f"echo '<2>BUG: of a test' > /dev/kmsg; {later}")
    assert outcome.end is boot.End.EXITED
    assert any("BUG: of a test" in line for line in outcome.console)


def test_output_streams_and_a_hang_is_ended(kernel: Kernel) -> None:
    command = [*KRIE, "--kernel", kernel.name, "--timeout", "20", "--", "bash", "-c", "echo started; sleep 1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as guest:
        assert guest.stdout is not None
        assert guest.stderr is not None
        assert guest.stdout.readline() == "started\n"
        came = time.monotonic()
        assert "was ended, its time was over" in guest.stderr.read()
        assert time.monotonic() - came > 1
    assert guest.returncode == 124


def test_what_is_no_kernel_is_a_lost_guest(tmp_path: Path) -> None:
    image = tmp_path / "vmlinuz"
    image.write_bytes(bytes(1 << 16))
    outcome = boot.run(Kernel("none", "", image), ["true"], boot.Machine(boot_s=20), timeout_s=5, output=lambda _: None)
    assert (outcome.end, outcome.status) == (boot.End.LOST, -1)
    assert outcome.console


def test_what_is_not_installed_is_named(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    there = shutil.which
    missing = ("busybox", "file")
    monkeypatch.setattr("shutil.which", lambda name, **options: None if name in missing else there(name, **options))
    with pytest.raises(LabError, match="apt-get install busybox-static file$"):
        in_guest(kernel, "true")
