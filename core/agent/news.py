"""What happened since the last look and is not a record of the kernel's: collected from all who know, and told."""

from __future__ import annotations

from ..services.desk import Desk
from .enforcement import Enforcing
from .faults import Faults
from .ground import Ground
from .input_health import InputHealth
from .policy_in_force import PolicyInForce
from .reports import Reports
from .scans import Scans
from .status import Status
from .unseen import Unseen


class News:
    """Asked once a second, and at the end."""

    def __init__(
        self,
        unseen: Unseen,
        faults: Faults,
        in_force: PolicyInForce,
        desk: Desk,
        enforcing: Enforcing,
        scans: Scans,
        ground: Ground,
        status: Status,
        reports: Reports,
        health: InputHealth,
    ) -> None:
        """Ask nobody yet."""
        self._unseen, self._faults, self._in_force, self._desk = unseen, faults, in_force, desk
        self._enforcing, self._scans, self._ground = enforcing, scans, ground
        self._status, self._reports, self._health = status, reports, health

    def tell(self) -> None:
        """Ask all; policies know of it from the next event on."""
        lost = self._unseen.tell_records()
        faults = self._faults.take()
        for fault in faults:
            self._reports.plugin(fault)
        self._in_force.tick()
        failed_policy = self._in_force.tell_failures()
        other_engine = self._in_force.tell_engine()
        services = self.tell_services()
        for event, fields in self._enforcing.tick():
            self._reports.tell(event, **fields)
        self._scans.poll()
        self._scans.scan_what_is_put_right()
        for event, fields in self._ground.tick():
            self._reports.tell(event, **fields)
        self._status.note()
        if lost or faults or failed_policy or other_engine or services:
            self._health.update()

    def tell_services(self) -> bool:
        """Look after OPA's services; returns whether anything was to be told of them."""
        self._desk.tick()
        notes = self._desk.notes()
        for note in notes:
            if note.state == "refused":
                self._reports.policy_refused(self._in_force.policy, note.reason)
            else:
                self._reports.service(note)
        return bool(notes)
