"""The loader child: only here bcc is imported, which brings LLVM and may abort its process on odd C.

Run as `python -m krie.kernel.loader DESCRIPTOR`, where the descriptor is its end of a socket. It says what the kernel
accepts, takes the sensors, chooses alternatives, compiles one translation unit, loads and attaches with KRIe's own
code, hands maps, programs and links over, and exits. See `krie.kernel.launcher` for the other end.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from ..errors import KernelError
from ..probe import Program
from ..table_layout import SIZE as TABLE_BYTES
from . import attach, bpf, mounts, preflight
from .btf import Btf
from .channel import Channel, ChannelClosed
from .compiled import Cache, Compiled, compile_unit, key_of
from .copies import copy_for
from .features import try_features
from .messages import Failure, Loaded, Request
from .record_source import trial_program
from .source import SensorSource, Unit, assemble, write_tree
from .symbols import Symbols

_PR_SET_PDEATHSIG = 1
_DIAGNOSTIC_BYTES = 1 << 16
_RUN_BY_AGENT = ("krie_inspect", "krie_peek", "krie_change")
# Newer kernels (7.3 is one) embed structs as members without a name, which plain C ignores. BCC optimises again what
# clang has optimised, and asks for types that none of KRIe's maps needs: without both, compiling takes half the time.
_FLAGS = ["-D__TARGET_ARCH_x86", "-fms-extensions", "-g0", "-Xclang", "-disable-llvm-passes"]
_WARNINGS = ["-Wall", "-Wno-unused-function", "-Wno-unused-variable", "-Wno-address-of-packed-member"]


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
        self._cache_problem = ""
        self._btf = Btf()
        symbols = lru_cache(maxsize=1)(Symbols)  # read when first asked, since they are many
        self._places = attach.Places(
            mounts.tracefs(), mounts.cgroup2(), self._btf.function_id, lambda name: symbols().code(name)
        )
        self.features = try_features(self._places, self._btf)

    def run(self, request: Request) -> None:
        """Serve the request; the answer and the descriptors go over the channel."""
        if request.check:
            self._check(request)
            return
        if request.trial:
            self._trial(request)
            return
        choices = preflight.choose(
            request.candidates, request.excluded, request.allow_every_syscall, self._places, self._run_canaries
        )
        chosen = [choice.chosen for choice in choices.values() if choice.chosen is not None]
        sources = tuple(request.source(name, chosen) for name in request.sensors)
        with _captured_stderr() as diagnostics:
            compiled, unit = self._compile(request, sources)
        if compiled is None:
            self._refuse(diagnostics)
        else:
            self._hand_over(choices, compiled, unit)

    def _check(self, request: Request) -> None:
        everything = [each for alternatives in request.candidates.values() for each in alternatives]
        sources = tuple(request.source(name, everything) for name in request.sensors)
        with _captured_stderr() as diagnostics:
            compiled, unit = self._compile(request, sources)
        if compiled is None:
            self._refuse(diagnostics)
        else:
            wrong = self._wrong_offsets(compiled, unit)
            answer = Loaded((), unit.programs, unit.kinds, unit.sensors, {}, {}, {}, wrong, tuple(diagnostics))
            self._channel.send({"loaded": answer.to_json()})

    def _trial(self, request: Request) -> None:
        """Load the programs that look records up in tables, and attach nothing."""
        sources = tuple(request.source(name, ()) for name in request.sensors)
        with _captured_stderr() as diagnostics:
            compiled, unit = self._compile(request, sources)
        if compiled is None:
            self._refuse(diagnostics)
            return
        names, descriptors = zip(*((f"map:{name}", each) for name, each in compiled.maps.items()), strict=True)
        functions = [trial_program(record.c_name) for source in sources for record in source.events]
        answer = Loaded(
            (*names, *(f"program:{each}" for each in functions)),
            unit.programs,
            unit.kinds,
            unit.sensors,
            {},
            {},
            {},
            (),
        )
        loaded = [self._load_raw(each, compiled) for each in functions]
        self._channel.send({"loaded": answer.to_json()}, [*descriptors, *loaded])

    def _refuse(self, diagnostics: list[str]) -> None:
        self._channel.send({"failure": Failure("compile", "\n".join(_errors(diagnostics))).to_json()})

    def _run_canaries(self, probes: list[str]) -> None:
        self._channel.send({"canaries": probes})
        self._channel.receive()

    def _compile(self, request: Request, sources: tuple[SensorSource, ...]) -> tuple[Compiled | None, Unit]:
        write_tree(self._tree, sources, self._btf)
        unit = assemble(
            sources, ring_pages=request.ring_pages, features=self.features, btf=self._btf, trial=request.trial
        )
        flags = [*_FLAGS, *(_WARNINGS if request.check else ["-Wno-everything"])]
        cache = Cache(Path(request.cache_dir)) if request.cache_dir else None
        key = key_of(unit.text, self._tree, flags)
        compiled = cache.find(key) if cache is not None else None
        if compiled is None:
            try:
                compiled = compile_unit(unit.text, self._tree, flags)
            except Exception as error:  # bcc raises plain Exception
                print(f"{error}", file=sys.stderr)
                return None, unit
            if cache is not None:
                cache.keep(key, compiled)
                self._cache_problem = cache.problem
        _make_map_of_tables(compiled.maps["krie_tables"], max(1, len(unit.kinds)))
        return compiled, unit

    def _hand_over(self, choices: dict[str, preflight.Choice], compiled: Compiled, unit: Unit) -> None:
        names: list[str] = []
        descriptors: list[int] = []
        for name, descriptor in compiled.maps.items():
            names.append(f"map:{name}")
            descriptors.append(descriptor)
        failed: dict[str, str] = {}
        for function in _RUN_BY_AGENT:
            names.append(f"program:{function}")
            descriptors.append(self._load_raw(function, compiled))
        wrong = self._wrong_offsets(compiled, unit)
        shared: set[Program] = set()  # several probes may name the same program: it is attached once
        for probe, choice in choices.items():
            if choice.chosen is None:
                continue
            held: list[tuple[str, int]] = []
            try:
                for program in (each for each in choice.chosen.programs if each not in shared):
                    index = unit.programs.index(program.label)
                    code = copy_for(index, program.argument, compiled.instructions(program.function))
                    loaded = attach.load(program, code, self._places)
                    held.append((f"program:{program.label}", loaded))
                    if program.roaming:
                        continue  # the agent attaches it: see krie/roaming.py
                    links = attach.attach(program, loaded, self._places)
                    held += [(f"link:{program.label}", each) for each in links]
            except KernelError as error:
                failed[probe] = str(error)
                for _, descriptor in held:
                    os.close(descriptor)
                continue
            shared.update(choice.chosen.programs)
            names += [name for name, _ in held]
            descriptors += [descriptor for _, descriptor in held]
        loaded_message = Loaded(
            names=tuple(names),
            programs=unit.programs,
            kinds=unit.kinds,
            sensors=unit.sensors,
            chosen={probe: choice.chosen.name for probe, choice in choices.items() if choice.chosen is not None},
            reasons={probe: dict(choice.reasons) for probe, choice in choices.items()},
            failed=failed,
            wrong_offsets=wrong,
            cache_problem=self._cache_problem,
        )
        self._channel.send({"loaded": loaded_message.to_json()}, descriptors)

    def _load_raw(self, function: str, compiled: Compiled) -> int:
        spec = bpf.ProgramSpec(function, bpf.ProgType.RAW_TRACEPOINT)
        return bpf.prog_load(spec, compiled.instructions(function))

    def _wrong_offsets(self, compiled: Compiled, unit: Unit) -> tuple[str, ...]:
        """Fields that the generated code reads elsewhere than BTF says they are."""
        table = compiled.maps["krie_offsets"]
        opaque = 0x123456000
        size = 8 * (1 + max(1, len(unit.fields)))
        bpf.update(table, bytes(4), struct.pack("=Q", opaque).ljust(size, b"\0"))
        program = self._load_raw("krie_check_offsets", compiled)
        try:
            bpf.test_run(program, (0,))
        finally:
            os.close(program)
        _, *seen = struct.unpack(f"={size // 8}Q", bpf.lookup(table, bytes(4), size) or bytes(size))
        return tuple(
            f"{type_}.{path} is read at {offset}, and is at {self._btf.offset(type_, path)}"
            for (type_, path), offset in zip(unit.fields, seen, strict=False)
            if offset != self._btf.offset(type_, path)
        )


def _make_map_of_tables(descriptor: int, kinds: int) -> None:
    """Put a map of maps where BCC made an ordinary one, before any program refers to it: see `bpf/table.bpf.c`."""
    shape = bpf.map_create(bpf.MapType.ARRAY, 4, TABLE_BYTES, kinds, "krie_generation")
    made = bpf.map_create(bpf.MapType.ARRAY_OF_MAPS, 4, 4, 1, "krie_tables", inner=shape)
    os.dup2(made, descriptor, inheritable=False)
    os.close(made)
    os.close(shape)


def _errors(lines: list[str]) -> list[str]:
    """The compiler's own lines, without BCC's remarks."""
    return [line for line in lines if line and "Failed to compile BPF module" not in line] or ["no diagnostics"]


def main(descriptor: int) -> None:
    """Serve one request on the socket `descriptor`."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    bpf.allow_locked_memory()
    channel = Channel(socket.socket(fileno=descriptor))
    try:
        loader = Loader(channel, mounts.private_namespace())
        channel.send({"features": loader.features.to_json()})
        loader.run(Request.from_json(channel.receive()[0]))
    except KernelError as error:
        channel.send({"failure": Failure("kernel", str(error)).to_json()})
    except ChannelClosed:
        print("the agent has gone", file=sys.stderr)


if __name__ == "__main__":
    main(int(sys.argv[1]))
