"""What explains bytes of the kernel's code that differ, and what nearly does."""

import struct
from pathlib import Path
from typing import Any

import pytest
from krie import KernelMemory, Symbols
from krie.plugins.syscall_table import explain
from krie.plugins.syscall_table.explain import Code, Lists, brief_lists, read_lists
from krie.plugins.syscall_table.image import NOP5, Image
from krie.plugins.syscall_table.runs import Ranges, runs
from krie.plugins.syscall_table.tables import Tables, read_tables

TEXT = range(0xFFFFFFFF81000000, 0xFFFFFFFF81001000)
LABEL, CALL, PLAIN, CALLER, OTHER = (TEXT.start + each for each in (0x100, 0x200, 0x300, 0x400, 0x500))
MODULE, FTRACE, BPF, KPROBES = (0xFFFFFFFFC0000000 + 0x10000 * each for each in range(4))
SYMBOLS = f"""\
{LABEL:016x} T label
{CALL:016x} T call
{PLAIN:016x} T plain
{CALLER:016x} T ftrace_caller
{OTHER:016x} T other
{MODULE:016x} t hook\t[evil]
{FTRACE:016x} t ftrace_trampoline\t[__builtin__ftrace]
{BPF:016x} t bpf_trampoline_1\t[bpf]
{KPROBES:016x} t kprobe_optinsn_page\t[__builtin__kprobes]
"""
GENERATED = ((FTRACE, "ftrace"), (BPF, "bpf"), (KPROBES, "kprobes"))
TRACEPOINT, GUEST = CALL + 32, CALL + 64
TABLES = Tables({LABEL + 8: LABEL + 64}, frozenset({CALL + 8, TRACEPOINT}), registered=frozenset({TRACEPOINT}))


@pytest.fixture
def symbols(tmp_path: Path) -> Symbols:
    place = tmp_path / "kallsyms"
    place.write_text(SYMBOLS)
    return Symbols(place=place)


def leading(opcode: int, site: int, to: int) -> bytes:
    return struct.pack("<Bi", opcode, to - site - 5)


def wrong(symbols: Symbols, site: int, now: bytes, before: bytes = b"\x90" * 5, **lists: Any) -> list[range]:
    """What is unexplained where these bytes stand instead of those."""
    old, new = bytearray(b"\x90" * len(TEXT)), bytearray(b"\x90" * len(TEXT))
    place = site - TEXT.start
    old[place : place + len(before)] = new[place : place + len(before)] = before
    new[place : place + len(now)] = now
    known: dict[str, Any] = {"kprobes": frozenset(), "handled": frozenset(), "generated": GENERATED, **lists}

    def at(content: bytearray, address: int, size: int) -> bytes:
        return bytes(content[address - TEXT.start : address - TEXT.start + size])

    code = Code(
        TEXT,
        lambda address, size: at(old, address, size),
        lambda address, size: at(new, address, size),
        symbols,
        TABLES,
        (Lists(**known),),
        Ranges([(PLAIN + 0x80, 4)]).end,
    )
    found = (range(TEXT.start + each.start, TEXT.start + each.stop) for each in runs(bytes(old), bytes(new)))
    return [part for run in found for part in code.unexplained(run)]


def test_jump_labels_lead_to_their_target_only(symbols: Symbols) -> None:
    site = LABEL + 8
    for legal in (NOP5, leading(0xE9, site, LABEL + 64), b"\x66\x90", b"\xeb" + bytes([LABEL + 64 - site - 2])):
        assert wrong(symbols, site, legal) == []
    for to in (LABEL + 65, PLAIN, MODULE):
        assert wrong(symbols, site, leading(0xE9, site, to))
    assert wrong(symbols, site, leading(0xE8, site, LABEL + 64))  # a call
    assert wrong(symbols, site, b"\xeb\x00")
    assert wrong(symbols, site + 1, leading(0xE9, site + 1, LABEL + 64))
    assert wrong(symbols, site, NOP5 + b"\xcc") == [range(site + 5, site + 6)]  # and no byte further


