"""Runs in a guest: `python -m tests.bench.waits [cold|warm|enforcing...]`. What a start and an end wait for.

An agent with everything that is shipped switched on is started by `krie run`, and ended by a Ctrl-C once it is armed;
of its tasks and its loader's the calls of the functions below are counted. A call may lie within another one (an
unlinked trampoline waits for RCU): the seconds of functions are not a sum. What they all wait for RCU is counted once.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from krie.agent.resident import resident

from .graph import Call, Trace, busy_s, elapsed_s, recording

RCU = (
    *("synchronize_rcu", "synchronize_rcu_expedited", "synchronize_rcu_tasks", "synchronize_rcu_tasks_trace"),
    *("synchronize_rcu_tasks_rude", "synchronize_srcu", "synchronize_srcu_expedited", "rcu_barrier"),
)
OTHERS = (
    *("bpf_trampoline_link_prog", "bpf_trampoline_unlink_prog", "register_kprobe", "unregister_kprobe"),
    *("unregister_kprobes", "wait_for_kprobe_optimizer", "register_fprobe", "register_fprobe_ips", "unregister_fprobe"),
    *("__sys_bpf", "bpf_prog_load", "bpf_check"),
)
RUNS = {"cold": "observe", "warm": "observe", "enforcing": "enforce"}
"""By name, the plugins' mode; only `cold` empties the cache of compiled programs first."""


def config(folder: Path, mode: str, cache: Path) -> str:
    """Everything on, as in krie.toml of this repository and beyond it."""
    return (
        f'[agent]\nrun_dir = "{folder}/run"\nstate_dir = "{folder}/state"\ncache_dir = "{cache}"\n'
        "ring_mib = 32\nallow_syscall_tracepoints = true\n"
        f'[journal]\npath = "{folder}/journal.jsonl"\n'
        f'[plugins.runtime_integrity]\nmode = "{mode}"\nmap_access = true\nwatch_credentials = true\n'
        f'[plugins.smep_smap]\nmode = "{mode}"\ntraps = true\n'
    )


def run(mode: str, cache: Path) -> dict[str, Any]:
    """Start one agent, end it, and say what happened."""
    with tempfile.TemporaryDirectory(prefix="krie-waits-", dir="/run") as name, recording((*RCU, *OTHERS)) as tracing:
        folder = Path(name)
        file = folder / "krie.toml"
        file.write_text(config(folder, mode, cache))
        file.chmod(0o600)
        command = ["setsid", "--ctty", str(Path(sys.executable).with_name("krie")), "run", "--config", str(file)]
        mine, its = os.openpty()  # one that guards itself takes no other signal of ours
        began = time.monotonic()
        with subprocess.Popen(command, stdin=its, stdout=subprocess.PIPE) as agent:
            assert agent.stdout is not None
            started = next((line for line in agent.stdout if b'"krie.started"' in line), None)
            armed = time.monotonic()
            if started is None:
                raise SystemExit(f"the agent ended with exit code {agent.wait()}")
            print(f"armed after {armed - began:.1f} s", flush=True)
            cpu_s, memory = _cpu_s(agent.pid), resident(agent.pid)
            time.sleep(1)
            signalled = time.monotonic()
            os.write(mine, b"\3")
            for _ in agent.stdout:
                pass
            status = agent.wait()
            gone = time.monotonic()
            print(f"gone after {gone - signalled:.1f} s", flush=True)
        os.close(mine)
        os.close(its)
        trace = tracing.stop()
    event = json.loads(started)["event"]
    own = trace.of_family(agent.pid)
    return {
        "mode": mode,
        "exit": status,
        "alive": event["alive"],
        "probes": event["probes"],
        "armed_s": armed - began,
        "command_s": max(time for time, task in trace.execs if task == agent.pid) - began,
        "gone_s": gone - signalled,
        "armed_cpu_s": cpu_s,
        "memory": memory.to_json(),
        "start": _summary(trace, [each for each in own if each.end <= armed]),
        "end": _summary(trace, [each for each in own if each.end >= signalled]),
        "absent": trace.absent,
    }


def _summary(trace: Trace, calls: Iterable[Call]) -> dict[str, Any]:
    calls = list(calls)
    functions: dict[str, dict[str, float]] = {}
    for function in (*RCU, *OTHERS):
        of_it = [each for each in calls if each.function == function]
        if function not in trace.absent:
            functions[function] = {
                "calls": len(of_it),
                "seconds": round(sum(each.end - each.start for each in of_it), 4),
            }
    waits = [each for each in calls if each.function in RCU]
    return {"rcu_s": round(busy_s(waits), 4), "rcu_elapsed_s": round(elapsed_s(waits), 4), "functions": functions}


def _cpu_s(tgid: int) -> dict[str, float]:
    """user and sys of a process and the children that it waited for."""
    fields = Path(f"/proc/{tgid}/stat").read_text().rpartition(")")[2].split()
    user, system, children_user, children_system = (int(each) / os.sysconf("SC_CLK_TCK") for each in fields[11:15])
    return {"user": user, "sys": system, "children_user": children_user, "children_sys": children_system}


def main() -> None:
    """Make the runs that are named; leaves waits.json and what was compiled in the guest's results."""
    results = Path(os.environ["KRIE_LAB_RESULTS"])
    cache = results / "programs"
    found = {}
    for name in sys.argv[1:]:
        if name == "cold":
            shutil.rmtree(cache, ignore_errors=True)
        before = _names(cache)
        found[name] = {**run(RUNS[name], cache), "compiled": _names(cache) != before}
        (results / "waits.json").write_text(json.dumps({"kernel": platform.release(), "runs": found}, indent=1))


def _names(folder: Path) -> set[str]:
    return set(os.listdir(folder)) if folder.exists() else set()


if __name__ == "__main__":
    main()
