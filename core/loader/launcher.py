"""The agent's side of loading: forks the loader child, receives what it loaded, tells it what is silent.

Whatever happens to the child (a compiler crash, a hang, a refusal by the verifier), the agent gets one clear error or a
set with fewer sensors, and in the second case the reasons.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import IO, Any

from ..errors import CompileError, ForkError, KernelError, KrieError, LoaderError
from ..exhaustion import exhausted_in
from ..kernel.detach import detach
from ..kernel.features import Features
from ..kernel.keeper import IGNORED
from ..kernel.standing import Standing
from .channel import Channel, ChannelClosed
from .forked import become
from .messages import Failure, Loaded, Purpose, Request
from .second import Second, keep

_ERROR_LINES = 20
_log = logging.getLogger("krie")
_LEAVES_WITHIN_S, _LETS_GO_WITHIN_S = 0.5, 10.0


@dataclass(frozen=True, slots=True)
class LoadedSet:
    """What came back: descriptors by name, and what is missing of what was asked for."""

    loaded: Loaded
    descriptors: Mapping[str, tuple[int, ...]]
    dropped: Mapping[str, KrieError] = field(default_factory=dict)
    """Sensors that had to be left out, and why."""
    timings: tuple[Mapping[str, Any], ...] = ()
    """What the child spent until then, as `Timings.merge` takes it."""

    def close(self) -> None:
        """Detach and unload everything."""
        links = {name: group for name, group in self.descriptors.items() if name.startswith("link:")}
        detach(each for group in links.values() for each in group)
        for name in self.descriptors.keys() - links.keys():
            for each in self.descriptors[name]:
                os.close(each)


def _serve(channel: socket.socket) -> None:
    from .child import serve  # noqa: PLC0415 - nothing of it is needed in the agent

    serve(channel)


class LoaderProcess:
    """One loader child. Use as a context manager: leaving it ends the child.

    It is forked, since another interpreter with its imports would take longer than all that it does.
    """

    def __init__(self, timeout_s: float, serve: Callable[[socket.socket], None] = _serve) -> None:
        """Start the child, which runs `serve`. `timeout_s` is for each answer that it owes. Raises `KernelError`."""
        with ExitStack() as opened:
            try:
                mine, theirs = map(opened.enter_context, socket.socketpair())
                self._stderr: IO[bytes] = opened.enter_context(
                    os.fdopen(os.memfd_create("krie-said", os.MFD_CLOEXEC), "w+b")
                )
                self._tgid = os.fork()
            except OSError as error:
                raise ForkError("the process that compiles and attaches", error.errno or 0) from error
            opened.pop_all()
        mine.settimeout(timeout_s)
        self._timeout_s = timeout_s
        if not self._tgid:
            become(theirs, self._stderr.fileno(), serve)
        theirs.close()
        self._status: int | None = None
        self._attaches = False
        self._second = Second((), {})
        self._channel = Channel(mine)

    def __enter__(self) -> LoaderProcess:
        """Return the child, which runs already."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the child if it is still there, but not what it alone keeps attached: that ends when it is safe."""
        self._second.end()
        self._channel.close()
        if self._attaches:
            if self._ended(_LETS_GO_WITHIN_S) is None:
                _log.error("process %d keeps the probes until they can be removed: see the kernel's log", self._tgid)
        elif self._ended(_LEAVES_WITHIN_S) is None:
            os.kill(self._tgid, signal.SIGKILL)
            self._ended(None)
        self._stderr.close()

    @property
    def attaches(self) -> bool:
        """Whether the child has come so far that it attaches."""
        return self._attaches

    def features(self) -> Features:
        """What the kernel accepts. Raises `KernelError`, `LoaderError`."""
        return Features.from_json(self._answer("features")[0])

    def load(self, request: Request, standing: Callable[[], Standing] | None = None) -> LoadedSet:
        """Have the request loaded. Raises `CompileError`, `KernelError`, `LoaderError`.

        `standing`: what its programs change where they are attached; asked while the child compiles. Whoever has them
        attached must say so: of what is not told, nobody looks whether its end would do harm.
        """
        if (standing is None) is (request.purpose is Purpose.ATTACH):
            raise ValueError(f"a request to {request.purpose} {'needs' if standing is None else 'takes no'} `standing`")
        self._send(request.to_json())
        self._second = Second(request.switches, standing() if standing is not None else {})
        return self._loaded(request)

    def kept(self) -> None:
        """Say that what was loaded last survives this process: until then the child sees to that. Raises as `load`."""
        self._send({"kept": True})

    def fall_back(
        self, request: Request, now: LoadedSet, silent: Mapping[str, str], close: Callable[[int], None] = os.close
    ) -> LoadedSet:
        """Have the next alternatives of these probes attached; why the present ones do not do is given by probe.

        To be called after `kept`. What is not in use any more is closed by `close`. Raises as `load` does.
        """
        self._send({"silent": dict(silent)})
        new = self._loaded(request)
        in_use = frozenset(new.loaded.attached)
        kept: dict[str, tuple[int, ...]] = {}
        for name, group in now.descriptors.items():
            kind, _, label = name.partition(":")
            replaced = f"program:{label}" in new.descriptors  # by another way to attach the same function
            if kind == "map" or (not replaced and (label in in_use or label not in new.loaded.programs)):
                kept[name] = group
            else:
                for each in group:
                    close(each)
        return LoadedSet(new.loaded, {**kept, **new.descriptors}, now.dropped, new.timings)

    def _loaded(self, request: Request) -> LoadedSet:
        try:
            message, descriptors = self._receive_all()
        except BaseException:
            self._keep_what_is_attached()
            raise
        self._second.close()
        self._raise_failure(message, request)
        loaded = Loaded.from_json(message["loaded"])
        groups: dict[str, tuple[int, ...]] = {}
        for name, descriptor in zip(loaded.names, descriptors, strict=True):
            groups[name] = (*groups.get(name, ()), descriptor)
        return LoadedSet(loaded, groups, timings=tuple(message["timings"]))

    def _receive_all(self) -> tuple[dict[str, Any], list[int]]:
        """The answer, behind all that the child says while it attaches."""
        while True:
            message, descriptors = self._receive()
            if "attaching" in message:
                self._attaches = True
                self._second.begin(*descriptors)
                self._send({"attach": [[*place, *each] for place, each in self._second.standing.items()]})
            elif "attached" in message:
                kind, address = message["attached"]
                self._second.note(kind, address, dict(zip(message["links"], descriptors, strict=True)))
            elif "released" in message:
                self._second.release(message["released"])
                self._send({})
            else:
                return message, descriptors

    def _keep_what_is_attached(self) -> None:
        """The child may have been killed, and nobody but this process hold what it attached."""
        if not self._second:
            return
        # Who is asked to end meanwhile does so behind it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)
        try:
            with LoaderProcess(self._timeout_s, keep) as child:
                child._attaches = True
                self._second.hand_over(child._channel)
                self._second.close()
        except (KrieError, ChannelClosed, OSError):  # there can be no such process
            if not self._lives():  # else it holds all of it, and ends it by the same rules
                self._second.let_go()
        finally:
            self._second.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _lives(self) -> bool:
        """Whether the child does. Takes no descriptor."""
        return self._status is None and not os.waitid(os.P_PID, self._tgid, os.WEXITED | os.WNOHANG | os.WNOWAIT)

    def _ended(self, timeout_s: float | None) -> int | None:
        """The child's exit status, or minus the signal that ended it; None while it lives. Waits; None: for ever."""
        if self._status is None:
            descriptor = os.pidfd_open(self._tgid)
            try:
                ended = select.poll()  # not select(), which takes no descriptor above 1023
                ended.register(descriptor, select.POLLIN)
                if ended.poll(None if timeout_s is None else 1000 * timeout_s):
                    self._status = os.waitstatus_to_exitcode(os.waitpid(self._tgid, 0)[1])
            finally:
                os.close(descriptor)
        return self._status

    def _answer(self, key: str) -> tuple[Any, list[int]]:
        message, descriptors = self._receive()
        self._raise_failure(message, None)
        return message[key], descriptors

    def _raise_failure(self, message: Mapping[str, Any], request: Request | None) -> None:
        if (failure := message.get("failure")) is not None:
            raise Failure(**failure).error(request.sensors if request is not None else ())

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._channel.send(message)
        except (ChannelClosed, TimeoutError) as error:
            raise self._died(error) from error

    def _receive(self) -> tuple[dict[str, Any], list[int]]:
        try:
            return self._channel.receive()
        except (ChannelClosed, TimeoutError) as error:
            raise self._died(error) from error

    def _died(self, error: Exception) -> KrieError:
        if isinstance(error, TimeoutError):
            return LoaderError(
                f"the loader gave no answer for {self._timeout_s:g} s (agent.loader_timeout_s)"
                + ("" if self._attaches else "; it was ended")
            )
        status = self._ended(5)
        how = (
            f"was ended by {signal.Signals(-status).name}" if status and status < 0 else f"exited with status {status}"
        )
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").splitlines()[-_ERROR_LINES:]
        details = "\n".join(lines)
        if number := exhausted_in(details):
            return KernelError("compiling and attaching", number, details=details)
        return LoaderError(f"the loader {how}" + (":" if lines else ""), details)


