"""When kprobes may be removed, who keeps them until then, how the kernel's switch is put right; without a kernel."""

import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import IO, cast

import pytest
from krie import Alternative, AttachType, Probe, Program, Sensor
from krie.agent.ground import Ground, standing_probes
from krie.errors import KernelError
from krie.kernel import switches
from krie.kernel.dispatch import FUNCTION as DISPATCHER
from krie.kernel.keeper import BREAKPOINT, CLOSE, END, HOLD, IDLE_SLOT, KEY, MESSAGE, TRAMPOLINE, Held, _Keeper
from krie.kernel.keeper import TRAP as TRAP_KIND
from krie.kernel.keeping import Keeper
from krie.kernel.static_keys import USERS
from krie.kernel.switches import ARMED, FTRACE_IS_OFF, LIES, OFF, RIGHTED, WAITS, Addresses, Places, Switches
from krie.kernel.traps import Traps
from krie.loader.launcher import LoadedSet

VARIABLE, COUNTER, IDLE, TRAP, OTHER = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000
ENABLED, DISABLED, FUNCTION = 0x6000, 0x7000, 0x8000
CALLED, NOT_CALLED = bytes.fromhex("e800000000"), bytes.fromhex("0f1f440000")
NO_TRAPS = Traps(-1, 0, lambda address, size: bytes(size))
FTRACE = "ffffffff81000000  k  commit_creds+0x4    [FTRACE]\n"


class Kernel:
    """Memory, and the files of debugfs. Writing the switch arms kprobes, as far as that shows in memory."""

    def __init__(self, folder: Path) -> None:
        self.memory = {
            VARIABLE: b"\0",
            COUNTER: struct.pack("=i", 0),
            IDLE: NOT_CALLED,
            TRAP: b"\xcc",
            OTHER: b"\x55",
            ENABLED: struct.pack("=i", 1),
            DISABLED: struct.pack("=i", 0),
            FUNCTION: CALLED,
        }
        self.files = folder / "kprobes"
        self.files.mkdir()
        self.lists("")
        self.written: list[bytes] = []
        self.obeys = True
        self.ftrace_file = folder / "ftrace_enabled"
        self.closes_idle: Callable[[], None] = lambda: None
        self.debugfs = os.open(folder, os.O_RDONLY)
        addresses = Addresses(VARIABLE, COUNTER, ENABLED, DISABLED, IDLE)
        self.switch = Switches(self.read, self.debugfs, addresses, -1)

    def lists(self, text: str) -> None:
        (self.files / "list").write_text(text)

    def read(self, address: int, count: int) -> bytes:
        switch = self.files / "enabled"
        if switch.exists() and switch.read_bytes() == b"1\n" and self.obeys:
            self.memory[VARIABLE] = b"\0"
        if self.ftrace_file.exists() and self.ftrace_file.read_bytes() == b"1\n" and self.obeys:
            self.memory[ENABLED] = b"\1"
        if address not in self.memory:
            raise KernelError("reading kernel memory", 14)
        return self.memory[address].ljust(count, b"\0")[:count]

    def forge(self) -> None:
        (self.files / "enabled").write_bytes(b"0\n")
        self.memory[VARIABLE] = b"\1"

    def look(self, *places: int) -> tuple[str, str]:
        return self.switch.look(Places(frozenset(places) - {0}), self.closes_idle)

    def turn_ftrace_off(self) -> None:
        self.ftrace_file.write_bytes(b"0\n")
        self.memory[ENABLED] = bytes(4)
        self.memory[FUNCTION] = NOT_CALLED


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switches, "_AGAIN_S", 0)


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    made = Kernel(tmp_path)
    yield made
    os.close(made.debugfs)


def test_armed_as_it_says(kernel: Kernel) -> None:
    assert kernel.look(TRAP) == (ARMED, "")


def test_disarmed_as_it_says_is_left_alone(kernel: Kernel) -> None:
    kernel.forge()
    assert kernel.look(OTHER) == (OFF, "")
    assert (kernel.files / "enabled").read_bytes() == b"0\n"


