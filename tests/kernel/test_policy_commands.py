"""`krie policy explain` and `verify`, as a user runs them."""

import json
import re
from pathlib import Path

import pytest

from .test_cli import krie

pytestmark = pytest.mark.once
ROOT = Path(__file__).parents[2]
INLINE = """package krie.mine

# METADATA
# custom: {enforce: inline}
rules contains {"id": "M1", "action": "override"} if {
	input.event.kind == "runtime_integrity.ptrace"
	input.process.uid == input.process.euid
}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    file = tmp_path / "krie.toml"
    file.write_text(f'[agent]\nrun_dir = "{tmp_path}/run"\n[plugins.runtime_integrity]\nmode = "enforce"\n')
    return file


def test_explain_tells_the_tier_and_why(settings: Path) -> None:
    found = {each["id"]: each for each in json.loads(krie("policy", "explain", "-c", settings, "--json").stdout)}
    kernel, user, logs = (found[each] for each in ("SYSCTL001", "PTRACE004", "BPF001"))
    assert (kernel["tier"], kernel["why"], kernel["first_attempt"]) == ("kernel", "", "is refused with error 1.")
    protected = json.loads((ROOT / "policies/runtime_integrity/protected_sysctls.json").read_text())
    # Each of them, and any other name.
    assert kernel["classes"]["input.event.name"] == len(protected["protected_sysctls"]) + 1
    assert 0 < kernel["rows"] < kernel["of_rows"]
    assert (user["tier"], user["first_attempt"]) == (
        "user",
        "goes through; further ones of its kind by this process are refused.",
    )
    assert re.search(r"/ptrace\.rego:\d+: input\.event\.target is not an inline field", user["why"])
    assert (logs["tier"], logs["first_attempt"]) == ("user", "goes through; the journal tells")
    assert set(found["PTRACE001"]["honours"]) == {"lsm", "fmod_ret", "kprobe_override"}
    assert set(found["PTRACE001"]["lacks"]) == {"kprobe", "syscall"}


def test_explain_one_rule(settings: Path) -> None:
    shown = krie("policy", "explain", "SYSCTL001", "-c", settings).stdout
    assert "A protected sysctl is weakened" in shown
    assert "cgroup_sysctl" in shown
    unknown = krie("policy", "explain", "NOBODY", "-c", settings)
    assert (unknown.returncode, unknown.stderr) == (
        4,
        "krie: no rule has the id NOBODY; krie policy check lists them\n",
    )


def test_verify_finds_nothing_wrong_with_the_shipped_rules(settings: Path) -> None:
    result = krie("policy", "verify", "-c", settings, "--events", 600, "--kernel", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["disagreements"] == []
    assert found["tried"].keys() >= {f"runtime_integrity.{each}" for each in ("ptrace", "bpf", "sysctl_write")}
    assert all(found["decided"].values())


def test_what_must_be_inline_and_cannot_be(settings: Path) -> None:
    rules = settings.parent / "rules"
    rules.mkdir()
    (rules / "mine.rego").write_text(INLINE)
    settings.write_text(settings.read_text() + '[policy]\npaths = ["rules"]\n')
    for command in ("check", "explain", "verify"):
        result = krie("policy", command, "-c", settings)
        assert result.returncode == 4
        assert f"{rules}/mine.rego:5: rule M1 demands `enforce: inline`, and " in result.stderr
        assert "input.process.uid is compared with something that is not a constant" in result.stderr
