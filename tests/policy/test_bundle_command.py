"""`krie policy bundle`: what a configuration has in force, as OPA takes it."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from krie.cli.policy import policy as policy_command
from krie.config import load_config
from krie.errors import ConfigError, PolicyError
from krie.plugin.offline import load_plugins
from krie.policy.bundle import read_bundle
from krie.policy.serial import serial_of
from krie.tier.subject import Subject, subject_of
from krie.tier.tried import tried_engine

OPA = Path(__file__).parents[2] / ".cache/tools/opa"
SITE = 'package krie.site\n\nrules contains {"id": "SITE", "action": "log"} if input.process.program == "tool"\n'

MASKS = """package system.log

mask contains "/input/process/comm"

drop if input.custom.kind == "x"

rules contains {"id": "NO", "action": "kill"}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/site.rego").write_text(SITE)
    (tmp_path / "site/site_test.rego").write_text("package krie.site_test\n\ntest_x if true\n")
    (tmp_path / "krie.toml").write_text(
        f'[policy]\npaths = ["site"]\n[executables]\ntool = "{tmp_path}/tool"\n[plugins.runtime_integrity]\n'
    )
    return tmp_path / "krie.toml"


def run(*arguments: object) -> str:
    answer = CliRunner().invoke(policy_command, list(map(str, arguments)), catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def test_it_has_all_that_is_in_force_and_its_revision(config: Path, tmp_path: Path) -> None:
    output = tmp_path / "b.tar.gz"
    shown = json.loads(run("bundle", "--config", config, "--output", output, "--json"))
    bundle = read_bundle(output.read_bytes(), "b")
    assert shown["revision"] == bundle.revision == json.loads(run("check", "--config", config, "--json"))["revision"]
    assert (shown["bytes"], shown["signed"]) == (output.stat().st_size, False)
    assert {"site/site.rego", "runtime_integrity/ptrace.rego", "agent/agent.rego"} <= bundle.files.keys()
    assert not any("_test" in each or "smep" in each for each in bundle.files)
    assert bundle.sources.data["executables"] == {"tool": f"{tmp_path}/tool"}
    before = output.read_bytes()
    said = run("bundle", "--config", config, "--output", output)
    assert said == f"{output}: revision {bundle.revision}, {len(before)} bytes, not signed\n"
    assert output.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir() if "tar" in each.name] == ["b.tar.gz"]
    assert output.stat().st_mode & 0o777 == 0o644


