"""`krie lab`: the lab on the command line."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.filesize import decimal

from ...errors import ExitCode
from ...render import table
from ..needs import MODULE_VARIABLE
from . import boot, kernels
from .acceleration import kvm_works
from .cache import Cache, size_of
from .modules import build_module

TIMED_OUT, LOST, PANICKED = 124, 125, 122
_ENDS = {boot.End.TIMED_OUT: TIMED_OUT, boot.End.LOST: LOST, boot.End.PANICKED: PANICKED}

lab = typer.Typer(
    no_args_is_help=True,
    help="Boot stock Debian kernels in QEMU with this machine's files, and run commands there as root.\n\n"
    "Nothing in a guest changes a file of this machine, but for the folder of --results. Kernels lie in the user's "
    "cache folder (krie/lab).",
)
_Kernel = Annotated[str, typer.Option("--kernel", "-k", help=f"{', '.join(kernels.NAMES)}, or the path of an image.")]
_Append = Annotated[str, typer.Option(help="Further words for the kernel's command line.")]
_Cpu = Annotated[str, typer.Option(help="QEMU's CPU model, such as max,-smep,-smap.", metavar="MODEL")]


@lab.command("kernels")
def list_kernels(as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False) -> None:
    """List the kernels that the lab knows by name, and which of them are in the cache."""
    cache = Cache()
    rows = []
    for name in kernels.NAMES:
        kernel = kernels.known(name, cache)
        rows.append((name, kernel.release, size_of(cache.folder(name))) if kernel is not None else (name, "", 0))
    if as_json:
        print(json.dumps([{"name": name, "release": release, "bytes": size} for name, release, size in rows], indent=2))
        return
    cells = [(name, release or "-", decimal(size)) for name, release, size in rows]
    Console().print(table("Kernels", ("name", "in the cache", "size"), cells))


@lab.command()
def fetch(name: Annotated[str, typer.Argument(help="A kernel's name, or `all`.")]) -> None:
    """Fetch the newest kernel of a name from Debian's archive; quick when the cache has it."""
    with _Progress() as progress:
        for each in kernels.NAMES if name == "all" else (name,):
            kernel = kernels.fetch(each, Cache(), progress.say)
            print(f"{each}: {kernel.release}")


@lab.command(context_settings={"allow_interspersed_args": False})
def run(
    command: Annotated[list[str], typer.Argument(help="The command and its arguments, after --.")],
    kernel: _Kernel,
    timeout: Annotated[float, typer.Option(help="Longest time for the command, s.", min=1)] = 600,
    append: _Append = "",
    cpu: _Cpu = "",
    results: Annotated[
        Path | None, typer.Option(help="A folder that the guest may write; it finds it in $KRIE_LAB_RESULTS.")
    ] = None,
    module: Annotated[
        Path | None,
        typer.Option(help="Folder of a kernel module: built for the kernel, its .ko is $KRIE_LAB_MODULE in the guest."),
    ] = None,
) -> None:
    """Run a command as root in a guest, in this folder, with the programs of krie's own environment on its PATH.

    Its output comes as it is written, its exit status is ours. Of what is no answer of the command's: 124, it was ended
    when the time was over; 125, the guest did not boot or was lost; 122, its kernel panicked. The end of the console is
    then shown.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the guest must end with us
    found, machine = _prepare(kernel, append, cpu)
    with _Progress() as progress:
        if module is not None:
            command = ["env", f"{MODULE_VARIABLE}={build_module(found, module, Cache(), progress.say)}", *command]
        progress.say(f"booting {found.name} {found.release}")

        def through(data: bytes) -> None:
            progress.stop()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

        outcome = boot.run(found, command, machine, timeout_s=timeout, results=results, output=through)
    if outcome.end is boot.End.EXITED:
        raise typer.Exit(outcome.status)
    for line in outcome.console:
        print(f"console: {line}", file=sys.stderr)
    print(f"krie: the guest {found.name} {_WHAT[outcome.end]} after {outcome.seconds:.0f} s", file=sys.stderr)
    raise typer.Exit(_ENDS[outcome.end])


@lab.command()
def shell(kernel: _Kernel, append: _Append = "", cpu: _Cpu = "") -> None:
    """A root shell in a guest; leaving it ends the guest."""
    found, machine = _prepare(kernel, append, cpu)
    raise typer.Exit(boot.shell(found, machine) or ExitCode.OK)


_WHAT = {
    boot.End.TIMED_OUT: "was ended, its time was over,",
    boot.End.LOST: "did not boot, or was lost,",
    boot.End.PANICKED: "panicked",
}


def _prepare(name: str, append: str, cpu: str) -> tuple[kernels.Kernel, boot.Machine]:
    cache = Cache()
    with _Progress() as progress:
        found = kernels.find(name, cache, progress.say)
        progress.say("asking whether KVM works here")
        kvm = kvm_works(found.image, cache)
    return found, boot.Machine(kvm=kvm, cpu=cpu, append=append)


class _Progress:
    """Shows what takes time: a spinner on a terminal, lines elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._status = self._console.status("") if self._console.is_terminal else None

    def __enter__(self) -> _Progress:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def say(self, text: str) -> None:
        if self._status is not None:
            self._status.update(text)
        else:
            print(f"krie lab: {text}", file=sys.stderr)

    def stop(self) -> None:
        if self._status is not None:
            self._status.stop()
