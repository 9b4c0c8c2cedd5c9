"""`krie policy check`: warnings for people and machines, errors where they are asked for, and its exit code."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from krie.cli.policy import policy as policy_command
from krie.errors import PolicyError

from .warned import BPF, ROOT, SYSCTL, rule


def test_shipped_policies_have_no_warnings_with_any_configuration(tmp_path: Path) -> None:
    for text in ((ROOT / "krie.toml").read_text(), "[plugins.runtime_integrity]\n[plugins.smep_smap]\n", ""):
        (tmp_path / "krie.toml").write_text(text)
        done = CliRunner().invoke(policy_command, ["check", "--strict", "--config", str(tmp_path / "krie.toml")])
        assert (done.exit_code, done.stderr) == (0, "")


def check(tmp_path: Path, rego: str, *arguments: str, toml: str = "") -> Any:
    (tmp_path / "rules").mkdir(exist_ok=True)
    (tmp_path / "rules/mine.rego").write_text(rego)
    config = tmp_path / "krie.toml"
    config.write_text(toml or f'policy.paths = ["{tmp_path}/rules"]\n[plugins.runtime_integrity]\n')
    return CliRunner().invoke(policy_command, ["check", "--config", str(config), *arguments])


def test_warnings_are_errors_with_strict(tmp_path: Path) -> None:
    text, place = rule('\tinput.event.change == "lowr"'), f"{tmp_path}/rules/mine.rego:5:2"
    said = f'{place}: rule R1: "lowr" is not a value of input.event.change; did you mean lower?\n'
    lax, strict = check(tmp_path, text), check(tmp_path, text, "--strict")
    assert (lax.exit_code, lax.stderr.splitlines(keepends=True)[-2]) == (0, f"warning: {said}")
    assert (strict.exit_code, strict.stderr.splitlines(keepends=True)[-2]) == (4, f"error: {said}")
    fine = check(tmp_path, rule('\tinput.event.change == "lower"'), "--strict")
    assert (fine.exit_code, fine.stderr) == (0, "")


KINDS = {
    "enumeration": ('\tinput.event.change == "lowr"', ""),
    "flag": ('\tinput.event.kind != "x"\n\t"send_signl" in input.event.helpers', ""),
    "unlike types": ('\tinput.event.new_int == "0"', ""),
    "never fires": ("\tinput.event.new_int > 5\n\tinput.event.new_int < 3", ""),
    "action of METADATA": ("\ttrue", "# METADATA\n# custom: {id: R1, action: kill}\n"),
    "severity": ("\ttrue", "# METADATA\n# custom:\n#   severity: hihg\n"),
    "rule for rules": ("\ttrue", 'rule contains {"id": "R2", "action": "kill"} if input.process.uid == 5\n'),
    "program": ('\tinput.process.program == "sysctll"', ""),
    "data": ("\tdata.no_such_document[input.event.name]", ""),
    "host": ('\tinput.host.nmae == "x"', ""),
    "ancestors": ('\tinput.process.ancestors[_].exee == "/x"', ""),
}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_mistake_is_a_warning_and_with_strict_an_error(tmp_path: Path, name: str) -> None:
    body, more = KINDS[name]
    head, rest = (more, "") if more.startswith("#") else ("", more)
    text = rule(body, rest, head=head, kind=BPF if name == "flag" else SYSCTL)
    lax, strict = check(tmp_path, text), check(tmp_path, text, "--strict")
    warned = [each.removeprefix("warning: ") for each in lax.stderr.splitlines() if each.startswith("warning: ")]
    assert (lax.exit_code, strict.exit_code) == (0, 4)
    assert any(f"{tmp_path}/rules/mine.rego:" in each for each in warned)
    assert [f"error: {each}" for each in warned] == [each for each in strict.stderr.splitlines() if "error: " in each]


@pytest.mark.parametrize("data", ['{"a": NaN}', '{"a": 1, "a": 2}', '{"a": {"b": 1, "b": 1}}'])
@pytest.mark.parametrize("strict", [(), ("--strict",)])
def test_data_that_are_read_otherwise_elsewhere_are_always_an_error(
    tmp_path: Path, data: str, strict: tuple[str, ...]
) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/mine.json").write_text(data)
    done = check(tmp_path, rule('\tinput.event.change == "lower"'), *strict)
    assert isinstance(done.exception, PolicyError)
    assert str(done.exception).startswith(f"{tmp_path}/rules/mine.json:1:")


def test_warnings_for_machines(tmp_path: Path) -> None:
    done = check(tmp_path, rule('\tinput.event.change == "lowr"'), "--json", "--strict")
    answer = json.loads(done.stdout)
    assert done.exit_code == 4
    file = f"{tmp_path}/rules/mine.rego"
    value, never = answer["warnings"]
    assert value == {
        "code": "meaning",
        "file": file,
        "line": 5,
        "column": 2,
        "rule": "R1",
        "what": '"lowr" is not a value of input.event.change',
        "fix": "did you mean lower?",
    }
    assert (never["code"], never["file"], never["line"], never["column"]) == ("never", file, 3, 0)
    assert answer["problems"][0] == f"{file}:5:2: rule R1: {value['what']}; {value['fix']}"
    assert json.loads(check(tmp_path, rule("\tinput.event.new_parsed"), "--json").stdout)["warnings"] == []
