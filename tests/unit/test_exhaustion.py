"""What is used up is told as that, by whomever it was met, and with an exit code of its own; so is why root may not."""

import ctypes
import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from krie.errors import (
    AttachError,
    CompileError,
    ConfigError,
    ExitCode,
    ForkError,
    KernelError,
    LoaderError,
    PolicyError,
)
from krie.exhaustion import EXHAUSTED, exhausted, exhausted_in
from krie.loader.messages import Failure
from krie.output import complain_of
from krie.privileges import locked_down, why_refused
from krie.tier.compiled import Failure as PolicyFailure

from .cli.command import KRIE


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


NO_FILES, NO_ROOM = OSError(errno.EMFILE, "x"), OSError(errno.ENOSPC, "x")


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (NO_FILES, errno.EMFILE),
        (OSError(errno.ENFILE, "x"), errno.ENFILE),
        (MemoryError(), errno.ENOMEM),
        (ImportError("libLLVM-14.so.1: cannot open shared object file: Too many open files"), errno.EMFILE),
        (OSError("libbpf.so.1: failed to map segment from shared object"), errno.ENOMEM),
        (caused(ConfigError("journal.path", "cannot be written"), NO_ROOM), errno.ENOSPC),
        (caused(PolicyError("x"), caused(KernelError("y"), NO_FILES)), errno.EMFILE),
        (KernelError("y", errno.EMFILE), errno.EMFILE),
        (caused(PolicyError("x"), KernelError("y", errno.ENOMEM)), errno.ENOMEM),
        (KernelError("y", errno.EAGAIN), 0),
        (OSError(errno.ENOENT, os.strerror(errno.EMFILE)), 0),
        (OSError(errno.EAGAIN, "x"), 0),
        (ImportError("libLLVM-14.so.1: cannot open shared object file: No such file or directory"), 0),
        (ValueError("Too many open files"), 0),
    ],
)
def test_what_an_exception_tells(error: Exception, number: int) -> None:
    assert exhausted(error) == number


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("fatal error: error opening file '/x': Too many open files", errno.EMFILE),
        ("error: unable to make temporary file: No space left on device", errno.ENOSPC),
        ("LLVM ERROR: out of memory\nAllocation failed", errno.ENOMEM),
        ("terminate called after throwing an instance of 'std::bad_alloc'", errno.ENOMEM),
        ("a.c:1:10: fatal error: 'x.h' file not found", 0),
        ("a.c:1:1: error: use of undeclared identifier 'x'", 0),
    ],
)
def test_what_a_compiler_says(said: str, number: int) -> None:
    assert exhausted_in(said) == number


@pytest.mark.parametrize("number", EXHAUSTED)
def test_one_cause_has_one_text_and_one_exit_code(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    cause = OSError(number, os.strerror(number))
    errors: list[Exception] = [
        KernelError("a", number, "install something"),
        AttachError("b", number),
        caused(ConfigError("c", "d"), cause),
        caused(PolicyError("e"), cause),
        caused(PolicyError("e"), KernelError("i", number, "install something")),
        cause,
        Failure.of(KernelError("f", number)).error(()),
        Failure.of(caused(KernelError("g", 0, "install something"), cause)).error(()),
        Failure.of(cause).error(()),
        PolicyFailure("h", exhausted=number).error(),
    ]
    for error in errors:
        assert complain_of(error) == ExitCode.EXHAUSTED
        said = capsys.readouterr().err
        assert said.rstrip("\n").endswith(EXHAUSTED[number])
        assert "install" not in said
        assert said.count("\n") == 1


def test_a_process_that_cannot_be_started(capsys: pytest.CaptureFixture[str]) -> None:
    assert complain_of(ForkError("the compiler", errno.EAGAIN)) == ExitCode.EXHAUSTED
    assert "ulimit -u" in capsys.readouterr().err
    assert complain_of(KernelError("loading", errno.EAGAIN)) == ExitCode.KERNEL
    assert "ulimit" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KernelError("x", errno.EPERM), ExitCode.KERNEL),
        (CompileError("s", "'x.h' file not found"), ExitCode.DEGRADED),
        (LoaderError("the loader gave no answer for 30 s"), ExitCode.DEGRADED),
        (caused(ConfigError("journal.path", "x"), OSError(errno.EROFS, "x")), ExitCode.USAGE),
        (OSError(errno.ENOENT, "x"), ExitCode.INTERNAL),
        (ValueError("x"), ExitCode.INTERNAL),
    ],
)
def test_everything_else_keeps_its_exit_code(error: Exception, code: ExitCode) -> None:
    assert complain_of(error) == code


def test_a_bug_is_no_failure_of_the_kernel() -> None:
    with pytest.raises(FileNotFoundError):
        Failure.of(FileNotFoundError(errno.ENOENT, "x"))


