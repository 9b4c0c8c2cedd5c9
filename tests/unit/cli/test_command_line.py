"""The command as a user without root runs it: what it imports, where it finds its configuration, how it ends."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from krie.cli import command
from krie.cli.command import SYSTEM
from krie.cli.event_list import nearest
from krie.errors import ConfigError
from krie.events.agent import ProbeState
from krie.events.event import EventType
from krie.testing.imports import imported_by
from krie.version import version

from .command import ENVIRONMENT, KRIE, configure, krie

not_configured = pytest.mark.skipif(SYSTEM.exists(), reason=f"this machine has a {SYSTEM}")


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
    heavy = {"pydantic", "pluggy", "rich", "regorus", "hypothesis", "bcc", "krie.testing", "krie.agent", "jwt"}
    assert imported_by(*KRIE, *arguments, cwd=folder) & heavy == needs


def test_the_agent_imports_no_command(folder: Path) -> None:
    imported = imported_by("-m", "krie.agent", "--help", cwd=folder)
    assert "krie.agent.policy_files" in imported
    assert not imported & {
        "click",
        "rich",
        "bcc",
        "hypothesis",
        "krie.testing",
        "krie.agent.examination",
        "krie.cli.main",
    }


def test_version(folder: Path) -> None:
    assert krie(folder, "--version").stdout == f"krie {version()}\n"


def test_groups_are_found_when_asked_for(folder: Path) -> None:
    assert re.search(r"^  check +Compile all policies", krie(folder, "policy", "--help").stdout, re.MULTILINE)
    assert re.search(r"^  new +Write the package", krie(folder, "plugin", "--help").stdout, re.MULTILINE)
    assert re.search(r"^  kernels +List the kernels", krie(folder, "lab", "--help").stdout, re.MULTILINE)
    misspelt = krie(folder, "policy", "chek")
    assert (misspelt.returncode, misspelt.stdout) == (2, "")
    assert "No such command 'chek'" in misspelt.stderr


@not_configured
def test_without_a_file_the_defaults_serve(folder: Path) -> None:
    listed = krie(folder, "plugins")
    assert listed.returncode == 0
    assert listed.stderr == f"krie: neither krie.toml nor {SYSTEM} exists: the default configuration is used\n"
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


@pytest.mark.parametrize("arguments", [["run"], ["doctor"], ["status"], ["policy", "check"], ["config", "check"]])
def test_a_files_name_is_taken_for_no_option(folder: Path, arguments: list[str]) -> None:
    result = krie(folder, *arguments, "--config=-x.toml")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "krie: -x.toml: cannot be read: No such file or directory\n"


@not_configured
def test_what_needs_a_file_says_so(folder: Path) -> None:
    result = krie(folder, "policy", "check")
    assert result.returncode == 2
    assert result.stderr.startswith(f"krie: krie.toml: not found, nor is {SYSTEM}; `krie config init` writes that one")


def test_the_working_folder_comes_before_the_system(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = folder / "etc.toml"
    monkeypatch.setattr(command, "SYSTEM", system)
    monkeypatch.chdir(folder)
    assert command.config_file_if_any(None) is None
    with pytest.raises(ConfigError, match=r"etc\.toml; `krie config init`"):
        command.config_file(None)
    system.touch()
    assert command.config_file(None) == command.config_file_if_any(None) == system
    (folder / "krie.toml").symlink_to("nowhere")  # what is there and cannot be read is told, not passed over
    assert command.config_file(None) == command.config_file_if_any(None) == Path("krie.toml")
    assert command.config_file(Path("given")) == Path("given")


def test_a_sample_is_written_once_and_is_valid(folder: Path) -> None:
    made = krie(folder, "config", "init", "--output", "etc/krie.toml")
    written = folder / "etc/krie.toml"
    assert (made.returncode, made.stderr) == (0, "")
    assert written.stat().st_mode & 0o777 == 0o644
    checked = krie(folder, "config", "check", "--config", "etc/krie.toml")
    assert (checked.returncode, checked.stderr) == (0, "")
    plugins = ("runtime_integrity", "smep_smap", "syscall_table")
    assert checked.stdout == f"etc/krie.toml: valid; {', '.join(f'{each} observes' for each in plugins)}\n"
    written.write_text("")
    again = krie(folder, "config", "init", "--output", "etc/krie.toml")
    assert (again.returncode, again.stdout) == (2, "")
    assert "etc/krie.toml: exists already" in again.stderr
    assert written.read_text() == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[plugins.smep_smpa]", "krie.toml: [plugins.smep_smpa]: names no installed plugin; did you mean 'smep_smap'?"),
        ("[plugin.smep_smap]", "krie.toml: plugin: no such key; did you mean 'plugins'?"),
        ("[plugins.smep_smap]\ntrap = true", "krie.toml: plugins.smep_smap.trap: no such key; did you mean 'traps'?"),
    ],
)
def test_mistakes_are_found_before_a_start(folder: Path, text: str, problem: str) -> None:
    configure(folder, text)
    result = krie(folder, "config", "check")
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"krie: {problem}\n")


def test_one_event_or_those_of_one_plugin(folder: Path) -> None:
    configure(folder, "[plugins.syscall_table]\n[plugins.smep_smap]")
    titles = re.compile(r"^([a-z_]+\.[a-z_]+) \(0x", re.MULTILINE)
    assert titles.findall(krie(folder, "events", "krie.loss").stdout) == ["krie.loss"]
    assert titles.findall(krie(folder, "events", "smep_smap").stdout) == [
        "smep_smap.register_check",
        "smep_smap.trap",
        "smep_smap.activity",
    ]
    schema = json.loads(krie(folder, "events", "syscall_table.hook", "--schema").stdout)
    assert list(schema["event"]) == ["syscall_table.hook"]
    unknown = krie(folder, "events", "krie.lost")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr == "krie: events krie.lost: no such event; did you mean krie.loss?\n"


@pytest.mark.parametrize(
    ("kind", "near"),
    [
        ("ptrace", ["runtime_integrity.ptrace"]),
        ("ptrase", ["runtime_integrity.ptrace", "smep_smap.trap"]),
        ("register", ["smep_smap.register_check"]),
        ("activity", ["smep_smap.activity", "cfi.activity"]),
        ("smep_smpa", ["smep_smap"]),
        ("smep_smap.trp", ["smep_smap.trap"]),
        ("nothing_alike", []),
    ],
)
def test_the_nearest_events_are_suggested(kind: str, near: list[str]) -> None:
    own = ("register_check", "trap", "activity")
    assert nearest(kind, ["runtime_integrity.ptrace", *(f"smep_smap.{each}" for each in own), "cfi.activity"]) == near


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
        ("[plugins", "is not valid TOML"),
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
    called = [sys.executable, "-I", *KRIE, *arguments]
    result = subprocess.run(called, cwd=folder, stdout=writer, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
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
