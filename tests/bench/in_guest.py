"""Runs in a guest: `in_guest.py without|syscall_table|smep_smap|cfi|observing|enforcing|timed CACHE`. CPU time of
ordinary work, beside an agent or not: one with the plugins that `PLUGINS` has under this name, or one with all.
`compiled` only starts one of each, and leaves in its results what the others find in the folder CACHE: their programs.

`timed` is enforcing too, and has the kernel time every BPF program, which costs by itself: its CPU times are not used.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_FILES = 10
_TRUE, _COPIED, _STATIC, _READ = "/bin/true", "root/bin/true", "static", "read"
_WORK = {
    "forkexec 2,000 (overlayfs)": ("forkexec", 2_000, _TRUE),
    "forkexec 2,000 (tmpfs)": ("forkexec", 2_000, _COPIED),
    "forkexec 2,000 (static, tmpfs)": ("forkexec", 2_000, _STATIC),
    "files 20,000": ("files", 20_000, _READ),
    "pingpong 20,000": ("pingpong", 20_000, _READ),
    "setuid 500": ("setuid", 500, _READ),
    "getppid 1,000,000": ("getppid", 1_000_000, _READ),
}
"""What is done, how often, and with which file. The guest's /usr is an overlayfs, as a container's root is."""
PLUGINS = {"syscall_table": ("syscall_table",), "smep_smap": ("smep_smap",), "cfi": ("smep_smap", "cfi")}
"""Of agents that have not all: the one that looks by itself at whatever runs; the one whose probes `cfi` shares, and
both, so that what `cfi` adds can be told.
"""
_SETTINGS = {
    "syscall_table": "required = true\n",
    "smep_smap": "",
    "cfi": "",
    "runtime_integrity": "required = true\nmap_access = true\n",
}
_BODY = "".join(f"int f{n}(int x) {{ for (int i = 0; i < x; i++) x ^= i * {n}; return x; }}\n" for n in range(60))
_ROOT = "root"
"""A folder with what `_TRUE` needs: the same work without overlayfs is done with this as the root."""
_COPIED_TOO = ("/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6", "/etc/ld.so.cache")
_TMPFS = "/run"
"""Files of the host would come through a channel on which the guest waits, for longer or shorter."""


def cpu_s(command: list[str]) -> float:
    """user + sys of a command and all that it waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compile_all(folder: Path, count: int) -> list[str]:
    """The command that compiles so many files, one after the other."""
    names = " ".join(f"{number}.c" for number in range(count))
    return ["sh", "-c", f"cd {folder} && for f in {names}; do gcc -O1 -c $f || exit 1; done"]


def prepare(folder: Path) -> None:
    """Write and build what `measure` needs, and run all of it once, so that every program is in memory."""
    for number in range(_FILES):
        (folder / f"{number}.c").write_text(f"#include <stdio.h>\n#include <stdlib.h>\n{_BODY}")
    source = Path(__file__).with_name("workload.c")
    subprocess.run(["gcc", "-O2", "-static", "-o", folder / "workload", source], check=True)
    for name in (_TRUE, *_COPIED_TOO):
        copy = folder / _ROOT / name[1:]
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(name, copy)
    shutil.copy(folder / "workload", folder / _ROOT)
    (folder / _READ).write_text("line\n")
    (folder / "true.c").write_text("int main(void) { return 0; }\n")
    subprocess.run(["gcc", "-O2", "-static", "-o", folder / _STATIC, folder / "true.c"], check=True)
    cpu_s(compile_all(folder, 2))
    for name, _, file in _WORK.values():
        cpu_s(work(folder, name, 10, file))


def work(folder: Path, name: str, count: int, file: str) -> list[str]:
    """The command that does one work so often."""
    if file == _COPIED:
        return ["chroot", str(folder / _ROOT), "/workload", name, str(count), _TRUE]
    return [str(folder / "workload"), name, str(count), str(folder / file)]


def measure(folder: Path) -> dict[str, float]:
    """CPU seconds of each work."""
    found = {f"compile {_FILES} C files (overlayfs)": cpu_s(compile_all(folder, _FILES))}
    return found | {label: cpu_s(work(folder, *each)) for label, each in _WORK.items()}


def start_agent(folder: Path, mode: str, cache: Path, plugins: Iterable[str]) -> int:
    """The process of an agent, armed. It ends with the guest: we could not end one that enforces."""
    config, journal = folder / "krie.toml", folder / "journal.jsonl"
    switched_on = "".join(f'[plugins.{name}]\nmode = "{mode}"\n{_SETTINGS[name]}' for name in plugins)
    config.write_text(
        f'[agent]\nrun_dir = "{folder}/run"\nstate_dir = "{folder}/state"\ncache_dir = "{cache}"\n'
        f"allow_syscall_tracepoints = true\n"
        f'[journal]\npath = "{journal}"\n{switched_on}'
    )
    agent = subprocess.Popen([sys.executable, "-I", "-m", "krie.agent", "--config", str(config)])
    while not (journal.exists() and '"krie.started"' in journal.read_text()):
        if agent.poll() is not None:
            raise SystemExit("the agent ended")
        time.sleep(0.5)
    return agent.pid


def cpu_of(tgid: int) -> float:
    """user + sys of a process so far, s."""
    fields = Path(f"/proc/{tgid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_times() -> dict[str, Any]:
    """Runs and ns of each BPF program, which the kernel counts itself."""
    listed = subprocess.run(["bpftool", "-j", "prog", "list"], check=True, capture_output=True).stdout
    return {
        f"{each.get('name', '')} {each['id']}": (each.get("run_time_ns", 0), each.get("run_cnt", 0))
        for each in json.loads(listed)
    }


def main() -> None:
    """Measure once."""
    how, cache = sys.argv[1:]
    results = Path(os.environ["KRIE_LAB_RESULTS"])
    programs: dict[str, Any] = {}
    agent = 0
    folder = Path(tempfile.mkdtemp(dir=_TMPFS))
    if how == "compiled":
        for name, plugins in {**PLUGINS, "all": tuple(_SETTINGS)}.items():
            place = folder / name
            place.mkdir(mode=0o700)
            agent = start_agent(place, "observe", results / "programs", plugins)
            os.kill(agent, signal.SIGTERM)
            os.waitpid(agent, 0)
        return
    prepare(folder)
    if how != "without":
        mode = "enforce" if how in ("enforcing", "timed") else "observe"
        agent = start_agent(folder, mode, Path(cache), PLUGINS.get(how, tuple(_SETTINGS)))
    prepare(folder)
    if how == "timed":
        Path("/proc/sys/kernel/bpf_stats_enabled").write_text("1")
    before = cpu_of(agent) if agent else 0.0
    found = measure(folder)
    own = cpu_of(agent) - before if agent else 0.0
    if how == "timed":
        programs = run_times()
    (results / "result.json").write_text(json.dumps({"cpu_s": found, "agent_s": own, "programs": programs}))


if __name__ == "__main__":
    main()
