"""BPF filters on sockets: the event, where the kernel shows it, and what proves that it does."""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, ClassVar

from krie import U16, AttachType, Bool, Choice, Doc, Event, Inline, Pad6, Probe, own_fields

from .topic import Topic, called, hooked

OPERATIONS = {
    26: "attach_filter",
    27: "detach_filter",
    44: "lock_filter",
    50: "attach_bpf",
    51: "attach_reuseport_cbpf",
    52: "attach_reuseport_ebpf",
    68: "detach_reuseport_bpf",
}
FAMILIES = {
    0: "unspec",
    1: "unix",
    2: "inet",
    10: "inet6",
    15: "key",
    16: "netlink",
    17: "packet",
    29: "can",
    31: "bluetooth",
    38: "alg",
    40: "vsock",
    44: "xdp",
}
TYPES = {1: "stream", 2: "dgram", 3: "raw", 4: "rdm", 5: "seqpacket", 6: "dccp", 10: "packet"}
_SO_DETACH_FILTER = 27


@dataclass(frozen=True, slots=True)
class SocketFilter(Event):
    """A BPF filter is attached to a socket, taken from it, or locked. The kernel may still refuse it.

    Of the options at SOL_SOCKET; the same numbers mean other things at other levels. Fanout programs of packet sockets
    are left out.
    """

    KIND: ClassVar[int] = 0x0106
    NAME: ClassVar[str] = "runtime_integrity.socket_filter"

    family: Annotated[str, Choice("H", FAMILIES), Inline(), Doc("address family of the socket")]
    type: Annotated[str, Choice("H", TYPES), Inline(), Doc("type of the socket")]
    protocol: Annotated[U16, Inline(), Doc("its protocol; of packet sockets 0")]
    insn_count: Annotated[
        U16, Doc("attach_filter, attach_reuseport_cbpf: instructions, from user memory; 0 where the call is not known")
    ]
    operation: Annotated[str, Choice("B", OPERATIONS), Inline(), Doc("what was asked for")]
    compat: Annotated[Bool, Inline(), Doc("32-bit system call")]
    pad: Pad6 = b""


def topic() -> Topic:
    """Filters on sockets."""
    everything = own_fields(SocketFilter)
    probe = Probe(
        "socket_filter",
        SocketFilter,
        (
            *(
                hooked(
                    attach,
                    {"socket_setsockopt": ("setsockopt",)},
                    fields=everything,
                    limits="`insn_count` is 0 by socketcall(2), and of threads with rings of io_uring",
                )
                for attach in (AttachType.LSM, AttachType.FMOD_RET, AttachType.KPROBE)
            ),
            called(
                {"setsockopt": "setsockopt"},
                fields=everything,
                limits="sees setsockopt(2), not socketcall(2) nor io_uring",
            ),
        ),
        _canary,
    )
    return Topic(SocketFilter, (probe,), ("socket_filter.bpf.c",))


def _canary() -> None:
    """Take the filter from a socket that has none. Raises `OSError`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made, suppress(FileNotFoundError):
        made.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
