"""How many instructions the kernel's verifier looked at for each program: `python -m tests.bench.verifier`. Needs root.

With everything that is shipped switched on, on this kernel; in a guest, by `krie lab run`. Attaches for a moment.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack

from krie.agent.loading import load_sensors
from krie.config import Config
from krie.kernel.run_statistics import program_statistics
from krie.plugin.installed import available


def main() -> None:
    """Print a line a program, the largest last, and the sum."""
    shipped: dict[str, dict[str, object]] = {
        name: {} for name, entry in available().items() if entry.dist and entry.dist.name == "krie"
    }
    config = Config.model_validate({"plugins": shipped, "agent": {"allow_syscall_tracepoints": True}})
    with ExitStack() as stack:
        armed = load_sensors(config, "bench", lambda fault: print(fault, file=sys.stderr), stack, contain=True)
        programs = {
            name.removeprefix("program:"): group[0]
            for name, group in armed.loaded.descriptors.items()
            if name.startswith("program:")
        }
        counts = {label: program_statistics(descriptor).verified for label, descriptor in programs.items()}
    for label, count in sorted(counts.items(), key=lambda each: each[1]):
        print(f"{count:>9,} {label}")
    print(f"{sum(counts.values()):>9,} in {len(counts)} programs")


if __name__ == "__main__":
    main()