def test_static_calls_lead_to_functions_of_the_kernel(symbols: Symbols) -> None:
    site = CALL + 8
    for legal in (leading(0xE8, site, PLAIN), leading(0xE9, site, BPF), NOP5, b"\xc3\xcc\xcc\xcc\xcc"):
        assert wrong(symbols, site, legal) == []
    assert wrong(symbols, site, b"\x0f\x84" + struct.pack("<i", PLAIN - site - 6)) == []
    for to in (MODULE, PLAIN + 1, FTRACE):
        assert wrong(symbols, site, leading(0xE8, site, to))
    assert wrong(symbols, site, b"\xc3\x41\x41\x41\x41")


def test_what_modules_register_may_be_theirs(symbols: Symbols) -> None:
    for to in (PLAIN, MODULE, BPF):
        assert wrong(symbols, TRACEPOINT, leading(0xE8, TRACEPOINT, to)) == []
    for to in (MODULE + 1, MODULE - 0x100, FTRACE):
        assert wrong(symbols, TRACEPOINT, leading(0xE8, TRACEPOINT, to))


@pytest.mark.parametrize("offset", [0, 4])
def test_ftrace_sites_call_tracers_where_they_are_listed(symbols: Symbols, offset: int) -> None:
    site = PLAIN + offset
    listed: dict[str, Any] = {"handled": frozenset({"plain"})}
    for to in (CALLER, FTRACE, BPF):
        assert wrong(symbols, site, leading(0xE8, site, to), NOP5, **listed) == []
        assert wrong(symbols, site, leading(0xE8, site, to), NOP5)  # not listed
        assert wrong(symbols, site, leading(0xE8, site, to), NOP5, handled=frozenset({"other"}))
        assert wrong(symbols, site, leading(0xE9, site, to), NOP5, **listed)  # a jump
        assert wrong(symbols, site, leading(0xE8, site, to), **listed)  # no ftrace site
    for to in (MODULE, OTHER, KPROBES):
        assert wrong(symbols, site, leading(0xE8, site, to), NOP5, **listed)


