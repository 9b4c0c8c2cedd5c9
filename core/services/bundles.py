"""Which bundle the agent reads: the last one that the courier offered, or else the one that was in force before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import Config
from ..errors import KrieError
from ..events.wire import Json
from ..policy.bundle_file import KEPT_FOLDER, BundleFile, with_executables
from ..policy.pinned import read_keys
from ..policy.serial import refused_for_age
from ..services_config import is_url
from .kept import KeptBundle
from .offers import Offered, Offers
from .troubles import Note, Troubles


class Bundles:
    """Knows what a load reads, and keeps what came into force by it."""

    def __init__(self, config: Config, troubles: Troubles, say: Callable[[Mapping[str, Json]], None]) -> None:
        """`say` tells the courier. Raises `ConfigError`, `UntrustedFileError` for files that cannot be used."""
        self._config, self._troubles, self._say = config, troubles, say
        self._from_url = is_url(config.policy.bundle)
        self._keys = read_keys(config.bundle.keys) if config.policy.bundle else {}
        self._kept = KeptBundle(Path(config.agent.state_dir) / KEPT_FOLDER)
        self._active: BundleFile | None = None
        self._offers = Offers()

    def open(self) -> None:
        """Look for what is kept, where bundles come from a URL."""
        if self._from_url:
            self._kept.make()
            self._kept.state()
            self._active = self._kept_before()

    def source(self) -> BundleFile | None:
        """The bundle that a load is to read; None: the folders. Raises `PolicyError`, `ConfigError`."""
        if self._from_url:
            offered = self._offers.read()
            return offered.file if offered is not None else self._active
        if not self._config.policy.bundle:
            return None
        return with_executables(BundleFile(Path(self._config.policy.bundle), self._keys))

    def not_usable(self, reason: str) -> bool:
        """The kept bundle cannot be loaded at start. False: there was none, so that something else is wrong."""
        if not self._from_url or self._active is None:
            return False
        self._active = None
        self._disown(reason)
        return True

    def take_offer(self) -> bool:
        """Whether there is a bundle that was not tried yet; it counts as tried from here on."""
        return self._offers.take_fresh()

    def in_force(self, rules: int) -> None:
        """What was read by the last load is in force. Raises nothing: what cannot be noted is trouble."""
        tried = self._offers.tried()
        if tried is None:
            return
        self._active = replace(tried.file, path=self._kept.active)
        try:
            self._kept.adopt(tried.digest)
        except OSError as error:
            self._troubles.trouble("bundle", "trouble", f"it is in force, and cannot be kept: {error.strerror}")
            self._active = None
        else:
            self._troubles.well("bundle")
        self._say({"service": "bundle", "state": "in_force", "digest": tried.digest, "rules": rules})
        if (waiting := self._offers.waiting) is not None and (why := refused_for_age(waiting.serial, tried.serial)):
            self._offers.drop()
            self._refuse(waiting, why, again=False)
            self._troubles.note(Note("bundle", "refused", why))

    def refused(self, reason: str, *, again: bool) -> bool:
        """What was read by the last load is not in force. `again`: it is no fault of the bundle's.

        Returns whether that was a bundle from a URL.
        """
        tried = self._offers.tried()
        if tried is None:
            return False
        self._refuse(tried, reason.partition("\n")[0], again=again)
        return True

    def try_again(self) -> None:
        """Have the courier ask for it again."""
        if self._from_url:
            self._say({"service": "bundle", "state": "again"})

    def come(self, message: Mapping[str, Any]) -> None:
        """The courier offers one."""
        digest = str(message["digest"])
        url = self._config.bundle.service(self._config.policy.bundle).shown
        file = BundleFile(self._kept.offered(digest), self._keys, dict(message["executables"]), url)
        overtaken = self._offers.come(Offered(file, digest, message["serial"]))
        if overtaken is not None:
            self._withdraw(overtaken)

    def _refuse(self, offered: Offered, why: str, *, again: bool) -> None:
        message: dict[str, Json] = {"service": "bundle", "state": "refused", "digest": offered.digest, "reason": why}
        self._say({**message, "again": again})
        self._troubles.now["bundle"] = why
        self._withdraw(offered)

    def _withdraw(self, offered: Offered) -> None:
        with suppress(OSError):  # the next start removes it
            self._kept.withdraw(offered.digest)

    def _kept_before(self) -> BundleFile | None:
        """What was in force last, if it is there."""
        if not self._kept.active.exists():
            return None
        try:
            return with_executables(BundleFile(self._kept.active, self._keys))
        except KrieError as error:
            self._disown(str(error))
            return None

    def _disown(self, reason: str) -> None:
        """The kept bundle is not in force, so that the courier must not take the server's for it."""
        self._troubles.trouble("bundle", "refused", f"the kept bundle: {reason}")
        try:
            self._kept.disown()
        except (OSError, KrieError) as error:
            why = f"the kept bundle is not in force, which cannot be noted: {error}"
            self._troubles.trouble("bundle", "trouble", why)
