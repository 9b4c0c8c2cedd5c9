"""What KRIe costs ordinary work, without the noise of a machine: `make bench-lab`.

QEMU counts instructions (-icount) on one CPU, so user + sys of a command is about the same from boot to boot; `spread`
tells how much. It is no time: caches, and the price of a trap, are not seen; the run times of the BPF programs, by the
names that the kernel keeps of them, are printed beside it.
"""

from __future__ import annotations

import json
import re
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

_ROOT = Path(__file__).parents[2]
_BOOTS = 3
_TABLE = re.compile(r"(<!-- measured: cost -->\n).*?(<!-- end -->)", re.DOTALL)
_KERNEL = "debian-6.12"
_MACHINE = boot.Machine(cpus=1, qemu_options="-icount shift=1")


def measured(how: str, number: int) -> dict[str, Any]:
    """One boot. Raises `KrieError` when it fails."""
    results = _ROOT / ".cache/bench" / f"{how}-{number}"
    shutil.rmtree(results, ignore_errors=True)
    script = str(_ROOT / "tests/bench/in_guest.py")
    command = [sys.executable, script, how]
    said: list[bytes] = []
    kernel = find(_KERNEL, Cache(), lambda _: None)
    outcome = boot.run(kernel, command, _MACHINE, timeout_s=3600, results=results, output=said.append)
    if outcome.status != 0:
        told = b"".join(said).decode(errors="replace")[-2000:]
        raise KrieError(f"the guest {outcome.end.value}: {told or outcome.console}")
    return dict(json.loads((results / "result.json").read_text()))


def main() -> None:
    """Boot ten times, print ratios, and renew the table in README.md."""
    console = Console(stderr=True)
    found: dict[str, list[dict[str, Any]]] = {"without": [], "observing": [], "enforcing": []}
    try:
        for number in range(_BOOTS):
            for how, rounds in found.items():
                with console.status(f"{_KERNEL} {how} KRIe, boot {number + 1} of {_BOOTS}"):
                    rounds.append(measured(how, number))
        with console.status(f"{_KERNEL}, run times of the programs"):
            programs = measured("timed", 0)["programs"]
    except KrieError as error:
        sys.exit(f"bench: {error}")
    rows = [["work", *(f"{how}, s" for how in found), "observing", "enforcing", "containment", "spread"]]
    for work in found["without"][0]["cpu_s"]:
        times = {how: [each["cpu_s"][work] for each in rounds] for how, rounds in found.items()}
        plain, observing, enforcing = (statistics.median(each) for each in times.values())
        ratios = (observing / plain, enforcing / plain, enforcing / observing)
        spread = max(max(each) / min(each) - 1 for each in times.values())
        shown = [*(f"{each:.3f}" for each in (plain, observing, enforcing)), *(f"{each:.4f}" for each in ratios)]
        rows.append([work, *shown, f"{100 * spread:.2f} %"])
    runs_of = [["program", "ns a run", "runs"]]
    runs_of += [[name.split()[0], f"{ns / runs:.0f}", f"{runs:,}"] for name, (ns, runs) in programs.items() if runs]
    made = f"{_markdown(rows)}\n{_markdown(runs_of)}"
    print(made)
    readme = _ROOT / "README.md"
    readme.write_text(_TABLE.sub(lambda block: block[1] + made + block[2], readme.read_text()))


def _markdown(rows: list[list[str]]) -> str:
    head, *rest = rows
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rest))


if __name__ == "__main__":
    main()
