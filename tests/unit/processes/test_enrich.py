"""What policies and the journal see of the process that an event happened in, and of others that it is about."""

import os
from pathlib import Path
from typing import Any

import pytest
from krie.events.event import CONTAINER, INFLUENCE, KERNEL_THREAD, EventTypes
from krie.events.identity import Identity
from krie.kernel.cgroups import Cgroups
from krie.plugins.runtime_integrity.ptrace import Ptrace
from krie.processes.enrich import OTHER_PROCESS, PROCESS_NAMES, Enricher, host, machine_id
from krie.processes.process import NOTHING
from krie.processes.sensor import ProcessExec, ProcessFork
from krie.processes.table import ProcessTable
from krie.testing.events import build

(TRACED,) = (bit for bit, word in INFLUENCE.items() if word == "traced")
SHELL, TOOL = Identity(8, 100, 1), Identity(8, 200, 1)
NOBODY = {"tgid": 4_194_002, "start_time": 9 * 10**9}  # no process has such a number


class Setting:
    """A shell (10), its child that runs a tool (11), and another child (12)."""

    def __init__(self) -> None:
        self.table = ProcessTable(100, lambda _: NOTHING)
        self.enricher = Enricher(EventTypes((Ptrace,)), self.table, Cgroups(None), {})
        self.enricher.programs = {SHELL: "shell"}
        self.exec("/bin/sh", SHELL, tgid=10, start_time=5, parent_tgid=1, parent_start_time=1)
        for child in (11, 12):
            fields = {"tgid": 10, "start_time": 5, "exe_dev": 8, "exe_ino": 100, "exe_generation": 1}
            parent = {"child_parent_tgid": 10, "child_parent_start_time": 5}
            self.table.feed(build(ProcessFork, child_tgid=child, child_start_time=50, **parent, **fields))
        self.exec("/opt/tool", TOOL, tgid=11, start_time=50, parent_tgid=10, parent_start_time=5)

    def exec(self, path: str, identity: Identity, **fields: int) -> None:
        components = b"".join(name.encode() + b"\0" for name in reversed(path.strip("/").split("/")))
        exe = {"exe_dev": identity.dev, "exe_ino": identity.ino, "exe_generation": identity.generation}
        self.table.feed(
            build(ProcessExec, components=components.ljust(768, b"\0"), length=len(components), **exe, **fields)
        )


def event(**fields: Any) -> Ptrace:
    own = {"tgid": 11, "start_time": 50, "parent_tgid": 10, "parent_start_time": 5}
    exe = {"exe_dev": 8, "exe_ino": 200, "exe_generation": 1}
    return build(Ptrace, **{**own, **exe, **fields})


@pytest.fixture
def setting() -> Setting:
    return Setting()


@pytest.mark.parametrize(
    ("context", "thread", "container"),
    [
        (0, False, False),
        (KERNEL_THREAD, True, False),
        (CONTAINER, False, True),
        (KERNEL_THREAD | CONTAINER, True, True),
    ],
)
def test_where_a_process_runs(setting: Setting, context: int, thread: bool, container: bool) -> None:
    found = setting.enricher.process(event(context=context))
    assert (found["kernel_thread"], found["container"]) == (thread, container)


def test_what_is_known_of_the_process_and_its_parent(setting: Setting) -> None:
    found = setting.enricher.process(event(tid=13, uid=1, euid=2, gid=3))
    assert {name: found[name] for name in ("tgid", "tid", "exe", "exe_known", "program", "uid", "euid", "gid")} == {
        "tgid": 11,
        "tid": 13,
        "exe": "/opt/tool",
        "exe_known": True,
        "program": "",
        "uid": 1,
        "euid": 2,
        "gid": 3,
    }
    assert found["parent"] == {
        "tgid": 10,
        "start_time": 5,
        "comm": "test",
        "exe": "/bin/sh",
        "exe_known": True,
        "program": "shell",
        "influence": [],
    }
    assert found["cgroup"] == {"id": 0, "path": "?"}
    assert found.keys() | {"ancestors"} == PROCESS_NAMES


def test_each_namespace_is_its_own(setting: Setting) -> None:
    names = ("mnt", "pid", "net", "user", "uts", "ipc", "cgroup")
    numbers = {f"{name}_ns": number for number, name in enumerate(names, 100)}
    assert setting.enricher.process(event(**numbers))["namespaces"] == {
        name: number for number, name in enumerate(names, 100)
    }