def limited(arguments: list[str], limits: dict[int, int], folder: Path) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        for which, most in limits.items():
            resource.setrlimit(which, (most, most))

    command = [sys.executable, "-I", *KRIE, *arguments]
    event = '{"kind": "krie.loss", "event": {}}'
    return subprocess.run(
        command, cwd=folder, input=event, capture_output=True, text=True, preexec_fn=limit, timeout=120
    )


def configured(folder: Path) -> Path:
    path = folder / "krie.toml"
    path.write_text(f"[agent]\nrun_dir = '{folder}'\n[policy]\nopa = ''\n[plugins.runtime_integrity]\n")
    path.chmod(0o600)
    folder.chmod(0o700)
    return folder


@pytest.mark.parametrize("most", [5, 6, 7, 8, 10, 12, 14, 20])
@pytest.mark.parametrize(("command", "status"), [(["policy", "eval"], 0), (["policy", "check"], 0), (["status"], 8)])
def test_whatever_number_of_files_may_be_opened(tmp_path: Path, command: list[str], status: int, most: int) -> None:
    result = limited(command, {resource.RLIMIT_NOFILE: most}, configured(tmp_path))
    assert result.returncode in (status, ExitCode.EXHAUSTED), result.stderr
    assert "Traceback" not in result.stderr
    assert result.returncode == status or "raise its limit (ulimit -n" in result.stderr


def test_an_output_that_takes_nothing_more(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-I", "-c", "from krie.cli.main import main; main()", "policy", "schemas", "--help"],
            cwd=configured(tmp_path),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert result.returncode == ExitCode.EXHAUSTED, result.stderr
    assert "Traceback" not in result.stderr


def test_however_little_memory_there_is(tmp_path: Path) -> None:
    """How much a start takes is the interpreter's and the libraries' affair: tried from too little to enough."""
    folder, ended = configured(tmp_path), []
    for mib in (28, 32, 36, 44, 52, 400):
        result = limited(["plugins", "--load"], {resource.RLIMIT_AS: mib << 20}, folder)
        assert result.returncode != ExitCode.EXHAUSTED or "no memory is left" in result.stderr
        ended.append(result.returncode)
    assert ExitCode.EXHAUSTED in ended, ended
    assert ended[-1] == ExitCode.OK


ALL_USERS = "0 0 4294967295"


def machine(
    folder: Path, *, capabilities: int = -1, seccomp: int = 0, users: str = "0 0 4294967295", **more: str
) -> Path:
    """Files of /proc and /sys that say this."""
    for name, text in {
        "proc/self/status": f"Name:\tx\nCapEff:\t{capabilities & (1 << 41) - 1:016x}\nSeccomp:\t{seccomp}\n",
        "proc/self/uid_map": f"         {users}\n",
        **({"sys/kernel/security/lockdown": more["lockdown"]} if more else {}),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_why_root_may_not(tmp_path: Path) -> None:
    assert why_refused(machine(tmp_path)).startswith("a security module may forbid it")
    wrong = machine(
        tmp_path, capabilities=0, seccomp=2, users="0 1000 1", lockdown="none integrity [confidentiality]\n"
    )
    assert why_refused(wrong).split("; ") == [
        "this is root of a user namespace only",
        "this process lacks CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF, as in a container that is not privileged",
        "a seccomp filter (of a container, or SystemCallFilter= of a unit) restricts its system calls",
        "the kernel is locked down (confidentiality)",
    ]
    assert locked_down(machine(tmp_path, lockdown="[none] integrity confidentiality\n")) == ""


def test_a_refusal_says_why() -> None:
    refused = Failure.of(KernelError("creating a map", errno.EPERM)).error(())
    assert str(refused) == f"creating a map: EPERM (Operation not permitted); {why_refused()}"
    own = Failure.of(KernelError("creating a map", errno.EPERM, "of its own")).error(())
    assert str(own).endswith("; of its own")


_SECCOMP = """
import ctypes, struct, sys
code = b"".join(struct.pack("=HBBI", *each) for each in (
    (0x20, 0, 0, 0), (0x15, 0, 1, 321), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)))
program = ctypes.create_string_buffer(code)
libc = ctypes.CDLL(None)
libc.prctl(38, 1, 0, 0, 0)
assert not libc.prctl(22, 2, struct.pack("=HxxxxxxQ", 4, ctypes.addressof(program)), 0, 0)
from krie.cli.main import main
main()
"""


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["setpriv", "--bounding-set", "-all", sys.executable, *KRIE], "lacks CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF"),
        ([sys.executable, "-c", _SECCOMP], "a seccomp filter"),
    ],
)
def test_root_without_rights_is_told_what_is_missing(tmp_path: Path, command: list[str], why: str) -> None:
    """Nothing of the kernel is reached: it refuses the first step."""
    assert ctypes.sizeof(ctypes.c_long) == 8
    result = subprocess.run([*command, "doctor"], cwd=configured(tmp_path), capture_output=True, text=True, timeout=120)
    assert result.returncode == 3, result.stderr
    assert why in result.stderr
    assert result.stderr.count("\n") == 1
