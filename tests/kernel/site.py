"""An agent with one plugin and two rules that kill, and processes of users who ask for what it is about.

Whoever calls prctl(4242, NUMBER) makes a record; 7001 is killed by user space's decision, 7002 by the kernel's.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from krie.testing.agent import Line, RunningAgent

from . import example

KIND = "example.seen"
NOBODY, OTHER = 65534, 65533
BURST, RATE = 20, 100
FIELDS = """number: Annotated[S64, Inline(), Doc("what is asked for")]"""
PROGRAM = """
int example_prctl(struct bpf_raw_tracepoint_args *ctx)
{
    struct example_seen_inline known = {};
    struct example_seen *record;
    struct krie_answer answer;
    struct krie_syscall call;

    if (!krie_enter())
        return 0;
    call = krie_syscall_of(ctx);
    if (call.first != 4242)
        return 0;
    known.number = call.second;
    answer = krie_decide_example_seen(&known, KRIE_CAN_KILL);
    record = krie_reserve_example_seen(&answer, KRIE_CAN_KILL);
    if (!record)
        return 0;
    krie_stamp(&record->header, &answer);
    krie_put_example_seen(record, &known);
    krie_submit_example_seen(record);
    return 0;
}
"""
RULES = """
package krie.site

# METADATA
# custom: {severity: critical}
rules contains {"id": "USER", "action": "kill"} if {
	input.event.kind == "example.seen"
	input.event.number == 7001
	input.process.exe_known
}

rules contains {"id": "KERNEL", "action": "kill"} if {
	input.event.kind == "example.seen"
	input.event.number == 7002
}
"""
CODE = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None)
call = libc.syscall
def ask(number):
    call(157, 4242, number, 0, 0, 0)  # prctl
"""


class Site:
    def __init__(self, agent: RunningAgent) -> None:
        self.agent = agent

    @contextmanager
    def process(self, user: int, code: str) -> Iterator[subprocess.Popen[str]]:
        """Runs code as this user; it begins when a line comes."""
        command = [sys.executable, "-IS", "-c", f"{CODE}\nos.setresuid({user}, {user}, {user})\ninput()\n{code}"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as made:
            try:
                yield made
            finally:
                made.kill()

    def run(self, user: int, code: str) -> int:
        """Run code to its end; returns its tgid."""
        with self.process(user, code) as made:
            made.communicate("\n")
            assert made.returncode == 0
            return made.pid

    def told(self, test: Callable[[Line], bool]) -> list[Line]:
        self.agent.settle()
        return self.agent.lines(KIND, test)

    def held(self) -> tuple[int, int]:
        """Alike and other records that were held back so far; waits for what is not told yet."""
        before = len(self.agent.lines("krie.held"))
        time.sleep(2.2)  # it is told once a second, and no event says that there is nothing
        self.agent.settle()
        lines = self.agent.lines("krie.held")
        assert len(lines) >= before
        return sum(each["event"]["alike"] for each in lines), sum(each["event"]["over"] for each in lines)


@contextmanager
def attacked(folder: Path, *observing: str, **journal: int) -> Iterator[Site]:
    """The agent, with small budgets and a small ring. `observing`: its other plugins; `journal`: how that is kept."""
    folder.chmod(0o700)
    policy = folder / "policy"
    policy.mkdir()
    (policy / "site.rego").write_text(RULES)
    places = {"prctl": ("syscall", "prctl", "example_prctl", 0)}
    canary = "import ctypes; ctypes.CDLL(None).prctl(4242, 0, 0, 0, 0)"
    plugin = example.write(folder / "plugin", places, PROGRAM, canary, FIELDS)
    agent = RunningAgent(
        folder,
        plugins={"example": {"mode": "enforce"}, **{each: {} for each in observing}},
        agent={"user_burst": BURST, "user_rate": RATE, "ring_mib": 1},
        journal=journal,
        policies=[policy],
        plugin_folders=[plugin],
    )
    with agent:
        yield Site(agent)
