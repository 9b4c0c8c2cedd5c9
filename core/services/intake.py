"""What becomes of a fetched bundle: it is verified, kept, offered to the agent, and noted once it is in force.

In force it comes only by the agent, which tries it first. What is refused is not taken again until it changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ..errors import KrieError, PolicyError
from ..policy.bundle import Bundle, read_bundle
from ..policy.bundle_file import executables_of
from ..policy.pinned import VerificationKey
from ..policy.serial import refused_for_age, serial_of
from ..policy.signature import file_digest
from ..policy.verification import verify
from .kept import KeptBundle, State, digest_of
from .polling import Polled


@dataclass(frozen=True, slots=True)
class Offer:
    """A bundle that is verified, and lies where the agent tries it."""

    digest: str
    revision: str
    serial: int | None
    etag: str
    size: int
    executables: Mapping[str, str]


class Intake:
    """Takes what polls find. Every method raises nothing but what it says."""

    def __init__(
        self,
        kept: KeptBundle,
        url: str,
        keys: Callable[[], Mapping[str, VerificationKey]],
        shown: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`keys`: reads the pinned ones; `shown`: the URL for messages. Raises `ConfigError` as `KeptBundle.state`."""
        self._kept, self._url, self._keys, self._shown, self._clock = kept, url, keys, shown, clock
        self._refused: dict[str, str] = {}  # why, by digest; of the last one only
        self._waiting: Offer | None = None
        self._state = self._known()
        if self._state.url != url:
            self._state = replace(self._state, url=url, etag="")

    @property
    def refusal(self) -> str:
        """Why what the server has now is not in force; empty where it is."""
        return next(iter(self._refused.values()), "")

    def known_etag(self) -> str:
        """By which the server is to be asked: that of the bundle in force, if that is still there."""
        try:
            raw = self._kept.read(self._kept.active)
        except KrieError:
            return ""
        return self._state.etag if digest_of(raw) == self._state.digest else ""

    def forget_refused(self) -> None:
        """An administrator wants all to be tried again, and may have removed the state to let an older one in."""
        self._refused.clear()
        self._state = replace(self._known(), url=self._url, etag="")

    def take(self, polled: Polled) -> Offer | None:
        """Examine what came; None where it is what is in force already.

        Raises `PolicyError` with the reason for one that is refused, `ConfigError` for keys that cannot be read,
        `OSError` where it cannot be kept.
        """
        assert polled.raw is not None
        digest = digest_of(polled.raw)
        if digest == self._state.digest and self.known_digest() == digest:
            self._nothing_new(polled)
            return None
        if why := self._refused.get(digest):
            raise PolicyError(why)
        try:
            bundle = self._examined(polled.raw)
            if self._is_in_force(bundle):
                self._nothing_new(polled)
                return None
            executables = executables_of(bundle)
            serial = serial_of(bundle)
        except PolicyError as error:
            self._refused = {digest: str(error)}
            raise
        except (MemoryError, RecursionError) as error:  # it was never verified: anybody may have made it so
            why = f"{self._shown}: needs too much memory to be read ({type(error).__name__})"
            self._refused = {digest: why}
            raise PolicyError(why) from None
        self._kept.offer(polled.raw)
        self._waiting = Offer(digest, bundle.revision, serial, polled.etag, polled.size, executables)
        return self._waiting

    def _nothing_new(self, polled: Polled) -> None:
        self._refused.clear()
        self._state = replace(self._state, etag=polled.etag)

    def _is_in_force(self, bundle: Bundle) -> bool:
        """Whether a verified one holds what the one in force does: some servers pack their files for each answer.

        The one that is kept stays then. So its own signature must hold still: the next start depends on it.
        """
        try:
            raw = self._kept.read(self._kept.active)
            if digest_of(raw) != self._state.digest:
                return False
            kept = read_bundle(raw, str(self._kept.active))
            verify(kept, self._keys())
        except (KrieError, MemoryError, RecursionError):  # the fetched one takes its place
            return False
        return _contents(kept) == _contents(bundle)

    def known_digest(self) -> str:
        """Of the bundle that is kept; empty where there is none."""
        try:
            return digest_of(self._kept.read(self._kept.active))
        except KrieError:
            return ""

    @property
    def waits(self) -> bool:
        """Whether something is offered of which the agent has not said what became of it."""
        return self._waiting is not None

    def in_force(self, digest: str) -> None:
        """The agent says so, of what is offered or of what a process before this one has offered.

        Raises `OSError` where that cannot be noted.
        """
        offer = self._waiting
        if offer is not None and offer.digest == digest:
            self._waiting, etag, serial = None, offer.etag, offer.serial
        elif digest == self.known_digest():
            etag, serial = "", self._kept_serial()
        else:
            return
        self._refused.clear()
        highest = max((each for each in (serial, self._state.highest) if each is not None), default=None)
        self._state = State(self._url, etag, digest, highest)
        self._kept.note(self._state)

    def refused(self, digest: str, why: str, *, again: bool) -> None:
        """The agent has tried it and says why not. `again`: nothing follows for the bundle, so it is tried again."""
        if self._waiting is not None and self._waiting.digest == digest:
            self._waiting = None
            if not again:
                self._refused = {digest: why}

    def _known(self) -> State:
        """What is noted; where the agent ended before it could be, what is kept says more."""
        state = self._kept.state()
        if state == State():  # so that removing the note lets an older bundle in
            return state
        highest = max((each for each in (self._kept_serial(), state.highest) if each is not None), default=None)
        return replace(state, highest=highest)

    def _kept_serial(self) -> int | None:
        try:
            return serial_of(read_bundle(self._kept.read(self._kept.active), str(self._kept.active)))
        except (KrieError, MemoryError, RecursionError):  # there is none, or none that could be in force
            return None

    def _examined(self, raw: bytes) -> Bundle:
        bundle = read_bundle(raw, self._shown)
        try:
            signed = verify(bundle, self._keys())
            if signed.expires is not None and self._clock() > signed.expires:
                raise PolicyError("its signature has expired")
            if why := refused_for_age(serial_of(bundle), self._state.highest):
                raise PolicyError(
                    f"{why}; sign it again with a higher serial, or remove {self._kept.state_file} and send SIGHUP to "
                    "let it in"
                )
        except PolicyError as error:
            raise PolicyError(f"{self._shown}: {error}") from error
        return bundle


def _contents(bundle: Bundle) -> dict[str, str]:
    """All of its files, the manifest with the revision among them, as a signature sees them."""
    return {name: file_digest(name, content) for name, content in bundle.files.items()}
