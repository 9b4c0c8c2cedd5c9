"""Replaces the policy in force by changed files or an offered bundle; the previous policy decides until then."""

from __future__ import annotations

from ..errors import KernelError, KrieError
from ..services.desk import Desk
from .inbox import Inbox
from .input_health import InputHealth
from .policy_files import PolicyFiles
from .policy_in_force import PolicyInForce
from .reports import Reports


class Reload:
    """One at a time; a policy that is refused leaves everything as it was."""

    def __init__(
        self,
        files: PolicyFiles,
        in_force: PolicyInForce,
        inbox: Inbox,
        desk: Desk,
        reports: Reports,
        health: InputHealth,
    ) -> None:
        """Begin nothing yet."""
        self._files, self._in_force, self._inbox, self._desk = files, in_force, inbox, desk
        self._reports, self._health = reports, health

    @property
    def loading(self) -> bool:
        """Whether one has begun, and has not come to its end."""
        return self._files.loading

    def look_for_changes(self) -> None:
        """Begin a reload if any file has changed since the last load."""
        if not self.loading and self._files.changed():
            self.begin()

    def hear_services(self) -> None:
        """Take what the courier says, and begin if it offers a bundle."""
        self._desk.hear()
        if not self.loading and self._desk.bundles.take_offer():
            self.begin()

    def begin(self) -> None:
        """The policy in force goes on until another is ready, however long that takes."""
        try:
            self._files.begin()
        except KrieError as error:
            self._refuse(error)

    def finish(self, timeout_s: float = 0.0) -> None:
        """Bring into force what is ready, if it is within this time."""
        try:
            candidate = self._files.take(timeout_s)
        except KrieError as error:
            self._refuse(error)
            return
        if candidate is None:
            return
        # What happened before is judged by the policy that was in force then.
        self._inbox.drain_what_is_there()
        try:
            self._in_force.replace(candidate)
        except KrieError as error:
            candidate.close()
            self._refuse(error)
            return
        self._desk.bundles.in_force(len(self._in_force.policy.rules))
        self._reports.policy_loaded(self._in_force.policy)

    def _refuse(self, error: KrieError) -> None:
        """Keep the policy in force."""
        if self._desk.bundles.refused(str(error), again=isinstance(error, KernelError)):
            self._health.update()
        self._reports.policy_refused(self._in_force.policy, str(error))
