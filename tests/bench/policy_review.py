"""What it costs to decide recorded events again: part of `make bench`. By CPU time, which others on the machine disturb
less."""

from __future__ import annotations

import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

from krie.agent.bus import Bus
from krie.agent.selection import Selection
from krie.config import Config
from krie.decision import Action, Mode
from krie.enforce.enforcer import Effect
from krie.events.event import Event
from krie.events.wire import Json
from krie.kernel.cgroups import Cgroups
from krie.kernel.features import Features
from krie.plugin.manager import Plugins
from krie.plugin.offline import event_types
from krie.policy.delegated import Answered
from krie.policy.engine import Package
from krie.policy.policy import Policy
from krie.printable import json_line
from krie.processes.enrich import Enricher, host
from krie.processes.process import NOTHING
from krie.processes.table import ProcessTable
from krie.review.chosen import in_force
from krie.review.eval_lines import Reading, decided
from krie.review.input_schemas import event_schemas
from krie.review.journal_reader import JournalReader, Piece
from krie.review.near import plain
from krie.review.recorded import Needs, object_of
from krie.review.replay_pool import Pool
from krie.tier.draw import Records
from krie.tier.subject import subject_of
from krie.tier.tried import evaluator, tried_engine

Row = Callable[..., None]
_UNLIKE, _TIMES = 10_000, 10
_CONFIG = Config.model_validate({"plugins": {"runtime_integrity": {}, "smep_smap": {}, "syscall_table": {}}})


def replay(row: Row) -> None:
    """Recorded events decided by two policies, one process a core: all unlike, and each ten times."""
    plugins = Plugins.load(_CONFIG, "krie.toml", Features(), print)
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        path.write_text(_journal(plugins))
        _, idle_s, _ = _replayed(plugins, path, 0, cores)
        for what, times in (("all unlike", 1), ("each ten times", _TIMES)):
            lines, used_s, wall_s = _replayed(plugins, path, times, cores)
            rate = f"{lines / (used_s - idle_s):,.0f} lines a second and core"
            row(f"policy replay, {what}", rate, f"{lines / wall_s:,.0f} a second on {cores} cores; {lines:,} lines")


def eval_lines(row: Row) -> None:
    """Lines decided by `krie policy eval`, all unlike, against the engine's own loop here; by the CPU time of
    all processes."""
    plugins = Plugins.load(_CONFIG, "krie.toml", Features(), print)
    lines = _journal(plugins).encode().split(b"\n")[:-1]
    bare = tried_engine(_CONFIG, plugins)
    needs = Needs(bare.packages, event_schemas(plugins))
    asked = _asked(Policy(bare, on_error=Action.LOG, memo=0), lines, Reading(needs))
    with closing(evaluator(_CONFIG, plugins)) as apart:
        policies = {
            "all together": Policy(apart, on_error=Action.LOG, memo=0, many=apart),
            "one by one": Policy(apart, on_error=Action.LOG, memo=0),
        }
        spent = {}
        begun = _running_s()
        for packages, document in asked:
            bare.evaluate(packages, document)
        spent["bare"] = _running_s() - begun
        for name, policy in policies.items():
            begun = _running_s(apart.worker)
            for answer in decided([Piece(0, 1, b"\n".join(lines))], policy, Reading(needs)):
                json_line(json.dumps(answer))
            spent[name] = _running_s(apart.worker) - begun
    for name in policies:
        ratio = f"{spent[name] / spent['bare']:.1f} times as long as the engine alone"
        row(f"policy eval, {name}", f"{len(lines) / spent[name]:,.0f} lines a second of CPU time", ratio)


def _running_s(*others: int | None) -> float:
    """For how long this process and others have run."""
    stats = (Path(f"/proc/{tgid}/schedstat").read_text() for tgid in (os.getpid(), *others))
    return sum(int(each.split()[0]) for each in stats) / 1e9


def _given(facts: Mapping[str, Json], _: Event) -> Mapping[str, Json]:
    return facts


def _asked(policy: Policy, lines: list[bytes], reading: Reading) -> list[tuple[tuple[Package, ...], str]]:
    """What an engine is asked about these lines."""
    found: list[tuple[tuple[Package, ...], str]] = []

    class Noting:
        together = len(lines)

        def evaluate_many(self, asked: Sequence[tuple[tuple[Package, ...], str]]) -> list[Answered]:
            found.extend(asked)
            return [Answered([()] * len(packages), "") for packages, _ in asked]

    policy._many = Noting()
    for line in lines:
        policy.decide(*reading.read(object_of(line))[:2])
    return found


def _replayed(plugins: Plugins, path: Path, times: int, cores: int) -> tuple[int, float, float]:
    """How many lines were decided, the CPU time of all processes with what they need to start, and the time without."""
    policy, schemas = in_force(_CONFIG, plugins), event_schemas(plugins)
    other = replace(policy.sources, revision="other")  # which nobody takes for the same
    cpu, lines = _cpu_s(), 0
    pool = Pool(policy.sources, other, _CONFIG.policy, schemas, cores)
    pool.start()
    pool.run(iter([Piece(0, 1, b"\n")] * cores), _place)
    start = time.monotonic()
    for _ in range(times):
        reader = JournalReader([path])
        tally = pool.run(reader.pieces(), _place)
        if tally.undecided:
            raise SystemExit(f"not all lines were decided: {tally.undecided}")
        lines += tally.lines
        reader.close()
    wall_s = time.monotonic() - start
    pool.close()
    return lines, _cpu_s() - cpu, wall_s


def _place(file: int, line: int) -> str:
    return f"{file}:{line}"


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _journal(plugins: Plugins) -> str:
    """Lines of the real bus for events near the constants of the shipped rules."""
    engine, types = tried_engine(_CONFIG, plugins), event_types(plugins)
    table = ProcessTable(1000, lambda _: NOTHING)
    # Plugins would ask the kernel for these; without them, lines lack what rules read, and are not decided.
    plain_facts = {each.name: plain({"type": "object", "properties": plugins.facts(each.name)}) for each in types}
    facts = {kind: partial(_given, told) for kind, told in plain_facts.items() if told}
    lines: list[str] = []
    bus = Bus(
        types,
        table,
        Enricher(types, table, Cgroups(None), facts),
        Policy(engine, on_error=Action.LOG, memo=8192),
        [lambda line: lines.append(line) or True],  # type: ignore[func-returns-value]
        [],
        lambda event, decision: Effect(Mode.OBSERVE),
        Selection(Action.ALLOW, []),
    )
    bus.host = host()
    bus.health = {"lost": 0, "missed": 0, "policy_failures": 0, "probes_not_alive": [], "degraded": []}
    subject, random = subject_of(_CONFIG, plugins, engine), Random(1)
    records = [Records(subject, each) for each in subject.types if each.kind not in table.kinds]
    for _ in range(_UNLIKE):
        each = random.choice(records)
        bus.take(each.whole(each.draw(random)))
    return "".join(f"{line}\n" for line in lines)
