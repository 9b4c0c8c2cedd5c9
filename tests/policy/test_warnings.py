"""Names for general tools are told: rules that trust them trust whoever executes them."""

import re
import tomllib
from pathlib import Path

import krie
import pytest
from click.testing import CliRunner
from krie.cli.policy import policy
from krie.errors import ExitCode
from krie.policy.embedded import EmbeddedEngine
from krie.policy.sources import PolicyFile, PolicySources
from krie.review.warnings import general_tools, slow_packages

from .warned import rule

SAMPLE = Path(krie.__file__).with_name("sample.toml")
SUGGESTED = re.compile(r'# [\w-]+ = "/usr/s?bin/[\w-]+"')


@pytest.mark.parametrize(
    "path",
    [
        "/bin/sh",
        "/usr/bin/python3.11",
        "/usr/bin/gdb",
        "/lib64/ld-linux-x86-64.so.2",
        "/bin/busybox",
        "/bin/awk",
        "/usr/sbin/bpftool",
    ],
)
def test_a_named_or_protected_general_tool_is_told(path: str) -> None:
    told = list(general_tools({"mine": path}, [path]))
    assert [(each.place, each.code) for each in told] == [
        ("executables.mine", "general_tool"),
        ("enforcement.protected", "general_tool"),
    ]


def test_what_loads_modules_is_told_where_it_is_protected() -> None:
    path = "/usr/bin/kmod"
    assert [each.place for each in general_tools({"mine": path}, [path])] == ["enforcement.protected"]


def test_no_shipped_name_is_one_also_not_those_that_are_suggested() -> None:
    text = SAMPLE.read_text()
    named = tomllib.loads(text)["executables"]
    commented = "\n".join(line[2:] for line in text.splitlines() if SUGGESTED.fullmatch(line))
    suggested = tomllib.loads(commented)
    assert {"kmod", "tcpdump"} <= named.keys() | suggested.keys()
    assert not list(general_tools({**named, **suggested}, []))


def test_a_link_to_one_is_one(tmp_path: Path) -> None:
    (tmp_path / "python3").write_text("")
    (tmp_path / "tool").symlink_to("python3")
    (told,) = general_tools({"tool": str(tmp_path / "tool")}, [])
    assert str(told) == (
        "executables.tool: python3 does what its arguments say, so rules that trust 'tool' trust everybody; "
        "name a program that does one thing"
    )
    assert told.to_json()["file"] == "executables.tool"


def test_programs_that_do_one_thing_are_not(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("sshd", "apt", "sysctl", "systemd", "pythonic", "gdbm_dump")]
    assert not list(general_tools(dict(zip("abcdef", paths, strict=True)), paths))


def test_the_command_tells_them_and_strict_takes_them_for_errors(tmp_path: Path) -> None:
    config = tmp_path / "krie.toml"
    config.write_text(
        '[plugins.smep_smap]\n[enforcement]\nprotected = ["/usr/bin/gdb"]\n[executables]\nmine = "/bin/sh"\n'
    )
    done = CliRunner().invoke(policy, ["check", "--strict", "--config", str(config)])
    assert done.exit_code == ExitCode.POLICY
    assert [line.split(": ")[:2] for line in done.stderr.splitlines()] == [
        ["error", "enforcement.protected"],
        ["error", "executables.mine"],
    ]


def test_a_package_that_takes_longer_than_a_decision_may() -> None:
    (package,) = EmbeddedEngine(PolicySources((PolicyFile("p.rego", rule("")),), {}, "r")).packages
    assert list(slow_packages([package], {package.name: 0.999}, 1000)) == []
    (found,) = slow_packages([package], {package.name: 1.25}, 1000)
    assert (found.code, found.place.partition(":")[0]) == ("slow", "p.rego")
    assert "krie.site took 1.2 s" in found.what
    assert "1000 ms" in found.fix


def test_the_time_that_a_package_takes_is_measured() -> None:
    dear = "\tcount([1 | some a in numbers.range(1, 300); some b in numbers.range(1, 300); a == b]) > 1"
    texts = {
        "dear": f'package krie.dear\n\nrules contains {{"id": "D1", "action": "log"}} if {{\n{dear}\n}}\n',
        "cheap": rule("").replace("krie.site", "krie.cheap"),
    }
    files = tuple(PolicyFile(f"{name}.rego", text) for name, text in texts.items())
    tried_s = EmbeddedEngine(PolicySources(files, {}, "r")).tried_s
    assert tried_s["data.krie.dear"] > 10 * tried_s["data.krie.cheap"]
