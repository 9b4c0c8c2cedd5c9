"""What deciding in the kernel costs, and what not deciding there does: parts of `make bench`."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from krie.agent.loading import Attached, load_sensors
from krie.config import Config
from krie.events.event import EventType
from krie.kernel.ring import Ring
from krie.kernel.run_statistics import enable_run_statistics, program_statistics
from krie.plugins.runtime_integrity.bpf_call import BpfCall
from krie.plugins.runtime_integrity.sysctl_write import SysctlWrite
from krie.policy.embedded import EmbeddedEngine
from krie.policy.sources import PolicyFile, PolicySources
from krie.testing.agent import RunningAgent
from krie.tier.domain import Numbers
from krie.tier.kernel_tables import KernelTables
from krie.tier.placement import Tiers, find_tiers
from krie.tier.table_bytes import Encoder

from tests.kernel import example, test_kernel_tier

Row = Callable[..., None]
_NUMBER = 77_777
_WRITES = 20_000
_VICTIMS = 300
_SYSCTL = "/proc/sys/kernel/printk_ratelimit_burst"
# Writes by a process that is not a child of ours: those are canaries.
_WRITER = f"""
import os, sys
file = os.open({_SYSCTL!r}, os.O_WRONLY)
for _ in range(int(sys.argv[1])):
    try:
        os.pwrite(file, sys.argv[2].encode(), 0)
    except OSError:
        pass
