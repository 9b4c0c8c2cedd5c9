"""The command as a user without root runs it: what it imports, where it finds its configuration, how it ends."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from krie.agent_events import ProbeState
from krie.event import EventType
from krie.testing.imports import imported_by
from krie.version import version

KRIE = ("-c", "from krie.cli import main; main()")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "KRIE_CONFIG")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder that nobody else can change."""
    tmp_path.chmod(0o700)
    return tmp_path


def configure(folder: Path, text: str) -> Path:
    path = folder / "krie.toml"
    path.write_text(text)
    path.chmod(0o600)
    return path


def krie(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", *KRIE, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**ENVIRONMENT, **environment})


@pytest.mark.parametrize(
    ("arguments", "needs"),
    [
        ([], set()),
        (["--help"], set()),
        (["--version"], set()),
        (["run", "--help"], set()),
        (["plugins", "--help"], set()),
        (["plugins", "--json"], set()),
        (["plugins"], {"rich"}),
        (["policy", "check"], {"rich", "pydantic", "pluggy", "regorus"}),
        (["lab", "--help"], {"rich", "krie.testing"}),
    ],
)
def test_a_command_imports_what_it_needs(folder: Path, arguments: list[str], needs: set[str]) -> None:
    configure(folder, "[plugins.runtime_integrity]")
    heavy = {"pydantic", "pluggy", "rich", "regorus", "hypothesis", "bcc", "krie.testing"}
    assert imported_by(*KRIE, *arguments, cwd=folder) & heavy == needs


def test_the_agent_imports_no_command(folder: Path) -> None:
    imported = imported_by("-m", "krie.agent", "--help", cwd=folder)
    assert "krie.policy.reload" in imported
    assert not imported & {"click", "rich", "bcc", "hypothesis", "krie.testing", "krie.examination", "krie.cli"}


def test_version(folder: Path) -> None:
    assert krie(folder, "--version").stdout == f"krie {version()}\n"


def test_groups_are_found_when_asked_for(folder: Path) -> None:
    assert re.search(r"^  check +Compile all policies", krie(folder, "policy", "--help").stdout, re.MULTILINE)
    assert re.search(r"^  new +Write the package", krie(folder, "plugin", "--help").stdout, re.MULTILINE)
    assert re.search(r"^  kernels +List the kernels", krie(folder, "lab", "--help").stdout, re.MULTILINE)
    misspelt = krie(folder, "policy", "chek")
    assert (misspelt.returncode, misspelt.stdout) == (2, "")
    assert "No such command 'chek'" in misspelt.stderr


def test_without_a_file_the_defaults_serve(folder: Path) -> None:
    listed = krie(folder, "plugins")
    assert listed.returncode == 0
    assert listed.stderr == "krie: there is no krie.toml here: the default configuration is used\n"
    assert re.search(r"^runtime_integrity +not configured +krie ", listed.stdout, re.MULTILINE)
    assert krie(folder, "plugins", "--load").stderr == listed.stderr
    assert krie(folder, "plugins", "--help").returncode == 0
    events = krie(folder, "events")
    assert (events.returncode, events.stderr) == (0, listed.stderr)
    assert "krie.started" in events.stdout
    assert "runtime_integrity" not in events.stdout


@pytest.mark.parametrize("arguments", [["plugins"], ["plugins", "--load"], ["events"]])
def test_a_file_that_was_named_must_be_there(folder: Path, arguments: list[str]) -> None:
    result = krie(folder, *arguments, "--config", "krie.toml")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "krie: krie.toml: cannot be read: No such file or directory\n"
    assert krie(folder, *arguments, KRIE_CONFIG="krie.toml").returncode == 2


def test_what_needs_a_file_says_so(folder: Path) -> None:
    result = krie(folder, "policy", "check")
    assert (result.returncode, result.stderr) == (2, "krie: krie.toml: cannot be read: No such file or directory\n")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "[plugins.runtime_integrity]\nmode = 'enfroce'",
            "plugins.runtime_integrity.mode: Input should be 'observe' or",
        ),
        ("[plugins.runtime_integrity]\nmode = 3", "plugins.runtime_integrity.mode: Input should be 'observe' or"),
        ("[plugins]\nruntime_integrity = 1", "plugins.runtime_integrity: Input should be a valid dictionary, not 1"),
        ("plugins = 1", "plugins: Input should be a valid dictionary, not 1"),
        ("[plugins", "is no TOML"),
    ],
)
def test_a_list_of_plugins_tells_mistakes_as_the_agent_would(folder: Path, text: str, problem: str) -> None:
    configure(folder, text)
    for arguments in (["plugins"], ["plugins", "--load"]):
        result = krie(folder, *arguments)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith(f"krie: krie.toml: {problem}")


def test_a_plugin_that_is_not_installed(folder: Path) -> None:
    configure(folder, "[plugins.runtime_integriti]")
    listed, loaded = krie(folder, "plugins"), krie(folder, "plugins", "--load")
    assert (listed.returncode, listed.stderr) == (loaded.returncode, loaded.stderr)
    assert "names no installed plugin; did you mean 'runtime_integrity'?" in listed.stderr


@pytest.mark.parametrize("arguments", [["events"], ["events", "--schema"], ["plugins"], ["--help"], ["lab", "--help"]])
def test_a_reader_that_leaves_ends_it_quietly(folder: Path, arguments: list[str]) -> None:
    configure(folder, "")
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-I", *KRIE, *arguments]
    result = subprocess.run(command, cwd=folder, stdout=writer, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    os.close(writer)
    assert (result.returncode, result.stderr) == (141, "")  # 128 + SIGPIPE, as a shell says of any other command


def test_tables_are_cut_for_terminals_only(folder: Path) -> None:
    configure(folder, "")
    doc = max((field.doc for field in EventType(ProbeState).own_fields), key=len)
    lines = krie(folder, "events").stdout.splitlines()
    assert any(line.endswith(doc) for line in lines)
    assert not [line for line in lines if line != line.rstrip()]
    narrow = krie(folder, "events", COLUMNS="60").stdout.splitlines()
    assert max(map(len, narrow)) == 60