def test_a_program_is_named_by_its_file(setting: Setting) -> None:
    setting.enricher.programs = {TOOL: "tool"}
    assert setting.enricher.process(event())["program"] == "tool"
    assert setting.enricher.process(event(exe_generation=2))["program"] == ""  # another file with the inode's number


def test_an_unknown_parent_is_no_match_for_anything(setting: Setting) -> None:
    found = setting.enricher.process(event(parent_tgid=NOBODY["tgid"], parent_start_time=NOBODY["start_time"]))
    assert found["parent"] == {**NOBODY, "comm": "", "exe": "?", "exe_known": False, "program": "", "influence": []}


def test_ancestors_begin_with_the_parent(setting: Setting) -> None:
    found: list[Any] = setting.enricher.ancestors(event())
    assert [each["tgid"] for each in found] == [10]
    assert found[0]["program"] == "shell"


def test_above_whom_somebody_influenced_nobody_has_a_name(setting: Setting) -> None:
    """Of the tool's child and grandchild, the first one made by a tool that was traced."""
    setting.enricher.programs = {SHELL: "shell", TOOL: "tool"}
    tool = {"exe_dev": 8, "exe_ino": 200, "exe_generation": 1}
    for maker, child, context in ((11, 21, TRACED), (21, 22, 0)):
        made = {"child_tgid": child, "child_start_time": 50, "child_parent_tgid": maker, "child_parent_start_time": 50}
        setting.table.feed(build(ProcessFork, tgid=maker, start_time=50, context=context, **made, **tool))
    found: Any = setting.enricher.process(event(tgid=21, parent_tgid=11, parent_start_time=50))
    assert (found["program"], found["influence"]) == ("tool", [])
    assert (found["parent"]["program"], found["parent"]["influence"]) == ("", ["traced"])
    above: Any = setting.enricher.ancestors(event(tgid=22, parent_tgid=21, parent_start_time=50))
    named = [(each["tgid"], each["program"], each["influence"]) for each in above]
    assert named == [(21, "tool", []), (11, "", ["traced"]), (10, "shell", [])]


def test_others_that_an_event_is_about(setting: Setting) -> None:
    seen: Any = setting.enricher.event(event(target_tgid=12, target_start_time=50))["target"]
    assert (seen["exe"], seen["known"], seen["program"], seen["uid"]) == ("/bin/sh", True, "shell", 1000)
    gone = {"target_tgid": NOBODY["tgid"], "target_start_time": NOBODY["start_time"]}
    unseen: Any = setting.enricher.event(event(**gone))["target"]
    assert (unseen["exe"], unseen["exe_known"], unseen["known"], unseen["uid"]) == ("?", False, False, 0)
    assert isinstance(OTHER_PROCESS, dict)
    required: Any = OTHER_PROCESS["required"]
    assert seen.keys() == unseen.keys() == set(required)


def test_a_host_is_known_by_more_than_its_name() -> None:
    told = host()
    assert told["name"] == os.uname().nodename
    assert told["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert told["machine_id"] == machine_id()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"0123456789abcdef0123456789abcdef\n", "0123456789abcdef0123456789abcdef"),
        (b"", ""),
        (b"uninitialized\n", ""),
        (b"0123456789abcdef0123456789abcdef\n{}", ""),
        (b"\xff" * 32, ""),
        (b"\x1b" * 10_000, ""),
    ],
)
def test_a_machines_id_is_one_or_none(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "machine-id").write_bytes(content)
    assert machine_id(tmp_path / "machine-id") == told


def test_a_machine_without_an_id(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("none", "fifo", "."):
        assert machine_id(tmp_path / name) == ""


def test_a_process_that_was_influenced_has_no_name(setting: Setting) -> None:
    setting.enricher.programs = {TOOL: "tool"}
    free = event(context=KERNEL_THREAD | CONTAINER)
    assert (setting.enricher.process(free)["program"], setting.enricher.process(free)["influence"]) == ("tool", [])
    for bit, word in INFLUENCE.items():
        happened = event(context=bit | CONTAINER)
        assert (setting.enricher.process(happened)["program"], setting.enricher.process(happened)["influence"]) == (
            "",
            [word],
        )
