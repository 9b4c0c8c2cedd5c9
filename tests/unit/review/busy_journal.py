"""A journal in which all happens that rules can read, and rules that read all of it."""

from pathlib import Path
from random import Random

from krie.plugins.runtime_integrity.ptrace import Ptrace
from krie.policy.sources import PolicySources
from krie.processes.sensor import ProcessExec, ProcessFork
from krie.testing.events import build

from ..recorded_journal import SYSCTL, Recorder, rule

KIND = f'input.event.kind == "{SYSCTL}"'
EVERYTHING = (
    rule("NAME", "override", KIND, 'input.event.name == "kernel/a"')
    + rule("HOST", "log", 'input.host.name == "here"')
    + rule("HEALTH", "log", "input.health.lost > 2")
    + rule("PARENTS", "kill", KIND, 'some each in input.process.ancestors\n\teach.exe == "/bin/sh"')
    + rule("WHOLE", "log", "count(input.process.ancestors) == 2")
    + rule("ERROR", "log", KIND, "to_number(input.event.new) > 5")
)


def ancestry(recorder: Recorder) -> None:
    """sh (10), its child (11), and of that 4242, which events are of where they start at 4242."""
    path = {"components": b"sh\0bin\0".ljust(768, b"\0"), "length": 7}
    recorder.take(build(ProcessExec, tgid=10, start_time=10, **path))
    for tgid, parent in ((11, 10), (4242, 11)):
        child = {"child_tgid": tgid, "child_start_time": tgid}
        of = {"child_parent_tgid": parent, "child_parent_start_time": parent}
        recorder.take(build(ProcessFork, tgid=parent, start_time=parent, **child, **of))


def busy_journal(path: Path, policy: PolicySources, count: int = 600) -> Path:
    recorder = Recorder(policy)
    ancestry(recorder)
    random = Random(1)
    for number in range(count):
        if number % 100 == 50:
            recorder.bus.health = {"lost": number // 100}
        own = {"start_time": 4242} if random.random() < 0.5 else {}
        name, new = random.choice(["kernel/a", "kernel/b"]), random.choice(["6", "5", "x", "\udcff\x1b", ""])
        recorder.sysctl(name, new=new.encode("utf-8", "replace").decode(), **own)
        if number % 7 == 0:
            recorder.take(build(Ptrace, target_tgid=7))
    return recorder.write(path)
