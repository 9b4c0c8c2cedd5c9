"""Rego that the kernel decides: the first occurrence is refused, by a plugin whose rules hit one executable only."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from krie.agent.admin import ask
from krie.kernel.features import Features
from krie.testing.agent import Line, RunningAgent, fired
from krie.testing.victims import Interpreter, Victims

from . import example
from .enforcing import copied_python, running

pytestmark = [pytest.mark.once, pytest.mark.needs("cgroup_sysctl")]
SYSCTL = "kernel/printk_ratelimit_burst"
FIELDS = """number: Annotated[S64, Inline(), Doc("the number written")]
    name: Annotated[str, Chars(64), Inline(), Doc("path below /proc/sys")]"""
PROGRAM = """
int example_sysctl(struct bpf_sysctl *ctx)
{
    struct example_seen_inline known = {};
    struct example_seen *record;
    struct krie_answer answer;
    char text[16] = {};
    long number = 0;
    int allow;

    if (!krie_enter() || !ctx->write)
        return KRIE_CGROUP_ALLOW;
    bpf_sysctl_get_name(ctx, known.name, 64, 0);
    bpf_sysctl_get_new_value(ctx, text, sizeof(text));
    bpf_strtol(text, sizeof(text), 0, &number);
    known.number = number;
    answer = krie_decide_example_seen(&known, KRIE_CAN_REFUSE);
    record = krie_reserve_example_seen(&answer, KRIE_CAN_REFUSE);
    if (!record)
        return krie_cgroup_answer(&answer);
    allow = krie_cgroup_answer(&answer);
    krie_stamp(&record->header, &answer);
    krie_put_example_seen(record, &known);
    krie_submit_example_seen(record);
    return allow;
}
"""
RULES = """
package krie.site

# METADATA
# custom: {enforce: inline}
rules contains {"id": "REFUSE", "action": "override", "errno": 13} if {
	victim
	input.event.number in data.refused
}

rules contains {"id": "POISON", "action": "override", "scope": "process", "errno": 13, "ttl_s": 60} if {
	victim
	input.event.number == 1002
}

rules contains {"id": "LATER", "action": "override", "errno": 13} if {
	victim
	input.event.number == 1003
	input.process.exe != ""
}

victim if {
	input.event.kind == "example.seen"
	input.process.program == "victim"
	input.event.name == "kernel/printk_ratelimit_burst"
}
"""
WRITE = """
import time

def write(number):
    file = os.open('/proc/sys/' + sys.argv[1], os.O_WRONLY)
    try:
        os.write(file, number.encode())
        return 0
    except OSError as error:
        return error.errno
    finally:
        os.close(file)

for number in sys.argv[3:]:
    error = write(number)
    for _ in range(int(sys.argv[2])):
        if error:
            break
        time.sleep(0.05)
        error = write(number)
    print(error)
print(os.getpid())
"""
FORKED = """
for user in map(int, sys.argv[3:]):
    child = os.fork()
    if child == 0:
        file = os.open('/proc/sys/' + sys.argv[1], os.O_WRONLY)
        os.setresuid(user, 0, 0)
        try:
            os.write(file, sys.argv[2].encode())
            os._exit(0)
        except OSError as error:
            os._exit(error.errno)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
STAYING = """
import time
for user in map(int, sys.argv[3:]):
    wait, written = os.pipe()
    child = os.fork()
    if child == 0:
        file = os.open('/proc/sys/' + sys.argv[1], os.O_WRONLY)
        os.setresuid(user, 0, 0)
        try:
            os.write(file, sys.argv[2].encode())
        except OSError:
            os.write(written, b'.')
        os.closerange(0, 64)
        time.sleep(600)
    os.close(written)
    os.read(wait, 1)
    print(child)
"""
"""Victims who go on until the test's cgroup ends them."""
WRONG = """package krie.wrong

# METADATA
# custom: {enforce: inline}
rules contains {"id": "WRONG", "action": "override"} if {
	input.event.kind == "example.seen"
	input.process.comm == "x"
}
"""