@pytest.mark.parametrize("text", [b"\xcc", b"\xe9"])
def test_breakpoints_alone_are_armed_again(kernel: Kernel, text: bytes) -> None:
    kernel.forge()
    kernel.memory[TRAP] = text
    kernel.lists("ffffffff81000009  k  commit_creds+0x9    [OPTIMIZED]\n" + FTRACE.replace("\n", "[DISABLED]\n"))
    assert kernel.look(OTHER, TRAP, 0) == (RIGHTED, "")


def test_a_jump_at_a_trap_is_the_functions_own(kernel: Kernel) -> None:
    kernel.forge()
    kernel.memory[TRAP] = b"\xe9"
    places = Places(traps=frozenset({TRAP}))
    assert kernel.switch.look(places, kernel.closes_idle) == (OFF, "")
    assert (kernel.files / "enabled").read_bytes() == b"0\n"
    kernel.memory[TRAP] = b"\xcc"
    assert kernel.switch.look(places, kernel.closes_idle) == (RIGHTED, "")


def test_what_stays_as_it_is_lies(kernel: Kernel) -> None:
    kernel.forge()
    kernel.obeys = False
    assert kernel.look(TRAP) == (LIES, "kprobes/enabled was written in vain")


def test_kprobes_on_ftrace_are_counted_twice_only_behind_an_entry_that_stays(kernel: Kernel) -> None:
    kernel.lists(FTRACE)
    kernel.forge()
    found, why = kernel.look(TRAP)
    assert (found, "nothing keeps their filter" in why) == (LIES, True)
    kernel.switch.idle = 7
    closed: list[int] = []

    def close() -> None:
        closed.append(kernel.switch.idle)
        kernel.switch.idle = -1

    kernel.closes_idle = close
    found, why = kernel.look(TRAP)  # ftrace does not call it: it was closed, and did not stay
    assert (found, "did not stay" in why, closed) == (LIES, True, [7])
    kernel.memory[IDLE] = bytes.fromhex("f30f1efa") + CALLED
    assert kernel.look(TRAP) == (RIGHTED, "")
    assert closed == [7]
    kernel.forge()
    assert kernel.look(TRAP) == (RIGHTED, "")  # it is still there


def test_by_ftrace_alone_it_is_known_too(kernel: Kernel) -> None:
    kernel.forge()
    assert kernel.look(0) == (OFF, "")
    kernel.memory[IDLE] = CALLED
    assert kernel.look(0) == (RIGHTED, "")


def test_without_symbols_debugfs_says_what_is_armed(kernel: Kernel) -> None:
    switch = Switches(kernel.read, kernel.debugfs, Addresses(), -1)
    assert not switch.off()  # no file
    (kernel.files / "enabled").write_bytes(b"0\n")
    assert switch.off()
    assert switch.look(Places(frozenset({TRAP})), lambda: None) == (RIGHTED, "")
    assert (kernel.files / "enabled").read_bytes() == b"1\n"


