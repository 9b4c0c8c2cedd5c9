"""Whoever floods a kind hides nothing of it: where only the agent would know whether to refuse, nothing goes by it."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from krie.events.core_maps import Limits
from krie.events.numbers import ONLY
from krie.kernel.features import Features
from krie.testing.agent import RunningAgent
from krie.testing.victims import Interpreter, Victims

from . import example, own_bpf
from .enforcing import copied_python, running

pytestmark = [pytest.mark.once, pytest.mark.needs("cgroup_sysctl")]
SYSCTL = "/proc/sys/kernel/printk_ratelimit_burst"
FIRST = 4_242_000
"""Only numbers from here on are looked at, which nobody else writes."""
BETWEEN = FIRST + 900_000
"""From here on the budget is spent between decision and record, as by whoever interrupts the program."""
BURST, COUNT = 5, 400
FIELDS = """number: Annotated[S64, Inline(), Doc("the number written")]"""
PROGRAM = f"""
static __always_inline void example_spend(void)
{{
    u64 later = bpf_ktime_get_boot_ns() + 60000000000ULL;
    struct krie_budget spent = {{ .next = later, .other = later }};
    struct krie_spender spender = {{ .user = krie_payer() }};

#pragma clang loop unroll(disable)
    for (u32 what = 0; what < 2 * KRIE_SLOTS; what++) {{
        spender.what = what;
        krie_budgets.update(&spender, &spent);
    }}
}}

int example_sysctl(struct bpf_sysctl *ctx)
{{
    struct example_seen_inline known = {{}};
    struct example_seen *record;
    struct krie_answer answer;
    char text[16] = {{}};
    long number = 0;
    int allow;

    if (!krie_enter() || !ctx->write)
        return KRIE_CGROUP_ALLOW;
    bpf_sysctl_get_new_value(ctx, text, sizeof(text));
    bpf_strtol(text, sizeof(text), 0, &number);
    if (number < {FIRST} || number > {FIRST} + 1000000)
        return KRIE_CGROUP_ALLOW;
    known.number = number;
    answer = krie_decide_example_seen(&known, KRIE_CAN_REFUSE);
    if (number >= {BETWEEN})
        example_spend();
    record = krie_reserve_example_seen(&answer, KRIE_CAN_REFUSE);
    if (!record)
        return krie_cgroup_answer(&answer);
    allow = krie_cgroup_answer(&answer);
    krie_stamp(&record->header, &answer);
    krie_put_example_seen(record, &known);
    krie_submit_example_seen(record);
    return allow;
}}
"""
RULES = """
package krie.site

rules contains {"id": "USER", "action": "%s", "errno": 13} if {
	input.event.kind == "example.seen"
	input.event.number == 4242001
	input.process.exe_known
}
"""
WRITES = f"""
import json
file = os.open({SYSCTL!r}, os.O_WRONLY)

def write(number):
    try:
        return 0 * os.pwrite(file, b'%d' % number, 0)
    except OSError as error:
        return error.errno

