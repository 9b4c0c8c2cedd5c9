"""What administrators take back and, while something enforces, who may."""

import hashlib
from pathlib import Path

import pytest
from krie.agent.clearing import NotAllowed, require
from krie.config import Config, EnforcementConfig
from krie.decision import Mode
from krie.enforce.verdicts import Verdict
from krie.events.enforcement import Cleared, Guarded
from krie.events.identity import Key
from krie.processes.peer import Peer
from pydantic import ValidationError

from ...policy.sample import Sample
from ..enforcing import ADMIN, ONE, OTHER, Setting, all_logs, debugfs_with_kprobes, later  # noqa: F401 - fixtures

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


@pytest.mark.parametrize(
    ("tgid", "rule", "left", "answer"),
    [
        (ONE.tgid, None, {(OTHER, 0), (OTHER, Sample.KIND), "host"}, (1, 1)),
        (None, "KILLS", {(ONE, 0), (OTHER, Sample.KIND)}, (1, 2)),
        (None, "REFUSES", {(OTHER, 0), (ONE, Sample.KIND), "host"}, (1, 1)),
        (None, None, set(), (2, 3)),
        (99, None, {(ONE, 0), (OTHER, 0), (ONE, Sample.KIND), (OTHER, Sample.KIND), "host"}, (0, 0)),
    ],
)
def test_an_administrator_takes_back(
    debugfs: Path, tgid: int | None, rule: str | None, left: set[object], answer: tuple[int, int]
) -> None:
    setting = Setting(debugfs).started()
    tables = setting.armed.verdicts
    number = {name: setting.number(name) for name in ("KILLS", "REFUSES")}
    tables.poison(Verdict(ONE, 0, later(), number["REFUSES"], 1))
    tables.poison(Verdict(OTHER, 0, later(), number["KILLS"], 1))
    tables.bind(Verdict(ONE, Sample.KIND, later(), number["KILLS"], 1))
    tables.bind(Verdict(OTHER, Sample.KIND, later(), number["REFUSES"], 1))
    tables.bind_host(Verdict(Key(0, 0), 0, later(), number["KILLS"], 1))
    found = setting.enforcing.clearing.clear(tgid, rule, ADMIN)
    assert (found["poisoned"], found["verdicts"]) == answer
    assert setting.verdicts | ({"host"} if tables.host() is not None else set()) == left
    (told,) = setting.told(Cleared)
    assert (told["processes"], told["verdicts"], told["by_tgid"], told["by_uid"]) == (*answer, ADMIN.tgid, ADMIN.uid)


def test_who_may_not_clear_is_refused_and_told(debugfs: Path) -> None:
    setting = Setting(debugfs, clear="init").started()
    setting.armed.verdicts.poison(Verdict(ONE, 0, later(), 0, 1))
    with pytest.raises(ValueError, match="only tgid 1"):
        setting.enforcing.clearing.clear(None, None, ADMIN)
    assert setting.verdicts == {(ONE, 0)}
    (told,) = setting.told(Guarded)
    assert (told["attempt"], told["stranger_tgid"]) == ("clear_refused", ADMIN.tgid)
    assert setting.enforcing.clearing.clear(None, None, Peer(1, 0))["poisoned"] == 1


def test_where_all_observe_root_may_clear(debugfs: Path) -> None:
    setting = Setting(debugfs, mode=Mode.OBSERVE, clear="init").started()
    assert setting.enforcing.clearing.clear(None, None, ADMIN)["poisoned"] == 0
