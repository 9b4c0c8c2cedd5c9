"""The kernels on which the kernel tests run in the lab, with what each has and lacks; `tests.lab.suite` runs one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .. import durations

ROOT = Path(__file__).parents[2]
_UNPROTECTED = "max,-smep,-smap"


@dataclass(frozen=True, slots=True)
class Suite:
    """One kernel with its command line."""

    label: str
    kernel: str
    alternative: str
    """What each probe that has a choice should take: the first one that can be alive there."""
    append: str = ""
    cpu: str = ""
    """QEMU's CPU model with flags. Without SMEP and SMAP where attackers need the kernel to run on their memory."""
    may_lack: str = "kprobe_override"
    """Features, separated by blanks, that tests may need and that this kernel does not have."""
    shows_programs: bool = False
    """Its security hooks see the kernel's own copy of a BPF program that is being loaded."""
    stock: bool = True
    """Somebody's kernel, not one of our own: then slow tests, of ordinary work, are worth their time."""
    always: bool = False
    """Part of `make test`, without slow and long tests."""

    @property
    def results(self) -> Path:
        """Where its last run left what it found."""
        return ROOT / ".cache/lab" / self.label

    def times(self) -> str:
        """What its last run's time went into."""
        return durations.summary(self.results)


SUITES = (
    Suite(
        "debian-5.10",
        "debian-5.10",
        "fmod_ret",
        # bpf is not in its lsm=
        may_lack="bpf_token fprobe ftrace_switch kprobe_override lsm lsm_static_calls missed_kprobes no_smep no_smap "
        "poked_data signal_kfunc signed_programs switch syscall_program task_btf timer_bases user_overlays "
        "verified_insns",
        always=True,
    ),
    Suite(
        "debian-5.10-lsm",
        "debian-5.10",
        "lsm",
        append="lsm=lockdown,yama,apparmor,bpf",
        cpu=_UNPROTECTED,
        may_lack="bpf_token fprobe ftrace_switch kprobe_override lsm_static_calls missed_kprobes poked_data "
        "signal_kfunc signed_programs switch syscall_program task_btf timer_bases user_overlays verified_insns",
    ),
    Suite(
        "debian-6.1",
        "debian-6.1",
        "lsm",
        cpu=_UNPROTECTED,
        may_lack="bpf_token kprobe_override lsm_static_calls missed_kprobes signal_kfunc signed_programs timer_bases",
    ),
    Suite(
        "debian-6.12",
        "debian-6.12",
        "lsm",
        cpu=_UNPROTECTED,
        may_lack="kprobe_override lsm_lists signal_kfunc signed_programs",
        shows_programs=True,
        always=True,
    ),
    Suite(
        "debian-newest",
        "debian-newest",
        "lsm",
        may_lack="kprobe_override lsm_lists no_smep no_smap override_creds ftrace_switch",
        shows_programs=True,
    ),
    Suite(
        "override",
        "override",
        "lsm",
        may_lack="boot_image dummy hypervisor lock_file lsm_lists no_smep no_smap signal_kfunc signed_programs",
        shows_programs=True,
        stock=False,
    ),
)
