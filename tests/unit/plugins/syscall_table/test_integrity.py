"""`krie integrity`: which image is taken, what it returns, and what is said."""

import inspect
import struct
from pathlib import Path
from typing import cast

import pytest
from krie import build_id
from krie.cli.render import console
from krie.cli.render_integrity import integrity
from krie.errors import ExitCode
from krie.plugin import integrity as asked
from krie.plugin.integrity import Check, Difference, exit_code, to_json
from krie.plugins.syscall_table import reference
from krie.plugins.syscall_table.image import NOP5, Image
from krie.plugins.syscall_table.reference import NoReferenceError, find, prepare
from rich.console import Console

START, CALLED = 0xFFFFFFFF81000000, 0x40
NOTE = struct.pack("<III", 4, 4, 3) + b"GNU\0\x12\x34\x56\x78"
OTHER_NOTE = struct.pack("<III", 4, 4, 1) + b"Xen\0\0\0\0\0"
DIFFERENT = Difference(0x1000, "vfs_read+0x10", "90", "e9", "hook [evil]")


def test_build_ids_are_found_among_notes() -> None:
    assert build_id(OTHER_NOTE + NOTE) == "12345678"
    for without in (OTHER_NOTE, b""):
        with pytest.raises(ValueError, match="no build id"):
            build_id(without)


def test_what_is_returned() -> None:
    compared = Check("text", 4096, "image /boot/vmlinuz", {"kprobe": 2})
    absent = Check("rodata", not_looked_at=("no boot image",))
    changed = Check("text", 4096, "image /boot/vmlinuz", differences=(DIFFERENT,))
    assert exit_code([compared, absent]) is ExitCode.OK
    registers = Check("registers", reference="the kernel's symbols")
    assert exit_code([absent, registers]) is exit_code([absent]) is exit_code([]) is ExitCode.DEGRADED
    assert exit_code([compared, changed]) is ExitCode.TAMPERED
    without_code = Check("text", not_looked_at=("no boot image",), needed=True)
    assert exit_code([compared, without_code]) is ExitCode.DEGRADED
    assert exit_code([changed, without_code]) is ExitCode.TAMPERED
    assert [to_json(each)["full"] for each in ([compared], [compared, without_code], [absent])] == [True, False, False]


@pytest.mark.parametrize(
    ("checks", "words"),
    [
        (
            [Check("text", 4_000_000, "image /a", {"kprobe": 2, "boot": 3})],
            (
                "text",
                "4.0 MB",
                "image /a",
                "3 patched while booting, not told by the image, 2 kprobe",
                "nothing differs",
            ),
        ),
        (
            [Check("text", 1, "image /a", differences=(DIFFERENT,), others=3)],
            ("0.1 kB", "Unexplained in text", "hook [evil]", "4 places", "3 more"),
        ),
        (
            [Check("text", not_looked_at=("code: [no] image",))],
            ("not compared", "not looked at: code: [no] image", "no memory was"),
        ),
        (
            [Check("registers", reference="symbols", differences=(DIFFERENT,))],
            ("registers", "symbols", "1 places"),
        ),
        (
            [Check("lists", 800, "modules", {"module nft": 5}), Check("text", not_looked_at=("no",), needed=True)],
            ("0.8 kB", "5 module nft", "the code was not"),
        ),
    ],
)
def test_what_people_see(checks: list[Check], words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    integrity(wide(), to_json(checks))
    said = capsys.readouterr().out
    assert all(each in said for each in words), said


def wide() -> Console:
    made = console()
    made.width = 200
    return made


def test_images_must_be_of_the_kernel_that_runs_and_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes, place = tmp_path / "notes", tmp_path / "vmlinuz-6"
    places = (str(tmp_path / "vmlinuz-{0}"),)

    class Built:
        def __init__(self, content: bytes) -> None:
            self.build_id = content.decode()

    monkeypatch.setattr(reference, "Image", Built)
    with pytest.raises(NoReferenceError, match="does not tell which kernel runs"):
        find("6", notes, places)
    notes.write_bytes(NOTE)
    with pytest.raises(NoReferenceError, match=f"no boot image is at {place}"):
        find("6", notes, places)
    place.write_text("12345678")
    assert find("6", notes, places)[0] == place
    place.write_text("87654321")
    with pytest.raises(NoReferenceError, match=r"is another kernel \(build id 87654321, not 12345678\)"):
        find("6", notes, places)
    place.write_text("12345678")
    place.chmod(0o666)
    with pytest.raises(NoReferenceError, match="can be changed by other users"):
        find("6", notes, places)


class CallSites:
    """An image whose table of calls has one of __fentry__ and another one."""

    text = START

    def relocated(self, address: int, size: int, delta: int) -> bytearray:
        return bytearray(b"\xe8" * size)

    def at(self, address: int, size: int) -> bytes:
        return struct.pack("<Q", START + CALLED)

    def locks(self) -> list[tuple[int, int]]:
        return []

    def patched(self) -> list[tuple[int, int]]:
        return [(START + CALLED, 5), (START + 2 * CALLED, 5)]


def test_where_ftrace_patches_nothing_else_may() -> None:
    moved = 0x200000
    known = {"_stext": START + moved, "_etext": START + moved + 0x100, "__fentry__": START + moved}
    tables = {"__start_mcount_loc": 8, "__stop_mcount_loc": 16}
    image = cast("Image", CallSites())
    made = prepare(Path("/a"), image, lambda name: {**known, **tables}.get(name, 0))
    (text,) = made.parts
    assert text.content[CALLED - 1 : CALLED + 6] == b"\xe8" + NOP5 + b"\xe8"
    assert made.boot.end(text.start + CALLED) == 0
    assert made.boot.end(text.start + 2 * CALLED) == text.start + 2 * CALLED + 5
    with pytest.raises(NoReferenceError, match="where ftrace patches it"):
        prepare(Path("/a"), image, lambda name: known.get(name, 0))


def test_the_plugins_that_are_asked_are_objects() -> None:
    (one,) = asked._checks()
    assert list(inspect.signature(one).parameters) == ["memory", "progress"]
