"""The shipped rules refuse to weaken the kernel by a sysctl, however the number is written. In guests only."""

import json
import mmap
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from krie.testing.agent import Line, RunningAgent
from krie.testing.victims import Victims

from ..enforcing import Run
from ..lio import SECTOR, disk_over
from .answers import of

pytestmark = pytest.mark.needs("guest", "kprobe")


def test_ftrace_is_not_switched_off(enforcing: RunningAgent, victims: Victims) -> None:
    switch = Path("/proc/sys/kernel/ftrace_enabled")
    script = f"echo $$; echo 0 > {switch}; echo $?; echo 1 > {switch}; echo $?"
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
    tgid, off, on = done.stdout.split()
    assert switch.read_text() == "1\n"
    assert (off != "0", on) == (True, "0")
    first, second = of(enforcing, int(tgid), "runtime_integrity.sysctl_write")
    assert (first["decision"]["tier"], first["done"]) == ("kernel", ["refused"])
    assert first["decision"]["rules"][0]["id"] == "SYSCTL001"
    assert second["done"] == []


READ_BY_THE_KERNEL = (  # which takes the number 0 out of each
    b"0",
    b"0 x\n",
    b"0 1",
    b"0\t\n9",
    b"0 0",
    b"\x0b\xa0 0",
    b"0x0",
    b"00",
    b"-0",
    b" " * 41 + b"0\n",
    b"0" + b" " * 80,
    b"0" + b" " * 5000,
)
UNREAD = (
    b" " * 42 + b"0" * 21,
    b" " * 63 + b"0\n",
    b" " * 70 + b"0",
    b"0" * 25,
    b"0,1",
    b"0\0",
    b"x",
    b"+0",
    b" " * 4096,
)
WEAKEN = """
import json
file = os.open("/proc/sys/kernel/kptr_restrict", os.O_WRONLY)
found = []
for text, position in json.loads(sys.argv[1]):
    try:
        found.append(os.pwrite(file, bytes.fromhex(text), position))
    except OSError as error:
        found.append(errno.errorcode[error.errno])
    found[-1] = [found[-1], open("/proc/sys/kernel/kptr_restrict").read()]
print(json.dumps([os.getpid(), found]))
"""


def test_what_the_kernel_would_read_is_refused(enforcing: RunningAgent, victim: Run) -> None:
    """Also what might be read, and what is written behind the file's start when the kernel does not ignore that."""
    protected, strict = Path("/proc/sys/kernel/kptr_restrict"), Path("/proc/sys/kernel/sysctl_writes_strict")
    protected.write_text("1")
    writes = [(each, 0) for each in (*READ_BY_THE_KERNEL, *UNREAD)] + [(b"0\n", 1 << 32)]
    known = [(b"\n", 1), (b"0", 1), (b" \n", 0), (b"1 0", 0)]
    assert strict.read_text() == "1\n"
    tgid, found = json.loads(victim(WEAKEN, json.dumps([(text.hex(), at) for text, at in (*known, *writes)])).stdout)
    ignored, taken = found[: len(known)], found[len(known) :]
    assert ignored == [[1, "1\n"], [1, "1\n"], ["EINVAL", "1\n"], [2, "1\n"]]
    assert taken == [["EPERM", "1\n"]] * len(writes)
    lines = of(enforcing, tgid, "runtime_integrity.sysctl_write")
    assert [line["event"]["change"] for line in lines[: len(known)]] == ["none", "none", "none", "same"]
    assert all(not line["decision"]["rules"] for line in lines[: len(known)])
    rules = [each["id"] for line in lines[len(known) :] for each in line["decision"]["rules"]]
    assert rules == [*["SYSCTL001"] * len(READ_BY_THE_KERNEL), *["SYSCTL002"] * len(UNREAD), "SYSCTL001"]
    assert all((line["decision"]["tier"], line["done"]) == ("kernel", ["refused"]) for line in lines[len(known) :])
    strict.write_text("0")
    try:
        _, found = json.loads(victim(WEAKEN, json.dumps([(b"0".hex(), 1), (b"\n".hex(), 1)])).stdout)
    finally:
        strict.write_text("1")
    assert found == [["EPERM", "1\n"], ["EINVAL", "1\n"]]


def test_a_kernel_thread_writes_no_more_than_whoever_it_writes_for(
    enforcing: RunningAgent, lacks: Callable[[str], NoReturn]
) -> None:
    """Who made a sysctl the file behind a disk has a thread of the kernel's own write what he writes to the disk."""
    sysctl = Path("/proc/sys/kernel/kptr_restrict")
    sysctl.write_text("1\n")

    def by_kernel_threads(line: Line) -> bool:
        return bool(line["process"]["kernel_thread"]) and line["event"]["name"] == "kernel/kptr_restrict"

    with disk_over(sysctl, lacks) as disk, mmap.mmap(-1, SECTOR) as sector:
        sector[:] = b"0".ljust(SECTOR, b"\n")
        device = os.open(disk, os.O_WRONLY | os.O_DIRECT)
        try:
            with pytest.raises(OSError, match="Input/output error"):
                os.write(device, sector)
        finally:
            os.close(device)
    assert sysctl.read_text() == "1\n"
    line = enforcing.wait("runtime_integrity.sysctl_write", by_kernel_threads)[0]
    assert (line["decision"]["tier"], line["done"]) == ("kernel", ["refused"])
    assert line["decision"]["rules"][0]["id"] == "SYSCTL001"