"""
# Processes that write until they are refused. Says for each how long that took, ns.
_VICTIM = f"""
import os, sys, time
for _ in range(int(sys.argv[1])):
    child = os.fork()
    if child == 0:
        file = os.open({_SYSCTL!r}, os.O_WRONLY)
        os.pwrite(file, sys.argv[2].encode(), 0)
        start = time.monotonic_ns()
        try:
            while time.monotonic_ns() - start < 5_000_000_000:
                time.sleep(0.0002)  # each is an event too: without rest they would be what takes long
                os.pwrite(file, b'10', 0)
        except OSError:
            pass
        print(time.monotonic_ns() - start, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""
_FIELDS = {
    "1 inline field": ["input.event.new_int == 77777"],
    "6 inline fields": [
        "input.event.new_int == 77777",
        'input.event.name in {"kernel/printk_ratelimit_burst", "kernel/printk_ratelimit"}',
        'input.event.change != "x"',
        "input.event.new_parsed",
        "input.process.euid == 0",
        'input.process.program == ""',
    ],
}


def _tiers(rules: str, event: type[SysctlWrite | BpfCall], data: dict[str, object]) -> tuple[Tiers, Numbers]:
    source = PolicyFile("bench.rego", f"package krie.bench\n\n{rules}")
    engine, numbers = EmbeddedEngine(PolicySources((source,), dict(data), "")), Numbers()  # type: ignore[arg-type]
    return find_tiers(engine, [EventType(event)], numbers, lambda kind, rule: ""), numbers


def _grandchild(code: str, *arguments: object) -> str:
    command = ["/bin/sh", "-c", '"$@" & wait $!', "sh", sys.executable, "-I", "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextmanager
def _sysctl_kept() -> Iterator[None]:
    before = Path(_SYSCTL).read_text()
    try:
        yield
    finally:
        Path(_SYSCTL).write_text(before)


def refusing_probe(row: Row) -> None:
    """ns a run of the sysctl probe, which sends a record each time, with tables of so many fields."""
    config = Config.model_validate({"agent": {"ring_mib": 64}, "plugins": {"runtime_integrity": {}}}, strict=False)
    with ExitStack() as stack:
        stack.enter_context(_sysctl_kept())
        report = partial(print, file=sys.stderr)
        armed = load_sensors(config, "the bench", report, stack, contain=False)
        armed.arm()
        ring = Ring(armed.maps["krie_ring"])
        stack.callback(ring.close)
        tables = KernelTables(armed.maps, armed.loaded.loaded.kinds)
        stack.callback(os.close, enable_run_statistics())
        plain = _ns_a_run(armed, ring)
        row("refusing probe without policy", f"{plain:.0f} ns a run", "the write goes through; a record is sent")
        tables.install({}, Numbers())
        none = _ns_a_run(armed, ring)
        row("with a policy that has no rule for it", f"{none / plain:.2f} x", f"{none:.0f} ns a run")
        for name, body in _FIELDS.items():
            rule = 'rules contains {"id": "R", "action": "override"} if {\n\tinput.event.kind == "%s"\n\t%s\n}'
            tiers, numbers = _tiers(rule % (SysctlWrite.NAME, "\n\t".join(body)), SysctlWrite, {})
            table = Encoder(tables.next_generation(), lambda _: 1, 0).encode(tiers.tables[SysctlWrite.NAME])
            tables.install({SysctlWrite.KIND: table}, numbers)
            taken = _ns_a_run(armed, ring)
            row(f"refusing by {name}", f"{taken / plain:.2f} x", f"{taken:.0f} ns a run")


def _ns_a_run(armed: Attached, ring: Ring) -> float:
    (program,) = armed.loaded.descriptors["program:runtime_integrity_sysctl"]
    best = []
    for _ in range(5):
        while ring.read():
            pass
        before = program_statistics(program)
        _grandchild(_WRITER, _WRITES, _NUMBER)
        after = program_statistics(program)
        best.append((after.run_ns - before.run_ns) / (after.runs - before.runs))
    return min(best)


def user_tier(row: Row) -> None:
    """From the return of the first write to the first one that is refused: how long a decision in user space takes."""
    with tempfile.TemporaryDirectory(prefix="krie-bench-", dir="/var/tmp") as name, _sysctl_kept():
        folder, policy = Path(name), Path(name, "policy")
        policy.mkdir()
        rules = test_kernel_tier.RULES.replace('input.process.program == "victim"', "input.process.uid == 0")
        (policy / "site.rego").write_text(rules.replace("# custom: {enforce: inline}", "#"))
        (policy / "data.json").write_text('{"refused": []}')
        read = "Path('/proc/sys/kernel/ostype').read_bytes()"
        places = {"sysctl": ("cgroup_sysctl", "", "example_sysctl", 0)}
        plugin = example.write(folder / "plugin", places, test_kernel_tier.PROGRAM, read, test_kernel_tier.FIELDS)
        with RunningAgent(
            folder,
            plugins={"example": {"mode": "enforce"}},
            enforcement={"guard": False, "breaker_processes": 10_000},
            policies=[policy],
            plugin_folders=[plugin],
        ):
            taken = sorted(int(each) / 1000 for each in _grandchild(_VICTIM, _VICTIMS, 1003).split())
    p50, p99 = statistics.median(taken), taken[len(taken) * 99 // 100]
    row("user tier: first write to verdict", f"p50 {p50:.0f} us", f"p99 {p99:.0f} us; {len(taken)} processes")


def table_build(row: Row) -> None:
    """200 rules that compare with 1,000 constants of data."""
    commands = ("prog_load", "map_create", "obj_pin", "obj_get", "link_create")
    rule = (
        'rules contains {"id": "R%d", "action": "override"} if {\n\tinput.event.kind == "runtime_integrity.bpf"\n'
        '\tinput.process.uid in data.g%d\n\tinput.event.command == "%s"\n}\n\n'
    )
    rules = "".join(rule % (number, number, commands[number % 5]) for number in range(200))
    data: dict[str, object] = {f"g{number}": list(range(5 * number, 5 * number + 5)) for number in range(200)}
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    tiers, _ = _tiers(rules, BpfCall, data)
    table = tiers.tables[BpfCall.NAME]
    encoded = Encoder(1, lambda rule_id: int(rule_id[1:]) + 1, 0).encode(table)
    took, grown = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    row(
        "table of 200 rules, 1,000 constants",
        f"{took:.2f} s of CPU",
        f"{grown / 1024:.0f} MiB more resident; {table.evaluations} evaluations; {len(encoded) >> 10} KiB of kernel",
    )
