"""What `krie cfi explain` says of functions."""

import json

import pytest
from click.testing import CliRunner, Result
from krie.plugins.cfi import commands, lock_file

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
        [],
    ]
    text = explain("commit_creds").stdout
    assert "commit_creds, 6.1: locked, since it gives the current task other credentials" in text
    assert "  unshare: caps, userns; " in text
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