@pytest.fixture
def ftrace(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """A kernel whose `ftrace_enabled` was written."""
    monkeypatch.setattr(switches, "FTRACE_SWITCH", str(kernel.ftrace_file))
    kernel.turn_ftrace_off()
    kernel.memory[FUNCTION] = CALLED
    return kernel


def test_calls_that_ftrace_would_leave(ftrace: Kernel) -> None:
    where = Places(frozenset(), frozenset({FUNCTION}))
    assert ftrace.switch.look(where, ftrace.closes_idle) == (RIGHTED, "")
    assert ftrace.ftrace_file.read_bytes() == b"1\n"
    ftrace.turn_ftrace_off()
    assert ftrace.switch.look(where, ftrace.closes_idle) == (WAITS, FTRACE_IS_OFF)
    assert ftrace.ftrace_file.read_bytes() == b"0\n"  # it is left alone


@pytest.mark.parametrize(("becomes", "found"), [("off", (WAITS, FTRACE_IS_OFF)), ("on", (ARMED, ""))])
def test_ftrace_that_is_being_switched_is_waited_for(
    ftrace: Kernel, monkeypatch: pytest.MonkeyPatch, becomes: str, found: tuple[str, str]
) -> None:
    """The variable is written first; whoever reads the file waits for the text."""

    def opens(path: str, mode: str, buffering: int) -> IO[bytes]:
        assert mode == "rb"
        if becomes == "off":
            ftrace.memory[FUNCTION] = NOT_CALLED
        else:
            ftrace.memory[ENABLED] = b"\1"
        return open(path, "rb", buffering)

    monkeypatch.setattr(switches, "open", opens, raising=False)
    assert ftrace.switch.look(Places(called=frozenset({FUNCTION})), ftrace.closes_idle) == found


@pytest.mark.parametrize("flips", [2, 3])
def test_who_turns_ftrace_off_again_and_again_forges_nothing(
    ftrace: Kernel, monkeypatch: pytest.MonkeyPatch, flips: int
) -> None:
    """Off, on and off again within one look: it waits for the text of the first, and reads the variable of the last."""
    looks: list[str] = []

    def opens(path: str, mode: str, buffering: int) -> IO[bytes]:
        assert mode == "rb"
        looks.append(path)
        ftrace.memory[FUNCTION] = CALLED if len(looks) < flips else NOT_CALLED
        return open(path, "rb", buffering)

    monkeypatch.setattr(switches, "open", opens, raising=False)
    assert ftrace.switch.look(Places(called=frozenset({FUNCTION})), ftrace.closes_idle) == (WAITS, FTRACE_IS_OFF)
    assert ftrace.ftrace_file.read_bytes() == b"0\n"


@pytest.mark.parametrize(("at_last", "found"), [(b"\1", OFF), (b"\0", ARMED)])
def test_who_turns_kprobes_off_again_and_again_forges_nothing(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, at_last: bytes, found: str
) -> None:
    kernel.forge()
    looks: list[int] = []

    def waits() -> int:
        """For the mutex, as opening a kprobe does."""
        looks.append(1)
        kernel.memory[VARIABLE] = at_last if len(looks) > 1 else b"\1"
        kernel.memory[TRAP] = b"\x55" if len(looks) > 1 and found == OFF else b"\xcc"
        return -1

    monkeypatch.setattr(kernel.switch, "open_idle", waits)
    assert kernel.look(TRAP) == (found, "")
    assert (kernel.files / "enabled").read_bytes() == b"0\n"


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("nothing", ""),
        ("ftrace", "write 1 to /proc/sys/kernel/ftrace_enabled"),
        ("kprobes", "write 1 to kprobes/enabled in debugfs"),
        ("kprobes on ftrace", "kprobes were turned off by a write to memory"),
        ("kprobes, after a mend", "write 1 to kprobes/enabled in debugfs"),
        ("disabled", "ftrace_disabled is set"),
    ],
)
def test_a_start_is_refused_while_something_is_off(kernel: Kernel, what: str, why: str) -> None:
    if what == "ftrace":
        kernel.turn_ftrace_off()
    elif what == "disabled":
        kernel.memory[DISABLED] = b"\1"
    elif what != "nothing":
        kernel.forge()
        kernel.memory[COUNTER] = struct.pack("=i", what != "kprobes")
        kernel.memory[IDLE] = CALLED if what == "kprobes, after a mend" else NOT_CALLED
    assert bool(why) is bool(kernel.switch.why_not_attach())
    assert why in kernel.switch.why_not_attach()


