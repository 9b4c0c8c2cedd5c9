"""An agent that enforces on this machine too, whatever its kernel offers: by a plugin whose rules hit victims only."""

import subprocess
from collections.abc import Iterator

import pytest
from krie.kernel.features import Features
from krie.testing.agent import Line, RunningAgent
from krie.testing.victims import Victims

from . import example

pytestmark = [pytest.mark.once, pytest.mark.needs("cgroup_sysctl")]
SYSCTL = "/proc/sys/kernel/printk_ratelimit_burst"
PROGRAM = """
int example_sysctl(struct bpf_sysctl *ctx)
{
    struct example_seen *record;
    struct example_seen_inline known = {};
    struct krie_answer answer;
    int allow;

    if (!krie_enter() || !ctx->write)
        return KRIE_CGROUP_ALLOW;
    answer = krie_decide_example_seen(&known, KRIE_CAN_REFUSE);
    record = krie_reserve_example_seen(&answer, KRIE_CAN_REFUSE);
    if (!record)
        return krie_cgroup_answer(&answer);
    allow = krie_cgroup_answer(&answer);
    krie_stamp(&record->header, &answer);
    krie_submit_example_seen(record);
    return allow;
}
"""
RULES = """
package krie.site

victims contains input.process.comm if {
	input.event.kind == "example.seen"
	startswith(input.process.cgroup.path, "/krie-test-")
}

rules contains {"id": "SITE1", "action": "override", "errno": 13} if "krie-refuse" in victims

rules contains {"id": "SITE2", "action": "override", "scope": "process", "errno": 13} if "krie-poison" in victims

rules contains {"id": "SITE3", "action": "kill"} if "krie-kill" in victims
"""
VICTIM = f"""
import time
libc.prctl(15, sys.argv[1].encode(), 0, 0, 0)
file = os.open({SYSCTL!r}, os.O_RDWR)
value = os.pread(file, 100, 0)
print(os.getpid(), flush=True)
for _ in range(6000):
    try:
        os.pwrite(file, value, 0)
    except OSError as error:
        print(error.errno)
        break
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def enforcing(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    folder = tmp_path_factory.mktemp("refusing")
    folder.chmod(0o700)
    policy = folder / "policy"
    policy.mkdir()
    (policy / "site.rego").write_text(RULES)
    places = {"sysctl": ("cgroup_sysctl", "", "example_sysctl", 0)}
    read = "Path('/proc/sys/kernel/ostype').read_bytes()"
    plugin = example.write(folder / "plugin", places, PROGRAM, read)
    plugins = {"example": {"mode": "enforce"}}
    with RunningAgent(
        folder, plugins=plugins, enforcement={"guard": False}, policies=[policy], plugin_folders=[plugin]
    ) as agent:
        yield agent


def told(agent: RunningAgent, victim: str) -> list[Line]:
    agent.settle()
    return agent.lines("example.seen", lambda line: line["process"]["tgid"] == int(victim))


def test_an_override_refuses_the_next_write(enforcing: RunningAgent, victims: Victims, features: Features) -> None:
    tgid, error = victims.run(VICTIM, "krie-refuse").stdout.split()
    assert int(error) == (13 if features.set_retval else 1)
    lines = told(enforcing, tgid)
    assert (lines[0]["mode"], lines[0]["done"]) == ("enforce", ["bound"])
    assert lines[-1]["done"][0] == "refused"  # and bound again, if it still runs


def test_others_write_as_ever(enforcing: RunningAgent, victims: Victims) -> None:
    code = f"os.write(os.open({SYSCTL!r}, os.O_WRONLY), open({SYSCTL!r}, 'rb').read()); print(os.getpid())"
    (line,) = told(enforcing, victims.run(code).stdout)
    assert (line["decision"]["action"], line["done"], line["would"]) == ("allow", [], [])


def test_poison_refuses_where_anything_looks(enforcing: RunningAgent, victims: Victims, features: Features) -> None:
    tgid, error = victims.run(VICTIM, "krie-poison").stdout.split()
    assert int(error) == (13 if features.set_retval else 1)
    lines = told(enforcing, tgid)
    holds = ["failed: no guarded operation can be refused here"] if "lsm" in features.refused else []
    assert lines[0]["done"] == ["poisoned", *holds]
    assert "refused" in lines[-1]["done"]


def test_a_kill_ends_the_process(enforcing: RunningAgent, victims: Victims) -> None:
    with pytest.raises(subprocess.CalledProcessError) as killed:
        victims.run(VICTIM, "krie-kill")
    assert killed.value.returncode == -9
    lines = told(enforcing, killed.value.stdout)
    assert lines[0]["done"] in (["killed"], ["signalled"])
