"""The loader child: it compiles where nothing was compiled before, and a crash of the compiler ends this process only.

The agent forks it (see `krie.loader.launcher` for the other end). It says what the kernel accepts, takes the sensors,
compiles one translation unit with all of their alternatives, loads and attaches with KRIe's own code what works here,
hands maps, programs and links over, replaces what the agent finds silent, and exits.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..errors import KernelError
from ..events.numbers import LONG, ONLY
from ..exhaustion import exhausted_in
from ..kernel import attach, bpf, dispatch, mounts
from ..kernel.btf import Btf
from ..kernel.features import try_features
from ..kernel.program import AttachType, Program
from ..libc import libc
from ..timings import Timings
from .ahead import Ahead
from .alternatives import Alternatives, Held
from .channel import Channel, ChannelClosed
from .compiled import Compiled, instantiate
from .compiler import FLAGS, QUIET, WARNINGS, CompilationError
from .copies import copy_for, with_secret
from .holding import Holding
from .messages import Failure, Loaded, Purpose, Request
from .program_name import name_of
from .record_source import trial_program
from .source import SensorSource, Unit, assemble
from .unit_cache import Folders, compile_into, obtain

_PR_SET_PDEATHSIG = 1
_DIAGNOSTIC_BYTES = 1 << 16
_RUN_BY_AGENT = ("krie_inspect", "krie_peek", "krie_change", "process_running_now")
_RUN_BY_GUARDED_AGENT = "guard_beat"
"""The same of a sensor: see `krie.enforce.guard_sensor`."""


@contextmanager
def _captured_stderr() -> Iterator[list[str]]:
    """Collect what clang writes to descriptor 2; the list is filled at the end.

    Descriptor 2 is a file of the launcher's: what is written before a crash is found there.
    """
    lines: list[str] = []
    start = os.lseek(2, 0, os.SEEK_CUR)
    yield lines
    sys.stderr.flush()
    lines += os.pread(2, _DIAGNOSTIC_BYTES, start).decode(errors="replace").splitlines()


class Loader:
    """One attempt to load a set of sensors."""

    def __init__(self, channel: Channel, tree: Path) -> None:
        """Look at the machine: BTF, tracefs, cgroup v2. Raises `KernelError`."""
        self._channel = channel
        self._tree = tree
        self._timings = Timings("loader")
        self._origin, self._cache_problem = "", ""
        self._holding: Holding | None = None
        with self._timings.phase("features"):
            self._btf = Btf()
            self._places = attach.Places(
                attach.TRACEFS, mounts.cgroup2(), self._btf.function_id, mounts.security_modules()
            )
            self.features = try_features(self._places, self._btf)

    def run(self, request: Request) -> None:
        """Serve the request; the answers and the descriptors go over the channel."""
        sources = tuple(request.source(name) for name in request.sensors)
        with self._timings.phase("compile, or find compiled"), _captured_stderr() as diagnostics:
            compiled, unit = self._compile(request, sources)
        if compiled is None:
            self._refuse(diagnostics)
        elif request.purpose is Purpose.CHECK:
            wrong = self._wrong_offsets(compiled, unit)
            self._answer(unit, wrong_offsets=wrong, warnings=tuple(diagnostics))
        elif request.purpose is Purpose.TRIAL:
            functions = [trial_program(record.c_name) for source in sources for record in source.events]
            loaded = {f"program:{each}": [self._load_raw(each, compiled)] for each in functions}
            self._answer(unit, {**_maps_of(compiled), **loaded})
        else:
            self._attach(request, compiled, unit)

    def let_go(self) -> None:
        """At the end: what nobody else keeps stays attached for as long as its end would do harm."""
        if self._holding is not None:
            self._holding.let_go()

    def _refuse(self, diagnostics: list[str]) -> None:
        lines = "\n".join(_errors(diagnostics))
        number = exhausted_in(lines)
        failure = Failure("compiling", number, details=lines) if number else Failure("", details=lines)
        self._channel.send({"failure": failure.to_json()})

    def _compile(self, request: Request, sources: tuple[SensorSource, ...]) -> tuple[Compiled | None, Unit]:
        check = request.purpose is Purpose.CHECK
        unit = assemble(
            sources, self._btf, trial=request.purpose is Purpose.TRIAL, without=self.features.macros_refused
        )
        flags = [*FLAGS, *(WARNINGS if check else QUIET)]
        folders = Folders() if check else Folders(request.compiled_dir, request.cache_dir)
        try:
            obtained = obtain(unit, self._btf, flags, folders, compile_into(self._tree))
        except CompilationError as error:
            print(f"{error}", file=sys.stderr)
            return None, unit
        self._origin, self._cache_problem = obtained.origin, obtained.problem
        return instantiate(obtained.object, unit.entries(request.ring_pages * mmap.PAGESIZE), len(unit.kinds)), unit

    def _attach(self, request: Request, compiled: Compiled, unit: Unit) -> None:
        """Attach what works, then what the agent asks for instead, until it goes."""
        wrong = self._wrong_offsets(compiled, unit)
        by_agent = (*_RUN_BY_AGENT, *({_RUN_BY_GUARDED_AGENT} & compiled.functions.keys()))
        own = {f"program:{each}": [self._load_raw(each, compiled, request.secret)] for each in by_agent}

        holding = self._holding = Holding(request.switches, compiled.maps["krie_agent"])
        dispatcher = dispatch.Dispatcher(compiled.maps, lambda layer: self._load_dispatcher(compiled, layer))

        new: dict[str, Sequence[int]] = {**_maps_of(compiled), **own}

        def load(program: Program) -> int:
            code = copy_for(
                unit.programs.index(program.label), program.argument, compiled.instructions(program.function)
            )
            return attach.load(program, code, self._places, name_of(program, unit))

        def note(program: Program, links: Sequence[int]) -> None:
            if (standing := holding.note(program, links)) is not None:
                self._channel.send({"attached": standing, "links": links}, links)

        def hold(program: Program) -> list[int]:
            with self._timings.phase("load and verify"):
                loaded = ahead.take(program)
            if program.roaming:
                return [loaded]  # the agent attaches it: see krie/agent/roaming.py
            try:
                if program.through:
                    attach.put(program, loaded, compiled.maps)
                    return [loaded]
                if program.attach is AttachType.SYSCALL:
                    dispatcher.place(program, loaded)
                    for name, each in dispatcher.attach():
                        new[name] = [each]
                        if name.startswith("link:"):
                            note(program, [each])
                    return [loaded]
                with self._timings.phase("attach"):
                    links = attach.attach(program, loaded, self._places)
                note(program, links)
                return [loaded, *links]
            except KernelError:
                dispatcher.remove(program)
                os.close(loaded)
                raise

        def release(held: Held) -> None:
            dispatcher.remove(held.program)
            os.close(held.descriptors[0])
            if links := held.descriptors[1:]:
                if holding.can_release(held.program, links):  # else the agent goes on to hold them, too
                    self._channel.send({"released": links})
                    self._channel.receive()  # it does not any more
                holding.release(held.program, links)

        alternatives = Alternatives(
            request.options,
            hold,
            allow_every_syscall=request.allow_every_syscall,
            refused=self.features.refused,
            release=release,
        )
        with self._timings.phase("load and verify"):
            ahead = Ahead(load, alternatives.wanted)
        self._channel.send({"attaching": True}, [compiled.maps["krie_agent"]])
        # An agent that has given up meanwhile, and is about to end this process, never answers.
        answer, _ = self._channel.receive()
        holding.begin({(attach_, target, offset): (kind, at) for attach_, target, offset, kind, at in answer["attach"]})
        new.update(_named(alternatives.take()))
        ahead.close()
        while True:
            self._answer(unit, new, alternatives, wrong_offsets=wrong)
            with self._timings.phase("wait for the agent"):
                self._channel.receive()
                holding.kept()
                for name, group in new.items():
                    if name.startswith("program:"):
                        for each in group:
                            os.close(each)  # the agent has them, and decides how long they live
                silent = self._channel.receive()[0]["silent"]
            new.clear()
            before = alternatives.attached
            new.update(_named(alternatives.fall_back(silent)))
            for program in set(before) - set(alternatives.attached):
                dispatcher.remove(program)

    def _answer(
        self,
        unit: Unit,
        descriptors: Mapping[str, Sequence[int]] | None = None,
        alternatives: Alternatives | None = None,
        *,
        wrong_offsets: tuple[str, ...] = (),
        warnings: tuple[str, ...] = (),
    ) -> None:
        named = [(name, each) for name, group in (descriptors or {}).items() for each in group]
        answer = Loaded(
            names=tuple(name for name, _ in named),
            programs=unit.programs,
            kinds=unit.kinds,
            sensors=unit.sensors,
            chosen=alternatives.chosen if alternatives is not None else {},
            reasons=alternatives.reasons if alternatives is not None else {},
            attached=tuple(each.label for each in alternatives.attached) if alternatives is not None else (),
            wrong_offsets=wrong_offsets,
            warnings=warnings,
            origin=self._origin,
            cache_problem=self._cache_problem,
        )
        message = {"loaded": answer.to_json(), "timings": self._timings.to_json()}
        self._channel.send(message, [each for _, each in named])

    def _load_dispatcher(self, compiled: Compiled, layer: int) -> int:
        name = f"{dispatch.FUNCTION}_{layer:x}" if layer else dispatch.FUNCTION
        spec = bpf.ProgramSpec(name, bpf.ProgType.RAW_TRACEPOINT)
        return bpf.prog_load(spec, copy_for(0, layer, compiled.instructions(dispatch.FUNCTION)))

    def _load_raw(self, function: str, compiled: Compiled, secret: int = 0) -> int:
        spec = bpf.ProgramSpec(function, bpf.ProgType.RAW_TRACEPOINT)
        return bpf.prog_load(spec, with_secret(secret, compiled.instructions(function)))

    def _wrong_offsets(self, compiled: Compiled, unit: Unit) -> tuple[str, ...]:
        """Fields that the generated code reads elsewhere than BTF says they are."""
        table = compiled.maps["krie_offsets"]
        opaque = 0x123456000
        size = 8 * (1 + max(1, len(unit.fields)))
        bpf.update(table, ONLY, LONG.encode(opaque).ljust(size, b"\0"))
        program = self._load_raw("krie_check_offsets", compiled)
        try:
            bpf.test_run(program, (0,))
        finally:
            os.close(program)
        _, *seen = struct.unpack(f"={size // 8}Q", bpf.lookup(table, ONLY, size) or bytes(size))
        return tuple(
            f"{type_}.{path} is read at {offset}, and is at {self._btf.offset(type_, path)}"
            for (type_, path), offset in zip(unit.fields, seen, strict=False)
            if offset != self._btf.offset(type_, path)
        )


def _maps_of(compiled: Compiled) -> dict[str, Sequence[int]]:
    return {f"map:{name}": [each] for name, each in compiled.maps.items()}


def _named(held: Iterable[Held]) -> dict[str, Sequence[int]]:
    found: dict[str, Sequence[int]] = {}
    for each in held:
        found[f"program:{each.program.label}"] = each.descriptors[:1]
        found[f"link:{each.program.label}"] = each.descriptors[1:]
    return found


def _errors(lines: list[str]) -> list[str]:
    """The compiler's own lines, without BCC's remarks."""
    return [line for line in lines if line and "BCC compiled nothing" not in line] or ["no diagnostics"]


def serve(sock: socket.socket) -> None:
    """Serve one request on this socket, in a process that ends afterwards, and with its parent."""
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    bpf.allow_locked_memory()
    channel = Channel(sock)
    with suppress(ChannelClosed), ExitStack() as stack:  # the agent needs nothing more, or has gone
        try:
            loader = Loader(channel, mounts.private_namespace())
            stack.callback(loader.let_go)
            channel.send({"features": loader.features.to_json()})
            loader.run(Request.from_json(channel.receive()[0]))
        except (KernelError, OSError, MemoryError) as error:
            channel.send({"failure": Failure.of(error).to_json()})
            channel.receive()  # until the agent, which may hold what is let go of behind this, has closed it
