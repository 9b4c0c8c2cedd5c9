"""What a start and an end wait for, by kernel, in guests: `make bench-start` (ARGS="--kernel debian-5.10 --runs warm").

Prints for each run the seconds to armed and to gone, CPU time and memory, and the calls that `tests.bench.waits`
counts; leaves them as JSON in .cache/bench/start/KERNEL/waits.json. `warm` alone uses what an earlier run has compiled.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from krie.errors import KrieError
from krie.testing.lab import boot
from krie.testing.lab.acceleration import kvm_works
from krie.testing.lab.cache import Cache
from krie.testing.lab.kernels import find
from rich.console import Console
from rich.table import Table

from .waits import RUNS

_ROOT = Path(__file__).parents[2]
_TIMEOUT_S = 1800
_PARTS = 6
"""Parts of the memory that are shown: the largest ones."""


def measured(name: str, runs: Sequence[str]) -> dict[str, Any]:
    """Boot a guest of this kernel and make these runs in it. Raises `KrieError`."""
    results = _ROOT / ".cache/bench/start" / name
    (results / "waits.json").unlink(missing_ok=True)
    cache = Cache()
    kernel = find(name, cache, lambda text: print(text, file=sys.stderr))
    command = [sys.executable, "-m", "tests.bench.waits", *runs]
    said: list[bytes] = []
    machine = boot.Machine(kvm=kvm_works(kernel.image, cache))
    outcome = boot.run(kernel, command, machine, timeout_s=_TIMEOUT_S, results=results, output=said.append)
    if outcome.status != 0:
        told = b"".join(said).decode(errors="replace")[-2000:]
        raise KrieError(f"the guest {outcome.end.value}: {told or outcome.console}")
    return dict(json.loads((results / "waits.json").read_text()))


def table(found: dict[str, Any]) -> Table:
    """A column for the start and one for the end of each run; a row for each function that was called."""
    runs = found["runs"]
    made = Table(
        box=None,
        header_style="bold",
        title_justify="left",
        title=f"{found['kernel']}: what a start and an end wait for",
    )
    made.add_column("", no_wrap=True)
    for name, run in runs.items():
        made.add_column(f"{name}: start" + (" (compiles)" if run["compiled"] else ""), justify="right")
        made.add_column("end", justify="right")
    phases = [run[phase] for run in runs.values() for phase in ("start", "end")]
    walls = [run[wall] for run in runs.values() for wall in ("armed_s", "gone_s")]
    made.add_row("seconds to armed, to gone", *(f"{each:.2f} s" for each in walls), style="bold")
    commands = (f"{run['command_s']:.2f} s" for run in runs.values())
    made.add_row("of it the command, until it is the agent", *(each for name in commands for each in (name, "")))
    made.add_row("waits for RCU, of all tasks together", *(f"{each['rcu_s']:.2f} s" for each in phases), style="bold")
    made.add_row("  on the clock, side by side", *(f"{each['rcu_elapsed_s']:.2f} s" for each in phases))
    for who, prefix in (("agent", ""), ("loader", "children_")):
        shown = [f"{run['armed_cpu_s'][f'{prefix}{kind}']:.2f}" for run in runs.values() for kind in ("user", "sys")]
        pairs = zip(shown[::2], shown[1::2], strict=True)
        made.add_row(f"CPU until armed, {who}", *(each for pair in pairs for each in (f"{' + '.join(pair)} s", "")))
    for function in dict.fromkeys(name for each in phases for name in each["functions"]):
        counts = [each["functions"][function] for each in phases]
        if any(each["calls"] for each in counts):
            made.add_row(function, *(f"{each['calls']} x, {each['seconds']:.2f} s" for each in counts))
    alive = (f"{run['alive']} of {run['probes']} alive" for run in runs.values())
    made.add_row("probes", *(each for name in alive for each in (name, "")))
    memory = [run["memory"] for run in runs.values()]
    for label, key in (
        ("Pss", "pss_kib"),
        ("Pss without the ring", "pss_without_ring_kib"),
        ("RssAnon", "rss_anonymous_kib"),
    ):
        made.add_row(label, *(each for one in memory for each in (_mib(one[key]), "")))
    for part in list(memory[0]["pss_by_part_kib"])[:_PARTS]:
        made.add_row(f"  {part}", *(each for one in memory for each in (_mib(one["pss_by_part_kib"].get(part, 0)), "")))
    absent = next(iter(runs.values()))["absent"]
    made.caption = "A call may lie within another: seconds are not a sum. " + (
        f"Not there or not traceable: {', '.join(absent)}." if absent else ""
    )
    return made


def _mib(kib: int) -> str:
    return f"{kib / 1024:.1f} MiB"


def main() -> None:
    """Measure on each kernel that is named, and print."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # a guest must end with us
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kernel", nargs="+", default=["debian-6.12"], metavar="NAME")
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")
    options = parser.parse_args()
    console = Console(stderr=True)
    for name in options.kernel:
        try:
            with console.status(f"{name}: {', '.join(options.runs)}"):
                found = measured(name, options.runs)
        except KrieError as error:
            sys.exit(f"bench: {error}")
        print(json.dumps(found, indent=1)) if options.json else Console().print(table(found))


if __name__ == "__main__":
    main()