class Site:
    """An agent whose rules are about one executable, which tests run."""

    def __init__(self, agent: RunningAgent, policy: Path, python: Interpreter) -> None:
        self.agent, self.policy, self.python = agent, policy, python

    def victim(self, victims: Victims, name: str, *numbers: int, again: int = 0) -> list[int]:
        """Errors of the writes, and the writer's tgid. `again`: how often a write that went through is repeated."""
        done = victims.run(WRITE, name, str(again), *map(str, numbers), interpreter=self.python)
        return [int(each) for each in done.stdout.split()]

    def forked(self, victims: Victims, number: int, users: list[int]) -> list[int]:
        """Errors of one write by a child of each of these real users."""
        done = victims.run(FORKED, SYSCTL, str(number), *map(str, users), interpreter=self.python)
        self.agent.settle()
        return [int(each) for each in done.stdout.split()]

    def breakers(self) -> list[Line]:
        """As `krie status` shows them."""
        return list(ask(self.agent.run_dir, {"ask": "status"}, self.agent.timeout_s)["breakers"])

    def told(self, tgid: int) -> list[Line]:
        self.agent.settle()
        return self.agent.lines("example.seen", lambda line: line["process"]["tgid"] == tgid)

    def refuse(self, *numbers: int) -> None:
        """Change the policy's data, and wait until that is in force."""
        before = len(self.agent.lines("krie.policy"))
        (self.policy / "data.json").write_text(json.dumps({"refused": numbers}))
        self.agent.wait("krie.policy", count=before + 1)


