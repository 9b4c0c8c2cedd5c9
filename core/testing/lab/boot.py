"""Runs one command in one guest, and tells apart how it ended."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from importlib.resources import files
from pathlib import Path

from .kernels import Kernel
from .programs import environment, require, virtme_ng

_CONSOLE_LINES = 25
_OWN_OVERLAYS = "/etc /lib /home /opt /srv /usr /var /tmp /run".split()
"""What virtme-ng lets the guest write, in memory, without being told."""
_PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "file": "file",
    "depmod": "kmod",
}
"""What virtme-ng calls, and says little about when it is missing."""
_PANIC = "Kernel panic - not syncing"
_FAULT = re.compile(rf"BUG: |kernel BUG at |Oops: |general protection fault|{_PANIC}")
"""What a kernel says that is about to panic, or that goes on with what it has."""
_LINES_BEFORE, _LINES_BEHIND = 10, 60
_EMULATED = "-accel tcg,thread=single"
"""One thread for all CPUs. With a thread a CPU, QEMU 7.2 let 6.12 without KRIE panic 40 s after its tracepoints were
first switched on and off all the time, at an instruction that the kernel had just patched; on one thread it did not, in
six minutes. The likely cause is code that is translated while another CPU replaces it.
"""
_AGAIN = (
    "-fsdev local,id=again,path=/,security_model=none,readonly=on,multidevs=remap "
    "-device virtio-9p-pci,fsdev=again,mount_tag=krie.again"
)
"""This machine's files once more: see guest.sh."""
_NEVER_AGAIN = "/etc /lib /var /tmp /run".split()
"""Small, of the guest's own, or, like /lib, part of another folder."""
_CONTROL = re.compile(rb"\x1b[\[\]()][0-9;?]*[a-zA-Z]?|\r")


class End(Enum):
    """How a guest ended. Only `EXITED` says something about the command."""

    EXITED = "exited"
    TIMED_OUT = "timed out"
    PANICKED = "panicked"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class GuestExit:
    """What became of a guest."""

    end: End
    status: int
    """The command's exit status; -1 unless it exited."""
    console: tuple[str, ...]
    """The last lines of the guest's console; where its kernel found a fault, those around the first."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Machine:
    """What the guest is given."""

    cpus: int = 2
    memory_mib: int = 3072
    kvm: bool = False
    cpu: str = ""
    """QEMU's CPU model with flags, such as `max,-smep`."""
    append: str = ""
    """Further words for the kernel's command line."""
    qemu_options: str = ""
    boot_s: float = 900
    """Longest time until the command runs."""
    init_reads: Path | None = None
    """A bash script that the guest's init reads before all else; with it, one of bash, which takes 15 s longer."""


def run(
    kernel: Kernel,
    command: Sequence[str],
    machine: Machine,
    *,
    timeout_s: float,
    results: Path | None = None,
    output: Callable[[bytes], object],
) -> GuestExit:
    """Boot, run the command as root in the current folder, end the guest.

    `output` gets what the command writes, as it comes. `results` is a folder that the guest may write, by the path in
    $KRIE_LAB_RESULTS; everything else that it writes is gone with it. Raises `LabError` where nothing can be booted.
    """
    require(_PROGRAMS)
    with _shared_folder() as share:
        (share / "guest.sh").write_text(files(__package__).joinpath("guest.sh").read_text())
        (share / "command").write_text(shlex.join(command) + "\n")
        (share / "output").touch()
        vng = _vng_command(kernel, machine, share, results, timeout_s)
        return _Guest(vng, share, (machine.boot_s, timeout_s), output).wait()


def shell(kernel: Kernel, machine: Machine) -> int:
    """An interactive shell in a guest; returns its exit status."""
    require(_PROGRAMS)
    return subprocess.run(_vng(kernel, machine), env=environment(), check=False).returncode


@contextmanager
def _shared_folder() -> Iterator[Path]:
    # Not under /tmp or /run, of which the guest has its own.
    with tempfile.TemporaryDirectory(prefix="krie-lab-", dir="/var/tmp") as folder:
        yield Path(folder)


