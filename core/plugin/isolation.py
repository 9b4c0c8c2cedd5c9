"""Calls plugins' functions without trusting them: a failure is reported, counted, and never goes further.

After repeated failures in a row the function is no longer called. A `required` plugin ends the agent by `PluginError`.
"""

from __future__ import annotations

import signal
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import PluginError
from ..interruption import Interrupted
from .watch import Watch

FAILURES_UNTIL_DEGRADED = 5
RAISED = BaseException
"""What a plugin's code may raise: neither sys.exit() in a plugin nor a panic in a library of its own, which is no
`Exception`, must end the agent."""
_ONCE = frozenset({"krie_attached"})
"""Hooks that are called once: without them the plugin does not work, so one failure degrades it."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class PluginFault:
    """One failure of a plugin, for the log and the journal."""

    plugin: str
    hook: str
    error: str
    traceback: str
    degraded: bool
    """This was one too many: the hook is no longer called, or the plugin was left out."""


def reraise_interruption(error: BaseException) -> None:
    """Raise what a signal raised: a start that is to end."""
    by_ctrl_c = isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if by_ctrl_c or isinstance(error, Interrupted):
        raise error


def fault_of(plugin: str, hook: str, error: BaseException, *, degraded: bool) -> PluginFault:
    """What an exception tells."""
    text = f"{type(error).__name__}: {error}"
    return PluginFault(plugin, hook, text, "".join(traceback.format_exception(error)), degraded)


class Isolation:
    """Counts failures by plugin and hook."""

    def __init__(self, report: Callable[[PluginFault], None]) -> None:
        """`report` gets the first failure of each hook, and the one by which its plugin degrades."""
        self._report = report
        self._failures: Counter[tuple[str, str]] = Counter()
        self._degraded: dict[str, str] = {}
        self.watch = Watch()
        self.required: set[str] = set()
        """Plugins whose end is the agent's."""

    @property
    def degraded(self) -> Mapping[str, str]:
        """Plugins that do not work as they should, with the reason."""
        return self._degraded

    def degrade(self, plugin: str, reason: str, fault: PluginFault | None = None) -> None:
        """Note that a plugin does not work. Raises `PluginError` if it is required."""
        self._degraded[plugin] = reason
        if plugin in self.required:
            problem, _, details = reason.partition("\n")  # a compiler's or the verifier's lines
            raise PluginError(plugin, f"{problem} (and it is required)", details)
        self._report(fault or PluginFault(plugin, "", reason, "", degraded=True))

    def call(self, plugin: str, hook: str, failed: _T, function: Callable[..., _T], *arguments: Any) -> _T:
        """Call a plugin's function; `failed` stands for its answer when it raised, or did so too often before."""
        key = (plugin, hook)
        if self._failures[key] >= FAILURES_UNTIL_DEGRADED:
            return failed
        self.watch.enter(plugin, hook)
        try:
            answer = function(*arguments)
        except RAISED as error:
            self.watch.leave()
            reraise_interruption(error)
            self._failed(plugin, hook, error)
            return failed
        if (misbehaved := self.watch.leave()) is not None:
            self._failed(plugin, hook, misbehaved, for_good=misbehaved.for_good)
        elif self._failures[key]:
            self._failures[key] = 0
        return answer

    def _failed(self, plugin: str, hook: str, error: BaseException, *, for_good: bool = False) -> None:
        self._failures[plugin, hook] += 1
        count = self._failures[plugin, hook]
        if for_good:
            self._failures[plugin, hook] = FAILURES_UNTIL_DEGRADED
        if count >= FAILURES_UNTIL_DEGRADED or for_good or hook in _ONCE:
            times = f" {count} times" if count > 1 else ""
            fault = fault_of(plugin, hook, error, degraded=True)
            self.degrade(plugin, f"{hook} failed{times}: {error}", fault)
        elif count == 1:
            self._report(fault_of(plugin, hook, error, degraded=False))
