"""Who may take back what was decided, while something enforces: what `enforcement.clear` says."""

from __future__ import annotations

import hashlib
import hmac

from ..config import EnforcementConfig
from ..processes.peer import Peer


class NotAllowed(ValueError):
    """Who asked may not clear."""


def require(config: EnforcementConfig, by: Peer, token: str) -> None:
    """Raises `NotAllowed`."""
    if config.clear == "init" and by.tgid != 1:
        raise NotAllowed('enforcement.clear is "init": only tgid 1 may clear while a plugin enforces')
    if config.clear == "token":
        given = hashlib.sha256(token.encode()).hexdigest()
        if not hmac.compare_digest(given, config.clear_token_sha256):
            raise NotAllowed('enforcement.clear is "token", and the token is wrong; give it with --token-file')