def _vng(kernel: Kernel, machine: Machine) -> list[str]:
    command = [virtme_ng(), "--verbose", "--force-9p", "--run", str(kernel.image), "--user", "root"]
    command += ["--cpus", str(machine.cpus), "--memory", f"{machine.memory_mib}M"]
    command += [] if machine.kvm else ["--disable-kvm"]
    options = ["" if machine.kvm else _EMULATED, machine.cpu and f"-cpu {machine.cpu}", _AGAIN, machine.qemu_options]
    command += [f"--qemu-opts={' '.join(filter(None, options))}"] if any(options) else []
    reads = [] if machine.init_reads is None else [f"BASH_ENV={machine.init_reads}"]
    command += ["--no-virtme-ng-init"] if reads else []
    for word in ("panic=-1", *reads, *shlex.split(machine.append)):
        command += ["--append", word]
    for folder in _ours():
        command += [] if folder in _OWN_OVERLAYS else ["--overlay-rwdir", folder]
    return command


def _ours() -> list[str]:
    """Top folders of what the command works with."""
    return list(dict.fromkeys(_top(each) for each in (Path.cwd(), Path.home(), Path(sys.prefix))))


def _top(folder: Path) -> str:
    return "/" + folder.resolve().parts[1] if len(folder.resolve().parts) > 1 else "/root"


def _vng_command(kernel: Kernel, machine: Machine, share: Path, results: Path | None, timeout_s: float) -> list[str]:
    command = [*_vng(kernel, machine), f"--rwdir={share}={share}"]
    there = f"{share}-results" if results is not None else ""
    if results is not None:
        results.mkdir(parents=True, exist_ok=True)
        command.append(f"--rwdir={there}={results.resolve()}")
    limit = str(int(timeout_s) + 60)
    words = ["bash", str(share / "guest.sh"), str(share), there, str(Path.cwd()), limit]
    words.append(str(Path(sys.executable).parent))  # as in the environment that is active here
    words += [each for each in dict.fromkeys(("/usr", *_ours())) if each not in _NEVER_AGAIN]
    return [*command, "--exec", shlex.join(words)]


class _Guest:
    def __init__(
        self, command: list[str], share: Path, times_s: tuple[float, float], output: Callable[[bytes], object]
    ) -> None:
        self._command, self._share, self._output = command, share, output
        self._boot_s, self._timeout_s = times_s
        self._console = b""
        self._shown = 0

    def wait(self) -> GuestExit:
        start = time.monotonic()
        terminal, theirs = pty.openpty()  # virtme-ng wants one
        process = subprocess.Popen(
            self._command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd="/",
            env=environment(),
            start_new_session=True,
        )
        os.close(theirs)
        try:
            timed_out = self._watch(process, terminal, start)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            while self._read(terminal, 0.0):  # what it said last, such as a panic
                pass
            os.close(terminal)
        self._show()
        end, status = self._judge(timed_out)
        return GuestExit(end, status, self._what_matters(), time.monotonic() - start)

    def _what_matters(self) -> tuple[str, ...]:
        """What led to the kernel's first fault and what it says, or else the last lines."""
        lines = _CONTROL.sub(b"", self._console).decode(errors="replace").splitlines()
        fault = next((number for number, line in enumerate(lines) if _FAULT.search(line)), None)
        if fault is None:
            return tuple(lines[-_CONSOLE_LINES:])
        return tuple(lines[max(0, fault - _LINES_BEFORE) : fault + _LINES_BEHIND])

    def _watch(self, process: subprocess.Popen[bytes], terminal: int, start: float) -> bool:
        """Until it has ended (False) or had to be ended (True)."""
        booted = 0.0
        while process.poll() is None:
            self._read(terminal, 0.2)
            self._show()
            now = time.monotonic()
            if not booted and (self._share / "booted").exists():
                booted = now
            if now > (booted + self._timeout_s if booted else start + self._boot_s):
                return bool(booted)
        return False

    def _read(self, terminal: int, within_s: float) -> bool:
        """Whether it said something within so long."""
        said = b""
        if select.select([terminal], [], [], within_s)[0]:
            with suppress(OSError):  # its other side is closed
                said = os.read(terminal, 65536)
        self._console = (self._console + said)[-65536:]
        return bool(said)

    def _show(self) -> None:
        with (self._share / "output").open("rb") as file:
            file.seek(self._shown)
            if new := file.read():
                self._shown += len(new)
                self._output(new)

    def _judge(self, timed_out: bool) -> tuple[End, int]:
        if (self._share / "status").exists():
            return End.EXITED, int((self._share / "status").read_text())
        if _PANIC.encode() in self._console:
            return End.PANICKED, -1
        return (End.TIMED_OUT if timed_out else End.LOST), -1
