"""What BCC makes of a translation unit: the instructions of each function, and the maps that they refer to.

BCC compiles for seconds, and most agents compile what the last one did: `Cache` keeps what came out. Its key covers the
text, every header, the flags, the kernel and the compiler. Only root can write there, and what comes out of it passes
the kernel's verifier, the check of offsets and the canaries, as any other programs.
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, KernelError, UntrustedFileError
from ..trust import read_trusted, require_trusted
from . import bpf

_VERSION = 1
_KEPT = 16
"""Translation units that are kept, youngest first: an agent's, and those of other configurations tried here."""
_MAP_LOAD, _MAP_DESCRIPTOR = 0x18, 1
"""Operation code and source register of an instruction that holds a map's descriptor (BPF_PSEUDO_MAP_FD)."""
_INSTRUCTION = struct.Struct("<BBhi")
_LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
"""Where Debian has those of the compiler."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """One translation unit, with maps that exist."""

    maps: Mapping[str, int]
    """Descriptors by name."""
    functions: Mapping[str, bytes]

    def instructions(self, function: str) -> bytes:
        """Those of one function. Raises `KernelError` where the C source has none of that name."""
        if (code := self.functions.get(function)) is None:
            raise KernelError(f"the C source has no function {function}", 0, "the probe names it; is it inside #ifdef?")
        return code


def compile_unit(text: str, tree: Path, flags: list[str]) -> Compiled:
    """Have BCC compile; it writes diagnostics to descriptor 2. Raises `Exception`, as BCC does."""
    os.environ["BCC_KERNEL_SOURCE"] = str(tree)
    from bcc import BPF  # noqa: PLC0415 - brings LLVM: as late as possible, and here only
    from bcc.libbcc import lib  # noqa: PLC0415

    class CompileOnly(BPF):  # type: ignore[misc]
        def _trace_autoload(self) -> None:
            """Attach nothing by the names of functions."""

    for name in ("bpf_table_name", "bpf_function_name"):
        getattr(lib, name).restype = ctypes.c_char_p  # bcc leaves them undeclared
    unit = CompileOnly(text=text, cflags=flags)
    module = unit.module
    # BCC closes its maps when its module goes: these are our own.
    maps = {
        lib.bpf_table_name(module, i).decode(): os.dup(lib.bpf_table_fd_id(module, i))
        for i in range(lib.bpf_num_tables(module))
    }
    own = {lib.bpf_table_fd_id(module, i): each for i, each in enumerate(maps.values())}
    names = [lib.bpf_function_name(module, i) for i in range(lib.bpf_num_functions(module))]
    code = {
        name.decode(): ctypes.string_at(lib.bpf_function_start(module, name), lib.bpf_function_size(module, name))
        for name in names
    }
    return Compiled(maps, {name: _with_maps(each, own) for name, each in code.items()})


def _with_maps(code: bytes, numbers: Mapping[int, int]) -> bytes:
    """The instructions with other numbers of maps. Raises `KeyError` for one that is not among them."""
    changed = bytearray(code)
    offset = 0
    while offset < len(changed):
        operation, registers, _, number = _INSTRUCTION.unpack_from(changed, offset)
        if (operation, registers >> 4) == (_MAP_LOAD, _MAP_DESCRIPTOR):
            struct.pack_into("<i", changed, offset + 4, numbers[number])
        offset += 16 if operation == _MAP_LOAD else 8
    return bytes(changed)


class Cache:
    """A folder of compiled translation units, one a file."""

    def __init__(self, folder: Path) -> None:
        """It is made when something is kept."""
        self._folder = folder
        self.problem = ""
        """Why something that is there was not taken, or nothing could be kept; empty where all is well."""

    def find(self, key: str) -> Compiled | None:
        """What was kept under this key, with new maps; None where nothing of use was. Raises `KernelError`.

        A file that others could have changed, or that is damaged, is of no use: `problem` says so.
        """
        file = self._folder / key
        if not os.path.lexists(file):
            return None
        try:
            head, _, body = read_trusted(file).partition(b"\n")
        except (ConfigError, UntrustedFileError) as error:
            self.problem = str(error)
            return None
        if head.decode(errors="replace") != hashlib.sha256(body).hexdigest():
            self.problem = f"{file}: is damaged"
            return None
        with suppress(OSError):
            os.utime(file)
        return _from_json(json.loads(body))

    def keep(self, key: str, unit: Compiled) -> None:
        """Keep it, and drop the oldest ones.

        Where the folder cannot be had, or others may change it, nothing is kept, and `problem` says so.
        """
        body = json.dumps(_to_json(unit)).encode()
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            require_trusted(self._folder)
            descriptor, made = tempfile.mkstemp(dir=self._folder, prefix=".")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
                Path(made).rename(self._folder / key)
            finally:
                Path(made).unlink(missing_ok=True)
            kept = sorted(self._folder.iterdir(), key=lambda each: each.lstat().st_mtime_ns, reverse=True)
            for each in kept[_KEPT:]:
                each.unlink(missing_ok=True)
        except (OSError, UntrustedFileError) as error:
            self.problem = self.problem or str(error)


def key_of(text: str, tree: Path, flags: Iterable[str]) -> str:
    """What names a translation unit: everything that decides what comes out of the compiler."""
    digest = hashlib.sha256()
    for part in (str(_VERSION), *_compiler(), text, *flags):
        digest.update(f"{len(part)}:{part}".encode())
    for file in sorted(each for each in tree.rglob("*") if each.is_file()):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(tree)}:{len(content)}:".encode() + content)
    return digest.hexdigest()


def _compiler() -> Iterator[str]:
    """The kernel, whose symbols BCC asks for, and the libraries that compile."""
    kernel = os.uname()
    yield from (kernel.release, kernel.version, kernel.machine)
    for name in ("libbcc.so.*", "libLLVM*", "libclang-cpp*"):
        found = sorted(_LIBRARIES.glob(name))
        for each in found:
            status = each.stat()
            yield f"{each.name} {status.st_size} {status.st_mtime_ns}"
        if (
            not found
        ):  # it lies where it is not looked for: nobody could tell when it changes, so nothing is found again
            yield os.urandom(16).hex()


def _to_json(unit: Compiled) -> dict[str, Any]:
    numbers = {descriptor: index for index, descriptor in enumerate(unit.maps.values())}
    return {
        "maps": {name: astuple(bpf.map_shape(descriptor)) for name, descriptor in unit.maps.items()},
        "functions": {
            name: base64.b64encode(_with_maps(code, numbers)).decode() for name, code in unit.functions.items()
        },
    }


def _from_json(kept: Mapping[str, Any]) -> Compiled:
    maps = {name: bpf.map_of_shape(bpf.MapShape(*shape)) for name, shape in kept["maps"].items()}
    numbers = dict(enumerate(maps.values()))
    return Compiled(
        maps, {name: _with_maps(base64.b64decode(code), numbers) for name, code in kept["functions"].items()}
    )
