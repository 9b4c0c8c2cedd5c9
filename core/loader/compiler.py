"""Has BCC compile: the only importer of bcc, which brings LLVM and may abort its process on odd C.

Nothing reaches the kernel, which need not be the one that the programs are for: see `krie.kernel.interception`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import KernelError
from ..exhaustion import exhausted
from ..kernel.interception import without_kernel
from ..kernel_files import KernelFile
from .object import Object, with_maps

# Newer kernels (7.3 is one) embed structs as members without a name, which plain C ignores. BCC optimises again what
# clang has optimised, and asks for types that none of KRIe's maps needs: without both, compiling takes half the time.
FLAGS = ("-D__TARGET_ARCH_x86", "-fms-extensions", "-g0", "-Xclang", "-disable-llvm-passes")
QUIET = ("-Wno-everything",)
WARNINGS = ("-Wall", "-Wno-unused-function", "-Wno-unused-variable", "-Wno-address-of-packed-member")
_LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
"""Where Debian has those of the compiler."""


class CompilationError(Exception):
    """BCC made nothing of the unit, and has said why on descriptor 2."""


def compile_unit(text: str, tree: Path, flags: Sequence[str]) -> Object:
    """Have BCC compile; it writes diagnostics to descriptor 2. The working directory becomes `tree`.

    Raises `CompilationError`, and `KernelError` where there is no BCC.
    """
    library = _library()
    os.environ["BCC_KERNEL_SOURCE"] = str(tree)
    os.chdir(tree)  # clang looks for headers in the working directory first
    words = (ctypes.c_char_p * len(flags))(*(each.encode() for each in flags))
    module, noted = without_kernel(
        lambda: library.bpf_module_create_c_from_string(text.encode(), 0, words, len(words), False, None)
    )
    try:
        if not module:
            raise CompilationError("BCC compiled nothing")
        names = {
            library.bpf_table_fd_id(module, index): library.bpf_table_name(module, index).decode()
            for index in range(library.bpf_num_tables(module))
        }
        maps = {name: replace(noted[descriptor], name=name[:15]) for descriptor, name in names.items()}
        numbers = {descriptor: index for index, descriptor in enumerate(names)}
        functions = [library.bpf_function_name(module, i) for i in range(library.bpf_num_functions(module))]
        code = {
            name.decode(): ctypes.string_at(
                library.bpf_function_start(module, name), library.bpf_function_size(module, name)
            )
            for name in functions
        }
        return Object(maps, {name: with_maps(each, numbers) for name, each in code.items()}, _mapped())
    finally:
        # The module itself stays: what ends it closes these descriptors too, whose numbers others may have by then.
        for descriptor in noted:
            os.close(descriptor)


def _library() -> Any:
    try:
        from bcc.libbcc import lib  # noqa: PLC0415 - brings LLVM: as late as possible, and here only
    except (ImportError, OSError) as error:
        hint = f"install the package python3-bpfcc ({error})"
        raise KernelError("loading the compiler", exhausted(error), hint) from error
    for name in ("bpf_table_name", "bpf_function_name"):
        getattr(lib, name).restype = ctypes.c_char_p  # bcc leaves them undeclared
    for name in ("bpf_num_tables", "bpf_table_fd_id", "bpf_table_name"):
        getattr(lib, name).argtypes = [ctypes.c_void_p, *([ctypes.c_uint64] if name != "bpf_num_tables" else [])]
    return lib


def _mapped() -> str:
    """The compiler's libraries that this process has mapped, for people."""
    places = {line.split()[-1] for line in KernelFile("/proc/self/maps").read_text().splitlines()}
    names = sorted(Path(each).name for each in places if each.startswith("/"))
    return ", ".join(each for each in names if each.startswith(("libbcc.", "libclang", "libLLVM")))


def identity() -> str:
    """The libraries that compile, by name, size and time of their last change; empty where they are not found."""
    found = [each for name in ("libbcc.so.*", "libLLVM*", "libclang-cpp*", "libbpf.so.*") for each in _found(name)]
    return ", ".join(f"{each.name} {each.stat().st_size} {each.stat().st_mtime_ns}" for each in found)


def _found(pattern: str) -> list[Path]:
    return sorted(each for each in _LIBRARIES.glob(pattern) if not each.is_symlink())