@pytest.fixture(scope="module")
def site(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("tier")
    folder.chmod(0o700)
    policy = folder / "policy"
    policy.mkdir()
    (policy / "site.rego").write_text(RULES)
    (policy / "data.json").write_text('{"refused": [1001, 1005]}')
    read = "Path('/proc/sys/kernel/ostype').read_bytes()"
    plugin = example.write(
        folder / "plugin", {"sysctl": ("cgroup_sysctl", "", "example_sysctl", 0)}, PROGRAM, read, FIELDS
    )
    with tempfile.TemporaryDirectory(dir="/run") as own:  # no overlayfs, on which executables have no identity
        python = copied_python(Path(own))
        agent = RunningAgent(
            folder,
            plugins={"example": {"mode": "enforce"}},
            enforcement={"guard": False, "breaker_processes": 4},
            executables={"victim": python},
            policies=[policy],
            plugin_folders=[plugin],
        )
        with agent, running(python) as victims:
            yield Site(agent, policy, victims)


@pytest.fixture
def old() -> Iterator[int]:
    file = Path("/proc/sys", SYSCTL)
    before = file.read_text()
    yield int(before)
    file.write_text(before)


def test_the_first_write_is_refused(site: Site, victims: Victims, old: int, features: Features) -> None:
    error, tgid = site.victim(victims, SYSCTL, 1001)
    assert error == (13 if features.set_retval else 1)
    assert int(Path("/proc/sys", SYSCTL).read_text()) == old
    (line,) = site.told(tgid)
    assert (line["done"], line["would"]) == (["refused"], [])
    assert (line["decision"]["tier"], fired(line)) == ("kernel", [("REFUSE", "override")])
    status = ask(site.agent.run_dir, {"ask": "status"}, site.agent.timeout_s)
    assert status["kernel_tier"]["rules"] == {"example.seen": ["POISON", "REFUSE"]}


def test_near_misses_go_through(site: Site, victims: Victims, old: int) -> None:
    errors = site.victim(victims, SYSCTL, 1000, 1006, old)
    assert errors[:-1] == [0, 0, 0]
    assert {line["decision"]["tier"] for line in site.told(errors[-1])} == {"user"}
    other = "kernel/printk_ratelimit"
    seconds = Path("/proc/sys", other).read_text()
    try:
        assert site.victim(victims, other, 1001)[:-1] == [0]
    finally:
        Path("/proc/sys", other).write_text(seconds)
    other_program = victims.run(
        "os.write(os.open('/proc/sys/" + SYSCTL + "', os.O_WRONLY), b'1001'); print(os.getpid())"
    )
    (line,) = site.told(int(other_program.stdout))
    assert (line["decision"]["action"], line["done"]) == ("allow", [])


def test_a_rule_of_user_space_needs_a_second_write(site: Site, victims: Victims, old: int) -> None:
    error, tgid = site.victim(victims, SYSCTL, 1003, again=6000)
    assert error
    first, *_, last = site.told(tgid)
    assert (first["decision"]["tier"], first["done"]) == ("user", ["bound"])
    assert "refused" in last["done"]


def test_poison_comes_with_the_first_refusal(site: Site, victims: Victims, old: int) -> None:
    first, second, tgid = site.victim(victims, SYSCTL, 1002, old)
    assert first
    assert second  # of a number that no rule names: poison
    one, other = site.told(tgid)
    assert (one["decision"]["tier"], one["done"]) == ("kernel", ["refused", "poisoned"])
    assert (other["decision"]["action"], other["done"]) == ("allow", ["refused"])


def test_a_reload_moves_the_line(site: Site, victims: Victims, old: int) -> None:
    generation = ask(site.agent.run_dir, {"ask": "status"}, site.agent.timeout_s)["kernel_tier"]["generation"]
    site.refuse(1006)
    try:
        *errors, tgid = site.victim(victims, SYSCTL, 1001, 1006)
        assert [bool(each) for each in errors] == [False, True]
        assert [line["decision"]["tier"] for line in site.told(tgid)] == ["user", "kernel"]
        assert (
            ask(site.agent.run_dir, {"ask": "status"}, site.agent.timeout_s)["kernel_tier"]["generation"] > generation
        )
    finally:
        site.refuse(1001, 1005)


def test_a_policy_that_cannot_be_inline_is_refused(site: Site, victims: Victims, old: int) -> None:
    before = len(site.agent.lines("krie.policy"))
    wrong = site.policy / "wrong.rego"
    wrong.write_text(WRONG)
    try:
        line = site.agent.wait("krie.policy", count=before + 1)[before]
        assert line["event"]["state"] == "refused"
        assert f"{wrong}:5: rule WRONG demands `enforce: inline`" in line["event"]["reason"]
        assert site.victim(victims, SYSCTL, 1001)[0]
    finally:
        wrong.unlink()
        site.agent.wait("krie.policy", count=before + 2)


def test_children_that_are_refused_trip_nothing(site: Site, victims: Victims, old: int) -> None:
    errors = site.forked(victims, 1001, [0] * 25)
    assert [bool(each) for each in errors] == [True] * 25
    assert site.victim(victims, SYSCTL, 1001)[0]
    assert site.breakers() == []


def test_the_poisoned_children_of_one_user_trip_nothing(site: Site, victims: Victims, old: int) -> None:
    assert all(site.forked(victims, 1002, [1000] * 25))
    (breaker,) = site.breakers()
    assert (breaker["processes"], breaker["tripped"]) == (1, False)
    ask(site.agent.run_dir, {"ask": "clear", "all": True}, site.agent.timeout_s)


def test_poison_is_in_the_share_of_the_process_real_user(site: Site, victims: Victims, old: int) -> None:
    users = [1000, 0, 65536 + 1001]
    made = victims.run(STAYING, SYSCTL, "1002", *map(str, users), interpreter=site.python)
    status = ask(site.agent.run_dir, {"ask": "status"}, site.agent.timeout_s)
    shares = {each["tgid"]: each["share"] for each in status["poisoned"]}
    assert [shares[int(each)] for each in made.stdout.split()] == [1000, 0, 1001]
    assert status["poison_left_out"] == 0


def test_a_tripped_breaker_lets_the_kernel_only_refuse(site: Site, victims: Victims, old: int) -> None:
    """The last test: it hits more users than the breaker allows."""
    assert all(site.forked(victims, 1002, list(range(1001, 1006))))
    site.agent.wait("krie.breaker", lambda line: line["event"]["state"] == "tripped")
    assert ask(site.agent.run_dir, {"ask": "status"}, site.agent.timeout_s)["kernel_tier"]["only_refuse"] == ["POISON"]
    first, second, tgid = site.victim(victims, SYSCTL, 1002, old)
    assert (bool(first), second) == (True, 0)  # refused, and not poisoned
    assert site.told(tgid)[0]["done"] == ["refused"]
    ask(site.agent.run_dir, {"ask": "clear", "rule": "POISON"}, site.agent.timeout_s)
    first, second, _ = site.victim(victims, SYSCTL, 1002, old)
    assert first
    assert second
