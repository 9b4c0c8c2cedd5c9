"""Everything that KRIe raises on purpose, and the exit codes of the command line.

Each error carries the data that a caller needs and a message that names the place and the fix. Only `krie.cli.main`
and `krie.agent.main` print errors, by `krie.output`, and turn them into exit codes.
"""

from __future__ import annotations

import errno as errno_names
import os
from enum import IntEnum

from .exhaustion import EXHAUSTED, NO_PROCESS


class ExitCode(IntEnum):
    """Exit codes of every `krie` command."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> ExitCode:
        """Let `meaning` be shown by `--help` and the manual."""
        made = int.__new__(cls, code)
        made._value_, made.meaning = code, meaning
        return made

    OK = 0, "all is well"
    INTERNAL = 1, "a bug in KRIe: a traceback was printed"
    USAGE = 2, "the command line or the configuration is wrong"
    KERNEL = 3, "not root, or the kernel lacks a required feature (BPF, BTF)"
    POLICY = (
        4,
        "a policy does not compile, or checking, testing or deciding by it failed; `check --strict`: it has warnings",
    )
    DEGRADED = 5, "something needed does not work; `krie doctor`: any that is configured; `krie integrity`: the code"
    ALREADY_RUNNING = 6, "another agent runs on this machine"
    LAB = 7, "`krie lab`: no kernel, no QEMU, no boot; see `krie lab run --help` for what it returns of a guest"
    NOT_RUNNING = 8, "`krie status`, `krie clear`: no agent is running"
    TAMPERED = 9, "`krie integrity`: the kernel is not as it was built, and nothing legal explains it"
    EXHAUSTED = 10, "files, memory, processes or a file system of this machine are used up; the message says which"
    DIFFERENT = 11, "`krie policy replay`, `krie policy diff`: the two policies differ"
    UNDECIDED = 12, "`krie policy replay`: no difference was found, but some recorded events could not be decided again"


class KrieError(Exception):
    """Base of all errors raised on purpose. `str(error)` is one clear message for the user.

    It is the headline and, behind a line break, the details if there are any: lines of a compiler or of the verifier.
    """

    exit_code = ExitCode.INTERNAL

    def __init__(self, headline: str, details: str = "") -> None:
        self.headline, self.details = headline, details
        super().__init__(f"{headline}\n{details}" if details else headline)


class ConfigError(KrieError):
    """The configuration is wrong. `place` is `FILE: key.path` or just the file."""

    exit_code = ExitCode.USAGE

    def __init__(self, place: str, problem: str) -> None:
        self.place, self.problem = place, problem
        super().__init__(f"{place}: {problem}")


class UntrustedFileError(ConfigError):
    """A file that steers a root process could be changed by someone else than root."""


class AlreadyRunningError(KrieError):
    """Another agent holds the lock; `tgid` is that agent's."""

    exit_code = ExitCode.ALREADY_RUNNING

    def __init__(self, tgid: int) -> None:
        self.tgid = tgid
        super().__init__(f"another agent is running on this machine (tgid {tgid}); stop it first")


class NotRunningError(KrieError):
    """No agent has a socket there."""

    exit_code = ExitCode.NOT_RUNNING

    def __init__(self, path: os.PathLike[str]) -> None:
        super().__init__(f"no agent is running: nothing answers at {path}")


class LayoutError(KrieError):
    """An event class cannot be laid out in memory; `record` and `field` name the culprit."""

    exit_code = ExitCode.DEGRADED

    def __init__(self, record: str, field: str, problem: str) -> None:
        self.record, self.field = record, field
        super().__init__(f"{record}.{field}: {problem}" if field else f"{record}: {problem}")


class DecodeError(KrieError):
    """Bytes from the ring buffer are no valid record. Counted, never fatal."""

    def __init__(self, reason: str, raw: bytes) -> None:
        self.reason, self.raw = reason, raw
        super().__init__(f"undecodable record of {len(raw)} bytes: {reason}")


class PluginError(KrieError):
    """A plugin breaks the contract of `krie.plugin.hookspecs`; `plugin` names it."""

    exit_code = ExitCode.DEGRADED

    def __init__(self, plugin: str, problem: str, details: str = "") -> None:
        self.plugin = plugin
        super().__init__(f"plugin {plugin}: {problem}", details)


class KernelError(KrieError):
    """A system call that KRIe needs was refused.

    Where its errno says that something is used up, that is the hint and the exit code, whatever the call was for:
    `exhausted` is true, and nothing follows for what the kernel or a plugin can do.
    """

    exit_code = ExitCode.KERNEL

    def __init__(self, operation: str, errno: int = 0, hint: str = "", details: str = "") -> None:
        self.operation, self.errno = operation, errno
        self.exhausted = errno in EXHAUSTED
        if self.exhausted:
            self.exit_code, hint = ExitCode.EXHAUSTED, EXHAUSTED[errno]
        self.hint = hint
        name = f": {errno_names.errorcode.get(errno, errno)} ({os.strerror(errno)})" if errno else ""
        super().__init__(f"{operation}{name}" + (f"; {hint}" if hint else ""), details)


class SwitchedOffError(KernelError):
    """The kernel would take probes and run none: a switch of it is off. Starting again helps once it is on."""

    exit_code = ExitCode.DEGRADED


class LockedDownError(KernelError):
    """The kernel lets nobody read its memory. Without that, neither an agent nor a full look is possible."""

    exit_code = ExitCode.DEGRADED


class ForkError(KernelError):
    """A process of KRIe's own could not be started."""

    def __init__(self, what: str, errno: int) -> None:
        super().__init__(f"starting {what}", errno, NO_PROCESS if errno == errno_names.EAGAIN else "")
        if errno == errno_names.EAGAIN:  # which means other things where no process is started
            self.exhausted, self.exit_code = True, ExitCode.EXHAUSTED


class CompileError(KrieError):
    """The BPF C of a sensor does not compile. `diagnostics` are the compiler's own lines with file and line."""

    exit_code = ExitCode.DEGRADED

    def __init__(self, sensor: str, diagnostics: str) -> None:
        self.sensor, self.diagnostics = sensor, diagnostics
        super().__init__(f"sensor {sensor} does not compile:", diagnostics)


class ProgramLoadError(KernelError):
    """The verifier or the kernel refused one program. `log` is the part of the verifier's log that helps."""

    exit_code = ExitCode.DEGRADED

    def __init__(self, program: str, errno: int, log: str = "") -> None:
        self.program, self.log = program, log
        verdict, _, before = log.partition("\n")
        super().__init__(f"loading program {program}", errno, verdict, before)


class AttachError(KernelError):
    """A program could not be attached to its target."""

    exit_code = ExitCode.DEGRADED


class LoaderError(KrieError):
    """The loader child crashed, hung, or died before it handed its descriptors over: the next one may not."""

    exit_code = ExitCode.DEGRADED


class PolicyError(KrieError):
    """A policy does not compile or cannot be evaluated. The message starts with `FILE:LINE` where that is known."""

    exit_code = ExitCode.POLICY


class DecisionError(PolicyError):
    """A policy answered something that is not of the agreed shape."""


class LabError(KrieError):
    """The kernel lab lacks something; the message says what to do."""

    exit_code = ExitCode.LAB
