"""What is said where the kernel lets nobody read its memory."""

import errno
from contextlib import ExitStack

import pytest
from krie.errors import ExitCode, KernelError, LockedDownError, ProgramLoadError
from krie.kernel import bpf, memory
from krie.kernel.memory import open_memory

UNKNOWN = "program of this type cannot use helper bpf_probe_read_kernel#113"


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No program is loaded, nor a map made."""
    monkeypatch.setattr(bpf, "map_of_shape", lambda shape: 0)
    monkeypatch.setattr(bpf, "freeze", lambda descriptor: None)
    monkeypatch.setattr(bpf, "allow_locked_memory", lambda: None)
    monkeypatch.setattr("krie.kernel.memory.os.close", lambda descriptor: None)
    return monkeypatch


def said(refusing: pytest.MonkeyPatch, mode: str, log: str) -> KernelError:
    def load(spec: bpf.ProgramSpec, instructions: bytes) -> int:
        raise ProgramLoadError(spec.name, errno.EINVAL, log)

    refusing.setattr(bpf, "prog_load", load)
    refusing.setattr(memory, "locked_down", lambda: mode)
    with ExitStack() as stack, pytest.raises((ProgramLoadError, LockedDownError)) as raised:
        open_memory(stack)
    return raised.value


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("confidentiality", "it is locked down (confidentiality). "),
        ("", "it is locked down (confidentiality), or a security module forbids it"),  # securityfs is not mounted
    ],
)
def test_lockdown_is_named_instead_of_the_verifiers_log(refusing: pytest.MonkeyPatch, mode: str, why: str) -> None:
    error = said(refusing, mode, f"{UNKNOWN}\n0: R1=ctx() R10=fp0")
    assert isinstance(error, LockedDownError)
    assert error.exit_code is ExitCode.DEGRADED
    message = str(error)
    assert "\n" not in message
    assert message.startswith("the kernel refuses BPF programs to read its memory; ")
    assert why in message
    assert "lockdown=integrity" in message
    assert "R1=ctx" not in message


def test_another_reason_is_told_as_it_is(refusing: pytest.MonkeyPatch) -> None:
    error = said(refusing, "integrity", "invalid access\n0: R1=ctx()")
    assert isinstance(error, ProgramLoadError)
    assert "invalid access" in str(error)
