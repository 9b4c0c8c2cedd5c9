"""Who is poisoned does nothing that a right is asked for, until it is free; and so the whole host. In guests only."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from krie.agent.admin import ask
from krie.events.operations import OPERATIONS
from krie.testing.agent import Line, RunningAgent
from krie.testing.patience import wait_for
from krie.testing.victims import Victims

from ..enforcing import HOST, MANY, POISONED, SOON_FREE, SYSCTL, Run
from .answers import of, status
from .operate import OPERATE

pytestmark = pytest.mark.needs("guest", "kprobe")

KRIE = str(Path(sys.executable).with_name("krie"))
NOT_PERMITTED = (errno.EPERM, errno.EACCES, errno.ENOKEY)  # the last is what add_key() makes of it
PREPARED = sorted("opened removed renamed changed capable linked gone tree mount root".split())


@pytest.fixture
def playground(tmp_path: Path) -> Iterator[Path]:
    """A folder on which victims mount."""
    yield tmp_path
    for name in ("mount", "tree"):
        subprocess.run(["umount", "-l", tmp_path / name], stderr=subprocess.DEVNULL, check=False)


def test_who_is_not_poisoned_is_refused_nothing_of_that(victim: Run, playground: Path) -> None:
    _, child, errors, _ = json.loads(victim(OPERATE, str(playground), "twin").stdout)
    os.kill(child, 9)
    refused = {name for name, error in errors.items() if error in (errno.EPERM, errno.EACCES)}
    assert refused == {"init_module"}  # by MODULE001


def test_no_guarded_operation_of_a_poisoned_process_succeeds(
    enforcing: RunningAgent, victim: Run, playground: Path
) -> None:
    tgid, child, errors, memory = json.loads(victim(OPERATE, str(playground), "poisoned").stdout)
    os.kill(child, 9)  # which its parent could not
    assert {name: error for name, error in errors.items() if error not in NOT_PERMITTED} == {}
    assert sorted(each.name for each in playground.iterdir()) == PREPARED
    assert memory == 0
    (line,) = of(enforcing, tgid, "runtime_integrity.sysctl_write")
    assert line["done"] == ["poisoned"]

    def mine(line: Line) -> bool:
        return bool(line["event"]["contained_tgid"] == tgid)

    # To execute a program, it is opened first, which is refused already. What the kernel asks for a capability first is
    # told as `capable`: modules, performance events, on older kernels bpf(2). The plugin's programs refuse the others.
    elsewhere = set(
        "bprm_check_security bpf ptrace_access_check kernel_read_file kernel_load_data perf_event_open".split()
    )
    expected = set(OPERATIONS.values()) - elsewhere
    while not expected <= {line["event"]["operation"] for line in enforcing.lines("krie.contained", mine)}:
        enforcing.wait(
            "krie.contained", mine, len(enforcing.lines("krie.contained", mine)) + 1
        )  # counted, and told later
    enforcing.settle()
    told = {line["event"]["operation"]: line["event"] for line in enforcing.lines("krie.contained", mine)}
    assert expected <= told.keys() <= set(OPERATIONS.values())
    done = {
        kind: [line["done"] for line in of(enforcing, tgid, f"runtime_integrity.{kind}")]
        for kind in ("ptrace", "bpf", "module_load")
    }
    assert (len(done["ptrace"]), len(done["bpf"]) <= 1, done["module_load"]) == (1, True, [])
    assert all("refused" in each for each in done["ptrace"] + done["bpf"])
    assert {each["rule"] for each in told.values()} == {"SITE002"}
    assert all(each["count"] >= 1 for each in told.values())


def test_an_operation_alone_is_refused_where_those_before_it_were_not(enforcing: RunningAgent, victim: Run) -> None:
    code = f"""
program = os.open("/bin/true", os.O_PATH)
write({POISONED})
until(lambda: denied(lambda: os.open("/", 0)), 13)
print(denied(lambda: os.execve(program, ["true"], {{}})), flush=True)
"""
    assert victim(code).stdout == "13\n"


@pytest.mark.parametrize("way", ["by the time that the rule gives", "from another session"])
def test_a_poisoned_shell_recovers(enforcing: RunningAgent, victims: Victims, way: str) -> None:
    soon = way.startswith("by")
    script = f"""