first, count = json.loads(sys.argv[1])
print(json.dumps([os.getpid(), [write(first + number) for number in range(count)]]))
"""


class Site:
    """Agents with one rule each, whose action differs, and victims whose writes are looked at."""

    def __init__(self, folder: Path, python: Interpreter) -> None:
        self.folder, self.python = folder, python

    def agent(self, action: str, name: str = "", **options: object) -> RunningAgent:
        folder = self.folder / (name or action)
        folder.mkdir(mode=0o700)
        (folder / "policy").mkdir()
        (folder / "policy/site.rego").write_text(RULES % action)
        places = {"sysctl": ("cgroup_sysctl", "", "example_sysctl", 0)}
        canary = "from pathlib import Path; Path('/proc/sys/kernel/ostype').read_bytes()"
        return RunningAgent(
            folder,
            plugins={"example": {"mode": "enforce"}},
            agent={"user_burst": BURST, "user_rate": 1, **options},
            policies=[folder / "policy"],
            plugin_folders=[example.write(folder / "plugin", places, PROGRAM, canary, FIELDS)],
        )


@pytest.fixture(scope="module")
def site(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("unjudged")
    folder.chmod(0o700)
    before = Path(SYSCTL).read_text()
    with tempfile.TemporaryDirectory(dir="/run") as place, running(copied_python(Path(place))) as python:
        yield Site(folder, python)
    Path(SYSCTL).write_text(before)


def written(
    site: Site, victims: Victims, agent: RunningAgent, first: int, count: int, *, stopped: bool = False
) -> tuple[list[int], list[int]]:
    """Errors of writes, each of another number, and the numbers that were told. `stopped`: the agent is meanwhile."""
    if stopped:
        agent.process.send_signal(signal.SIGSTOP)
    try:
        tgid, errors = json.loads(victims.run(WRITES, json.dumps([first, count]), interpreter=site.python).stdout)
    finally:
        agent.process.send_signal(signal.SIGCONT)
    agent.settle()
    lines = agent.lines("example.seen", lambda line: line["process"]["tgid"] == tgid)
    return errors, [line["event"]["number"] for line in lines if "refused" not in line["done"]]


def test_what_the_agent_cannot_be_told_of_is_refused(site: Site, victims: Victims, features: Features) -> None:
    with site.agent("override") as agent:
        errors, told = written(site, victims, agent, FIRST + 10, COUNT)
        went = [FIRST + 10 + number for number, error in enumerate(errors) if not error]
        assert went == told
        assert len(went) < COUNT
        assert {*errors} == {0, 11 if features.set_retval else 1}


def test_where_the_ring_is_full_it_is_refused(site: Site, victims: Victims, features: Features) -> None:
    """Whoever has many users has as many budgets: none of them is used up."""
    with site.agent("override", "full", user_burst=1_000_000, user_rate=1_000_000, ring_mib=1) as agent:
        errors, told = written(site, victims, agent, FIRST + 10, 30 * COUNT, stopped=True)
        went = [FIRST + 10 + number for number, error in enumerate(errors) if not error]
        assert went == told
        assert COUNT < len(went) < 30 * COUNT
        assert {*errors} == {0, 11 if features.set_retval else 1}


_HOUR_NS = 3600 * 10**9
ASKED = f"""
import os, sys
file = os.open({SYSCTL!r}, os.O_WRONLY)
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})  # each CPU has a budget of its own
for line in sys.stdin:
    try:
        print(0 * os.pwrite(file, line.encode(), 0), flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"""
"""Writes the numbers that are asked for, and says each one's error."""


def budget_is_one_and_the_ring_is_everybodys(agent: RunningAgent) -> None:
    """Each has one record an hour of a kind; what goes beyond is sent where it has room, and is alike for an hour."""
    once, always = {"interval": _HOUR_NS, "burst": 0}, {"other_interval": 1, "other_burst": _HOUR_NS}
    with own_bpf.map_of(agent.process.pid, "krie_limits") as limits:
        now = Limits.decode(limits.get(ONLY) or b"")
        limits.set(ONLY, replace(now, common_bytes=1 << 40, repeat=_HOUR_NS, **once, **always).encode())


def test_what_equals_one_that_found_no_room_is_told(site: Site, features: Features) -> None:
    """Else it would pass: it would be held back as told a moment before."""
    refused = 11 if features.set_retval else 1
    with (
        site.agent("override", "alike", ring_mib=1) as agent,
        subprocess.Popen(
            [sys.executable, "-IS", "-c", ASKED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as culprit,
    ):

        def write(number: int) -> int:
            assert culprit.stdin is not None
            assert culprit.stdout is not None
            culprit.stdin.write(f"{number}\n")
            culprit.stdin.flush()
            return int(culprit.stdout.readline())

        agent.process.send_signal(signal.SIGSTOP)
        try:
            budget_is_one_and_the_ring_is_everybodys(agent)
            number = FIRST + 10
            while not write(number):  # the first one takes all of the budget; they fill the ring
                number += 1
            assert [write(number), write(number)] == [refused] * 2
        finally:
            agent.process.send_signal(signal.SIGCONT)
        agent.settle()
        assert [write(number) for _ in range(3)] == [0] * 3
        agent.settle()
        lines = agent.lines("example.seen", lambda line: line["process"]["tgid"] == culprit.pid)
        told = [line["event"]["number"] for line in lines if "refused" not in line["done"]]
        assert told.count(number) == 1
        culprit.kill()


def test_what_is_spent_between_decision_and_record_lets_nothing_through(
    site: Site, victims: Victims, features: Features
) -> None:
    with site.agent("override", "between") as agent:
        errors, told = written(site, victims, agent, BETWEEN, BURST)
        assert errors == [11 if features.set_retval else 1] * BURST
        assert told == []


def test_where_the_agent_only_logs_all_goes_on(site: Site, victims: Victims) -> None:
    with site.agent("log") as agent:
        errors, told = written(site, victims, agent, FIRST + 10, COUNT)
        assert {*errors} == {0}
        assert len(told) < COUNT
