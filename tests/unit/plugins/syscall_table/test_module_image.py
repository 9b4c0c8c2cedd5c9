"""What a module's code is once it is loaded, by its file; written by a test, and loaded as the kernel does it."""

import struct

import pytest
from krie import ModuleFile
from krie.plugins.syscall_table.explain import NOPS
from krie.plugins.syscall_table.image import NOP5
from krie.plugins.syscall_table.module_image import ModuleImage, image_of

from ...module_writer import ABSOLUTE, CODE, LENGTH, Module

TEXT, RODATA, INIT, KERNEL = 0xFFFFFFFFC0001000, 0xFFFFFFFFC0005000, 0xFFFFFFFFC0009000, 0xFFFFFFFF81000000
KNOWN = {"printk": (KERNEL,), "ambiguous": (KERNEL + 0x100, KERNEL + 0x200), "hidden": ()}
CALL, JUMP = 0xE8, 0xE9


class Loaded:
    """A module with two functions in memory."""

    def __init__(self) -> None:
        self.module = Module("first", "second")
        self.module.section(".rodata", bytes(16))
        self.text = bytearray(b"\xcc" * 2 * LENGTH)
        self.rodata = bytearray(16)
        self.starts = {".text": TEXT, ".rodata": RODATA}

    def write(self, offset: int, content: bytes) -> None:
        """In memory only."""
        self.text[offset : offset + len(content)] = content

    def image(self) -> ModuleImage:
        return image_of(ModuleFile(self.module.file()), self.starts, KNOWN.__getitem__, self.read)

    def code(self) -> bytes:
        (code,) = (each.content for each in self.image().parts if each.section == "module")
        return code

    def read(self, address: int, size: int) -> bytes:
        memory, start = (self.text, TEXT) if address < RODATA else (self.rodata, RODATA)
        return bytes(memory[address - start : address - start + size])


@pytest.fixture
def loaded() -> Loaded:
    return Loaded()


def branch(opcode: int, at: int, to: int) -> bytes:
    return bytes((opcode,)) + struct.pack("<i", to - TEXT - at - 5)


def test_calls_lead_where_the_file_says(loaded: Loaded) -> None:
    loaded.module.branch(CALL, "first", "printk")
    loaded.module.branch(CALL, "first", "second", at=16)
    loaded.write(0, branch(CALL, 0, KERNEL + 0x666))
    code = loaded.code()
    assert code[:5] == branch(CALL, 0, KERNEL)
    assert code[16:21] == branch(CALL, 16, TEXT + LENGTH)
    assert loaded.image().taken.end(TEXT + 1) == 0


def test_of_several_symbols_of_a_name_that_one_counts_which_is_called(loaded: Loaded) -> None:
    loaded.module.branch(CALL, "first", "ambiguous")
    for to in KNOWN["ambiguous"]:
        loaded.write(0, branch(CALL, 0, to))
        assert loaded.code()[:5] == branch(CALL, 0, to)
    loaded.write(0, branch(CALL, 0, KERNEL + 0x300))
    assert loaded.code()[:5] == branch(CALL, 0, KNOWN["ambiguous"][0])


def test_what_nobody_knows_is_taken_from_memory(loaded: Loaded) -> None:
    loaded.module.branch(CALL, "first", "hidden")
    loaded.write(0, branch(JUMP, 0, KERNEL))
    assert loaded.code()[:5] == branch(CALL, 0, KERNEL)  # but for the instruction itself
    assert list(loaded.image().taken) == [range(TEXT + 1, TEXT + 5)]


def test_pointers_of_constant_data(loaded: Loaded) -> None:
    loaded.module.relocate(".rodata", 8, ABSOLUTE, "second", 0)
    loaded.rodata[8:] = struct.pack("<Q", KERNEL)
    (data,) = (each for each in loaded.image().parts if each.section == "rodata")
    assert (data.start, data.content) == (RODATA, bytes(8) + struct.pack("<Q", TEXT + LENGTH))


