"""The commands as a user runs them: on a pipe, on a terminal, and with their exit codes."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from krie.agent.resident import RING
from krie.cli.command import SYSTEM
from krie.events.operations import OPERATIONS
from krie.testing.agent import RunningAgent, fired
from krie.testing.bpf_objects import objects_of
from krie.testing.imports import imported_by
from krie.version import version

KRIE = [sys.executable, "-I", "-c", "from krie.cli.main import main; main()"]
HEAVY = {"pydantic", "pluggy", "rich", "regorus", "hypothesis", "bcc", "krie.testing"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    path = tmp_path / "krie.toml"
    path.write_text(
        f'[agent]\nrun_dir = "{tmp_path}/run"\nstate_dir = "{tmp_path}/state"\nallow_syscall_tracepoints = true\n'
        f'[journal]\npath = "journal.jsonl"\n[plugins.runtime_integrity]\nwatch_credentials = false\n'
    )
    path.chmod(0o600)
    return path


def krie(*arguments: object, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([*KRIE, *map(str, arguments)], input=text, capture_output=True, text=True)


@pytest.mark.once
def test_piped_run_prints_the_journals_lines(config: Path) -> None:
    result = krie("run", "--config", config, "--duration", 0.5)
    assert result.returncode == 0, result.stderr
    assert result.stdout == (config.parent / "journal.jsonl").read_text()
    kinds = [json.loads(line)["kind"] for line in result.stdout.splitlines()]
    assert kinds[-1] == "krie.stopped"
    started = json.loads(result.stdout.splitlines()[kinds.index("krie.started")])
    assert started["event"]["krie_version"] == version()


@pytest.mark.once
def test_status_of_a_running_agent(agent: RunningAgent) -> None:
    shown = krie("status", "--config", agent.config)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"Agent {agent.process.pid}, up " in shown.stdout
    assert f" s, version {version()}, policy " in shown.stdout
    assert "runtime_integrity observes" in " ".join(shown.stdout.split())
    assert "0 poisoned" in shown.stdout
    answer = json.loads(krie("status", "--json", "--config", agent.config).stdout)
    assert answer["tgid"] == agent.process.pid
    assert answer["version"] == version()
    assert answer["modes"] == {"runtime_integrity": "observe", "syscall_table": "observe"}
    assert answer["events"] > 0
    assert "runtime_integrity.bpf" in [each["name"] for each in answer["probes"]]
    assert ("agent", "baselines") in {(each["process"], each["phase"]) for each in answer["timings"]}
    assert (
        answer["memory"]["pss_by_part_kib"][RING] >= 4096
    )  # its ring of 8 MiB; the process that compares code maps it, too
    assert (answer["poisoned"], answer["bound_count"], answer["host"], answer["breakers"]) == ([], 0, None, [])


@pytest.mark.once
def test_asking_an_agent_imports_no_models(agent: RunningAgent) -> None:
    shown = imported_by(*KRIE[2:], "status", "--config", str(agent.config), cwd=agent.config.parent)
    assert shown & HEAVY == {"rich"}
    assert not imported_by(*KRIE[2:], "status", "--json", "--config", str(agent.config), cwd=Path("/")) & HEAVY


@pytest.mark.once
def test_running_imports_nothing_before_the_agent_does(config: Path) -> None:
    nowhere = str(config.parent / "none.toml")  # read by the agent only, whose imports are not listed here
    imported = imported_by(*KRIE[2:], "run", "--config", nowhere, cwd=config.parent)
    assert "krie.cli.main" in imported
    assert not imported & {*HEAVY, "krie.config_file", "krie.cli.render"}


@pytest.mark.once
@pytest.mark.skipif(SYSTEM.exists(), reason=f"this machine has a {SYSTEM}")
@pytest.mark.parametrize("command", [["status"], ["run"]])
def test_without_a_file(tmp_path: Path, command: list[str]) -> None:
    result = subprocess.run([*KRIE, *command], cwd=tmp_path, capture_output=True, text=True)
    if command == ["run"]:
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith(f"krie: krie.toml: not found, nor is {SYSTEM}; ")
    else:
        assert result.returncode in {0, 8}  # an agent may run on this machine
        assert result.stderr.startswith(
            f"krie: neither krie.toml nor {SYSTEM} exists: the default configuration is used\n"
        )


@pytest.mark.once
def test_status_tells_a_mistake_about_its_folder_as_the_agent_would(config: Path) -> None:
    for text in ('[agent]\nrun_dir = "run"', "[agent]\nrun_dir = 1", "agent = 1"):
        config.write_text(text)
        asked, run = krie("status", "--config", config), krie("run", "--config", config)
        assert (asked.returncode, asked.stderr) == (run.returncode, run.stderr)
        assert asked.returncode == 2


@pytest.mark.once
@pytest.mark.parametrize("what", [["4000000"], ["--rule", "SYSCTL001"], ["--all"]])
def test_clearing_is_told(agent: RunningAgent, what: list[str]) -> None:
    before = len(agent.lines("krie.cleared"))
    cleared = krie("clear", *what, "--config", agent.config)
    assert (cleared.returncode, cleared.stdout) == (0, "0 processes and 0 verdicts cleared\n")
    line = agent.wait("krie.cleared", count=before + 1)[before]
    assert line["event"]["what"] in {"tgid 4000000", "rule SYSCTL001", "all"}
    assert fired(line) == [("AGENT009", "log")]


@pytest.mark.once
@pytest.mark.parametrize("what", [[], ["1", "--all"], ["--rule", "R", "--all"]])
def test_clear_wants_one_thing(config: Path, what: list[str]) -> None:
    assert krie("clear", *what, "--config", config).returncode == 2


@pytest.mark.once
@pytest.mark.parametrize("command", [["status"], ["clear", "--all"]])
def test_where_no_agent_runs(config: Path, command: list[str]) -> None:
    result = krie(*command, "--config", config)
    assert (result.returncode, result.stdout) == (8, "")
    assert result.stderr.startswith("krie: no agent is running: nothing answers at ")


@pytest.mark.once
def test_on_a_terminal_people_can_read_it(config: Path) -> None:
    master, slave = pty.openpty()
    os.set_blocking(master, True)
    command = [*KRIE, "run", "--config", str(config), "--duration", "0.5"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160"}
    with subprocess.Popen(command, stdout=slave, stderr=slave, env=environment) as process:
        os.close(slave)
        output = b""
        while True:
            try:
                output += os.read(master, 65536)
            except OSError:
                break  # the terminal's other side is closed
    os.close(master)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output.decode())
    assert process.returncode == 0, text
    assert "runtime_integrity.sysctl_write" in text
    assert "probes alive, policy" in text
    assert "0.5 s elapsed" in text
    assert '"kind"' not in text


@pytest.mark.once
def test_doctor(config: Path) -> None:
    result = krie("doctor", "--config", config, "--json")
    assert result.returncode == 0, result.stdout
    report = json.loads(result.stdout)
    assert report["healthy"] is True
    assert report["version"] == version()
    assert report["from"] is None
    states = {each["name"]: each["state"] for each in report["probes"]}
    looks = {"runtime_integrity.look_timer", "runtime_integrity.look_moment"}  # no canary can prove these
    assert {states.pop(each) for each in looks} == {"attached"}
    assert {name for name, state in states.items() if state != "alive"} <= {"process.influence"}  # needs fentry
    assert states.keys() >= {"process.exec", "runtime_integrity.bpf"}
    assert report["blind_rules"] == []
    phases = {(each["process"], each["phase"]) for each in report["timings"]}
    assert phases >= {("agent", "canaries"), ("agent", "policy"), ("loader", "load and verify"), ("loader", "attach")}
    told = krie("doctor", "--timings", "--config", config).stdout
    assert all(re.search(rf"^{process} +{phase} +\d", told, re.MULTILINE) for process, phase in phases)
    assert any(each.startswith(f"KRIe {version()}, kernel ") for each in told.splitlines())
    for probe in report["probes"]:
        if probe["every_syscall"]:
            assert "every system call is" in told


@pytest.mark.once
def test_doctor_asks_the_running_agent_and_attaches_nothing(agent: RunningAgent, tmp_path: Path) -> None:
    def loaded() -> set[tuple[str, int]]:  # links come and go with programs that roam
        return {each for each in objects_of(agent.process.pid, frozenset()) if each[0] != "link"}

    before = loaded()
    asked = krie("doctor", "--config", agent.config, "--json")
    imported = imported_by(*KRIE[2:], "doctor", "--json", "--config", str(agent.config), cwd=tmp_path)
    assert not imported & {*HEAVY, "krie.agent.loading", "krie.kernel.bpf"}, "it could attach something"
    assert loaded() == before
    report = json.loads(asked.stdout)
    assert report["from"] == {"agent": agent.process.pid}
    nothing = {"loaded": False, "enforces": False, "refused": 0, "of": len(OPERATIONS), "probes": []}
    assert report["containment"] == nothing
    elsewhere = tmp_path / "krie.toml"
    elsewhere.write_text(agent.config.read_text().replace(str(agent.run_dir), str(tmp_path / "run")))
    elsewhere.chmod(0o600)
    tmp_path.chmod(0o700)
    tried = json.loads(krie("doctor", "--config", elsewhere, "--json").stdout)
    assert tried["from"] is None
    assert tried["containment"]["loaded"]
    for same in ("version", "kernel", "modes", "rules", "blind_rules", "problems", "degraded"):
        assert report[same] == tried[same]
    by_name = [{each["name"]: each["alternative"] for each in found["probes"]} for found in (report, tried)]
    assert by_name[0] == by_name[1]
    broken = {each["name"].partition(".")[0] for each in report["probes"] if each["state"] in ("missing", "silent")}
    assert broken <= {"process", "syscall_table"}  # what these have beyond looks needs fentry or kprobes
    assert (report["healthy"], asked.returncode) == ((False, 5) if "syscall_table" in broken else (True, 0))
    shown = krie("doctor", "--config", agent.config).stdout
    assert f"as the running agent (tgid {agent.process.pid}) reports" in shown.splitlines()


@pytest.mark.once
def test_doctor_tells_blind_rules(config: Path) -> None:
    config.write_text(config.read_text().replace("allow_syscall_tracepoints = true", ""))
    result = krie("doctor", "--config", config, "--json")
    report = json.loads(result.stdout)
    missing = {each["name"] for each in report["probes"] if each["state"] == "missing" and not each["optional"]}
    blind = {each["id"] for each in report["blind_rules"]}
    assert result.returncode == (5 if missing else 0)
    assert ("BPF001" in blind) is ("runtime_integrity.bpf" in missing)
    assert ("PTRACE001" in blind) is ("runtime_integrity.ptrace" in missing)
    agent = krie("run", "--config", config, "--duration", 0.2)
    lines = [json.loads(line) for line in agent.stdout.splitlines()]
    told = [set(line["event"]["blind"].split()) for line in lines if line["kind"] == "krie.probe"]
    assert set().union(*told) == blind
    assert all(f"rule {each} (" in agent.stderr for each in blind)


@pytest.mark.once
def test_plugins_and_events(config: Path) -> None:
    listed = json.loads(krie("plugins", "--config", config, "--json").stdout)
    loaded = json.loads(krie("plugins", "--load", "--config", config, "--json").stdout)
    assert [{name: row[name] for name in listed[0]} for row in loaded] == listed
    assert "ptrace" in next(row for row in loaded if row["name"] == "runtime_integrity")["probes"]
    states = {each["name"]: each["state"] for each in listed}
    assert (states["runtime_integrity"], states["smep_smap"]) == ("observe", "not configured")
    assert "target_tgid" in krie("events", "--config", config).stdout
    schemas = json.loads(krie("events", "--config", config, "--schema").stdout)
    for schema in (*schemas["event"].values(), schemas["process"]):
        jsonschema.Draft7Validator.check_schema(schema)
        assert schema["additionalProperties"] is False


@pytest.mark.once
def test_journal_lines_obey_the_schemas(config: Path) -> None:
    schemas = json.loads(krie("events", "--config", config, "--schema").stdout)
    lines = krie("run", "--config", config, "--duration", 0.3).stdout.splitlines()
    for line in map(json.loads, lines):
        jsonschema.validate({"kind": line["kind"], **line["event"]}, schemas["event"][line["kind"]])
        jsonschema.validate({**line["process"], "ancestors": []}, schemas["process"])


@pytest.mark.once
def test_policy_check_and_eval(config: Path) -> None:
    checked = json.loads(krie("policy", "check", "--config", config, "--json").stdout)
    assert "SYSCTL001" in {each["id"] for each in checked["rules"]}
    event = {
        "name": "kernel/kptr_restrict",
        "new_parsed": True,
        "new_int": 0,
        "old_parsed": True,
        "old_int": 1,
        "file_pos": 0,
        "change": "lower",
    }
    document = {"kind": "runtime_integrity.sysctl_write", "event": event, "process": {}}
    decision = json.loads(krie("policy", "eval", "--partial", "--config", config, text=json.dumps(document)).stdout)
    assert (decision["action"], decision["rules"]) == ("override", [{"id": "SYSCTL001", "action": "override"}])
    assert krie("policy", "eval", "--config", config, text="{").returncode == 4


@pytest.mark.once
def test_mistakes_lead_to_the_place(config: Path) -> None:
    folder = config.parent / "rules"
    folder.mkdir()
    rules = folder / "mine.rego"
    config.write_text(config.read_text() + '[policy]\npaths = ["rules"]\n')
    rules.write_text(
        'package krie.mine\nrules contains {"id": "M1", "action": "log"} if {\n\tinput.event.kind == \n}\n'
    )
    broken = krie("policy", "check", "--config", config)
    assert (broken.returncode, broken.stderr) == (4, f"krie: {rules}:4:1: expecting expression\n")
    rules.write_text(
        'package krie.mine\nrules contains {"id": "M1", "action": "log"} if {\n'
        '\tinput.event.kind == "runtime_integrity.bpf"\n\tinput.event.comand == "x"\n}\n'
    )
    said = f"{rules}:4:2: rule M1: input.event has no comand; did you mean command?\n"
    misspelt = krie("policy", "check", "--config", config)
    assert (misspelt.returncode, misspelt.stderr) == (0, f"warning: {said}")
    strict = krie("policy", "check", "--strict", "--config", config)
    assert (strict.returncode, strict.stderr) == (4, f"error: {said}")
    config.write_text("[agent]\nring_mb = 3\n")
    wrong = krie("doctor", "--config", config)
    assert (wrong.returncode, wrong.stderr) == (
        2,
        f"krie: {config}: agent.ring_mb: no such key; did you mean 'ring_mib'?\n",
    )


@pytest.mark.once
def test_without_root(config: Path) -> None:
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    result = subprocess.run([*as_nobody, *KRIE, "run", "--config", str(config)], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (3, "krie: attaching BPF programs needs root; use sudo\n")


@pytest.mark.once
def test_help_teaches() -> None:
    text = krie("--help").stdout
    assert "Start with krie doctor" in text
    assert "Exit codes: 0 all is well\n    1 a bug" in text
    for command in ("run", "doctor", "plugins", "events", "policy"):
        assert krie(command, "--help").returncode == 0
