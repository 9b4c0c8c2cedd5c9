"""What the kernel's switches say, what its text says, and how the one is put right by the other; without a kernel."""

import os
import struct
from types import SimpleNamespace

import pytest
from krie.kernel import switches
from krie.kernel.perf_event import PerfEventAttr
from krie.kernel.switches import ARMED, FTRACE_IS_OFF, LIES, OFF, RIGHTED, WAITS, Addresses, Places, Switches

from ..switched_kernel import (
    CALLED,
    COUNTER,
    DISABLED,
    ENABLED,
    FTRACE,
    FUNCTION,
    IDLE,
    NOT_CALLED,
    OTHER,
    TRAP,
    VARIABLE,
    Kernel,
)


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


@pytest.mark.parametrize("function", ["kernel_halt+0x4", "orderly_reboot+0x0"])
def test_nothing_is_put_right_while_somebody_holds_a_kprobe_at_the_idle_function(kernel: Kernel, function: str) -> None:
    """Such as a keeper that has not answered yet: the entry goes when he lets go."""
    kernel.memory[IDLE] = CALLED
    for address in ("ffffffff81000100", "0" * 16):  # zeros by kernel.kptr_restrict
        kernel.lists(f"{FTRACE}{address}  k  {function}    [FTRACE]\n")
        kernel.forge()
        found, why = kernel.look(TRAP)
        assert (found, "may be taken out" in why) == (LIES, True)
    kernel.lists(FTRACE)
    assert kernel.look(TRAP) == (RIGHTED, "")


def test_a_kprobe_at_the_idle_function_that_is_not_armed_is_not_kept(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(2)]
    monkeypatch.setattr(switches, "perf_event_open", lambda *_: opened[-1])
    switch = Switches(kernel.read, kernel.debugfs, Addresses(VARIABLE, COUNTER, idle=IDLE), 6)
    assert switch.open_idle() == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened.pop())
    kernel.memory[IDLE] = CALLED
    assert switch.open_idle() == opened[0]
    os.close(opened[0])


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
    monkeypatch.setattr(switches, "FTRACE_SWITCH", kernel.ftrace_file)
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

    def reads() -> None:
        if becomes == "off":
            ftrace.memory[FUNCTION] = NOT_CALLED
        else:
            ftrace.memory[ENABLED] = b"\1"

    monkeypatch.setattr(switches, "FTRACE_SWITCH", SimpleNamespace(read_bytes=reads))
    assert ftrace.switch.look(Places(called=frozenset({FUNCTION})), ftrace.closes_idle) == found


@pytest.mark.parametrize("flips", [2, 3])
def test_who_turns_ftrace_off_again_and_again_forges_nothing(
    ftrace: Kernel, monkeypatch: pytest.MonkeyPatch, flips: int
) -> None:
    """Off, on and off again within one look: it waits for the text of the first, and reads the variable of the last."""
    looks: list[None] = []

    def reads() -> None:
        looks.append(None)
        ftrace.memory[FUNCTION] = CALLED if len(looks) < flips else NOT_CALLED

    monkeypatch.setattr(switches, "FTRACE_SWITCH", SimpleNamespace(read_bytes=reads))
    assert ftrace.switch.look(Places(called=frozenset({FUNCTION})), ftrace.closes_idle) == (WAITS, FTRACE_IS_OFF)
    assert ftrace.ftrace_file.read_bytes() == b"0\n"


@pytest.mark.parametrize(("at_last", "found"), [(b"\1", OFF), (b"\0", ARMED)])
def test_who_turns_kprobes_off_again_and_again_forges_nothing(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, at_last: bytes, found: str
) -> None:
    kernel.forge()
    looks: list[int] = []

    def waits() -> None:
        looks.append(1)
        kernel.memory[VARIABLE] = at_last if len(looks) > 1 else b"\1"
        kernel.memory[TRAP] = b"\x55" if len(looks) > 1 and found == OFF else b"\xcc"

    monkeypatch.setattr(kernel.switch, "wait", waits)
    assert kernel.look(TRAP) == (found, "")
    assert (kernel.files / "enabled").read_bytes() == b"0\n"


def test_the_entry_that_stays_is_not_taken_out_by_waiting(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be by closing a kprobe at the idle function, once the variable is as it was again; and one on ftrace
    that was made before would take another one's place in the counter.
    """
    opened: list[int] = []

    def opens(attributes: PerfEventAttr, _pid: int, _cpu: int) -> int:
        opened.append(attributes.config2)
        kernel.memory[VARIABLE] = b"\0"
        return -1

    monkeypatch.setattr(switches, "perf_event_open", opens)
    kernel.switch = Switches(kernel.read, kernel.debugfs, Addresses(VARIABLE, COUNTER, idle=IDLE, waited=OTHER), 6)
    kernel.memory[IDLE] = CALLED
    kernel.forge()
    assert kernel.look(TRAP) == (ARMED, "")
    assert opened == [OTHER + 1]  # where none can be


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("nothing", ""),
        ("ftrace", "write 1 to /proc/sys/kernel/ftrace_enabled"),
        ("kprobes", "write 1 to kprobes/enabled in debugfs"),
        ("kprobes on ftrace", "kprobes were turned off by a write to memory"),
        ("kprobes, after a repair", "write 1 to kprobes/enabled in debugfs"),
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
        kernel.memory[IDLE] = CALLED if what == "kprobes, after a repair" else NOT_CALLED
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


def test_kprobes_whose_addresses_are_hidden_are_counted(kernel: Kernel) -> None:
    kernel.lists("".join(f"0000000000000000  k  {each}+0x0    [FTRACE]\n" for each in ("x", "y", "x")))
    kernel.switch.idle = 7
    kernel.memory[COUNTER] = struct.pack("=i", 2)
    assert not kernel.switch.filter_may_empty()


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
