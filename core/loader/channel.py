"""Messages with descriptors between the agent and its loader child, over a stream socket.

A message is a length, JSON, and then the descriptors it announces, in chunks that the kernel accepts. Descriptors are
received close-on-exec: a child that the agent starts later would else keep probes alive after the agent's end.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

_CHUNK = 253  # SCM_MAX_FD, include/net/scm.h
_LENGTH = struct.Struct("=II")
_LONGEST = 64 << 20


class ChannelClosed(Exception):
    """The other side has gone."""


class Channel:
    """One end. Raises `ChannelClosed` when the other is gone, `TimeoutError` after the socket's time-out."""

    def __init__(self, sock: socket.socket) -> None:
        """Take over the socket."""
        self._socket = sock

    def send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send a message; the descriptors stay open on this side."""
        body = json.dumps(message).encode()
        try:
            self._socket.sendall(_LENGTH.pack(len(body), len(descriptors)) + body)
            for start in range(0, len(descriptors), _CHUNK):
                socket.send_fds(self._socket, [b"\0"], list(descriptors[start : start + _CHUNK]))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ChannelClosed from error

    def receive(self) -> tuple[dict[str, Any], list[int]]:
        """Wait for a message; the caller owns the descriptors."""
        length, count = _LENGTH.unpack(self._exactly(_LENGTH.size))
        if length > _LONGEST:
            raise ChannelClosed
        message: dict[str, Any] = json.loads(self._exactly(length))
        descriptors: list[int] = []
        try:
            while len(descriptors) < count:
                descriptors += self._some_descriptors()
        except BaseException:
            for each in descriptors:
                os.close(each)
            raise
        return message, descriptors

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            try:
                piece = self._socket.recv(count - len(data))
            except ConnectionResetError as error:
                raise ChannelClosed from error
            if not piece:
                raise ChannelClosed
            data += piece
        return bytes(data)

    def _some_descriptors(self) -> list[int]:
        found = array.array("i")
        data, ancillary, flags, _ = self._socket.recvmsg(
            1, socket.CMSG_SPACE(_CHUNK * found.itemsize), socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                found.frombytes(payload[: len(payload) - len(payload) % found.itemsize])
        if not data or flags & socket.MSG_CTRUNC:
            for each in found:
                os.close(each)
            if data:
                raise OSError(
                    24, "the limit of open files (RLIMIT_NOFILE) is too low for the descriptors of all probes"
                )
            raise ChannelClosed
        return found.tolist()