def test_opa_takes_it_signed_and_inspects_it(config: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("0123456789abcdef0123456789abcdef\n")
    output = tmp_path / "b.tar.gz"
    options = ("--sign", tmp_path / "secret", "--algorithm", "HS256", "--serial", 7)
    revision = json.loads(run("bundle", "--config", config, "--output", output, *options, "--json"))["revision"]
    assert serial_of(read_bundle(output.read_bytes(), "b")) == 7
    key = ("--verification-key", "0123456789abcdef0123456789abcdef", "--signing-alg", "HS256")
    built = subprocess.run([OPA, "build", "-b", output, *key, "-o", tmp_path / "out.tar.gz"], check=False)
    assert built.returncode == 0
    inspected = subprocess.run([OPA, "inspect", "-f", "json", output], capture_output=True, check=True).stdout
    assert json.loads(inspected)["manifest"]["revision"] == revision
    document = json.dumps({"event": {"kind": "a.b"}, "process": {"program": "tool"}})
    asked: list[str | Path] = [OPA, "eval", "-b", output, "-I", "--format", "raw", "data.krie.decision.result.rules"]
    answer = subprocess.run(asked, input=document.encode(), capture_output=True, check=True).stdout
    assert json.loads(answer) == [{"id": "SITE", "action": "log"}]


def test_its_serial_is_given_or_the_time(config: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("0123456789abcdef0123456789abcdef\n")
    output = tmp_path / "b.tar.gz"
    signed = ("--sign", tmp_path / "secret", "--algorithm", "HS256")
    started = int(time.time())
    for options, least, most in (((), None, None), (("--serial", 7), 7, 7), (signed, started, started + 600)):
        run("bundle", "--config", config, "--output", output, *options)
        serial = serial_of(read_bundle(output.read_bytes(), "b"))
        assert serial is None if least is None else least <= (serial or 0) <= (most or 0)
    run("bundle", "--config", config, "--output", output, *signed, "--serial", 9)
    assert serial_of(read_bundle(output.read_bytes(), "b")) == 9


def test_commands_take_a_bundle_for_the_policy(config: Path, tmp_path: Path) -> None:
    """Signed, in a file, or as the agent keeps it of a URL."""
    (tmp_path / "secret").write_text("0123456789abcdef0123456789abcdef\n")
    (tmp_path / "secret").chmod(0o600)
    output = tmp_path / "b.tar.gz"
    options = ("--sign", tmp_path / "secret", "--algorithm", "HS256")
    revision = json.loads(run("bundle", "--config", config, "--output", output, *options, "--json"))["revision"]
    keys = '[bundle.keys.ci]\nfile = "secret"\nalgorithm = "HS256"\n'
    rest = f'{keys}[plugins.runtime_integrity]\n[agent]\nstate_dir = "{tmp_path}/state"\n'
    other = tmp_path / "other.toml"
    other.write_text(f'[policy]\nbundle = "b.tar.gz"\n{rest}')
    assert json.loads(run("check", "--config", other, "--json"))["revision"] == revision
    other.write_text(f'[policy]\nbundle = "https://a/b.tar.gz"\n{rest}')
    assert json.loads(run("check", "--config", other, "--json"))["revision"] != revision  # there is none yet
    (tmp_path / "state/bundle").mkdir(parents=True)
    (tmp_path / "state/bundle/active.tar.gz").write_bytes(output.read_bytes())
    assert json.loads(run("check", "--config", other, "--json"))["revision"] == revision
    run("bundle", "--config", config, "--output", tmp_path / "state/bundle/active.tar.gz")
    with pytest.raises(PolicyError, match=r"active\.tar\.gz: is not signed"):
        run("check", "--config", other)


def test_the_kernel_s_tables_are_the_same_from_folders_and_from_their_bundle(config: Path, tmp_path: Path) -> None:
    site = (
        SITE.replace("log", "override")
        .replace("if ", 'if {\n\tinput.event.kind == "runtime_integrity.sysctl_write"\n\t')
        .replace('"tool"', '"tool"\n}')
    )
    (tmp_path / "site/site.rego").write_text(site)
    run("bundle", "--config", config, "--output", tmp_path / "b.tar.gz")
    other = tmp_path / "other.toml"
    other.write_text(config.read_text().replace('paths = ["site"]', 'bundle = "b.tar.gz"'))
    folders, bundle = map(subject, (config, other))
    assert bundle.engine.revision == folders.engine.revision
    assert bundle.tables() == folders.tables()
    assert {"SITE", "SYSCTL001"} <= {rule for each in bundle.types for rule in bundle.tiers.in_kernel(each.name)}
    (tmp_path / "site/site.rego").write_text(site.replace('program == "tool"', 'program != "tool"'))
    assert bundle.tables() != subject(config).tables()


def subject(config: Path) -> Subject:
    settings = load_config(config)
    loaded, _ = load_plugins(settings, str(config))
    return subject_of(settings, loaded, tried_engine(settings, loaded))


def test_masks_of_decision_logs_are_part_of_it_and_decide_nothing(config: Path, tmp_path: Path) -> None:
    rules = json.loads(run("check", "--strict", "--config", config, "--json"))["rules"]
    (tmp_path / "site/mask.rego").write_text(MASKS)
    assert json.loads(run("check", "--strict", "--config", config, "--json"))["rules"] == rules
    output = tmp_path / "b.tar.gz"
    run("bundle", "--config", config, "--output", output)
    command: list[str | Path] = [OPA, "eval", "-b", output, "-I", "--format", "raw"]

    def asked(query: str, document: object) -> object:
        said = subprocess.run([*command, query], input=json.dumps(document).encode(), capture_output=True, check=True)
        return json.loads(said.stdout)

    assert asked("data.system.log", {"custom": {"kind": "x"}})["mask"] == ["/input/process/comm"]  # type: ignore[index]
    document = {"event": {"kind": "a.b"}, "process": {"program": "tool"}}
    assert asked("data.krie.decision.result.rules", document) == [{"id": "SITE", "action": "log"}]


def test_what_does_not_compile_or_cannot_be_written_leaves_the_file_before(config: Path, tmp_path: Path) -> None:
    output = tmp_path / "b.tar.gz"
    output.write_bytes(b"before")
    (tmp_path / "site/site.rego").write_text(SITE + "x := y\n")
    with pytest.raises(PolicyError, match=r"site\.rego:4"):
        run("bundle", "--config", config, "--output", output)
    (tmp_path / "site/site.rego").write_text(SITE.replace("krie.site", "krie.decision"))
    with pytest.raises(PolicyError, match=r"site\.rego:1: package krie.decision is KRIe's own"):
        run("bundle", "--config", config, "--output", output)
    (tmp_path / "site/site.rego").write_text(SITE)
    for wrong, problem in ((tmp_path, "is a folder"), (tmp_path / "none/b", "cannot be written: No such file")):
        with pytest.raises(ConfigError, match=problem):
            run("bundle", "--config", config, "--output", wrong)
    with pytest.raises(PolicyError, match="this key cannot sign"):
        run("bundle", "--config", config, "--output", output, "--sign", tmp_path / "krie.toml")
    assert output.read_bytes() == b"before"


def test_what_is_no_file_is_not_replaced_by_one(config: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"before")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "out").symlink_to("/dev/stdout")
    (tmp_path / "nowhere").symlink_to("none")
    os.mkfifo(tmp_path / "pipe")
    before = {name: (tmp_path / name).lstat().st_ino for name in ("link", "out", "nowhere", "pipe")}
    for name in before:
        with pytest.raises(ConfigError, match="is not a regular file, and would be replaced by one"):
            run("bundle", "--config", config, "--output", tmp_path / name)
    assert {name: (tmp_path / name).lstat().st_ino for name in before} == before
    assert (tmp_path / "file").read_bytes() == b"before"
