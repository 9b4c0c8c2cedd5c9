"""OPA's own checker: asked where there is one, with a time limit; what it refuses is refused."""

import json
import time
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner
from krie.cli.policy import policy as policy_command
from krie.errors import PolicyError
from krie.policy.opa_check import Verdict, ask_opa
from krie.policy.sources import PolicyFile, PolicySources
from krie.testing.patience import PATIENCE_S, wait_for

OPA = str(Path(__file__).parents[2] / ".cache/tools/opa")
FINE = PolicySources(
    (PolicyFile("/etc/a.rego", "package krie.a\n"), PolicyFile("/etc/b.rego", "package krie.b\n")), {}, ""
)
REFUSED = PolicySources((*FINE.files, PolicyFile("/etc/c.rego", "package krie.c\nu if nosuch(1)\nv if w\n")), {}, "")


def script(tmp_path: Path, body: str) -> str:
    made = tmp_path / "opa"
    made.write_text(f"#!/bin/sh\n{body}\n")
    made.chmod(0o755)
    return str(made)


def test_what_opa_accepts() -> None:
    assert ask_opa(OPA, FINE) == Verdict(OPA)


def test_what_opa_refuses_is_refused_with_the_file_s_own_place() -> None:
    with pytest.raises(PolicyError) as caught:
        ask_opa(OPA, REFUSED)
    assert str(caught.value) == "/etc/c.rego:2:6: OPA refuses this: undefined function nosuch (type error)"


def test_where_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert ask_opa("", FINE) == Verdict("", "no opa is installed; name one in policy.opa")
    assert ask_opa("", FINE, tmp_path).opa == ""
    (tmp_path / "bin").mkdir()
    on_path = script(tmp_path / "bin", "exit 0")
    assert ask_opa("", FINE, tmp_path) == Verdict(on_path)
    assert ask_opa("", FINE).opa == ""  # the agent
    (tmp_path / ".cache/tools").mkdir(parents=True)
    beside = script(tmp_path / ".cache/tools", "exit 0")
    assert ask_opa("", FINE, tmp_path) == Verdict(beside)
    assert ask_opa(OPA, FINE, tmp_path) == Verdict(OPA)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("exit 3", "ended with code 3: it said nothing"),
        ("echo oh >&2; exit 1", "ended with code 1: oh"),
        ("echo '{\"errors\": [{}]}' >&2; exit 1", "ended with code 1: "),
        ("echo '{\"errors\": 5}' >&2; exit 1", "ended with code 1: "),
        ("kill -SEGV $$", "ended with code -11: "),
    ],
)
def test_a_checker_that_fails_refuses_nothing_and_is_told(tmp_path: Path, body: str, why: str) -> None:
    asked = ask_opa(script(tmp_path, body), FINE)
    assert asked.why.startswith(f"{asked.opa}: {why}")


def test_a_checker_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    started = time.monotonic()
    asked = ask_opa(script(tmp_path, f"sleep 1000 & echo $! >{tmp_path}/pid; wait"), FINE, timeout_s=2)
    assert "did not answer within 2 s" in asked.why
    assert time.monotonic() - started < PATIENCE_S / 2
    child = Path("/proc") / (tmp_path / "pid").read_text().strip()

    def has_ended() -> bool:
        with suppress(OSError):
            return "Z" in (child / "stat").read_text().split()[2]
        return True

    wait_for(has_ended)  # it was killed; it may have to wait


def test_a_checker_that_others_could_change_is_not_run(tmp_path: Path) -> None:
    made = script(tmp_path, f"touch {tmp_path}/ran")
    Path(made).chmod(0o777)
    assert "can be changed by other users" in ask_opa(made, FINE).why
    assert not (tmp_path / "ran").exists()
    assert "No such file" in ask_opa(str(tmp_path / "none"), FINE).why


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ask_opa(OPA, FINE)
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_whether_it_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    config = tmp_path / "krie.toml"
    for text, accepts, why in (
        ("", False, "no opa is installed; name one in policy.opa"),
        (f'policy.opa = "{OPA}"\n', True, ""),
    ):
        config.write_text(text)
        arguments = ["check", "--strict", "--config", str(config)]
        asked = json.loads(CliRunner().invoke(policy_command, [*arguments, "--json"]).stdout)["opa"]
        assert (asked["accepts"], asked["why"]) == (accepts, why)
        said = CliRunner().invoke(policy_command, arguments)
        assert said.exit_code == 0
        assert said.stdout.splitlines()[-1].startswith(f"OPA's checker {'accepts' if accepts else 'not asked: no opa'}")
