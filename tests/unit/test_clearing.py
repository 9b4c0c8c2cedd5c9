"""Who may take back what was decided, while something enforces."""

import hashlib

import pytest
from krie.agent.clearing import NotAllowed, require
from krie.config import Config, EnforcementConfig
from krie.processes.peer import Peer
from pydantic import ValidationError

ROOT, INIT = Peer(1234, 0), Peer(1, 0)
TOKEN = "9f1c"
TOKENS = EnforcementConfig(clear="token", clear_token_sha256=hashlib.sha256(TOKEN.encode()).hexdigest())


def test_by_default_root_may() -> None:
    require(EnforcementConfig(), ROOT, "")


@pytest.mark.parametrize(
    ("config", "by", "token"),
    [(TOKENS, ROOT, ""), (TOKENS, INIT, "9f1"), (EnforcementConfig(clear="init"), ROOT, TOKEN)],
)
def test_nobody_else_may(config: EnforcementConfig, by: Peer, token: str) -> None:
    with pytest.raises(NotAllowed, match=r"enforcement\.clear"):
        require(config, by, token)


def test_who_may() -> None:
    require(TOKENS, ROOT, TOKEN)
    require(EnforcementConfig(clear="init"), INIT, "")


@pytest.mark.parametrize("wrong", [{"clear": "token"}, {"clear_token_sha256": "abc"}, {"clear": "anybody"}])
def test_what_cannot_be_meant(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate({"enforcement": wrong})
