"""bpf(2) by hand, as an attacker calls it: answers are descriptors or -errno."""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from krie.errors import KernelError
from krie.kernel import bpf
from krie.kernel.maps import Map

from .descriptors import descriptions

(
    LOOKUP,
    UPDATE,
    DELETE,
    NEXT_KEY,
    PROG_LOAD,
    OBJ_PIN,
    OBJ_GET,
    TEST_RUN,
    NEXT_PROG,
    NEXT_MAP,
    GET_PROG,
    GET_MAP,
    GET_INFO,
    RAW_TRACEPOINT_OPEN,
    FREEZE,
    LOOKUP_BATCH,
    UPDATE_BATCH,
    LINK_CREATE,
    GET_LINK,
    NEXT_LINK,
    ITER_CREATE,
    DETACH,
    BIND_MAP,
) = (1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15, 17, 22, 24, 26, 28, 30, 31, 33, 34, 35)
RDONLY = 8
SOCKET_FILTER = 1
_NAME = 15
"""So much of a name the kernel keeps."""
_libc = ctypes.CDLL(None, use_errno=True)


def call(command: int, *numbers: int, form: str = "") -> int:
    """The descriptor, or -errno. `form`: of the attributes; else each is a number of 32 bits."""
    return _call(command, ctypes.create_string_buffer(_packed(numbers, form), 128))


def _packed(numbers: tuple[int, ...], form: str) -> bytes:
    return struct.pack(form or f"={len(numbers)}I", *numbers).ljust(128, b"\0")


def _call(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    result = _libc.syscall(321, command, attributes, 128)
    return int(result) if result >= 0 else -ctypes.get_errno()


def numbers(command: int) -> Iterator[int]:
    """Of all objects of a kind, by one of `NEXT_...`."""
    last = 0
    while True:
        attributes = ctypes.create_string_buffer(_packed((last,), ""), 128)
        if _call(command, attributes):
            return
        last = struct.unpack_from("=I", attributes, 4)[0]
        yield last


def named(next_: int, get: int, *flags: int) -> Iterator[tuple[str, int]]:
    """Names and descriptors of all that can be opened; whoever takes one closes it."""
    for number in numbers(next_):
        if (descriptor := call(get, number, *flags)) >= 0:
            with suppress(KernelError):
                yield bpf.object_name(descriptor), descriptor
                continue
            os.close(descriptor)


@contextmanager
def map_of(tgid: int, name: str) -> Iterator[Map]:
    """A map that a process holds, the only one whose name begins so, to read and write."""
    held = {each.get("map_id") for each in descriptions(tgid).values()}
    number = next(each for each in numbers(NEXT_MAP) if str(each) in held and _name_of(each) == name[:_NAME])
    descriptor = call(GET_MAP, number)
    try:
        yield Map.of(name, descriptor)
    finally:
        os.close(descriptor)


def _name_of(number: int) -> str:
    descriptor = call(GET_MAP, number)
    try:
        return bpf.object_name(descriptor)
    finally:
        os.close(descriptor)


def run(program: int, *arguments: int) -> int:
    """Run a raw tracepoint program with these arguments."""
    context = ctypes.create_string_buffer(struct.pack("=12Q", *arguments, *(0,) * (12 - len(arguments))), 96)
    return call(TEST_RUN, program, 0, 0, 0, 0, 0, 0, 0, 96, 0, ctypes.addressof(context), form="=IIIIQQIIIIQ")


def pin(descriptor: int, path: str) -> int:
    """Give it a name in a BPF file system."""
    name = ctypes.create_string_buffer(path.encode())
    return call(OBJ_PIN, ctypes.addressof(name), descriptor, 0, form="=QII")


def unpin(path: str) -> int:
    """Open it by that name."""
    name = ctypes.create_string_buffer(path.encode())
    return call(OBJ_GET, ctypes.addressof(name), 0, 0, form="=QII")


def write_by_a_socket_filter(target: int, offset: int, value: int) -> None:
    """Load a socket filter that writes a number into element 0 of a map. Raises `ProgramLoadError`."""
    code = b"".join(
        struct.pack("<BBhi", *each)
        for each in (
            (0xB7, 1, 0, 0),
            (0x63, 0x1A, -4, 0),
            (0xBF, 0xA2, 0, 0),
            (0x07, 2, 0, -4),
            (0x18, 0x11, 0, target),
            (0, 0, 0, 0),
            (0x85, 0, 0, 1),
            (0x55, 0, 2, 0),
            (0xB7, 0, 0, 7),
            (0x95, 0, 0, 0),
            (0xB7, 1, 0, value),
            (0x63, 0x10, offset, 0),
            (0xB7, 0, 0, 1),
            (0x95, 0, 0, 0),
        )
    )
    os.close(bpf.prog_load(bpf.ProgramSpec("filter", SOCKET_FILTER), code))  # type: ignore[arg-type]
