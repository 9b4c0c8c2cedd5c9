"""Which static keys lie; without a kernel."""

import struct
from types import SimpleNamespace

import pytest
from krie import AttachType, Program
from krie.errors import KernelError
from krie.kernel.static_keys import StaticKeys, key_addresses, symbols_of

KEY, OTHER, ENTRIES, LIST, CODE = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000
NOP, JUMP, SHORT, BREAKPOINT = 0x0F, 0xE9, 0xEB, 0xCC


class Memory:
    """A key, its entries behind those of another one, and the text."""

    def __init__(self, enabled: int, code: int, *, flags: int = 0, at_boot: bool = False, linked: bool = False) -> None:
        self.bytes: dict[int, int] = {}
        self.enable(enabled, linked=linked)
        entries = [(CODE, KEY, flags), (CODE + 0x100, OTHER, 0)]
        if at_boot:
            entries.insert(0, (CODE + 0x200, KEY, 2))
        for number, (place, key, low) in enumerate(entries):
            at = ENTRIES + 16 * number
            self.put(at, struct.pack("=iiq", place - at, 0, (key - at - 8) | low))
        self.put(LIST, struct.pack("=QQQ", 0, ENTRIES, 0))
        self.put(CODE, bytes([code]))

    def enable(self, enabled: int, *, linked: bool = False) -> None:
        self.put(KEY, struct.pack("=ixxxxQ", enabled, LIST | 2 if linked else ENTRIES | 1))

    def put(self, address: int, data: bytes) -> None:
        self.bytes.update(enumerate(data, address))

    def read(self, address: int, count: int) -> bytes:
        try:
            return bytes(self.bytes[each] for each in range(address, address + count))
        except KeyError:
            raise KernelError("reading", 14) from None


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    return waited


@pytest.mark.parametrize(
    ("enabled", "code", "flags", "lies"),
    [
        (0, NOP, 0, False),
        (1, JUMP, 0, False),
        (3, SHORT, 0, False),
        (0, JUMP, 0, True),
        (1, NOP, 0, True),
        (0, JUMP, 1, False),
        (1, NOP, 1, False),
        (1, SHORT, 1, True),
        (-1, NOP, 0, False),  # it is being changed
        (0, BREAKPOINT, 0, False),
    ],
)
@pytest.mark.parametrize("shape", ["", "at_boot", "linked"])
def test_a_number_against_the_text(enabled: int, code: int, flags: int, lies: bool, shape: str) -> None:
    memory = Memory(enabled, code, flags=flags, at_boot=shape == "at_boot", linked=shape == "linked")
    assert StaticKeys(memory.read).lying([KEY]) == (KEY if lies else 0)


def test_what_is_no_key_is_believed() -> None:
    memory = Memory(0, JUMP)
    memory.put(OTHER, struct.pack("=ixxxxQ", 1, ENTRIES))  # whose entries are another one's
    assert StaticKeys(memory.read).lying([OTHER, 0x9000]) == 0


def test_what_is_changing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(0, JUMP)
    monkeypatch.setattr("time.sleep", lambda _: memory.put(CODE, bytes([NOP])))
    assert StaticKeys(memory.read).lying([KEY]) == 0


def test_a_liar_is_known_at_once_until_it_is_put_right(waits: list[float]) -> None:
    memory = Memory(0, JUMP)
    keys = StaticKeys(memory.read)
    assert keys.lying([KEY]) == KEY
    waited = len(waits)
    assert keys.lying([KEY]) == KEY
    assert len(waits) == waited > 0
    memory.enable(1)
    assert keys.lying([KEY]) == 0
    memory.enable(0)
    assert keys.lying([KEY]) == KEY


def test_which_key_is_whose() -> None:
    known = {"__tracepoint_sched_process_exec": (0x100,), "__tracepoint_sys_enter": (0x200, 0x300)}
    programs = {
        name: Program(type_, target, "f")
        for name, type_, target in (
            ("raw", AttachType.RAW_TRACEPOINT, "sched_process_exec"),
            ("perf", AttachType.TRACEPOINT, "sched/sched_process_exec"),
            ("call", AttachType.SYSCALL, "bpf"),  # two symbols have that name
            ("hook", AttachType.LSM, "bpf"),
            ("cgroup", AttachType.CGROUP_SYSCTL, ""),  # this kernel lists none
        )
    }
    assert symbols_of(programs.values()) == {*known, "cgroup_bpf_enabled_key"}
    assert key_addresses(programs.values(), known) == {programs["raw"]: 0x108, programs["perf"]: 0x108}


@pytest.mark.parametrize(("kinds", "address"), [({"CGROUP_INET_INGRESS": 0, "CGROUP_SYSCTL": 15}, 0x1F0), ({}, 0x100)])
def test_the_key_of_sysctls_is_one_of_many_or_the_only_one(
    monkeypatch: pytest.MonkeyPatch, kinds: dict[str, int], address: int
) -> None:
    """BTF has the enum where there are many, and seldom the size of the array."""
    btf = SimpleNamespace(numbers={"cgroup_bpf_attach_type": kinds}.__getitem__, variable_size=lambda _: None)
    monkeypatch.setattr("krie.kernel.static_keys.Btf", lambda: btf)
    program = Program(AttachType.CGROUP_SYSCTL, "", "sysctl")
    assert key_addresses([program], {"cgroup_bpf_enabled_key": [0x100]}) == {program: address}
