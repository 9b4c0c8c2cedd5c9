"""What is compiled, without compiling it; and messages between agent and loader."""

import os
import socket
import subprocess
from pathlib import Path

import pytest
from krie.errors import KernelError
from krie.kernel.btf import named_padding
from krie.loader.channel import Channel, ChannelClosed
from krie.loader.messages import Purpose, Request
from krie.loader.request import sensor_request
from krie.loader.source import fields_read
from krie.processes.sensor import process_sensor


def test_unnamed_bit_fields_get_a_name() -> None:
    slice_ = "struct a {\n\tint x;\n\tlong: 64;\n\tlong: 24;\n\tint y: 3;\n\tunsigned int: 5;\n\tint: 0;\n};\n"
    padded = "struct a {\n\tint x;\n\tlong krie_pad0;\n\tchar krie_pad1[3];\n\tint y: 3;\n"
    padded += "\tunsigned int krie_pad2: 5;\n\tint krie_pad3[0];\n};\n"
    assert named_padding(slice_) == padded


@pytest.mark.parametrize(
    "padding",
    [
        ["long: 64"] * 7,  # ns_common of 7.3: the first one begins at 8, behind a gap of 4
        ["int: 32", "long: 64"],
        ["long: 32", "long: 64", "long: 64"],
        ["short: 16", "int: 32"],
        ["char: 8", "long: 48", "long: 0", "long: 64"],
        ["unsigned int flags: 4", "long: 28"],
        ["unsigned int flags: 4", "int: 28", "long: 64"],
        ["long: 0"],
        ["int: 0"],
    ],
)
def test_named_padding_keeps_every_offset(tmp_path: Path, padding: list[str]) -> None:
    members = "".join(f"\t\t{each};\n" for each in padding)
    slice_ = f"struct it {{\n\tstruct {{\n\t\tint count;\n{members}\t}};\n\tint behind;\n\tlong last;\n}};\n"
    where = 'int main(void) { return printf("%zu %zu", __builtin_offsetof(struct it, behind), sizeof(struct it)) < 0; }'
    offsets = set()
    for text in (slice_, named_padding(slice_)):
        (tmp_path / "it.c").write_text(f"#include <stdio.h>\n{text}{where}\n")
        subprocess.run(["gcc", "-o", tmp_path / "it", tmp_path / "it.c"], check=True)
        offsets.add(subprocess.run([tmp_path / "it"], check=True, capture_output=True, text=True).stdout)
    assert len(offsets) == 1


def test_an_unnamed_bit_field_of_an_unknown_form_is_refused() -> None:
    with pytest.raises(KernelError, match="BCC would misread the unnamed bit-field 'u32: 5;'"):
        named_padding("struct a {\n\tu32: 5;\n};\n")


def test_types_and_fields_are_read_out_of_the_source() -> None:
    source = """
        a = KRIE_READ(task_struct, f(x, y), thread_info.status);
        b = KRIE_READ(pid, pid, tasks[0].first);
        c = KRIE_ADDRESS(xa_node, inner, slots) + 1;
        d = __builtin_offsetof(struct mount, mnt);
        e = KRIE_LOAD(cred, cred, uid.val);
    """
    assert fields_read(source) == {
        ("task_struct", "thread_info.status"),
        ("pid", "tasks"),
        ("xa_node", "slots"),
        ("mount", "mnt"),
        ("cred", "uid.val"),
    }


def test_a_request_survives_the_channel() -> None:
    request = Request((sensor_request(process_sensor()),), 16, True, "/var/cache/krie", Purpose.TRIAL)
    mine, theirs = map(Channel, socket.socketpair())
    mine.send(request.to_json())
    assert Request.from_json(theirs.receive()[0]) == request
    mine.close()
    with pytest.raises(ChannelClosed):
        theirs.receive()
    theirs.close()


def test_many_descriptors_arrive_close_on_exec() -> None:
    one, other = socket.socketpair()
    mine, theirs = Channel(one), Channel(other)
    descriptors = [os.open("/dev/null", os.O_RDONLY) for _ in range(400)]
    mine.send({"n": 1}, descriptors)
    message, received = theirs.receive()
    try:
        assert (message, len(received)) == ({"n": 1}, 400)
        assert not any(os.get_inheritable(each) for each in received)
    finally:
        for each in [*descriptors, *received]:
            os.close(each)
        mine.close()
        theirs.close()


def test_an_answer_that_does_not_come_is_a_time_out() -> None:
    one, other = socket.socketpair()
    one.settimeout(0.01)
    with pytest.raises(TimeoutError):
        Channel(one).receive()
    one.close()
    other.close()
