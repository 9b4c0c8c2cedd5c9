"""What is decided is done, seen from the victim's side. In guests only: nobody else's processes may be hit."""

import errno
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from krie.agent.admin import ask
from krie.events.operations import OPERATIONS
from krie.kernel.features import Features
from krie.testing.agent import Line, RunningAgent
from krie.testing.module import TestModule, address_of
from krie.testing.patience import PATIENCE_S
from krie.testing.victims import Interpreter, Victims

from . import example
from .enforcing import (
    ENFORCEMENT,
    HIJACKED,
    HOST,
    KILLED,
    MANY,
    POISONED,
    REFUSED,
    SOON_FREE,
    SYSCTL,
    WRITE,
    copied_python,
    running,
)
from .operate import OPERATE
from .overlays import overlaid
from .tail_calls import slots_emptied
from .test_triggers import PROGRAM

pytestmark = pytest.mark.needs("guest", "kprobe")
KRIE = str(Path(sys.executable).with_name("krie"))


@pytest.fixture(scope="module")
def named() -> Iterator[Path]:
    """A victim's Python that the policy has a name for; on an overlayfs, as in a container."""
    with tempfile.TemporaryDirectory(dir="/run") as made:
        folder = Path(made)
        (folder / "image").mkdir()
        python = copied_python(folder / "image")
        with overlaid(folder, "image", "root") as root:
            yield root / python.name


@pytest.fixture(scope="module")
def enforcing(alone: None, tmp_path_factory: pytest.TempPathFactory, named: Path) -> Iterator[RunningAgent]:
    folder = tmp_path_factory.mktemp("enforcing")
    folder.chmod(0o700)
    policy = folder / "policy"
    policy.mkdir()
    (policy / "enforcing.rego").write_text(Path(__file__).with_name("enforcing.rego").read_text())
    places = {"hijacked": ("kprobe", "commit_creds", "example_hijacked", 0)}
    plugin = example.write(folder / "plugin", places, HIJACKED, "import os; os.setuid(os.getuid())")
    agent = RunningAgent(
        folder,
        plugins={"runtime_integrity": {"mode": "enforce"}, "example": {"mode": "enforce"}},
        agent={"allow_syscall_tracepoints": False},
        enforcement=ENFORCEMENT,
        executables={"victim": named},
        policies=[policy],
        plugin_folders=[plugin],
    )
    with agent:
        yield agent


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def unnamed_python(enforcing: RunningAgent, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreter]:
    with running(copied_python(tmp_path_factory.mktemp("unnamed"))) as made:
        yield made


@pytest.fixture(scope="module")
def named_python(enforcing: RunningAgent, named: Path) -> Iterator[Interpreter]:
    with running(named) as made:
        yield made


@pytest.fixture
def victim(victims: Victims, unnamed_python: Interpreter) -> Run:
    """Runs code by a program that the policy has no name for."""
    return lambda code, *arguments: victims.run(WRITE + code, *arguments, interpreter=unnamed_python)


@pytest.fixture
def named_victim(victims: Victims, named_python: Interpreter) -> Run:
    return lambda code, *arguments: victims.run(WRITE + code, *arguments, interpreter=named_python)


def of(agent: RunningAgent, tgid: int, kind: str) -> list[Line]:
    agent.settle()
    return agent.lines(kind, lambda line: line["process"]["tgid"] == tgid)


def status(agent: RunningAgent) -> dict[str, Any]:
    return ask(agent.run_dir, {"ask": "status"})


def test_everything_that_is_guarded_can_be_refused(enforcing: RunningAgent) -> None:
    answer = status(enforcing)
    assert answer["guarded_operations"] == {"refused": len(OPERATIONS), "of": len(OPERATIONS)}
    assert answer["modes"] == {"runtime_integrity": "enforce", "example": "enforce"}
    states = {each["name"]: each["state"] for each in answer["probes"]}
    looks = {name for name in states if name.startswith("runtime_integrity.look_")}  # no canary can prove these
    assert {states[name] for name in states.keys() - looks} == {"alive"}
    assert {states[name] for name in looks} == {"attached"}


