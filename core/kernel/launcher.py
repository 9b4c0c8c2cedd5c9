"""The agent's side of loading: starts the loader child, answers its canary requests, receives what it loaded.

Whatever happens to the child (a compiler crash, a hang, a refusal by the verifier), the agent gets one clear error or a
set with fewer sensors, and in the second case the reasons.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import IO, Any

from ..errors import CompileError, KernelError, KrieError, LoaderError
from .channel import Channel, ChannelClosed
from .features import Features
from .messages import Loaded, Request

_ERROR_LINES = 20


@dataclass(frozen=True, slots=True)
class LoadedSet:
    """What came back: descriptors by name, and what is missing of what was asked for."""

    loaded: Loaded
    descriptors: Mapping[str, tuple[int, ...]]
    dropped: Mapping[str, KrieError] = field(default_factory=dict)
    """Sensors that had to be left out, and why."""

    def close(self) -> None:
        """Detach and unload everything."""
        for group in self.descriptors.values():
            for each in group:
                os.close(each)


class LoaderProcess:
    """One loader child. Use as a context manager: leaving it ends the child."""

    def __init__(self, timeout_s: float) -> None:
        """Start the child. `timeout_s` is for each answer that it owes."""
        mine, theirs = socket.socketpair()
        mine.settimeout(timeout_s)
        self._timeout_s = timeout_s
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        with theirs:
            os.set_inheritable(theirs.fileno(), True)
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-m", "krie.kernel.loader", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._stderr,
                stderr=self._stderr,
                pass_fds=[theirs.fileno()],
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
            )
        self._channel = Channel(mine)

    def __enter__(self) -> LoaderProcess:
        """Start."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the child if it is still there."""
        self._channel.close()
        if self._child.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(0.5)
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGKILL)
            self._child.wait()
        self._stderr.close()

    def features(self) -> Features:
        """What the kernel accepts. Raises `KernelError`, `LoaderError`."""
        return Features.from_json(self._answer("features")[0])

    def load(self, request: Request, run_canaries: Callable[[list[str]], None]) -> LoadedSet:
        """Have the request loaded. Raises `CompileError`, `KernelError`, `LoaderError`."""
        self._send(request.to_json())
        while True:
            message, descriptors = self._receive()
            if "canaries" in message:
                run_canaries(message["canaries"])
                self._send({})
                continue
            self._raise_failure(message, request)
            loaded = Loaded.from_json(message["loaded"])
            groups: dict[str, tuple[int, ...]] = {}
            for name, descriptor in zip(loaded.names, descriptors, strict=True):
                groups[name] = (*groups.get(name, ()), descriptor)
            return LoadedSet(loaded, groups)

    def _answer(self, key: str) -> tuple[Any, list[int]]:
        message, descriptors = self._receive()
        self._raise_failure(message, None)
        return message[key], descriptors

    def _raise_failure(self, message: Mapping[str, Any], request: Request | None) -> None:
        if (failure := message.get("failure")) is None:
            return
        if failure["stage"] == "compile" and request is not None:
            raise CompileError(", ".join(request.sensors), failure["text"])
        raise KernelError(failure["text"])

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

    def _died(self, error: Exception) -> LoaderError:
        if isinstance(error, TimeoutError):
            return LoaderError(
                f"the loader gave no answer for {self._timeout_s:g} s (agent.loader_timeout_s); it was ended"
            )
        deadline = time.monotonic() + 5
        while self._child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        status = self._child.poll()
        how = (
            f"was ended by {signal.Signals(-status).name}" if status and status < 0 else f"exited with status {status}"
        )
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").splitlines()[-_ERROR_LINES:]
        return LoaderError("\n".join([f"the loader {how}" + (":" if lines else ""), *lines]))


def load(
    first: LoaderProcess,
    request: Request,
    essential: frozenset[str],
    run_canaries: Callable[[list[str]], None],
    timeout_s: float,
) -> LoadedSet:
    """Load as much of the request as works; `first` serves the first attempt, further ones get children of their own.

    Sensors in `essential` are never left out: their failure is raised, as are failures that no single sensor causes.
    """
    dropped: dict[str, KrieError] = {}
    for child in _children(first, timeout_s):
        try:
            loaded = child.load(request, run_canaries)
        except (CompileError, LoaderError) as error:
            culprits = _culprits(request, essential, run_canaries, timeout_s)
            if not culprits:
                raise
            if needed := essential & culprits.keys():
                raise culprits[min(needed)] from error
            dropped |= culprits
            request = replace(request, requests=tuple(each for each in request.requests if each.name not in dropped))
            continue
        chosen, excluded = loaded.loaded.chosen, request.excluded
        further = tuple(
            (probe, chosen[probe], why)
            for probe, why in loaded.loaded.failed.items()
            if (probe, chosen[probe]) not in excluded
        )
        if not further:
            return replace(loaded, dropped=dropped)
        loaded.close()
        request = replace(request, exclusions=request.exclusions + further)
    raise AssertionError("there is always a further child")


def _children(first: LoaderProcess, timeout_s: float) -> Iterator[LoaderProcess]:
    yield first
    while True:
        with LoaderProcess(timeout_s) as child:
            child.features()
            yield child


def _culprits(
    request: Request, essential: frozenset[str], run_canaries: Callable[[list[str]], None], timeout_s: float
) -> dict[str, KrieError]:
    """Load each sensor alone (with the essential ones) to name those at fault."""
    found: dict[str, KrieError] = {}
    for sensor in request.requests:
        alone = tuple(each for each in request.requests if each.name in essential or each is sensor)
        try:
            with LoaderProcess(timeout_s) as child:
                child.features()
                child.load(replace(request, requests=alone), run_canaries).close()
        except CompileError as error:
            found[sensor.name] = CompileError(sensor.name, error.diagnostics)
        except LoaderError as error:
            found[sensor.name] = LoaderError(f"sensor {sensor.name} brings the compiler down: {error}")
    return found
