"""The agent's side of the keeper: starts it, tells it what to hold, and waits until it has let go."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from . import keeper
from .keeper import Held
from .switches import Addresses

_PROGRAM = """
import sys, types
sys.modules["krie"] = package = types.ModuleType("krie")
package.__path__ = [sys.argv[1]]
from krie.kernel.keeper import main
main(sys.argv[2])
"""
"""Without importing all that `krie` gives to plugins."""
_ANSWERS_WITHIN_S = 10.0
_ANSWER = 1024
"""Bytes."""
_ENDS_WITHIN_S = 60.0
"""Each kprobe that it lets go of waits for a grace period."""


class Keeper:
    """One keeper, a child that outlives the agent where it has to. Raises `OSError` when it has gone."""

    def __init__(self, numbers: Mapping[str, int], addresses: Addresses, held: Iterable[Held]) -> None:
        """`numbers`: what `krie.kernel.keeper` needs to look at the kernel, but for the agent and the socket."""
        kept = tuple(held)
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        mine.settimeout(_ANSWERS_WITHIN_S)
        agent = os.pidfd_open(os.getpid())
        own = {"agent": agent, "socket": theirs.fileno()}
        given = {"numbers": {**numbers, **own}, "addresses": addresses, "held": kept}
        package = Path(keeper.__file__).parents[1]
        descriptors = {
            numbers[each] for each in ("debugfs", "tracefs", "program", "answer", "state") if numbers[each] >= 0
        }
        # Whoever ends all processes of a service does not find it on its way to where it ignores these.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, keeper.IGNORED)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM, str(package), json.dumps(given)],
                pass_fds=(*descriptors, agent, theirs.fileno(), *(each.descriptor for each in kept)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # no terminal ends it
                cwd="/",
                env={},
            )
        except OSError:
            mine.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
            os.close(agent)
        self._socket = mine

    @property
    def tgid(self) -> int:
        """Thread group id of the keeper's process."""
        return self._process.pid

    def lives(self) -> bool:
        """Whether it is still there."""
        return self._process.poll() is None

    def hold(self, held: Held) -> None:
        """Hold this one too; in the idle slot it replaces the previous one."""
        message = keeper.MESSAGE.pack(keeper.HOLD, held.kind.encode(), held.slot, held.address)
        socket.send_fds(self._socket, [message], [held.descriptor])

    def close(self, slot: int) -> None:
        """Let go of one, which the agent does not hold any more, now or as soon as that is safe."""
        self._send(keeper.CLOSE, slot)

    def close_idle(self) -> None:
        """Let go of the idle one, which the agent still holds; returns when that is done. Raises `TimeoutError` where
        that takes long; it is done later."""
        self._send(keeper.CLOSE, keeper.IDLE_SLOT)
        self._answer()

    def end(self) -> str:
        """Let go of all, which nobody else holds any more; returns why the keeper stays, empty when it has gone."""
        self._socket.settimeout(_ENDS_WITHIN_S)
        try:
            self._send(keeper.END, 0)
            while (answer := self._answer()) == keeper.IDLE_CLOSED:
                pass  # that for which nobody waited any more
        finally:
            self._socket.close()
        if answer == keeper.DONE:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_ANSWERS_WITHIN_S)
            return ""
        return answer

    def _send(self, command: bytes, slot: int) -> None:
        self._socket.send(keeper.MESSAGE.pack(command, b" ", slot, 0))

    def _answer(self) -> str:
        data = self._socket.recv(_ANSWER)
        if not data:
            raise ConnectionResetError
        return data.decode()
