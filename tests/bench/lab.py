"""What KRIe costs ordinary work, without the noise of a machine: `make bench-lab`.

QEMU counts instructions (-icount) on one CPU, so user + sys of a command is about the same from boot to boot; `spread`
tells how much. It is not time: caches, and the price of a trap, are not seen; the run times of the BPF programs, by the
names that the kernel keeps of them, are printed beside it. `python -m tests.bench.lab HOW...` measures some kinds.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import sys
from collections.abc import Iterator, Sequence
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
_HOWS = ("without", "syscall_table", "smep_smap", "cfi", "observing", "enforcing")
_RATIOS = {
    "syscall_table": ("syscall_table", "without"),
    "cfi": ("cfi", "smep_smap"),
    "observing": ("observing", "without"),
    "enforcing": ("enforcing", "without"),
    "containment": ("enforcing", "observing"),
}
"""Of two of these. What `cfi` adds is held against the plugin that has probes at the same functions."""
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


def main(hows: Sequence[str]) -> None:
    """Boot twenty times, print ratios, and renew the table in docs/reference/cost.md.

    `hows`: only these kinds and those that they are held against, printed.
    """
    if unknown := set(hows) - set(_HOWS):
        sys.exit(f"bench: {unknown.pop()!r} is none of {', '.join(_HOWS)}")
    wanted = [each for each in _HOWS if not hows or each in hows or any(each in _RATIOS.get(how, ()) for how in hows)]
    boots = [(how, number) for number in range(_BOOTS) for how in wanted]
    boots += [] if hows else [("timed", 0)]
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
    of = f"Measured on {date.today().isoformat()} on {_KERNEL}, version {version()}, {_BOOTS} boots of each kind."
    made = f"{of}\n\n{_markdown(_rows({how: [done[how, n] for n in range(_BOOTS)] for how in wanted}))}"
    if not hows:
        made += f"\n{_markdown(_runs(done['timed', 0]))}"
        page = _ROOT / "docs/reference/cost.md"
        page.write_text(_TABLE.sub(lambda block: block[1] + made + block[2], page.read_text()))
    print(made)


def _rows(found: dict[str, list[dict[str, Any]]]) -> list[list[str]]:
    ratios = {name: of for name, of in _RATIOS.items() if found.keys() >= set(of)}
    rows = [["work", *(f"{how}, s" for how in found), *ratios, "spread"]]
    for work in next(iter(found.values()))[0]["cpu_s"]:
        times = {how: [each["cpu_s"][work] for each in rounds] for how, rounds in found.items()}
        median = {how: statistics.median(each) for how, each in times.items()}
        spread = max(max(each) / min(each) - 1 for each in times.values())
        shown = [f"{each:.3f}" for each in median.values()]
        shown += [f"{median[one] / median[other]:.4f}" for one, other in ratios.values()]
        rows.append([work, *shown, f"{100 * spread:.2f} %"])
    own = (statistics.median(each["agent_s"] for each in rounds) for rounds in found.values())
    shown = [f"{each:.3f}" if how != "without" else "" for how, each in zip(found, own, strict=True)]
    return [*rows, ["the agent itself, meanwhile", *shown, *[""] * (len(ratios) + 1)]]


def _runs(timed: dict[str, Any]) -> list[list[str]]:
    rows = [[name, f"{ns / runs:.0f}", f"{runs:,}"] for name, (ns, runs) in _by_name(timed) if runs]
    return [["program", "ns a run", "runs"], *rows]


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
    main(sys.argv[1:])
