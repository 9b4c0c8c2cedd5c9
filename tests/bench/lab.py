"""What KRIe costs ordinary work, without the noise of a machine: `make bench-lab`.

QEMU counts instructions (-icount) on one CPU, so user + sys of a command is about the same from boot to boot; `spread`
tells how much. It is not time: caches, and the price of a trap, are not seen; the run times of the BPF programs, by the
names that the kernel keeps of them, are printed beside it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import date
from pathlib import Path
from typing import Any

from krie.errors import KrieError
from krie.testing.lab import boot
from krie.testing.lab.cache import Cache
from krie.testing.lab.kernels import find
from krie.version import version
from rich.console import Console

_ROOT = Path(__file__).parents[2]
_BOOTS = 3
_HOWS = ("without", "syscall_table", "observing", "enforcing")
_TABLE = re.compile(r"(<!-- measured: cost -->\n).*?(<!-- end -->)", re.DOTALL)
_KERNEL = "debian-6.12"
_NUMBER = re.compile(r"^(?!krie_|process_|guard_)(\w+)_[0-9a-z]{1,2}$")
_MACHINE = boot.Machine(cpus=1, qemu_options="-icount shift=1")


def measured(how: str, number: int) -> tuple[str, int, dict[str, Any]]:
    """One boot: what was asked for and what was found. Raises `KrieError` when it fails."""
    results = _boot(_MACHINE, how, f"{how}-{number}")
    return how, number, dict(json.loads((results / "result.json").read_text()))


def _boot(machine: boot.Machine, how: str, name: str) -> Path:
    """The folder with what a guest left. Raises `KrieError`."""
    results = _ROOT / ".cache/bench" / name
    shutil.rmtree(results, ignore_errors=True)
    script, programs = _ROOT / "tests/bench/in_guest.py", _ROOT / ".cache/bench/compiled/programs"
    command = [sys.executable, str(script), how, str(programs)]
    said: list[bytes] = []
    kernel = find(_KERNEL, Cache(), lambda _: None)
    outcome = boot.run(kernel, command, machine, timeout_s=3600, results=results, output=said.append)
    if outcome.status != 0:
        told = b"".join(said).decode(errors="replace")[-2000:]
        raise KrieError(f"the guest {outcome.end.value}: {told or outcome.console}")
    return results


def main() -> None:
    """Boot thirteen times, print ratios, and renew the table in docs/reference/cost.md."""
    boots = [(how, number) for number in range(_BOOTS) for how in _HOWS] + [("timed", 0)]
    done: dict[tuple[str, int], dict[str, Any]] = {}
    pool = ThreadPoolExecutor(os.cpu_count())  # of instructions, those of others are not counted
    try:
        with Console(stderr=True).status(f"{_KERNEL}: compiling") as status:
            _boot(boot.Machine(), "compiled", "compiled")  # faster where instructions are not counted
            status.update(f"{_KERNEL}: {len(boots)} boots")
            for boot_of in as_completed(pool.submit(measured, *each) for each in boots):
                how, number, result = boot_of.result()
                done[how, number] = result
                status.update(f"{_KERNEL}: {len(done)} of {len(boots)} boots")
    except KrieError as error:
        pool.shutdown(cancel_futures=True)
        sys.exit(f"bench: {error}")
    found = {how: [done[how, number] for number in range(_BOOTS)] for how in _HOWS}
    ratios_of = ("syscall_table", "observing", "enforcing", "containment")
    rows = [["work", *(f"{how}, s" for how in found), *ratios_of, "spread"]]
    for work in found["without"][0]["cpu_s"]:
        times = {how: [each["cpu_s"][work] for each in rounds] for how, rounds in found.items()}
        plain, alone, observing, enforcing = medians = [statistics.median(each) for each in times.values()]
        ratios = (alone / plain, observing / plain, enforcing / plain, enforcing / observing)
        spread = max(max(each) / min(each) - 1 for each in times.values())
        shown = [*(f"{each:.3f}" for each in medians), *(f"{each:.4f}" for each in ratios)]
        rows.append([work, *shown, f"{100 * spread:.2f} %"])
    own = (statistics.median(each["agent_s"] for each in found[how]) for how in _HOWS[1:])
    rows.append(["the agent itself, meanwhile", "", *(f"{each:.3f}" for each in own), *[""] * 5])
    runs_of = [["program", "ns a run", "runs"]]
    runs_of += [[name, f"{ns / runs:.0f}", f"{runs:,}"] for name, (ns, runs) in _by_name(done["timed", 0]) if runs]
    of = f"Measured on {date.today().isoformat()} on {_KERNEL}, version {version()}, {_BOOTS} boots of each kind."
    made = f"{of}\n\n{_markdown(rows)}\n{_markdown(runs_of)}"
    print(made)
    page = _ROOT / "docs/reference/cost.md"
    page.write_text(_TABLE.sub(lambda block: block[1] + made + block[2], page.read_text()))


def _by_name(timed: dict[str, Any]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Run time and runs, by the program's name without the number behind it: what is alike has one row."""
    totals: dict[str, tuple[int, int]] = {}
    for name, (ns, runs) in timed["programs"].items():
        alike = _NUMBER.sub(r"\1", name.split()[0])
        before_ns, before_runs = totals.get(alike, (0, 0))
        totals[alike] = (before_ns + ns, before_runs + runs)
    return iter(sorted(totals.items()))


def _markdown(rows: list[list[str]]) -> str:
    head, *rest = rows
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rest))


if __name__ == "__main__":
    main()
