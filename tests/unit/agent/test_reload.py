"""Policy files as one agent loads them, again and again; a load that fails leaves everything as it was."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from importlib.resources.abc import Traversable
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import cast

import pytest
from krie import Alternative, AttachType, Enforcement, Probe, Program, Sensor
from krie.agent.policy_files import PolicyFiles, event_fields
from krie.config import Config
from krie.errors import ConfigError, PolicyError
from krie.events.identity import Identity
from krie.plugin.report import ProbeReport
from krie.policy.snapshot import Stamp, stamp_of
from krie.processes.enrich import Enricher
from krie.testing.patience import PATIENCE_S
from krie.tier.candidate import Candidate
from krie.tier.domain import Numbers

from ...policy.sample import Sample
from ..kernel_side import KernelSide, armed

RULE = """package krie.site

rules contains {"id": "%s", "action": "override"} if {
	input.event.kind == "sample.seen"
	input.process.uid == 5
}
"""
INLINE = """package krie.other

# METADATA
# custom: {enforce: inline}
rules contains {"id": "OTHER", "action": "kill"} if input.event.free == 5
"""


MADE = ExitStack()
OF_SERVER, OF_PROCESSES = 2, 4
"""Open files of a policy in force: a socket and what it says, for each of its two processes."""


@pytest.fixture(autouse=True)
def end_processes() -> Iterator[None]:
    with MADE:
        yield


class Setting:
    def __init__(self, folder: Path, *can: Enforcement, **config: object) -> None:
        self.folder, self.tool = folder / "policies", folder / "tool"
        self.folder.mkdir()
        self.rule("R1")
        self.tool.touch()
        program = Program(AttachType.LSM, "file_open", "sample_x")
        way = Alternative("lsm", (program,), can=frozenset(can or {Enforcement.REFUSE}))
        made = armed(
            KernelSide(),
            Sensor("sample", "1", events=(Sample,)),
            reports=[ProbeReport("sample", Probe("x", Sample, (way,)), way, "alive", {})],
        )
        self.enricher = cast("Enricher", SimpleNamespace(programs={}))
        settings = {"policy": {"paths": (str(self.folder),)}, "executables": {"tool": str(self.tool)}, **config}
        self.in_force = Numbers()
        self.files = PolicyFiles(
            Config.model_validate(settings),
            made.plugins,
            made.types,
            made.probes,
            made.inspector.identify,
            self.enricher,
            lambda: self.in_force,
        )
        MADE.callback(self.files.close)

    def load(self) -> Candidate:
        candidate = self.files.load()
        assert candidate.evaluator is not None
        MADE.callback(candidate.evaluator.close)
        return candidate

    def rule(self, name: str) -> None:
        (self.folder / "site.rego").write_text(RULE % name)

    @property
    def rules(self) -> set[str]:
        """Ids of what would be in force."""
        return {each.id for each in self.load().policy.rules if each.package == "data.krie.site"}


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_rules_of_the_core_and_of_the_site_are_loaded_with_their_tiers(tmp_path: Path) -> None:
    candidate = Setting(tmp_path).load()
    ids = {each.id for each in candidate.policy.rules}
    assert {"AGENT001", "R1"} <= ids
    assert {(each.rule.id, each.tier) for each in candidate.tiers.placements} == {("R1", "kernel")}
    assert list(candidate.executables.names.values()) == ["tool"]
    assert set(candidate.numbers.files) == set(candidate.executables.names)


REFUSING = """echo '{"errors": [{"code": "rego_type_error", "message": "no",
 "location": {"file": "0.rego", "row": 2, "col": 3}}]}' >&2; exit 1"""


@pytest.mark.parametrize(("does", "problem"), [("exit 0", ""), ("exit 3", "opa: ended with code 3: it said nothing")])
def test_a_configured_opa_is_asked_at_each_load(tmp_path: Path, does: str, problem: str) -> None:
    opa = tmp_path / "opa"
    setting = Setting(tmp_path, policy={"paths": (str(tmp_path / "policies"),), "opa": str(opa)})
    opa.write_text(f"#!/bin/sh\n{does}\n")
    opa.chmod(0o755)
    assert [each for each in setting.load().problems if "opa" in each] == (
        [f"policy.opa: OPA's checker was not asked: {tmp_path}/{problem}"] if problem else []
    )
    opa.write_text(f"#!/bin/sh\n{REFUSING}\n")
    with pytest.raises(PolicyError, match=r"agent.rego:2:3: OPA refuses this: no \(type error\)"):
        setting.files.load()


def test_what_the_attached_probe_cannot_do_stays_with_user_space(tmp_path: Path) -> None:
    (placement,) = Setting(tmp_path, Enforcement.KILL).load().tiers.placements
    assert (placement.tier, placement.why) == ("user", "sample.x (lsm) cannot refuse")


