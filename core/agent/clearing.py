"""What was decided is taken back by administrators: what of it they mean, and, while something enforces, who may."""

from __future__ import annotations

import hashlib
import hmac
import logging
from typing import Any

from ..config import EnforcementConfig
from ..enforce.enforcer import RuleNumbers
from ..enforce.verdicts import Verdict, Verdicts
from ..events.enforcement import Cleared, Guarded
from ..processes.peer import Peer
from .breakers import Breakers
from .pending import Pending

_log = logging.getLogger("krie")


class NotAllowed(ValueError):
    """Who asked may not clear."""


def require(config: EnforcementConfig, by: Peer, token: str) -> None:
    """What `enforcement.clear` says. Raises `NotAllowed`."""
    if config.clear == "init" and by.tgid != 1:
        raise NotAllowed('enforcement.clear is "init": only tgid 1 may clear while a plugin enforces')
    if config.clear == "token":
        given = hashlib.sha256(token.encode()).hexdigest()
        if not hmac.compare_digest(given, config.clear_token_sha256):
            raise NotAllowed('enforcement.clear is "token", and the token is wrong; give it with --token-file')


class Clearing:
    """Takes back verdicts, and re-arms breakers."""

    def __init__(
        self,
        config: EnforcementConfig,
        verdicts: Verdicts,
        rules: RuleNumbers,
        breakers: Breakers,
        pending: Pending,
        *,
        enforces: bool,
    ) -> None:
        """`enforces`: whether any plugin does, so that not all of root's processes may clear."""
        self._config, self._enforces = config, enforces
        self._verdicts, self._rules, self._breakers, self._pending = verdicts, rules, breakers, pending

    def clear(self, tgid: int | None, rule: str | None, by: Peer, token: str = "") -> dict[str, Any]:
        """Take back what was decided about a process, by a rule, or all of it; returns how much that was.

        Raises `ValueError` where `by`, who gives this token, may not.
        """
        if self._enforces:
            try:
                require(self._config, by, token)
            except NotAllowed:
                _log.error("process %d may not clear", by.tgid)
                self._pending.tell(
                    Guarded, stranger_tgid=by.tgid, stranger_start_time=0, count=1, attempt="clear_refused"
                )
                raise
        what = f"tgid {tgid}" if tgid is not None else f"rule {rule}" if rule is not None else "all"

        def meant(verdict: Verdict) -> bool:
            if tgid is not None:
                return verdict.process.tgid == tgid
            return rule is None or self._rules.name(verdict.rule) == rule

        poisoned = [each for each in self._verdicts.poisoned() if meant(each)]
        bound = [each for each in self._verdicts.bound() if meant(each)]
        for each in (*poisoned, *bound):
            self._verdicts.clear(each)
        host = self._verdicts.host()
        freed = host is not None and tgid is None and meant(host)
        if freed:
            self._verdicts.free_host()
        rearmed = [] if tgid is not None else self._breakers.rearm(rule)
        self._pending.tell(
            Cleared, processes=len(poisoned), verdicts=len(bound) + freed, by_tgid=by.tgid, by_uid=by.uid, what=what
        )
        _log.warning("cleared by %d: %s (%d processes, %d verdicts)", by.tgid, what, len(poisoned), len(bound) + freed)
        return {"poisoned": len(poisoned), "verdicts": len(bound) + freed, "rearmed": rearmed}
