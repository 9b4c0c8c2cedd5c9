"""Runs in a guest: `in_guest.py RESULT.json [with|without]`. CPU time of ordinary work, beside an agent or not."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_FILES = 40
_WORK = (("forkexec", 2_000), ("files", 20_000), ("pingpong", 20_000), ("setuid", 500))
_BODY = "".join(f"int f{n}(int x) {{ for (int i = 0; i < x; i++) x ^= i * {n}; return x; }}\n" for n in range(60))


def cpu_s(command: list[str]) -> float:
    """user + sys of a command and all that it waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(folder: Path) -> dict[str, float]:
    """CPU seconds of each work."""
    sources = [folder / f"{number}.c" for number in range(_FILES)]
    for each in sources:
        each.write_text(f"#include <stdio.h>\n#include <stdlib.h>\n{_BODY}")
    workload = folder / "workload"
    subprocess.run(["gcc", "-O2", "-o", workload, Path(__file__).with_name("workload.c")], check=True)
    compile_all = f"cd {folder} && for f in {' '.join(each.name for each in sources)}; do gcc -O1 -c $f || exit 1; done"
    found = {f"compile {_FILES} C files": cpu_s(["sh", "-c", compile_all])}
    return found | {f"{name} {count:,}": cpu_s([str(workload), name, str(count)]) for name, count in _WORK}


def started_agent(folder: Path) -> subprocess.Popen[bytes]:
    """An agent with everything on, armed."""
    config, journal = folder / "krie.toml", folder / "journal.jsonl"
    config.write_text(
        f'[agent]\nrun_dir = "{folder}/run"\nallow_syscall_tracepoints = true\n[journal]\npath = "{journal}"\n'
        "[plugins.runtime_integrity]\nrequired = true\nmap_access = true\n"
    )
    agent = subprocess.Popen([sys.executable, "-I", "-m", "krie.agent", "--config", str(config)])
    while not (journal.exists() and '"krie.started"' in journal.read_text()):
        if agent.poll() is not None:
            raise SystemExit("the agent ended")
        time.sleep(0.5)
    return agent


def run_times() -> dict[str, Any]:
    """Runs and ns of each BPF program, which the kernel counts itself."""
    listed = subprocess.run(["bpftool", "-j", "prog", "list"], check=True, capture_output=True).stdout
    return {
        f"{each['id']}:{each.get('name', '')}": (each.get("run_time_ns", 0), each.get("run_cnt", 0))
        for each in json.loads(listed)
    }


def main() -> None:
    """Measure once."""
    result, how = sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o700)
        agent = started_agent(folder) if how == "with" else None
        found = measure(folder)
        if agent is not None:
            Path("/proc/sys/kernel/bpf_stats_enabled").write_text("1")  # only now: it costs, too
            measure(folder)
            times = run_times()
            agent.terminate()
            agent.wait()
    Path(result).write_text(json.dumps({"cpu_s": found, "programs": times if how == "with" else {}}))


if __name__ == "__main__":
    main()