def test_numbers_go_on_from_those_in_force(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    setting.in_force = Numbers(files={Identity(1, 1, 1): 1})
    first = setting.load().numbers
    (number,) = first.files.values()
    assert number == 2  # 1 may still be in use
    setting.in_force = first
    assert setting.load().numbers.files == first.files


def test_names_are_in_force_only_once_adopted(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    candidate = setting.load()
    assert setting.enricher.programs == {}
    setting.files.adopt(candidate)
    assert setting.enricher.programs is candidate.executables.names


def test_executables_are_held_as_long_as_their_names_are_in_force(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    before = open_files()
    for _ in range(3):
        setting.files.adopt(setting.load())
        assert open_files() == before + 1 + OF_PROCESSES
    setting.files.close()
    assert open_files() == before - OF_SERVER


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("broken.rego", "package krie.broken\n\nrules contains", r"broken.rego:3"),
        ("other.rego", INLINE, "demands `enforce: inline`"),
        ("data.json", '{"executables": {}}', "krie.toml sets too"),
        ("krie.json", '{"krie": {"agent": {"rules": []}}}', "data.krie would take the place of package krie"),
        ("nan.json", '{"mine": NaN}', r"nan.json:1:10: is not valid JSON: NaN"),
        ("agent.rego", "package krie.agent\nx := 1\n", "agent.rego:1: package krie.agent is or touches"),
        ("imports.rego", "package krie.site\nimport data.a as uid\nuid := 5\n", "uid is a rule here and an import"),
        ("circle.rego", "package krie.circle\nf(x) := f(x)\n", r"circle.rego:2:9: krie.circle.f is recursive"),
        ("function.rego", "package krie.function\nu if nosuch(1)\n", "function.rego:2:6: there is no function nosuch"),
        ("unsafe.rego", "package krie.unsafe\nu := y if true\n", "unsafe.rego:2:6: variable y is unsafe"),
        ("type.rego", "package krie.type\nu if count(7) > 1\n", "type.rego:2:6: argument 1 of count is a number"),
        ("deep.rego", f"package krie.deep\nu := {'[' * 40}", r"deep.rego:2:18: is nested deeper than 12 levels"),
        ("yaml.rego", "# METADATA\n# a: [\npackage krie.yaml\n", "yaml.rego:1: METADATA: is not YAML"),
        ("twice.rego", RULE.replace("krie.site", "krie.twice") % "R1", "R1 exists already"),
    ],
)
def test_a_load_that_fails_leaves_everything_as_it_was(tmp_path: Path, name: str, text: str, message: str) -> None:
    setting = Setting(tmp_path)
    setting.files.adopt(setting.load())
    names, files = setting.enricher.programs, open_files()
    (setting.folder / name).write_text(text)
    with pytest.raises(PolicyError, match=message):
        setting.load()
    assert setting.enricher.programs is names
    assert open_files() == files
    assert not setting.files.changed()  # it is not tried again until it changes
    (setting.folder / name).unlink()
    assert setting.files.changed()
    assert setting.rules == {"R1"}


def test_files_that_others_can_change_are_refused(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    (setting.folder / "site.rego").chmod(0o666)
    with pytest.raises(ConfigError, match="can be changed by other users"):
        setting.load()


def test_what_makes_it_load_again(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    assert setting.files.changed()  # nothing was loaded yet
    setting.load()
    assert not setting.files.changed()
    site = setting.folder / "site.rego"
    status = site.stat()

    setting.rule("R2")
    os.utime(site, ns=(status.st_atime_ns, status.st_mtime_ns))
    (setting.folder / "deeper").mkdir()
    (setting.folder / "notes.txt").write_text("nobody reads this")
    assert setting.files.changed()  # the same file, size and time, but not the same time of its last change
    setting.load()

    replaced = setting.folder / "site.new"
    replaced.write_text(RULE % "R3")
    os.utime(replaced, ns=(status.st_atime_ns, status.st_mtime_ns))
    replaced.rename(site)  # as editors save, and at once
    assert setting.files.changed()
    assert setting.rules == {"R3"}

    (setting.folder / "deeper/more.json").write_text('{"more": 1}')
    assert setting.files.changed()
    setting.load()
    (setting.folder / "deeper/more.json").write_text('{"more": 12}')
    assert setting.files.changed()
    setting.load()
    (setting.folder / "deeper/more.json").unlink()
    assert setting.files.changed()


def test_folders_that_do_not_answer_block_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    setting = Setting(tmp_path)
    setting.load()
    answers, looked = Event(), []

    def look(folders: Iterable[Traversable]) -> Stamp:
        looked.append(1)
        answers.wait(PATIENCE_S)
        return stamp_of(folders)

    monkeypatch.setattr("krie.policy.lookout.stamp_of", look)
    monkeypatch.setattr("krie.policy.lookout._LATE_S", 0.0)
    monkeypatch.setattr("krie.policy.lookout._WAIT_S", 0.1)
    setting.rule("R2")
    started = time.monotonic()
    assert not setting.files.changed()  # and goes on, without the answer
    assert time.monotonic() - started < PATIENCE_S / 5
    assert setting.rules == {"R2"}  # as a signal makes it load
    assert not setting.files.changed()
    assert caplog.text.count("no answer for") == len(looked) == 1
    answers.set()
    monkeypatch.setattr("krie.policy.lookout._WAIT_S", PATIENCE_S)
    while not setting.files.changed():
        setting.rule("R3")
    assert setting.rules == {"R3"}
    assert not setting.files.changed()


def test_a_file_that_is_gone_while_we_look_changes_nothing_else(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    (setting.folder / "gone.json").symlink_to(tmp_path / "nowhere")
    assert setting.files.changed()


def test_what_cannot_be_meant_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    setting = Setting(tmp_path)
    (setting.folder / "typo.rego").write_text(RULE.replace("site", "typo").replace("uid", "uuid") % "R9")
    setting.tool.unlink()
    setting.load()
    assert "executables.tool: " in caplog.text
    assert "no process gets this name" in caplog.text
    assert "rule R9 reads input.process.uuid, which there is not" in caplog.text
    assert "R1" not in caplog.text


def test_names_that_rules_may_read(tmp_path: Path) -> None:
    types = armed(KernelSide(), Sensor("sample", "1", events=(Sample,))).types
    fields = event_fields(types, lambda kind: {"extra": {}} if kind == "sample.seen" else {})
    assert {"number", "free", "flags", "extra"} <= fields["sample.seen"]
    assert "pad" not in fields["sample.seen"]
    assert {"contained", "contained_tgid"} <= fields["krie.contained"]