def test_a_module_may_be_called_directly_where_ftrace_says_so(
    symbols: Symbols, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["plain (1)  \tD", "\tdirect-->hook+0x0/0x20 [evil]", "other (1) R \ttramp: 0x1 (x) ->y"]
    monkeypatch.setattr(explain, "_lines", lambda file, _: lines if file.name == "enabled_functions" else [])
    lists = brief_lists(GENERATED)
    assert lists.handled == frozenset({"plain", "other"})
    assert lists.direct == {"plain": "hook"}
    listed: dict[str, Any] = {"handled": lists.handled, "direct": lists.direct}
    assert wrong(symbols, PLAIN, leading(0xE8, PLAIN, MODULE), NOP5, **listed) == []
    assert wrong(symbols, PLAIN, leading(0xE8, PLAIN, MODULE + 1), NOP5, **listed)
    assert wrong(symbols, PLAIN, leading(0xE9, PLAIN, MODULE), NOP5, **listed)
    assert wrong(symbols, OTHER, leading(0xE8, OTHER, MODULE), NOP5, **listed)


def test_kprobes_stand_where_they_are_listed(symbols: Symbols) -> None:
    site = PLAIN + 0x40
    listed: dict[str, Any] = {"kprobes": frozenset({site})}
    assert wrong(symbols, site, b"\xcc", **listed) == []
    assert wrong(symbols, site, b"\xcc") == [range(site, site + 1)]
    assert wrong(symbols, site, b"\xcc\xcc", **listed) == [range(site + 1, site + 2)]
    assert wrong(symbols, site, b"\x41", **listed)
    assert wrong(symbols, site, leading(0xE9, site, KPROBES + 0x80), **listed) == []
    assert wrong(symbols, site, leading(0xE9, site, KPROBES + 0x80))
    for to in (MODULE, FTRACE, PLAIN):
        assert wrong(symbols, site, leading(0xE9, site, to), **listed)


def test_what_is_patched_at_boot_may_differ_and_nothing_beside_it(symbols: Symbols) -> None:
    assert wrong(symbols, PLAIN + 0x80, b"\x01\x02\x03\x04") == []
    assert wrong(symbols, PLAIN + 0x7F, b"\x01" * 6) == [
        range(PLAIN + 0x7F, PLAIN + 0x80),
        range(PLAIN + 0x84, PLAIN + 0x85),
    ]


def test_a_nop_may_be_another_one_and_nothing_else(symbols: Symbols) -> None:
    older = bytes.fromhex("6666666690")
    site = OTHER + 16
    assert wrong(symbols, site, older, NOP5) == wrong(symbols, site, NOP5, older) == []
    assert wrong(symbols, site, leading(0xE8, site, MODULE), NOP5) == [range(site, site + 5)]
    assert wrong(symbols, site, older, leading(0xE8, site, OTHER)) == [range(site, site + 5)]
    assert wrong(symbols, site, older + b"\xcc", NOP5) == [range(site + 5, site + 6)]


def test_lists_are_read_of_kallsyms() -> None:
    assert read_lists(SYMBOLS.encode()).generated == GENERATED


def test_generated_code_is_told_from_all_else_with_an_owner() -> None:
    lines = (
        "ffffffff81000000 T _text",
        "ffffffffc0001000 t __builtin__ftrace\t[bpf_like]",
        "ffffffffc0002000 t bpf_prog_2\t[bpf]",
        "ffffffffc0003000 d bpf_data\t[bpf]",
        "ffffffffc0000000 t first\t[__builtin__kprobes]",
        "ffffffffc0004000 T ftrace_trampoline\t[__builtin__ftrace]",
    )
    text = "".join(f"{each}\n" for each in lines)
    expected = ((0xFFFFFFFFC0000000, "kprobes"), (0xFFFFFFFFC0002000, "bpf"), (0xFFFFFFFFC0004000, "ftrace"))
    assert read_lists(text.encode()).generated == expected
    assert read_lists(f"{lines[0]}\n".encode()).generated == ()


def test_calls_of_security_modules_and_of_what_is_registered_are_told_from_others() -> None:
    """By the names of their trampolines, and by the keys of their sites."""
    base, window = 0xFFFFFFFF82000000, bytearray(256)
    keys, sites = tuple(base + 0x1000 + 0x40 * each for each in range(4)), (LABEL, CALL, OTHER, TRACEPOINT, GUEST)
    table = b"".join(
        struct.pack("<ii", site - base - 8 * index, key - base - 8 * index - 4)
        for index, (site, key) in enumerate(zip(sites, (keys[0], keys[1] | 1, *keys[1:]), strict=True))
    )
    content = table.ljust(len(window), b"\0")

    def read(_program: int, arguments: tuple[int, ...]) -> int:
        address, size = arguments
        window[:size] = content[address - base : address - base + size]
        return 0

    symbols = {"__start_static_call_sites": base, "__stop_static_call_sites": base + len(table)}
    kallsyms = (
        f"{PLAIN:016x} T __SCT__might_resched\n{CALLER:016x} T __SCT__lsm_static_call_file_open_0\n"
        f"{keys[0]:016x} d __SCK__might_resched\n{keys[1]:016x} d __SCK__lsm_static_call_file_open_0\n"
        f"{keys[2]:016x} d __SCK__tp_func_kfree\n{keys[3]:016x} d __SCK____perf_guest_state\n"
    )
    memory = KernelMemory(0, window, read)
    tables = read_tables(memory, lambda name: symbols.get(name, 0), kallsyms.encode())
    assert tables.static_calls == {PLAIN, CALLER, LABEL, CALL, OTHER, TRACEPOINT, GUEST}
    assert tables.registered == {TRACEPOINT, GUEST}
    assert tables.security == {CALLER, CALL, OTHER}


def test_runs_go_over_pages() -> None:
    before, now = bytes(3 * 4096), bytearray(3 * 4096)
    for part in (range(1), range(4094, 4099), range(8191, 8192), range(12287, 12288)):
        now[part.start : part.stop] = b"\xff" * len(part)
    expected = [range(1), range(4094, 4099), range(8191, 8192), range(12287, 12288)]
    assert list(runs(before, bytes(now))) == expected


def kernel(relocations: bytes, text: bytes) -> bytes:
    """An ELF file with one segment of code, and relocations behind it."""
    names = b"\0.text\0.smp_locks\0.shstrtab\0.parainstructions\0"
    address, place = TEXT.start, 64 + 56
    locks = struct.pack("<i", -(len(text) - 2))
    calls = struct.pack("<QBB6xQBBH", address + 4, 1, 7, address + 12, 2, 6, 0x1FF)  # the last one is shorter
    content = text + locks + calls
    table = place + len(content) + len(names)
    head = b"\x7fELF\x02\x01".ljust(0x20, b"\0") + struct.pack("<QQ", 64, table)
    head = head.ljust(0x38, b"\0") + struct.pack("<HHHH", 1, 64, 5, 3)
    segment = struct.pack("<IIQQQQQQ", 1, 5, place, address, 0, len(content), len(content) + 8, 4096)
    rows = (
        (0, 0, 0, 0, 0),
        (1, 1, address, place, len(text)),
        (7, 1, address + len(text), place + len(text), 4),
        (18, 3, 0, place + len(content), len(names)),
        (28, 1, address + len(text) + 4, place + len(text) + 4, len(calls)),
    )
    sections = b"".join(struct.pack("<IIQQQQIIQQ", a, b, 0, c, d, e, 0, 0, 0, 0) for a, b, c, d, e in rows)
    return head.ljust(64, b"\0") + segment + content + names + sections + relocations


def test_images_are_relocated() -> None:
    text = struct.pack("<QII8x", TEXT.start + 8, 0x81000010, 0x100)
    where = [(TEXT.start + each) & 0xFFFFFFFF for each in (0, 8, 12)]
    new = struct.pack("<4I", 0, where[0], 0, where[1])
    old = struct.pack("<6I", 0, where[0], 0, where[2], 0, where[1])
    image = Image(kernel(old, text))
    moved = struct.unpack("<QII8x", image.relocated(TEXT.start, len(text), 0x200000))
    assert moved == (TEXT.start + 0x200008, 0x81200010, 0x100 - 0x200000 & 0xFFFFFFFF)
    moved = struct.unpack("<QII8x", Image(kernel(new, text)).relocated(TEXT.start, len(text), 0x200000))
    assert moved == (TEXT.start + 0x200008, 0x81200010, 0x100)
    assert list(image.patched()) == [(TEXT.start + 2, 1), (TEXT.start + 4, 7), (TEXT.start + 12, 6)]
    assert image.at(TEXT.start + len(text) + 32, 8) == bytes(8)
    with pytest.raises(ValueError, match="nothing lies at"):
        image.at(TEXT.start + len(text) + 36, 8)


@pytest.mark.parametrize(("form", "middle"), [("<iiIBB", (278,)), ("<iiHBBB", (7,)), ("<iiHBB", (7,))])
def test_the_form_of_alternatives_is_told_by_what_replaces_them(form: str, middle: tuple[int, ...]) -> None:
    """Not by what is replaced: one of those may be data."""
    size, at = struct.calcsize(form), TEXT.start
    others = range(at + 0x400, at + 0x408)
    entries = ((at + 0x200, 4, others.start), (at - 0x9C0000, 5, others.stop))
    table = b"".join(
        struct.pack(
            form, what - at - size * index, by - at - size * index - 4, *middle, length, *bytes(form.count("B") - 1)
        )
        for index, (what, length, by) in enumerate(entries)
    )
    image = Image(kernel(b"", table.ljust(0x500, b"\0")))
    image.sections |= {".altinstructions": range(at, at + len(table)), ".altinstr_replacement": others}
    assert list(image.patched())[1:3] == [(what, length) for what, length, _ in entries]
    image.sections[".altinstr_replacement"] = range(others.start, others.stop - 1)
    with pytest.raises(ValueError, match="alternative instructions has a form"):
        list(image.patched())


@pytest.mark.parametrize("content", [b"", b"\x7fELF\x02\x01", b"\x7fELF\x01\x01" + bytes(100)])
def test_what_is_no_kernel_is_said(content: bytes) -> None:
    with pytest.raises(ValueError, match="it is not"):
        Image(content)


def test_relocations_of_another_form_are_said() -> None:
    with pytest.raises(ValueError, match="relocations have a form"):
        Image(kernel(struct.pack("<I", 7), bytes(16)))
