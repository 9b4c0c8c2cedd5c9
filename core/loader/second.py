"""The agent's own hold on what the loader attaches: a SIGKILL of the loader alone ends nothing of it.

From each attachment on there are two holders, the loader and this one, until the answer brings all descriptors. Where
none comes, a process of its own takes over what was held here, and ends it as a keeper does: only while that is safe.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress

from ..kernel.keeper import IGNORED, Held, leave_service
from ..kernel.standing import Standing
from .channel import Channel, ChannelClosed
from .holding import let_go_safely


class Second:
    """What one loader has attached and its answer has not brought yet."""

    def __init__(self, switches: Sequence[int], standing: Standing) -> None:
        """Hold nothing yet. `switches`: of `Addresses`; `standing`: of all programs that may be attached."""
        self._switches, self.standing = tuple(switches), standing
        self._held: dict[int, Held] = {}
        self._state = -1

    def __bool__(self) -> bool:
        """Whether anything is held."""
        return bool(self._held)

    def begin(self, state: int) -> None:
        """`state`: descriptor of the agent's state in BPF, which is taken over."""
        self._state = state

    def note(self, kind: str, address: int, links: Mapping[int, int]) -> None:
        """Hold these. `links`: descriptors here by those of the loader."""
        self._held |= {theirs: Held(theirs, kind, address, mine) for theirs, mine in links.items()}

    def release(self, links: Sequence[int]) -> None:
        """The loader, which has these by these numbers, is about to let go of them, as soon as that is safe."""
        for each in links:
            if (held := self._held.pop(each, None)) is not None:
                os.close(held.descriptor)

    def close(self) -> None:
        """Somebody else holds all of it."""
        self.release(list(self._held))

    def end(self) -> None:
        """The same, and nothing more comes."""
        self.close()
        if self._state >= 0:
            os.close(self._state)
        self._state = -1

    def hand_over(self, channel: Channel) -> None:
        """Have the process at the other end, which runs `keep`, hold all; it ends what is left once this end is closed.

        Raises `ChannelClosed`, `TimeoutError`.
        """
        held = list(self._held.values())
        message = {"switches": self._switches, "held": [each[:3] for each in held]}
        channel.send(message, [self._state, *(each.descriptor for each in held)])
        channel.receive()

    def let_go(self) -> None:
        """End it here, where there can be no such process: returns when that is done."""
        let_go_safely(list(self._held.values()), self._switches, self._state)
        self._held.clear()


def keep(sock: socket.socket) -> None:
    """Take over what one side of a channel holds, and end it once that side has closed it and it does no harm."""
    for each in IGNORED:
        signal.signal(each, signal.SIG_IGN)
    leave_service()  # which may end as soon as the agent has, and that waits for the answer
    channel = Channel(sock)
    message, (state, *links) = channel.receive()
    with suppress(ChannelClosed):  # who handed them over may be killed at any moment
        channel.send({"taken": len(links)})
        channel.receive()
    described = zip(message["held"], links, strict=True)
    held = [Held(slot, kind, address, link) for (slot, kind, address), link in described]
    let_go_safely(held, message["switches"], state)