def test_a_sysctl_write_is_refused_from_the_second_on(enforcing: RunningAgent, victim: Run, features: Features) -> None:
    expected = 13 if features.set_retval else 1  # older kernels give EPERM, whatever the rule asks for
    code = f"print(os.getpid(), write({REFUSED}), until(lambda: write(7), {expected}))"
    tgid, first, second = map(int, victim(code).stdout.split())
    assert (first, second) == (0, expected)
    lines = of(enforcing, tgid, "runtime_integrity.sysctl_write")
    assert (lines[0]["mode"], lines[0]["done"], lines[0]["would"]) == ("enforce", ["bound"], [])
    assert lines[-1]["done"] == ["refused"]
    assert [line["done"] for line in lines[1:-1]] == [[]] * (len(lines) - 2)
    other = victim(f"print(write({REFUSED + 50}))")  # another process is not bound
    assert other.stdout == "0\n"


def test_the_first_occurrence_is_refused_by_the_kernels_own_decision(
    enforcing: RunningAgent, named_victim: Run
) -> None:
    code = "print(os.getpid(), called(321, 22, bytes(8), 8), called(101, 0, 0, 0, 0))"
    tgid, frozen, traced = map(int, named_victim(code).stdout.split())
    assert (frozen, traced) == (13, 13)
    for kind, rule in (("bpf", "SITE009"), ("ptrace", "SITE011")):
        (line,) = of(enforcing, tgid, f"runtime_integrity.{kind}")
        assert (line["decision"]["tier"], line["done"]) == ("kernel", ["refused"])
        assert rule in {each["id"] for each in line["decision"]["rules"]}


def test_the_first_operation_of_each_kind_is_refused(enforcing: RunningAgent, named_victim: Run) -> None:
    code = """
import socket, struct
made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
dummy = struct.pack("=IIQQQQQ", 1, 64, 9, 0, 0, 0, 0x60)
file = os.open("/bin/true", os.O_RDONLY)
print(os.getpid(), denied(lambda: made.setsockopt(socket.SOL_SOCKET, 44, 1)), called(298, dummy, 0, -1, -1, 8),
      called(313, file, b"", 0), called(175, bytes(4096), 4096, b""), called(176, b"krie_no_module", 0o4000),
      called(176, b"krie_no_other", 0o4000))
"""
    tgid, *errors = map(int, named_victim(code).stdout.split())
    assert errors == [13, 13, 13, 13, 1, 2]  # the kernel says EPERM of a capability, whatever the rule asks for
    for kind, rule, count in (
        ("socket_filter", "SITE012", 1),
        ("perf_event_open", "SITE013", 1),
        ("module_load", "SITE014", 2),
        ("module_unload", "SITE015", 1),
    ):
        refused = [line for line in of(enforcing, tgid, f"runtime_integrity.{kind}") if line["done"]]
        assert [(line["decision"]["tier"], line["done"]) for line in refused] == [("kernel", ["refused"])] * count
        assert all(rule in {each["id"] for each in line["decision"]["rules"]} for line in refused)


def test_the_first_occurrence_is_killed_where_the_kernel_decides(enforcing: RunningAgent, named_victim: Run) -> None:
    code = "print(os.getpid(), flush=True); called(321, 23, bytes(8), 8); print('went on', flush=True)"
    for _ in range(3):
        with pytest.raises(subprocess.CalledProcessError) as killed:
            named_victim(code)
        assert killed.value.returncode == -9
        assert killed.value.stdout.split() == [killed.value.stdout.strip()]  # its tgid, and nothing after it
        (line,) = of(enforcing, int(killed.value.stdout), "runtime_integrity.bpf")
        assert (line["decision"]["tier"], line["done"]) == ("kernel", ["refused", "poisoned", "killed"])


def test_bpf_and_ptrace_are_refused_with_the_rules_error(enforcing: RunningAgent, victim: Run) -> None:
    make_map = """
import struct
attributes = ctypes.create_string_buffer(struct.pack("=IIIIIII16s", 2, 4, 8, 1, 0, 0, 0, b"krie-victim"), 72)
print(os.getpid(), until(lambda: called(321, 0, attributes, 72), 13))
"""
    tgid, error = map(int, victim(make_map).stdout.split())
    assert error == 13
    lines = of(enforcing, tgid, "runtime_integrity.bpf")
    assert (lines[0]["done"], lines[-1]["done"][0]) == (["bound"], "refused")  # and bound anew, if it still runs
    look = """
libc.prctl(15, b"krie-victim", 0, 0, 0)
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
buffer = ctypes.create_string_buffer(8)
vector = (ctypes.c_ulong * 2)(ctypes.addressof(buffer), 8)
print(os.getpid(), until(lambda: called(310, child, vector, 1, vector, 1, ctypes.c_ulong(0)), 1))
os.kill(child, 9)
os.waitpid(child, 0)
"""
    tgid, error = map(int, victim(look).stdout.split())
    assert error == 1  # what process_vm_readv() makes of EACCES
    lines = of(enforcing, tgid, "runtime_integrity.ptrace")
    assert (lines[0]["done"], lines[-1]["done"][0]) == (["bound"], "refused")  # and bound anew, if it still runs