def test_a_start_waits_for_who_puts_a_switch_right(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.forge()

    def sleep(_seconds: float) -> None:
        kernel.memory[VARIABLE] = b"\0"

    monkeypatch.setattr(switches, "time", SimpleNamespace(sleep=sleep))  # of no thread beside it
    assert kernel.switch.why_not_attach() == ""


def test_ftrace_that_cannot_be_read_is_on(kernel: Kernel) -> None:
    del kernel.memory[ENABLED]
    assert kernel.switch.why_not_attach() == ""
    assert kernel.look(TRAP) == (ARMED, "")


@pytest.mark.parametrize("before", ["", "f30f1efa", "660f1f00", "0f1f40d6"])
def test_a_call_behind_an_endbr_or_what_replaced_it(ftrace: Kernel, before: str) -> None:
    for code, calls in ((CALLED, True), (NOT_CALLED, False)):
        ftrace.memory[FUNCTION] = bytes.fromhex(before) + code
        assert ftrace.switch.calls(FUNCTION) is calls


def test_calls_that_cannot_be_taken_out_any_more(ftrace: Kernel) -> None:
    where = Places(frozenset(), frozenset({FUNCTION}))
    ftrace.obeys = False
    found, why = ftrace.switch.look(where, ftrace.closes_idle)
    assert (found, "was written in vain" in why) == (LIES, True)
    ftrace.memory[ENABLED] = b"\1"
    assert ftrace.switch.look(where, ftrace.closes_idle) == (ARMED, "")
    ftrace.memory[DISABLED] = b"\1"
    found, why = ftrace.switch.look(where, ftrace.closes_idle)
    assert (found, "ftrace_disabled is set" in why) == (LIES, True)


def test_a_counter_that_is_off_keeps_the_last_one(kernel: Kernel) -> None:
    kernel.lists(FTRACE + FTRACE)
    kernel.switch.idle = 7
    for counted, keeps in ((1, False), (2, True), (0, True), (-1, True)):
        kernel.memory[COUNTER] = struct.pack("=i", counted)
        assert kernel.switch.filter_may_empty() is keeps
    kernel.forge()
    assert not kernel.switch.filter_may_empty()  # nothing is in it
    kernel.memory[VARIABLE] = b"\0"
    kernel.switch.idle = -1
    assert not kernel.switch.filter_may_empty()


class Fake:
    """A keeper that notes what it is told."""

    def __init__(self, held: Iterable[Held]) -> None:
        self.held = {each.slot: each.address for each in held}
        self.alive = True
        self.gone = False
        self.tgid = 5

    def lives(self) -> bool:
        return self.alive

    def hold(self, held: Held) -> None:
        self.held[held.slot] = held.address

    def close(self, slot: int) -> None:
        self.held.pop(slot, None)
        if self.gone:
            raise BrokenPipeError

    def close_idle(self) -> None:
        self.close(IDLE_SLOT)

    def end(self) -> str:
        self.held.clear()
        return ""


class Agents:
    """What an agent does with its kprobes, and its keepers."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.keepers: list[Fake] = []
        self.ground = Ground(kernel.switch, NO_TRAPS, self.start)  # type: ignore[arg-type] # a fake one

    def start(self, held: Iterable[Held]) -> Fake:
        self.keepers.append(Fake(held))
        return self.keepers[-1]

    def attach(self, place: int = TRAP) -> int:
        descriptor = os.open("/dev/null", os.O_RDONLY)
        self.ground.hold(descriptor, place)
        return descriptor


def is_open(descriptor: int) -> bool:
    return Path(f"/proc/self/fd/{descriptor}").exists()


@pytest.fixture
def agent(kernel: Kernel) -> Agents:
    return Agents(kernel)


def test_without_kprobes_nobody_keeps_them(agent: Agents) -> None:
    agent.ground.start()
    assert agent.keepers == []
    assert agent.ground.tick() == []
    agent.ground.end()


def test_the_keeper_holds_what_the_agent_holds(agent: Agents) -> None:
    first = agent.attach()
    agent.ground.start()
    (keeper,) = agent.keepers
    second = agent.attach(OTHER)
    assert sorted(keeper.held.values()) == [TRAP, OTHER]
    agent.ground.release(first)
    assert list(keeper.held.values()) == [OTHER]
    assert not is_open(first)
    keeper.alive = False
    assert agent.ground.tick() == []
    assert [list(each.held.values()) for each in agent.keepers] == [[OTHER], [OTHER]]
    os.close(second)


def test_a_switch_that_lies_keeps_everything_until_it_does_not(
    agent: Agents, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    one = agent.attach()
    agent.ground.start()
    kernel.lists(FTRACE)
    kernel.forge()
    agent.ground.release(one)
    assert is_open(one)
    assert len(agent.keepers[0].held) == 1
    for count in (1, 0):  # told once
        assert [fields["attempt"] for _, fields in agent.ground.tick()] == ["probes_forged"] * count
    assert "restart this machine" in caplog.text
    assert "nothing keeps their filter" in agent.ground.obstacle()
    kernel.memory[VARIABLE] = b"\0"
    assert agent.ground.tick() == []
    assert not is_open(one)
    assert agent.keepers[0].held == {}


def test_while_ftrace_is_off_everything_stays(agent: Agents, kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    """Honestly off: nothing is forged, and nothing turned on."""
    one = agent.attach()
    agent.ground.start()
    kernel.turn_ftrace_off()
    agent.ground.release(one)
    assert is_open(one)
    assert agent.ground.tick() == []
    assert FTRACE_IS_OFF in agent.ground.obstacle()
    assert caplog.text.count("no probe is moved or removed while ftrace is off") == 1
    assert len(agent.keepers[0].held) == 1
    kernel.memory[ENABLED] = b"\1"
    assert agent.ground.tick() == []
    assert not is_open(one)
    assert kernel.ftrace_file.read_bytes() == b"0\n"


@pytest.mark.parametrize("off", [VARIABLE, ENABLED, DISABLED])
def test_no_idle_kprobe_is_opened_while_something_is_off(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, off: int
) -> None:
    """Whether the idle function is called already cannot be known without ftrace."""
    opened: list[int] = []

    def opens() -> int:
        opened.append(os.open("/dev/null", os.O_RDONLY))
        return opened[-1]

    monkeypatch.setattr(kernel.switch, "open_idle", opens)
    before = kernel.memory[off]
    kernel.memory[off] = struct.pack("=i", off != ENABLED)
    ground = Agents(kernel).ground
    assert opened == []
    kernel.memory[off] = before
    ground.tick()
    assert len(opened) == 1
    ground.end()


def test_who_has_gone_lets_go_of_nothing(agent: Agents) -> None:
    one = agent.attach()
    agent.ground.start()
    agent.keepers[0].alive = False
    agent.ground.release(one)
    assert is_open(one)
    agent.ground.tick()  # another one is started
    assert list(agent.keepers[1].held.values()) == [TRAP]
    agent.ground.tick()
    assert not is_open(one)
    assert agent.keepers[1].held == {}


class Events:
    """Those of tracefs; they go where there is no obstacle."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.why = ""

    def name(self, address: int) -> str:
        return f"{address:x}"

    def own(self) -> list[str]:
        return [each for each in self.names if each != "of the dead"]

    def of_the_dead(self) -> list[str]:
        return ["of the dead"]

    def remove(self, name: str) -> str:
        if not self.why:
            self.names.remove(name)
        return self.why


def test_without_any_keeper_probes_are_closed_behind_a_look(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(_held: Iterable[Held]) -> Keeper:
        raise OSError(12, "no memory")

    events = Events()
    ground = Ground(kernel.switch, cast("Traps", events), refuse)
    one, two, three = (os.open("/dev/null", os.O_RDONLY) for _ in range(3))
    for each, place, kind in ((one, TRAP, BREAKPOINT), (two, OTHER, TRAP_KIND), (three, IDLE, TRAP_KIND)):
        ground.hold(each, place, kind)
        events.names += [events.name(place)] if kind == TRAP_KIND else []
    ground.start()
    ground.release(one)
    ground.release(two)
    assert not is_open(one)
    assert not is_open(two)
    ground.tick()
    assert events.names == [events.name(IDLE)]
    events.why = "it breaks"
    ground.release(three)
    ground.tick()
    assert events.own()
    ground.end()
    assert "stays in tracefs (3000): it breaks" in caplog.text
    events.why = ""
    ground.tick()
    assert not events.own()


def test_places_that_agree_with_the_switches(kernel: Kernel) -> None:
    trap, function = Places(frozenset({TRAP})), Places(frozenset(), frozenset({FUNCTION}))
    assert kernel.switch.agree(trap)
    kernel.forge()
    assert not kernel.switch.agree(trap)
    assert kernel.switch.agree(Places(frozenset({OTHER})))
    assert kernel.switch.agree(Places())  # a kprobe on ftrace: the idle one stands for it
    kernel.memory[IDLE] = CALLED
    assert not kernel.switch.agree(Places())
    kernel.memory[IDLE], kernel.memory[ENABLED] = NOT_CALLED, bytes(4)
    assert not kernel.switch.agree(function)
    kernel.memory[VARIABLE] = b"\0"
    assert not kernel.switch.agree(function)
    assert not kernel.switch.agree(Places())
    kernel.memory[ENABLED] = b"\1"
    assert kernel.switch.agree(function)
    assert (kernel.files / "enabled").read_bytes() == b"0\n"


def test_what_is_put_right_is_told(agent: Agents, kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    one = agent.attach()
    agent.ground.start()
    for _ in range(2):
        kernel.forge()
        assert [fields["attempt"] for _, fields in agent.ground.tick()] == ["probes_forged"]
        assert "it is put right" in caplog.text
    assert agent.ground.tick() == []
    os.close(one)


def test_that_something_is_off_is_known_once_each_time(agent: Agents, kernel: Kernel) -> None:
    assert not agent.ground.turned_off()
    for variable, value in ((VARIABLE, b"\1"), (ENABLED, bytes(4)), (DISABLED, b"\1")):
        before = kernel.memory[variable]
        kernel.memory[variable] = value
        assert [agent.ground.turned_off() for _ in range(2)] == [True, False]
        kernel.memory[variable] = before
        assert not agent.ground.turned_off()


def test_the_end_waits_where_nobody_would_keep_them(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_held: Iterable[Held]) -> Keeper:
        raise OSError(12, "no memory")

    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            kernel.memory[VARIABLE] = b"\0"

    ground = Ground(kernel.switch, NO_TRAPS, refuse)
    one = os.open("/dev/null", os.O_RDONLY)
    ground.hold(one, TRAP)
    ground.start()
    assert "nobody keeps probes if this agent is killed" in caplog.text
    kernel.lists(FTRACE)
    kernel.forge()
    monkeypatch.setattr("krie.agent.ground.time", SimpleNamespace(sleep=sleep))  # of no thread beside it
    ground.settle()
    assert 1.0 in waited
    assert not kernel.switch.off()
    ground.end()
    os.close(one)


class Process:
    """A keeper, whose agent is a process of the test's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.agent = subprocess.Popen(["sleep", "60"])
        self.read, self.write = os.pipe()
        null = os.open("/dev/null", os.O_RDONLY)
        numbers = dict.fromkeys(("program", "answer", "state", "debugfs", "tracefs"), null)
        agent = os.pidfd_open(self.agent.pid)
        with monkeypatch.context() as context:
            context.setattr("os.pidfd_open", lambda _: agent)
            held = [Held(0, BREAKPOINT, TRAP, self.write)]
            others = {"answer_bytes": 16, "kprobe_type": -1, "secret": 0, "agent_tgid": self.agent.pid}
            self.keeper = Keeper({**numbers, **others}, Addresses(), held)
        self.process, self.mine = self.keeper._process, self.keeper._socket
        os.close(null)
        os.close(self.write)

    def tell(self, command: bytes, slot: int, descriptor: int = -1) -> None:
        message = MESSAGE.pack(command, BREAKPOINT.encode(), slot, 0)
        socket.send_fds(self.mine, [message], [descriptor] if descriptor >= 0 else [])

    def ask(self, command: bytes, slot: int) -> bytes:
        self.tell(command, slot)
        return self.mine.recv(100)

    def holds(self) -> bool:
        """The pipe's write end; nobody else has it."""
        os.set_blocking(self.read, False)
        try:
            return os.read(self.read, 1) != b""
        except BlockingIOError:
            return True


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    made = Process(monkeypatch)
    yield made
    made.agent.kill()
    made.agent.wait()
    made.process.wait(20)
    made.mine.close()
    os.close(made.read)


def test_the_process_ends_with_the_agent_and_not_before(process: Process) -> None:
    other, write = os.pipe()
    process.tell(HOLD, 1, write)
    os.close(write)
    assert process.ask(CLOSE, IDLE_SLOT) == b"done"
    process.process.send_signal(signal.SIGTERM)
    process.process.send_signal(signal.SIGINT)
    assert process.ask(CLOSE, IDLE_SLOT) == b"done"
    process.tell(HOLD, IDLE_SLOT, other)
    assert process.holds()
    assert Path(f"/proc/{process.process.pid}/comm").read_text() == "krie-keeper\n"
    process.mine.shutdown(socket.SHUT_RDWR)  # as if it were about to die
    time.sleep(0.1)
    assert process.holds()
    process.agent.kill()
    assert process.process.wait(20) == 0
    assert not process.holds()
    assert os.read(other, 1) == b""
    os.close(other)


def test_the_process_lets_go_of_what_is_not_wanted_and_ends_when_it_is_asked(process: Process) -> None:
    other, write = os.pipe()
    process.tell(HOLD, IDLE_SLOT, write)
    os.close(write)
    process.keeper.close(0)
    process.keeper.close(7)  # which it never had
    while process.holds():
        time.sleep(0.01)
    assert process.ask(CLOSE, IDLE_SLOT) == b"done"
    assert os.read(other, 1) == b""
    os.close(other)
    assert process.ask(END, 0) == b"done"
    assert process.process.wait(20) == 0


def test_an_answer_that_nobody_reads_ends_no_keeper(process: Process) -> None:
    """The rest of a socket pair whose other end closed with something in it says so once, by an error."""
    process.tell(CLOSE, IDLE_SLOT)
    assert process.mine.recv(1, socket.MSG_PEEK)
    process.mine.close()
    time.sleep(0.2)
    assert process.process.poll() is None
    assert process.holds()
    process.agent.kill()
    assert process.process.wait(20) == 0
    assert not process.holds()


@pytest.fixture
def keeping(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[_Keeper, Events, socket.socket]]:
    """A keeper in this process; it holds a trap."""
    events = Events()
    events.names = ["of the dead", events.name(TRAP)]
    monkeypatch.setattr("krie.kernel.keeper.Traps", lambda *_: events)
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    numbers = dict.fromkeys(("agent", "state", "program", "answer", "tracefs", "debugfs", "kprobe_type", "secret"), -1)
    others = {"socket": theirs.detach(), "state": 1 << 20, "answer_bytes": 16, "agent_tgid": 1}
    held = [Held(0, TRAP_KIND, TRAP, os.open("/dev/null", os.O_RDONLY))]
    kept = _Keeper({**numbers, **others}, Addresses(), held)
    yield kept, events, mine
    kept._socket.close()
    mine.close()


def test_the_keeper_removes_events_once_nothing_of_them_is_left(
    keeping: tuple[_Keeper, Events, socket.socket],
) -> None:
    kept, events, _ = keeping
    assert kept._serve(MESSAGE.pack(CLOSE, b" ", 0, 0), [])
    assert kept._waits_ms() == 0
    events.why = "it breaks"
    kept._leave()
    assert events.names == ["of the dead", events.name(TRAP)]
    assert kept._waits_ms() == 1000
    events.why = ""
    kept._leave()
    assert events.names == []
    assert kept._waits_ms() is None


def test_the_keeper_lets_go_of_kprobes_at_once_and_of_others_one_by_one(
    keeping: tuple[_Keeper, Events, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, events, mine = keeping
    places = [(BREAKPOINT, 0), (TRAMPOLINE, FUNCTION), (KEY, 0x100), (BREAKPOINT, 0), (TRAMPOLINE, FUNCTION)]
    kept._held |= {slot: Held(slot, kind, place, -slot) for slot, (kind, place) in enumerate(places, start=1)}
    done: list[str] = []

    def close(descriptors: Iterable[int]) -> None:
        done.append(f"{len(list(descriptors))} closed")

    def look(*_: object) -> str:
        done.append("look")
        return ""

    def agrees(_held: Held) -> bool:
        done.append("agrees")
        return done.count("agrees") != 2

    monkeypatch.setattr("krie.kernel.keeper.detach", close)
    monkeypatch.setattr(kept, "_look", look)
    monkeypatch.setattr(kept, "_agrees", agrees)
    kept._let_go(asked=True)
    one = ["look", "agrees", "1 closed"]
    assert done == ["look", "3 closed", *one, "look", "agrees", *one, *one, "look"]
    assert mine.recv(100) == b"done"
    assert events.names == ["of the dead"]


def test_the_keeper_waits_while_ftrace_is_off(
    keeping: tuple[_Keeper, Events, socket.socket], kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, events, mine = keeping
    kept._switches = kernel.switch
    kernel.memory[TRAP] = b"\x55"
    kernel.turn_ftrace_off()

    def sleep(_seconds: float) -> None:
        assert list(kept._held) == [0]
        kernel.memory[ENABLED] = b"\1"

    monkeypatch.setattr("krie.kernel.keeper.time", SimpleNamespace(sleep=sleep))  # of no thread beside it
    monkeypatch.setattr("krie.kernel.keeper._kernel_log", lambda text: None)
    monkeypatch.setattr("krie.kernel.keeper._leave_service", lambda: None)
    kept._let_go(asked=True)
    assert mine.recv(100) == FTRACE_IS_OFF.encode()
    assert (kept._held, events.names) == ({}, ["of the dead"])


def test_the_keeper_ends_when_no_event_of_its_agent_is_left(
    keeping: tuple[_Keeper, Events, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of those of which it was never told."""
    kept, events, mine = keeping
    events.names = [events.name(TRAP), events.name(OTHER)]
    events.why = "it breaks"
    tries: list[float] = []

    def sleep(seconds: float) -> None:
        tries.append(seconds)
        events.why = ""

    monkeypatch.setattr("krie.kernel.keeper.time", SimpleNamespace(sleep=sleep))  # of no thread beside it
    monkeypatch.setattr("krie.kernel.keeper._kernel_log", lambda text: None)
    monkeypatch.setattr("krie.kernel.keeper._leave_service", lambda: None)
    kept._let_go(asked=True)
    assert mine.recv(100) == b"it breaks"
    assert (tries, events.names) == ([1.0], [])


def test_every_way_to_change_the_text_is_held() -> None:
    """A kind of attachment that is forgotten here ends with the agent, whatever the kernel's switches are."""
    programs = tuple(Program(each, "vfs_read", f"p_{each}") for each in AttachType)
    sensor = Sensor("p", "1", probes=(Probe("all", None, (Alternative("all", programs),)),))
    links = {f"link:{each.label}": (number,) for number, each in enumerate(programs)}
    call = next(each for each in programs if each.attach is AttachType.SYSCALL)
    links[f"link:{DISPATCHER}-0"] = links.pop(f"link:{call.label}")
    keys = {each: 0x100 for each in programs if each.attach in USERS}
    loaded = SimpleNamespace(
        descriptors=links, loaded=SimpleNamespace(attached=[each.label for each in programs], chosen={"p.all": "all"})
    )
    held = {programs[link].attach: kind for link, _, kind in standing_probes([sensor], cast("LoadedSet", loaded), keys)}
    trampolines = {AttachType.LSM, AttachType.FMOD_RET, AttachType.FENTRY}
    assert set(held) == set(AttachType) - {AttachType.PERF_EVENT}
    assert {each for each, kind in held.items() if kind == KEY} == USERS
    assert {each for each, kind in held.items() if kind == TRAMPOLINE} == trampolines
