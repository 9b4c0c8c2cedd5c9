"""What BCC is told while it compiles: its maps are notes, and no kernel is asked."""

import ctypes
import errno
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from krie.errors import KernelError
from krie.kernel import bpf
from krie.kernel.bpf import Command, MapShape
from krie.kernel.bpf_attributes import MapCreate
from krie.kernel.interception import without_kernel
from krie.testing.patience import PATIENCE_S

HASH, RINGBUF = 1, 27
_libc = ctypes.CDLL(None, use_errno=True)


def _raw(attributes: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(attributes, len(attributes))


def create(*numbers: int, name: bytes = b"") -> int:
    return bpf.call(Command.MAP_CREATE, MapCreate(*numbers, map_name=name))


def test_maps_become_notes_with_descriptors_of_their_own() -> None:
    made, noted = without_kernel(
        lambda: [create(HASH, 8, 16, 32, 1, name=b"seen"), create(RINGBUF, 0, 0, 4096), create(HASH, 8, 16, 32)]
    )
    assert noted == {
        made[0]: MapShape(HASH, 8, 16, 32, 1, "seen"),
        made[1]: MapShape(RINGBUF, 0, 0, 4096, 0, ""),
        made[2]: MapShape(HASH, 8, 16, 32, 0, ""),
    }
    for each in made:
        assert os.readlink(f"/proc/self/fd/{each}") == os.devnull
        assert not os.get_inheritable(each)
        os.close(each)


def test_attributes_may_be_short() -> None:
    (made, noted) = without_kernel(lambda: bpf.call(Command.MAP_CREATE, _raw(struct.pack("=4I", HASH, 4, 8, 1))))
    assert noted == {made: MapShape(HASH, 4, 8, 1, 0, "")}
    os.close(made)


@pytest.mark.parametrize("command", [each for each in Command if each is not Command.MAP_CREATE])
def test_every_other_command_is_refused(command: Command) -> None:
    assert without_kernel(lambda: bpf.call(command, _raw(bytes(128)))) == (-errno.EPERM, {})


def test_the_kernels_symbols_are_the_same_everywhere() -> None:
    text, _ = without_kernel(lambda: Path("/proc/kallsyms").read_text())
    assert [line.split()[2] for line in text.splitlines()] == [
        "bpf_probe_read_kernel",
        "bpf_probe_read_kernel_str",
        "bpf_probe_read_user",
        "bpf_probe_read_user_str",
    ]


def test_other_files_are_themselves(tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_text("mine")
    assert without_kernel(lambda: (tmp_path / "kallsyms").read_text())[0] == "mine"
    with pytest.raises(FileNotFoundError):
        without_kernel(lambda: (tmp_path / "none").read_text())


def test_only_the_one_thread_is_deceived() -> None:
    before = Path("/proc/kallsyms").read_text()[:100]
    started, done = threading.Event(), threading.Event()
    seen: list[str] = []

    def other() -> None:
        started.wait(PATIENCE_S)
        seen.append(Path("/proc/kallsyms").read_text()[:100])
        done.set()

    beside = threading.Thread(target=other)
    beside.start()

    def wait() -> bool:
        started.set()
        return done.wait(PATIENCE_S)

    assert without_kernel(wait) == (True, {})
    beside.join()
    assert seen == [before] == [Path("/proc/kallsyms").read_text()[:100]]


@pytest.mark.parametrize("work", [lambda: 1 / 0, lambda: os.close(-1)])
def test_what_the_work_raises_is_raised_here(work: Callable[[], object]) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises((ZeroDivisionError, OSError)):
        without_kernel(work)
    assert set(os.listdir("/proc/self/fd")) == before


def test_it_needs_no_root_and_seems_to_have_it() -> None:
    child = os.fork()
    if not child:
        status = 1
        try:
            if os.getuid() == 0:
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            (user, descriptor), _ = without_kernel(lambda: (_libc.geteuid(), create(HASH, 4, 4, 1)))
            status = 0 if user == 0 and descriptor >= 0 and os.geteuid() == 65534 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_second_filter_is_refused_with_a_way_out() -> None:
    def nested() -> object:
        return without_kernel(lambda: 0)

    with pytest.raises(KernelError, match=r"filter that compiling needs: EBUSY .*krie compile"):
        without_kernel(nested)