echo {SOON_FREE if soon else POISONED} > {SYSCTL}
while read -r line < /etc/hostname; do :; done
echo $$ poisoned
until read -r line < /etc/hostname; do :; done
echo free
"""
    script = f"echo $$; {script}"
    with subprocess.Popen(
        ["/bin/sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as shell:
        assert shell.stdout is not None
        tgid = int(shell.stdout.readline())
        assert shell.stdout.readline() == f"{tgid} poisoned\n"
        if not soon:
            (poisoned,) = [each for each in status(enforcing)["poisoned"] if each["tgid"] == tgid]
            assert (poisoned["rule"], poisoned["comm"]) == ("SITE002", "sh")
            assert 0 < poisoned["left_s"] <= 300
            done = subprocess.run([KRIE, "clear", str(tgid), "--config", str(enforcing.config)], check=True)
            assert done.returncode == 0
        assert shell.stdout.readline() == "free\n"
    assert all(each["tgid"] != tgid for each in status(enforcing)["poisoned"])
    if not soon:
        (line,) = enforcing.wait("krie.cleared", lambda line: line["event"]["what"] == f"tgid {tgid}")
        assert (line["event"]["processes"], line["event"]["by_uid"]) == (1, 0)


def test_the_host_is_bound_but_not_the_agent_nor_the_exempted(enforcing: RunningAgent, victim: Run) -> None:
    code = f"""
write({HOST})
refused = until(lambda: denied(lambda: os.open("/etc/hostname", os.O_RDONLY)), 1)
os.write(1, b"%d %d" % (os.getpid(), refused))
"""
    with subprocess.Popen(["/bin/sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as bystander:
        assert bystander.stdin is not None
        assert bystander.stdout is not None
        bystander.stdin.write("echo ready\n")
        bystander.stdin.flush()
        assert bystander.stdout.readline() == "ready\n"  # or what it maps when it starts would be refused
        tgid, refused = map(int, victim(code).stdout.split())
        assert refused == 1
        assert status(enforcing)["host"]["rule"] == "SITE005"  # the agent answers
        assert Path("/etc/hostname").read_text()  # this test's program is exempt
        bystander.stdin.write("read -r line < /etc/hostname || echo refused\n")
        bystander.stdin.flush()
        assert bystander.stdout.readline() == "refused\n"
        wait_for(lambda: status(enforcing)["host"] is None)
        bystander.stdin.write("read -r line < /etc/hostname && echo free\n")
        bystander.stdin.close()
        assert bystander.stdout.readline() == "free\n"
    (line,) = of(enforcing, tgid, "runtime_integrity.sysctl_write")
    assert line["done"] == ["host"]


def test_a_breaker_trips_and_is_re_armed(enforcing: RunningAgent, victim: Run) -> None:
    code = f"""
file = os.open({SYSCTL!r}, os.O_WRONLY)
os.setresuid(int(sys.argv[1]), 0, 0)
again = lambda: denied(lambda: os.write(file, b'{MANY}'))
again()
print(os.getpid(), flush=True)
until(again, errno.EPERM)
import time
time.sleep(2)  # the verdict is there before the agent looks whether it hit somebody who still lives
"""

    def done(user: int) -> list[str]:
        tgid = int(victim(code, str(user)).stdout)
        return list(of(enforcing, tgid, "runtime_integrity.sysctl_write")[0]["done"])

    enforcing.settle()
    spared = ["spared: the rule's breaker is tripped", "bound"]
    assert [done(user) for user in (1, 2, 2, 3)] == [["poisoned"]] * 4
    assert done(4) == spared
    (line,) = enforcing.wait("krie.breaker", lambda line: line["event"]["state"] == "tripped")
    assert (line["event"]["rule"], line["event"]["processes"]) == ("SITE006", 4)
    assert {"rule": "SITE006", "processes": 4, "of": 3, "tripped": True} in status(enforcing)["breakers"]
    assert ask(enforcing.run_dir, {"ask": "clear", "rule": "SITE006"}, enforcing.timeout_s)["rearmed"] == ["SITE006"]
    enforcing.wait("krie.breaker", lambda line: line["event"]["state"] == "rearmed")
    assert done(5) == ["poisoned"]
