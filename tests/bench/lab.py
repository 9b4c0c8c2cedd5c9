"""What KRIe costs ordinary work, without the noise of a machine: `make bench-lab`.

QEMU counts instructions (-icount) on one CPU, so user + sys of a command repeats to some thousandths from boot to boot.
It is no time: caches, and the price of a trap, are not seen; the run times of the BPF programs are printed beside it.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

from krie.errors import KrieError
from krie.testing.lab import boot
from krie.testing.lab.cache import Cache
from krie.testing.lab.kernels import find
from rich.console import Console
from rich.table import Table

_ROOT = Path(__file__).parents[2]
_BOOTS = 3
_KERNEL = "debian-6.12"
_MACHINE = boot.Machine(cpus=1, qemu_options="-icount shift=1,sleep=off")


def measured(how: str, number: int) -> dict[str, Any]:
    """One boot. Raises `KrieError` when it fails."""
    results = _ROOT / ".cache/bench" / f"{how}-{number}"
    shutil.rmtree(results, ignore_errors=True)
    script = str(_ROOT / "tests/bench/in_guest.py")
    command = [sys.executable, script, str(results / "result.json"), how]
    said: list[bytes] = []
    kernel = find(_KERNEL, Cache(), lambda _: None)
    outcome = boot.run(kernel, command, _MACHINE, timeout_s=3600, results=results, output=said.append)
    if outcome.status != 0:
        told = b"".join(said).decode(errors="replace")[-2000:]
        raise KrieError(f"the guest {outcome.end.value}: {told or outcome.console}")
    return dict(json.loads((results / "result.json").read_text()))


def main() -> None:
    """Boot six times, and print ratios."""
    console = Console(stderr=True)
    found: dict[str, list[dict[str, Any]]] = {"without": [], "with": []}
    for number in range(_BOOTS):
        for how, rounds in found.items():
            with console.status(f"{_KERNEL} {how} KRIe, boot {number + 1} of {_BOOTS}"):
                rounds.append(measured(how, number))
    table = Table(box=None, header_style="bold")
    for column in ("work", "without, s", "with, s", "ratio", "spread"):
        table.add_column(column, no_wrap=True)
    for work in found["with"][0]["cpu_s"]:
        plain = [each["cpu_s"][work] for each in found["without"]]
        watched = [each["cpu_s"][work] for each in found["with"]]
        base, cost = statistics.median(plain), statistics.median(watched)
        spread = max(max(each) / min(each) - 1 for each in (plain, watched))
        table.add_row(work, f"{base:.3f}", f"{cost:.3f}", f"{cost / base:.4f}", f"{100 * spread:.2f} %")
    Console().print(table)
    programs = Table(box=None, header_style="bold")
    for column in ("program", "ns a run", "runs"):
        programs.add_column(column, no_wrap=True)
    for name, (ns, runs) in found["with"][0]["programs"].items():
        if runs:
            programs.add_row(name, f"{ns / runs:.0f}", f"{runs:,}")
    Console().print(programs)


if __name__ == "__main__":
    main()
