"""Records on their way from the ring to the bus."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ..kernel.ring import Ring

_MOST = 65536


class Inbox:
    """Takes records out of the ring, and keeps those that came while an event was being decided."""

    def __init__(
        self, ring: Ring, take: Callable[[bytes], None], most: int = _MOST, settle: Callable[[], object] = list
    ) -> None:
        """`take` gets each record, in order, and `settle` is called behind each batch; `most`: how many are kept here
        at most."""
        self._ring, self._take, self._most, self._settle = ring, take, most, settle
        self._held: deque[bytes] = deque()
        self.backlog = False
        """Whether records are known to wait."""

    @property
    def waiting(self) -> int:
        """Records that are kept here."""
        return len(self._held)

    def drain(self) -> bool:
        """Take one batch of records; False when the ring is read to its end."""
        held, batch = self._held, self._ring.batch
        if len(held) < batch:  # also where some are held: that none wait is only known of a ring that was read
            held.extend(self._ring.read())
        take, count = self._take, min(len(held), batch)
        for _ in range(count):
            take(held.popleft())
        self._settle()
        self.backlog = count == batch or bool(held)
        return self.backlog

    def drain_what_is_there(self) -> None:
        """Take what a full ring holds at most: what comes meanwhile may not delay whoever asks."""
        for _ in range(self._ring.most_batches):
            if not self.drain():
                break

    def hold(self) -> None:
        """Empty the ring while a decision is late. To be called within an event: nothing is taken further."""
        while len(self._held) < self._most:
            records = self._ring.read()
            self._held.extend(records)
            if len(records) < self._ring.batch:
                return