@pytest.mark.parametrize(
    ("section", "entry", "taken"),
    [
        (".return_sites", bytes(4), range(8, 13)),
        (".retpoline_sites", bytes(4), range(8, 14)),
        (".ibt_endbr_seal", bytes(4), range(8, 12)),
        (".smp_locks", bytes(4), range(8, 9)),
        (".cfi_sites", bytes(4), range(12)),
        ("runtime_mask_m", bytes(4), range(8, 12)),
        (".altinstructions", struct.pack("<iiHBBB", 0, 0, 0, 7, 0, 0), range(8, 15)),
        (".altinstructions", struct.pack("<iiHBB", 0, 0, 0, 7, 0), range(8, 15)),
        (".altinstructions", struct.pack("<iiIBB", 0, 0, 0, 7, 0), range(8, 15)),
    ],
)
def test_what_the_kernel_patches_is_taken_from_memory(loaded: Loaded, section: str, entry: bytes, taken: range) -> None:
    loaded.module.sites(section, "first", [8, 200], entry=entry)
    if section == ".altinstructions":
        for index in range(2):
            loaded.module.relocate(section, index * len(entry) + 4, 2, "second", 0)
    loaded.write(0, b"\x41" * LENGTH)
    code = loaded.code()
    assert [offset for offset in range(100) if code[offset] == 0x41] == list(taken)
    assert (loaded.image().locks.end(TEXT + 8) > 0) == (section == ".smp_locks")


def test_paravirtual_calls(loaded: Loaded) -> None:
    loaded.module.sites(".parainstructions", "first", [8], entry=bytes(9) + b"\x07" + bytes(6), kind=ABSOLUTE)
    loaded.write(0, b"\x41" * LENGTH)
    code = loaded.code()
    assert [offset for offset in range(100) if code[offset] == 0x41] == list(range(8, 15))


def test_calls_of_ftrace_are_nops(loaded: Loaded) -> None:
    loaded.module.branch(CALL, "first", "hidden")
    loaded.module.sites("__mcount_loc", "first", [0], entry=bytes(8), kind=ABSOLUTE)
    assert loaded.code()[:5] == NOP5
    for nop in NOPS:
        loaded.write(0, nop)
        assert loaded.code()[:5] == nop


def test_calls_may_lead_to_the_padding_that_counts_them(loaded: Loaded) -> None:
    loaded.module.branch(CALL, "first", "printk")
    loaded.module.sites(".call_sites", "first", [0])
    for to, believed in ((KERNEL - 16, True), (KERNEL - 64, False), (KERNEL + 16, False)):
        loaded.write(0, branch(CALL, 0, to))
        assert loaded.code()[:5] == branch(CALL, 0, to if believed else KERNEL)


def test_where_it_is_patched_while_it_runs(loaded: Loaded) -> None:
    loaded.module.section("__jump_table", bytes(16))
    loaded.module.relocate("__jump_table", 0, 2, "first", 8)
    loaded.module.relocate("__jump_table", 4, 2, "second", 4)
    loaded.module.section(".static_call_sites", bytes(8))
    loaded.module.relocate(".static_call_sites", 0, 2, "second", 32)
    loaded.module.relocate(".static_call_sites", 4, 2, "printk", 0)
    tables = loaded.image().tables
    assert tables.jump_labels == {TEXT + 8: TEXT + LENGTH + 4}
    assert tables.static_calls == {TEXT + LENGTH + 32}


def test_sections_that_are_gone_are_left_out(loaded: Loaded) -> None:
    loaded.module.section(".init.text", b"\x90" * 16, CODE)
    loaded.starts[".init.text"] = INIT
    image = loaded.image()
    assert {each.start for each in image.parts} == {TEXT, RODATA}
    assert image.has([TEXT, TEXT + LENGTH, INIT + 8])  # whose functions may still be listed
    assert not image.has([TEXT, INIT + 16])


def test_what_is_put_over_memory() -> None:
    loaded = Loaded()
    image = loaded.image()
    content = bytearray(b"\x55" * (LENGTH + 16))
    image.over(content, TEXT + LENGTH)
    assert bytes(content) == b"\xcc" * LENGTH + b"\x55" * 16
    content = bytearray(b"\x55" * 32)
    image.over(content, TEXT - 16)
    assert bytes(content) == b"\x55" * 16 + b"\xcc" * 16


def test_a_file_that_is_damaged_is_told(loaded: Loaded) -> None:
    loaded.module.relocate(".text", 0, 99, "first", 0)
    with pytest.raises(ValueError, match="kind 99"):
        loaded.image()
    other = Loaded()
    other.module.sites(".altinstructions", "first", [8], entry=bytes(7))
    with pytest.raises(ValueError, match="alternative"):
        other.image()
    behind = Loaded()
    behind.module.relocate(".text", 2 * LENGTH - 2, ABSOLUTE, "first", 0)
    with pytest.raises(ValueError, match="behind its section"):
        behind.image()