def load(
    first: LoaderProcess,
    request: Request,
    essential: frozenset[str],
    start: Callable[[], LoaderProcess],
    children: ExitStack,
    standing: Callable[[], Standing],
) -> tuple[LoaderProcess, Request, LoadedSet]:
    """Load as much of the request as compiles. Returns the child that did, what it was asked for, and what it loaded.

    `first` serves the first attempt; `start` starts further children, which `children` ends. Sensors in `essential` are
    never left out: their failure is raised, as are failures that no single sensor causes.
    """
    try:
        return first, request, first.load(request, standing)
    except (CompileError, LoaderError) as error:
        dropped = {} if first.attaches else _culprits(request, essential, start)  # else it all has compiled
        if not dropped:
            raise
        if needed := essential & dropped.keys():
            raise dropped[min(needed)] from error
    request = replace(request, requests=tuple(each for each in request.requests if each.name not in dropped))
    child = children.enter_context(start())
    child.features()
    return child, request, replace(child.load(request, standing), dropped=dropped)


def _culprits(request: Request, essential: frozenset[str], start: Callable[[], LoaderProcess]) -> dict[str, KrieError]:
    """Compile each sensor alone (with the essential ones) to name those at fault."""
    found: dict[str, KrieError] = {}
    for sensor in request.requests:
        alone = tuple(each for each in request.requests if each.name in essential or each is sensor)
        try:
            with start() as child:
                child.features()
                child.load(replace(request, requests=alone, purpose=Purpose.CHECK)).close()
        except CompileError as error:
            found[sensor.name] = CompileError(sensor.name, error.diagnostics)
        except LoaderError as error:
            found[sensor.name] = LoaderError(
                f"sensor {sensor.name} brings the compiler down: {error.headline}", error.details
            )
    return found
