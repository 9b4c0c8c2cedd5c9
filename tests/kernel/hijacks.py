"""Attackers who hijack the kernel through the test module to become root, each in one shape."""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from krie.testing.module import address_of

LIST = Path("/sys/kernel/debug/kprobes/list")


@dataclass(frozen=True)
class Shape:
    """How commit_creds() is entered, and what of it must be found."""

    way: str
    """See kmod/hijack.c."""
    failed: frozenset[str]
    init_cred: bool = False
    past: bool = False
    """Behind the function's first instructions."""
    needs: str = ""
    """A processor's feature that must be off, or the kernel would crash."""


SHAPES: Mapping[str, Shape] = {
    "no call": Shape("jump", frozenset({"return_call"})),
    "return to user code": Shape("user_code", frozenset({"return_user"}), needs="smep"),
    "stack of user memory": Shape("user_stack", frozenset({"stack_user"}), needs="smap"),
    "foreign kernel stack": Shape("kernel_stack", frozenset({"stack_kernel"})),
    "past the entry": Shape("kernel_stack", frozenset({"stack_kernel"}), past=True),
    "init_cred": Shape("call", frozenset({"init_cred"}), init_cred=True),
}


def has(feature: str) -> bool:
    """Whether this processor has a feature, by its name in /proc/cpuinfo."""
    return feature in Path("/proc/cpuinfo").read_text().split()


def prevented(shape: Shape) -> bool:
    """Whether this processor does not let it happen."""
    return bool(shape.needs) and has(shape.needs)


def places_in(function: str) -> dict[int, str]:
    """The kernel's list of kprobes: offsets in a function, with the lines; of several at one place, one disarmed."""
    found = {}
    for line in LIST.read_text().splitlines():
        match = re.search(rf" {function}\+0x([0-9a-f]+)\b", line)
        if match and (int(match[1], 16) not in found or "[DISABLED]" in line):
            found[int(match[1], 16)] = line
    return found


def command(attacker: Path, rounds: int, folder: Path, shape: Shape, end: str) -> list[str]:
    """The attacker's command line. The first interior instruction lies behind the call of ftrace, which has 5 bytes."""
    entry = address_of("commit_creds") + (min(places_in("commit_creds")) + 5 if shape.past else 0)
    init_cred = address_of("init_cred") if shape.init_cred else 0
    addresses = [f"{address_of('init_task'):x}", end, shape.way, f"{init_cred:x}", f"{entry:x}"]
    return [str(attacker), str(rounds), str(folder), *addresses]


def attack(line: list[str]) -> tuple[int, ...]:
    """Returns how many attackers were killed, ran on, made their file, and ended otherwise."""
    return tuple(map(int, subprocess.run(line, check=True, capture_output=True, text=True).stdout.split()))
