"""What `krie cfi explain` says of functions and acts, and that what is declared of acts is what C and rules know."""

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from krie.errors import ConfigError
from krie.plugins import cfi as plugin
from krie.plugins.cfi import commands, explanation, lock_file
from krie.plugins.cfi.act import Act
from krie.plugins.cfi.declaration import parse, shipped
from krie.testing.events import build
from krie.testing.rules import Rules

ACT = 'number = 1\nright = "a"\njudged = "a"\nwhy = "a"\n'
FUNCTION = lock_file.LockedFunction(callers=["good+0x5"], taken=["cap_task_prctl"])
OPEN = lock_file.LockedFunction(callers=["good+0x5"], taken=["cap_task_prctl", "by_whomever"])
NEVER_CALLED = lock_file.LockedFunction(callers=[], taken=["by_whomever"])


@pytest.fixture
def explained(monkeypatch: pytest.MonkeyPatch) -> lock_file.LockFile:
    """The lock file of a kernel that seems to run here."""
    functions = {
        "commit_creds": FUNCTION,
        "prepare_kernel_cred": OPEN,
        "set_memory_x": NEVER_CALLED,
        "vfs_open": FUNCTION,
    }
    made = lock_file.LockFile(release="6.1", build_id="00112233", functions=functions)
    monkeypatch.setattr(commands, "running_build_id", lambda: made.build_id)
    monkeypatch.setattr(lock_file, "shipped", {made.build_id: made}.get)
    return made


def explain(*arguments: str) -> Result:
    result = CliRunner().invoke(commands.cfi, ["explain", *arguments])
    assert result.exit_code == 0, result.output
    return result


def test_callers_paths_and_what_others_get_are_told(explained: lock_file.LockFile) -> None:
    answer = json.loads(explain("commit_creds", "--json").stdout)
    assert (answer["locked"], answer["callers"], answer["open"]) == (True, ["good+0x5"], [])
    assert answer["by_pointer"] == {"cap_task_prctl": ["security_task_prctl"]}
    assert answer["gains"]["unshare"] == ["caps", "userns"]
    found = [*answer["outcomes"].values()]
    assert found == [
        ["kill", "CFI001"],
        ["kill", "CFI001"],
        ["log", "CFI004"],
        ["kill", "CFI001"],
        ["kill", "CFI001"],
        ["kill", "CFI002", "CFI004"],
        ["kill", "CFI003"],
        ["kill", "CFI003"],
        [],
    ]
    assert answer["rights"]["setns"] == "user_namespace"
    text = explain("commit_creds").stdout
    assert "commit_creds, 6.1: locked, since it gives the current task other credentials" in text
    assert "  unshare: caps, userns; " in text
    assert "; takes CAP_SETUID, or to have had these users before" in text
    assert "  a module, with credentials that gain: kill by CFI002, CFI004" in text
    assert "otherwise: nothing is seen" in text


def test_where_callers_by_pointer_are_unknown_nobody_is_killed(explained: lock_file.LockFile) -> None:
    answer = json.loads(explain("prepare_kernel_cred", "--json").stdout)
    assert answer["open"] == ["by_whomever"]
    assert [*answer["outcomes"].values()] == [["log", "CFI004"], ["log", "CFI004"], [], []]
    assert "through by_whomever, by pointers that nothing here knows of" in explain("prepare_kernel_cred").stdout


def test_what_nothing_calls_is_not_said_to_be_locked(explained: lock_file.LockFile) -> None:
    answer = json.loads(explain("set_memory_x", "--json").stdout)
    assert (answer["locked"], answer["outcomes"]) == (False, {})
    text = explain("set_memory_x").stdout
    assert "set_memory_x, 6.1: not locked, since nothing calls it directly" in text
    assert "A call gets" not in text


def test_of_a_function_that_is_not_locked_it_is_said_how(explained: lock_file.LockFile) -> None:
    assert json.loads(explain("vfs_open", "--json").stdout)["locked"] is False
    text = explain("vfs_open").stdout
    assert "vfs_open, 6.1: not locked; `functions` in [plugins.cfi] locks it" in text
    assert "Once it is locked, a call gets" in text


def test_what_the_administrator_locks_is_locked(explained: lock_file.LockFile, tmp_path: Path) -> None:
    config = tmp_path / "krie.toml"
    config.write_text('[plugins.cfi]\nfunctions = ["vfs_open"]\n')
    config.chmod(0o600)
    line = ("vfs_open", "--config", str(config))
    assert json.loads(explain(*line, "--json").stdout)["locked"] is True
    text = explain(*line).stdout
    assert "vfs_open, 6.1: locked, since it is named by `functions` in [plugins.cfi]" in text
    assert "Once it is locked" not in text


def test_a_wrong_configuration_is_told(explained: lock_file.LockFile, tmp_path: Path) -> None:
    config = tmp_path / "krie.toml"
    config.write_text('[plugins.cfi]\nfunctions = ["a b"]\n')
    config.chmod(0o600)
    result = CliRunner().invoke(commands.cfi, ["explain", "vfs_open", "--config", str(config)])
    assert isinstance(result.exception, ConfigError)
    assert "plugins.cfi.functions" in str(result.exception)


@pytest.mark.parametrize("name", shipped().acts)
def test_each_act_is_explained(name: str) -> None:
    row = shipped().acts[name]
    answer = json.loads(explain(name, "--json").stdout)
    assert (answer["act"], answer["right"], answer["why"]) == (name, row.right, row.why)
    assert [*answer["outcomes"].values()] == [["override", "CFI005"]]
    text = explain(name).stdout
    assert f"takes: {row.right}" in text
    assert f"{explanation.WITHOUT}: override by CFI005" in text


def test_the_program_tells_of_each_act() -> None:
    text = "".join(files(plugin).joinpath(name).read_text() for name in ("acts.bpf.c", "file_acts.bpf.c"))
    assert set(re.findall(r"\bCFI_ACT_ACT_(\w+)", text)) == {name.upper() for name in shipped().acts}


def test_a_rule_is_about_each_act() -> None:
    rules = Rules("cfi", acts=True)
    assert all(rules.fired(build(Act, act=name)) == {"CFI005"} for name in shipped().acts)
    assert rules.tier("CFI005") == "kernel"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"[acts.f]\n{ACT}[acts.g]\n{ACT}", r"acts\.[fg]\.number: 1 must be no other act's"),
        ('[acts.f]\nnumber = 1\nright = ""\njudged = "a"\nwhy = "a"\n', r"acts\.f\.right"),
        ("[acts.f]\nnumber = 1\n", r"acts\.f\.right"),
    ],
)
def test_a_wrong_act_is_told(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse(f"schema = 1\n[functions]\n{text}", "here")
