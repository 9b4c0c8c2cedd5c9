"""The agent's guard while it runs: begun, beaten for, and held up where somebody changed what it is made of.

What is guarded is in `krie.enforce.self_defence`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..config import Config
from ..enforce import containment
from ..enforce.guard_sensor import NAME as GUARD
from ..enforce.guard_sensor import missing as missing_hooks
from ..enforce.holders import words
from ..enforce.self_defence import Guard
from ..errors import KernelError
from ..events.core_maps import Flags
from ..events.enforcement import COVERED, HELD, Gap, Guarded
from ..events.numbers import LONG
from .health import ProbeHealth
from .heart import Heart
from .journal import files_of
from .levers import Levers
from .pending import Pending
from .sending import Sending

_log = logging.getLogger("krie")
_USED = tuple(map(Path, ("/proc", "/sys", "/sys/fs/cgroup", "/sys/fs/bpf", "/sys/kernel/debug", "/sys/kernel/tracing")))
"""Where the kernel's own file systems are mounted: the agent reads most of them elsewhere, see `krie.kernel_files`."""


class Guarding:
    """Looks once a second whether the guard, and what feeds the agent, is as it was left."""

    def __init__(
        self, config: Config, guard: Guard, levers: Levers, sending: Sending, probes: ProbeHealth, pending: Pending
    ) -> None:
        """Guard nothing yet."""
        self._guard, self._levers, self._sending, self._probes, self._pending = guard, levers, sending, probes, pending
        self._folders = {Path(config.agent.state_dir): True, Path(config.agent.run_dir): False}
        self._files = files_of(config.journal)
        self._used = (*{each.parent for each in self._files}, *_USED, Path(__file__).parents[1])
        self._kprobes_off = self._watching = False
        self._covered: set[Path] = set()
        self._heart: Heart | None = None

    def watch(self) -> None:
        """From here on see to it that records are sent, whatever the mode."""
        self._watching = True

    def start(self) -> None:
        """Guard the agent from here on."""
        levers = self._levers
        own = levers.maps.starting_with(f"{containment.NAME}_")
        self._guard.prepare(own, levers.inspector.identify, self._folders, self._used)
        self._guard.look_after(self._files)
        self._heart = Heart(levers.maps["guard_heart"], levers.beat)
        self._heart.beat()
        self._turn_on()
        self.look_for_holders()
        for each in missing_hooks(self._probes.reports):
            _log.warning("the guard lacks %s: %s", each.probe.name, each.reason)

    def stop(self) -> None:
        """Look after nothing any more."""
        self._heart, self._watching = None, False

    def tick(self) -> None:
        """Once a second: put right what was changed, and tell that."""
        off = self._guard.kprobes_off()
        if off and not self._kprobes_off:
            _log.error("all kprobes of this machine are disarmed: probes by kprobe see nothing")
            self._pending.tell_seen("kprobes_off")
        self._kprobes_off = off
        if self._heart is not None:
            self._keep_guard(self._heart)
        if self._watching:
            self._keep_sending()

    @property
    def hears_silence(self) -> bool:
        """Whether a timer in the kernel sees what keeps the agent from running."""
        clock = (each.state for each in self._probes.reports if each.name == f"{GUARD}.silence")
        return self._heart is not None and next(clock, "missing") != "missing"

    def look_for_holders(self) -> None:
        """Tell who has objects of the agent's: whoever took them while nothing guarded them."""
        if self._heart is None:
            return
        try:
            found = list(self._levers.holders(self._guard.objects))
        except (KernelError, OSError) as error:
            _log.error("who else has the agent's maps and programs is not known: %s", error)
            return
        for each in found:
            _log.error("%s", words(each))
            self._pending.tell(Guarded, stranger_tgid=each.tgid, stranger_start_time=0, count=1, attempt=HELD)

    def rearm(self, obstacle: Callable[[], str]) -> None:
        """Of what silences probes, put right what the agent can.

        `obstacle`: see `Ground.obstacle`. Only kprobes that are off in the kernel's text, too, are turned on here.
        """
        if self._heart is None:
            return
        if self._guard.kprobes_off():
            if why := obstacle():
                _log.error("kprobes are not turned on again: %s", why)
            elif self._guard.kprobes_off() and self._guard.arm_kprobes():  # else that look has put them right
                _log.warning("kprobes were turned on again")
        self._guard.look_at_objects()  # what was attached again is another link

    def status(self) -> dict[str, Any]:
        """For `krie status`."""
        return {
            "guard": Flags.GUARD in self._levers.verdicts.flags(),
            "objects": [asdict(each) for each in self._guard.objects],
        }

    def _turn_on(self) -> None:
        verdicts = self._levers.verdicts
        verdicts.set_flags(verdicts.flags() | Flags.GUARD)

    def _keep_guard(self, heart: Heart) -> None:
        """Beat, and hold the guard up: what it is made of may have been changed by a way that nobody foresaw."""
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        silence = heart.beat()
        self._forget_cgroups(before)
        if silence is not None:
            _log.warning("the agent was %s: nobody watched for %.1f s", silence.state, silence.seconds)
            since, gap_s = int(time.time() - silence.seconds), int(silence.seconds)
            self._pending.tell(Gap, tgid_before=os.getpid(), last_seen_s=since, gap_s=gap_s, state=silence.state)
        if Flags.GUARD not in self._levers.verdicts.flags():
            self._turn_on()
            _log.error("somebody turned the guard off; it is on again")
            self._pending.tell_seen("disarmed")
        self._guard.look_after(self._files)
        covered = self._guard.covered()
        for each in sorted(covered - self._covered):
            _log.error("%s is not the agent's folder any more: it was mounted over, or moved", each)
            self._pending.tell_seen(COVERED)
        self._covered = covered

    def _keep_sending(self) -> None:
        """Canaries arrive without this, and records do not. Whatever the mode: nothing guards it while all observe."""
        if not self._sending.is_on():
            self._sending.start()
            _log.error("somebody disarmed the programs in the kernel; they are armed again")
            self._pending.tell_seen("disarmed")

    def _forget_cgroups(self, before: int) -> None:
        """Where the agent was, and is not: the kernel may give the address of such a cgroup to another one."""
        cgroups = self._levers.maps["containment_cgroups"]
        for node, seen in list(cgroups.items()):
            if LONG.decode(seen) < before:
                cgroups.remove(node)