def test_a_process_is_killed(enforcing: RunningAgent, victim: Run) -> None:
    with pytest.raises(subprocess.CalledProcessError) as killed:
        victim(f"print(os.getpid(), flush=True); write({KILLED}); time.sleep(60)")
    assert killed.value.returncode == -9
    (line,) = of(enforcing, int(killed.value.stdout), "runtime_integrity.sysctl_write")
    assert line["done"] in (["killed"], ["signalled"])


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
        deadline = time.monotonic() + PATIENCE_S
        while status(enforcing)["host"] is not None and time.monotonic() < deadline:
            time.sleep(0.1)
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
time.sleep(1)  # the verdict is there before the agent looks whether it hit somebody who still lives
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
    assert ask(enforcing.run_dir, {"ask": "clear", "rule": "SITE006"})["rearmed"] == ["SITE006"]
    enforcing.wait("krie.breaker", lambda line: line["event"]["state"] == "rearmed")
    assert done(5) == ["poisoned"]


def test_ftrace_is_not_switched_off(enforcing: RunningAgent, victims: Victims) -> None:
    switch = Path("/proc/sys/kernel/ftrace_enabled")
    script = f"echo $$; echo 0 > {switch}; echo $?; echo 1 > {switch}; echo $?"
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
    tgid, off, on = done.stdout.split()
    assert switch.read_text() == "1\n"
    assert (off != "0", on) == (True, "0")
    first, second = of(enforcing, int(tgid), "runtime_integrity.sysctl_write")
    assert (first["decision"]["tier"], first["done"]) == ("kernel", ["refused"])
    assert first["decision"]["rules"][0]["id"] == "SYSCTL001"
    assert second["done"] == []


READ_BY_THE_KERNEL = (  # which takes the number 0 out of each
    b"0",
    b"0 x\n",
    b"0 1",
    b"0\t\n9",
    b"0 0",
    b"\x0b\xa0 0",
    b"0x0",
    b"00",
    b"-0",
    b" " * 41 + b"0\n",
    b"0" + b" " * 80,
    b"0" + b" " * 5000,
)
UNREAD = (
    b" " * 42 + b"0" * 21,
    b" " * 63 + b"0\n",
    b" " * 70 + b"0",
    b"0" * 25,
    b"0,1",
    b"0\0",
    b"x",
    b"+0",
    b" " * 4096,
)
WEAKEN = """
import json
file = os.open("/proc/sys/kernel/kptr_restrict", os.O_WRONLY)
found = []
for text, position in json.loads(sys.argv[1]):
    try:
        found.append(os.pwrite(file, bytes.fromhex(text), position))
    except OSError as error:
        found.append(errno.errorcode[error.errno])
    found[-1] = [found[-1], open("/proc/sys/kernel/kptr_restrict").read()]
print(json.dumps([os.getpid(), found]))
"""


LOAD = f"{PROGRAM}\nprint(os.getpid(), called(321, 5, buffer, 120))"


@pytest.mark.parametrize(
    ("helper", "padding", "rules"),
    [
        (0, 4200, []),
        (109, 4200, ["BPF002"]),
        (0, 20_000, ["BPF007"]),
        (109, 20_000, ["BPF007"]),
    ],
)
def test_an_unnamed_program_loads_nothing_that_harms_or_was_not_read(
    enforcing: RunningAgent, victim: Run, helper: int, padding: int, rules: list[str]
) -> None:
    tgid, error = map(int, victim(LOAD, str(helper), str(padding)).stdout.split())
    assert error == (1 if rules else 0)
    (line,) = of(enforcing, tgid, "runtime_integrity.bpf")
    assert [each["id"] for each in line["decision"]["rules"]] == ["BPF001", *rules]
    assert (line["decision"]["tier"], line["done"]) == (("kernel", ["refused"]) if rules else ("user", []))


