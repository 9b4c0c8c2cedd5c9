"""Policies that crash, hang or eat memory, and an evaluator that has them."""

import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from krie.config import PolicyConfig
from krie.events.event import EventTypes
from krie.fork_server import ForkServer
from krie.tier.compiled import Job, compile_and_serve
from krie.tier.evaluator import Compiling, Evaluator

from ...policy.sample import Sample

TYPES = EventTypes((Sample,))
LIMITS = PolicyConfig(decision_ms=1000, load_s=120, memory_mib=128)
GOOD = """package krie.good

rules contains {"id": "GOOD", "action": "log"} if input.event.kind == "sample.seen"
"""
BAD = """package krie.bad

%s

rules contains {"id": "BAD", "action": "kill"} if {
	input.event.kind == "sample.seen"
	input.process.uid == %d
	%s
}
"""
RECURSION = "f(x) := f(x)", "f(1)"
MUTUAL = "f(x) := g(x)\n\ng(x) := f(x)", "f(1)"
LOOP = "", "count([1 | some i in numbers.range(1, 9000); some j in numbers.range(1, 9000); i == j + 5000]) == 5"
MEMORY = "", "bits.lsh(1, 4000000000) > 5"
ROWS = "", "count(numbers.range(1, 100000000)) == 5"
BRACKETS = "", f"x := {'[' * 30}1{']' * 30}"
CRASHES = {"memory": MEMORY, "rows": ROWS}
NEVER, ALWAYS = 5, 0  # the sample that a policy is tried with has uid 0


class Setting:
    def __init__(self, folder: Path, stack: ExitStack, limits: PolicyConfig = LIMITS) -> None:
        self.folder, self.limits, self.stack = folder, limits, stack
        self.server = ForkServer(partial(compile_and_serve, TYPES))
        stack.callback(self.server.close)
        (folder / "good.rego").write_text(GOOD)
        self.meanwhile = 0

    def bad(self, what: tuple[str, str], uid: int) -> None:
        helper, condition = what
        (self.folder / "bad.rego").write_text(BAD % (helper, uid, condition))

    def evaluator(self) -> Evaluator:
        job = Job(self.limits, (self.folder,))
        compiled, keeper = Compiling(self.server.fork, job).wait()
        made = Evaluator(compiled, keeper, self.server.fork, self.limits, self._count)
        self.stack.callback(made.close)
        return made

    def _count(self) -> None:
        self.meanwhile += 1


def asked(evaluator: Evaluator, uid: int = 1) -> dict[str, object]:
    """What each package answers: ids, or why there are none."""
    document = json.dumps({"event": {"kind": "sample.seen"}, "process": {"uid": uid}})
    answers = evaluator.evaluate(evaluator.packages, document)
    return {
        package.name.rpartition(".")[2]: [each.id for each in answer] if isinstance(answer, tuple) else answer
        for package, answer in zip(evaluator.packages, answers, strict=True)
    }


def gone(tgid: int) -> bool:
    try:
        return Path(f"/proc/{tgid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
