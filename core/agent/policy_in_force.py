"""The policy that decides: the one place where another one takes its place, and what is told of it while it does."""

from __future__ import annotations

import logging
from typing import Any

from ..errors import ConfigError, KernelError, PolicyError
from ..policy.policy import Policy
from ..services.desk import Desk
from ..tier.candidate import Candidate
from .budget import Budgets, Needs
from .bus import Bus
from .enforcement import Enforcing
from .input_health import InputHealth
from .policy_files import PolicyFiles
from .reports import Reports
from .selection import Selection

_log = logging.getLogger("krie")


def first_policy(files: PolicyFiles, desk: Desk) -> Candidate:
    """The kept bundle's where one comes from a URL, or else that of the folders until there is one."""
    try:
        return files.load()
    except (PolicyError, ConfigError) as error:
        if not desk.bundles.not_usable(str(error)):
            raise
        return files.load()


class PolicyInForce:
    """One policy at a time, and all who must know which."""

    def __init__(
        self,
        first: Candidate,
        files: PolicyFiles,
        enforcing: Enforcing,
        bus: Bus,
        selection: Selection,
        budgets: Budgets,
        desk: Desk,
        reports: Reports,
        health: InputHealth,
    ) -> None:
        """`first` decides on the bus already, and is still to start in the kernel. Raises `KernelError`."""
        self._files, self._enforcing, self._bus, self._desk = files, enforcing, bus, desk
        self._selection, self._budgets = selection, budgets
        self._reports, self._health = reports, health
        self.policy: Policy = first.policy
        self._needs = self._needs_of(first)
        self._remembered = 0  # decisions that came out of the memos of policies before this one
        self._tell_services(first)
        self._selection.policy_changed(self.policy.rules)
        budgets.tell(self._needs)

    @property
    def remembered(self) -> int:
        """Decisions that came out of a memo, since the start."""
        return self._remembered + self.policy.remembered

    def replace(self, candidate: Candidate) -> None:
        """Bring another one into force. Raises `KernelError`, `PolicyError` before anything of it is."""
        needs = self._needs_of(candidate)
        try:
            # For both, until it is certain which one decides: at no time does what a rule is about go unjudged.
            self._budgets.tell(tuple(old | new for old, new in zip(self._needs, needs, strict=True)))
            prepared = self._enforcing.prepare(candidate)
            self.tell_failures()  # of the policy before this one
            self._enforcing.take_over(prepared)
            # Who decides, at once: whatever fails of the rest, the bus must not ask an evaluator that is closed.
            self._needs = needs
            self._remembered += self.policy.remembered
            self.policy = self._bus.judge = candidate.policy
        finally:
            self.tick()
        self._selection.policy_changed(self.policy.rules)
        self._tell_services(candidate)
        self._files.adopt(candidate)

    def tick(self) -> None:
        """Once a second: let the kernel forget what only another policy needed, if it did not before."""
        try:
            self._budgets.tell(self._needs)
        except KernelError as error:  # programs send and refuse more than they need to, and let nothing through
            _log.error("the kernel was not told which kinds no longer matter to the policy, and will be: %s", error)

    def tell_failures(self) -> bool:
        """Tell what it could not decide since the last time; returns whether there was anything."""
        evaluator = self._files.evaluator
        failures = list(evaluator.failures) if evaluator is not None else []
        if evaluator is not None:
            evaluator.failures.clear()
        self._health.policy_failures += len(failures)
        for failure in failures:
            self._reports.policy_failed(self.policy, failure)
        return bool(failures)

    def tell_engine(self) -> bool:
        """Whether another engine decides than a moment ago; then that is told."""
        opa = self._files.opa
        if opa is None:
            return False
        opa.look(self.policy.revision)
        changes = list(opa.changes)
        opa.changes.clear()
        for change in changes:
            self._reports.engine(change, self.policy, opa.stood_in)
        return bool(changes)

    def engine(self) -> dict[str, Any] | None:
        """How the OPA server stands that is to decide; None: there is none."""
        return self._files.opa.to_json() if self._files.opa is not None else None

    def status(self) -> dict[str, Any]:
        """For `krie status`."""
        return {
            "policy": self.policy.revision,
            "remembered": self.remembered,
            "policy_failures": self._health.policy_failures,
            "services": self._desk.status(),
            "evaluator": self._files.evaluator.worker if self._files.evaluator is not None else None,
            "engine": self.engine(),
        }

    def _tell_services(self, candidate: Candidate) -> None:
        if candidate.evaluator is not None:
            self._desk.policy(candidate.evaluator.sources, candidate.policy.revision)

    def _needs_of(self, candidate: Candidate) -> Needs:
        return self._budgets.needs(candidate.policy.rules, self._enforcing.tier.left_out(candidate.tiers))