def test_an_unnamed_program_loads_nothing_while_nobody_can_read(enforcing: RunningAgent, victim: Run) -> None:
    """Somebody takes the program that goes on with the scan out of its map."""
    with slots_emptied(enforcing.process.pid):
        tgid, error = map(int, victim(LOAD, "0").stdout.split())
    assert error == 1
    (line,) = of(enforcing, tgid, "runtime_integrity.bpf")
    assert ([each["id"] for each in line["decision"]["rules"]], line["done"]) == (["BPF001", "BPF007"], ["refused"])


def test_a_named_program_loads_what_nobody_reads(enforcing: RunningAgent, named_victim: Run) -> None:
    tgid, error = map(int, named_victim(LOAD, "0", "20000").stdout.split())
    assert error == 0
    (line,) = of(enforcing, tgid, "runtime_integrity.bpf")
    assert ([each["id"] for each in line["decision"]["rules"]], line["done"]) == (["BPF004"], [])


def test_what_the_kernel_would_read_is_refused(enforcing: RunningAgent, victim: Run) -> None:
    """Also what might be read, and what is written behind the file's start when the kernel does not ignore that."""
    protected, strict = Path("/proc/sys/kernel/kptr_restrict"), Path("/proc/sys/kernel/sysctl_writes_strict")
    protected.write_text("1")
    writes = [(each, 0) for each in (*READ_BY_THE_KERNEL, *UNREAD)] + [(b"0\n", 1 << 32)]
    known = [(b"\n", 1), (b"0", 1), (b" \n", 0), (b"1 0", 0)]
    assert strict.read_text() == "1\n"
    tgid, found = json.loads(victim(WEAKEN, json.dumps([(text.hex(), at) for text, at in (*known, *writes)])).stdout)
    ignored, taken = found[: len(known)], found[len(known) :]
    assert ignored == [[1, "1\n"], [1, "1\n"], ["EINVAL", "1\n"], [2, "1\n"]]
    assert taken == [["EPERM", "1\n"]] * len(writes)
    lines = of(enforcing, tgid, "runtime_integrity.sysctl_write")
    assert [line["event"]["change"] for line in lines[: len(known)]] == ["none", "none", "none", "same"]
    assert all(not line["decision"]["rules"] for line in lines[: len(known)])
    rules = [each["id"] for line in lines[len(known) :] for each in line["decision"]["rules"]]
    assert rules == [*["SYSCTL001"] * len(READ_BY_THE_KERNEL), *["SYSCTL002"] * len(UNREAD), "SYSCTL001"]
    assert all((line["decision"]["tier"], line["done"]) == ("kernel", ["refused"]) for line in lines[len(known) :])
    strict.write_text("0")
    try:
        _, found = json.loads(victim(WEAKEN, json.dumps([(b"0".hex(), 1), (b"\n".hex(), 1)])).stdout)
    finally:
        strict.write_text("1")
    assert found == [["EPERM", "1\n"], ["EINVAL", "1\n"]]


@pytest.mark.needs("test_module")
@pytest.mark.parametrize(("way", "rounds", "runs_on"), [("root", 60, 0), ("escape", 100, 100)])
def test_who_becomes_root_by_an_exploit_does_nothing_with_it(
    enforcing: RunningAgent,
    test_module: TestModule,
    attacker: Path,
    tmp_path: Path,
    way: str,
    rounds: int,
    runs_on: int,
) -> None:
    """By a system call's normal end no further instruction runs; by an iretq they do, and no file is made."""
    tmp_path.chmod(0o755)
    before = len(enforcing.lines("example.seen"))
    done = subprocess.run(
        [attacker, str(rounds), str(tmp_path), f"{address_of('init_task'):x}", way], capture_output=True, text=True
    )
    killed, ran, made, other = map(int, done.stdout.split())
    assert (killed, made, other) == (rounds, 0, 0)
    # An interrupt may come between the iretq and the next instruction, and on its way out the signal is seen.
    assert runs_on - rounds // 10 <= ran <= runs_on if runs_on else ran == 0
    assert not list(tmp_path.iterdir())
    lines = enforcing.wait("example.seen", count=before + rounds)
    assert {tuple(line["done"]) for line in lines[before:]} == {("poisoned", "killed")}
    time.sleep(2)
    assert status(enforcing)["poisoned_count"] == 0  # all have ended
    if way == "escape":
        assert enforcing.lines(
            "krie.contained", lambda line: line["event"]["operation"] in ("inode_create", "file_open")
        )
