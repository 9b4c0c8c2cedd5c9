"""Credentials that a thread did not get by the kernel's own ways: the mark of a write to kernel memory.

What each thread has is noted when it is born and at every commit_creds(): a copy of all that a struct cred says, and
sums of the list of groups and of the user namespace that it points to. It is compared when the thread execs, changes
its users, opens a file for writing, makes, renames, removes or changes one, and uses a capability. It is compared, too,
whenever the kernel makes new credentials of the old ones, and when they replace them: nothing is noted as legal that
was derived from what was tampered with, whatever the transition (prctl, capset, keyctl, unshare, fork, exec).

Limits: who only reads what his tampered user owns is not compared, as the kernel asks for no capability. A call of
commit_creds() by an exploit is a legal transition here, and so is a change of new credentials between their making
and their commit; who writes the old ones and puts them back within the instant in which the kernel copies them is not
seen either. What threads older than the agent have is believed at first sight. Swapping only the subjective
credentials (task->cred) is seen at exec, setuid and commit, in children that are made then, and in the system calls
of cred_calls.py, but not of who has rings of io_uring. Workers of io_uring write by subjective ones, those of whoever
asked: before Linux 5.12, where they are the kernel's own threads, what they write for somebody who tampered is not
seen; since then it is not where his credentials were replaced as a whole after the worker was born. Of the initial
user namespace only is judged whether it was made a child, and who gains. What is noted lies in kernel memory, too.

What seccomp forbids a thread is noted and compared at the same places: it only gets more. Of the filters, it is noted
which one is the newest, and a sum of those behind it.

Nobody is judged by what was not followed: what was noted before a time in which legal changes may have passed unseen is
renewed at its next use. Such times end 10 s after a write to kernel.ftrace_enabled, when commit_creds() begins with a
call again (which is looked at before anybody is judged), when a canary arrives again, when programs that somebody
disarmed are armed again, and when the kernel has left out runs of both programs that see commits; the canary and the
last are known at the next look only.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, ClassVar

from krie import (
    LONG,
    ONLY,
    U32,
    Alternative,
    AttachType,
    Choice,
    Doc,
    Event,
    FlagSet,
    Hex64,
    Inline,
    KernelMemory,
    Map,
    Maps,
    Pad7,
    Probe,
    Program,
    own_fields,
    system_call,
)

from . import cred_calls
from .config import RuntimeIntegrityConfig
from .topic import PREFIX, REFUSES, Topic

_log = logging.getLogger("krie")
THREADS = 32768
"""Threads whose credentials are kept; some 300 bytes each."""
OPERATIONS = {
    1: "exec",
    2: "write",
    3: "setuid",
    4: "prepare",
    5: "commit",
    6: "capability",
    7: "ptrace",
    8: "signal",
}
CHANGES = {
    1: "pointer",
    2: "users",
    4: "groups",
    8: "capabilities",
    16: "securebits",
    32: "subjective",
    64: "user_namespace",
    128: "keyrings",
    256: "group_list",
    512: "namespace_content",
    1024: "initial_namespace",
    2048: "security",
    4096: "charged",
    8192: "no_new_privs",
    16384: "seccomp",
}
_SYS_SETUID = 105
_PROBE = "cred_tamper"
_AGAIN = "commit_again"
_COMMIT, _BY_KPROBE, _ONCE_MORE = (f"{PREFIX}_commit_{name}" for name in ("fentry", "kprobe", "again"))
"""The programs that see legal changes: the first one and, in a probe of their own, one of the others; one suffices."""
_NEVER = (1 << 64) - 1
_NEGATIVE = 1 << 63


@dataclass(frozen=True, slots=True)
class CredTamper(Event):
    """A thread's credentials are not those that it was given legally, or seccomp forbids it less than before.

    Told once for each change.
    """

    KIND: ClassVar[int] = 0x010B
    NAME: ClassVar[str] = "runtime_integrity.cred_tamper"

    cred: Annotated[Hex64, Doc("the credentials that it has now")]
    uid_before: Annotated[U32, Inline(), Doc("real user that it was given")]
    euid_before: Annotated[U32, Inline(), Doc("effective user, likewise")]
    euid_now: Annotated[U32, Inline(), Doc("effective user that it has now")]
    changed: Annotated[
        tuple[str, ...],
        FlagSet("I", CHANGES),
        Inline(),
        Doc(
            "what differs; `pointer`: other credentials as a whole; `subjective`: it acts by credentials that are not "
            "its own; `group_list`, `namespace_content`: what groups and user namespace hold; `charged`: the account; "
            "`initial_namespace`: the first user namespace was made a child of its own; `security`: the modules' blob; "
            "`seccomp`: less is forbidden to it"
        ),
    ]
    operation: Annotated[
        str,
        Choice("B", OPERATIONS),
        Inline(),
        Doc(
            "what it was about to do, when that was found; `prepare`: copy them, with which fork, exec and all changes "
            "of credentials begin; `commit`: take new ones"
        ),
    ]
    pad: Pad7 = b""


class Room:
    """Says when there are more threads than are followed."""

    def __init__(self) -> None:
        """Nothing is attached yet."""
        self._map: Map | None = None
        self._unfollowed = 0

    def attach(self, maps: Maps, _memory: KernelMemory, _config: RuntimeIntegrityConfig) -> None:
        """Remember the map that counts."""
        self._map = maps.get(f"{PREFIX}_unfollowed")

    def scan(self) -> Iterator[Event]:
        """Log; there is no event in it."""
        now = LONG.decode(self._map.get(ONLY)) if self._map is not None else 0
        if now > self._unfollowed:
            _log.error(
                "credentials of %d threads were not followed: there are more than %d, or the map was busy", now, THREADS
            )
        self._unfollowed = now
        return iter(())


class Followed:
    """Tells the programs since when they see all legal changes; of some interruptions they know by themselves."""

    def __init__(self) -> None:
        """Nothing is attached yet."""
        self._since: Map | None = None
        self._made_up: Map | None = None
        self._silent = False
        self._missed = self._unseen = 0

    def attach(self, maps: Maps) -> None:
        """Remember the maps that say so."""
        self._since, self._made_up = maps[f"{PREFIX}_followed_since"], maps[f"{PREFIX}_made_up"]
        self._silent, self._missed = False, 0
        self._unseen = self._passed()

    def checked(self, silent: Collection[str], missed: Mapping[str, int]) -> None:
        """See `krie.plugin.hookspecs.krie_checked`. Raises `KernelError`."""
        assert self._since is not None
        was_silent, self._silent = self._silent, _PROBE in silent
        self._missed += missed.get(_COMMIT, 0)
        passed, before = self._passed(), self._unseen
        self._unseen = passed if was_silent else max(passed, before)
        if self._silent:
            self._since.set(ONLY, LONG.encode(_NEVER))
        elif was_silent or passed > before:
            since = LONG.decode(self._since.get(ONLY))
            now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            # The programs may have set it to a moment that is yet to come.
            self._since.set(ONLY, LONG.encode(now if since == _NEVER else max(now, since)))

    def _passed(self) -> int:
        """Commits that passed both programs, so far."""
        assert self._made_up is not None
        made_up = LONG.decode(self._made_up.get(ONLY))
        # Below 0 where whoever runs code in the kernel commits the same credentials twice: that forgives nobody.
        return self._missed - (made_up if made_up < _NEGATIVE else 0)


def topic() -> Topic:
    """Tampered credentials."""
    room, followed = Room(), Followed()

    def attach(maps: Maps, memory: KernelMemory, config: RuntimeIntegrityConfig) -> None:
        room.attach(maps, memory, config)
        followed.attach(maps)

    return Topic(
        CredTamper,
        (_probe(), _again(), _seccomp()),
        ("seccomp_note.bpf.c", "cred_note.bpf.c", "cred_acting.bpf.c", "cred_tamper.bpf.c", "cred_acts.bpf.c"),
        attach=attach,
        checked=followed.checked,
        scan=room.scan,
        defines={"RUNTIME_INTEGRITY_CRED_THREADS": THREADS, **cred_calls.defines()},
        wanted=lambda config: config.watch_credentials,
    )


def _probe() -> Probe:
    lives = tuple(
        Program(AttachType.RAW_TRACEPOINT, target, f"{PREFIX}_cred_{name}")
        for target, name in (
            ("sched_wakeup_new", "born"),
            ("sched_process_exit", "exit"),
        )
    )
    commit = Program(AttachType.FENTRY, "commit_creds", _COMMIT)
    writes = tuple(
        Program(AttachType.FENTRY, target, f"{PREFIX}_cred_{name}", optional=True)
        for target, name in (("mnt_get_write_access", "write_access"), ("__mnt_want_write", "want_write"))
    )
    hooks = {
        "prepare": "cred_prepare",
        "exec": "bprm_check_security",
        "setuid": "task_fix_setuid",
        "capable": "capable",
        "ptrace": "ptrace_access_check",
        "signal": "task_kill",
    }
    limits = "who writes to files is killed, and contained: it is containment that refuses this first write"
    functions = {name: f"security_{hook}" for name, hook in hooks.items()}
    functions |= {"prepare": "security_prepare_creds", "exec": "security_bprm_check"}

    def hooked(attach: AttachType, targets: dict[str, str]) -> Alternative:
        programs = tuple(Program(attach, target, f"{PREFIX}_cred_{name}_hook") for name, target in targets.items())
        everything = (commit, *programs, *writes, *lives)
        return Alternative(str(attach), everything, fields=own_fields(CredTamper), can=REFUSES, limits=limits)

    ways = (hooked(AttachType.LSM, hooks), hooked(AttachType.FMOD_RET, functions))
    return Probe(_PROBE, CredTamper, ways, _canary)


def _again() -> Probe:
    """The second program at commit_creds(), of another kind: what leaves out the one lets the other run.

    By itself, for kprobes can be switched off: that is no reason to judge nobody.
    """
    ways = (
        Alternative("kprobe", (Program(AttachType.KPROBE, "commit_creds", _BY_KPROBE),)),
        Alternative(
            "fentry",
            (Program(AttachType.FENTRY, "commit_creds", _ONCE_MORE),),
            limits="who keeps threads of his own from going on amid both programs has them left out on that CPU",
        ),
    )
    return Probe(_AGAIN, None, ways, _commit)


def _commit() -> None:
    """Become whom we are. Raises `OSError`."""
    system_call(_SYS_SETUID, os.getuid())


def _seccomp() -> Probe:
    """What a thread forbids itself is noted when it does: often it is attacked next, and uses no credentials meanwhile.

    By probes at returns, since the kernel asks no hook. One that is left out is made up for at the next comparison.
    """
    functions = ("prctl_set_seccomp", "__x64_sys_seccomp", "__ia32_sys_seccomp")
    programs = tuple(
        Program(AttachType.KRETPROBE, each, f"{PREFIX}_seccomp_set", argument=number, proven=False, optional=number > 1)
        for number, each in enumerate(functions, 1)
    )
    limits = (
        "what another thread's call forbids a thread (SECCOMP_FILTER_FLAG_TSYNC) is noted when that is next compared"
    )
    return Probe("seccomp_set", None, (Alternative("kretprobe", programs, limits=limits),), optional=True)


def _canary() -> None:
    """Become whom we are, which a capability is asked for, open a file in memory; start, signal and inspect a child.

    Raises `OSError`.
    """
    _commit()
    file = os.memfd_create("krie-writable", os.MFD_CLOEXEC)
    try:
        os.close(os.open(f"/proc/self/fd/{file}", os.O_WRONLY | os.O_CLOEXEC))
    finally:
        os.close(file)
    child = os.posix_spawn("/bin/true", ["true"], {})
    try:
        os.kill(child, 0)
        with suppress(FileNotFoundError):  # where it has ended already, which is asked for first
            os.readlink(f"/proc/{child}/cwd")
    finally:
        os.waitpid(child, 0)
