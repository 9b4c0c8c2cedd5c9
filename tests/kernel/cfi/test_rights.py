"""What only a right permits is refused to whoever has none, whatever the kernel's own checks say."""

import errno
import json
import os
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from krie.testing.agent import RunningAgent
from krie.testing.module import TestModule

from ..overlays import mounted, overlaid
from . import acts, fuse

pytestmark = pytest.mark.needs("guest", "kprobe")
ACT = "cfi.act"
Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[Path, Path]]:
    """A folder of nobody's with files of several kinds, on a tmpfs; and a hierarchy of cgroups."""
    with tempfile.TemporaryDirectory(prefix="acts-", dir="/run", ignore_cleanup_errors=True) as made:
        top = Path(made)
        top.chmod(0o755)
        group, folder = top / "group", top / "folder"
        group.mkdir()
        folder.mkdir()
        with (
            mounted(group, "-t", "cgroup", "-o", "none,name=krie-acts", "none"),
            mounted(folder, "-t", "tmpfs", "none"),
        ):
            for name in ("mounted", "busy", "moved", "below", "inner", "plain", "mapped"):
                (folder / name).mkdir()
            for name in ("below/file", "below/mode"):
                (folder / name).touch()
            for each in (folder, *folder.rglob("*")):
                os.chown(each, acts.NOBODY, acts.NOBODY)
            os.chown(folder / "plain", 0, 0)
            for name, mode in (("secret", 0o600), ("listed", 0o640), ("groups", 0o660)):
                (folder / name).touch()
                (folder / name).chmod(mode)
            os.chown(folder / "groups", 0, acts.NOBODY)
            entries = ((1, 6, -1), (2, 6, acts.NOBODY), (4, 4, -1), (16, 6, -1), (32, 0, -1))
            listed = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *each) for each in entries)
            os.setxattr(folder / "listed", "system.posix_acl_access", listed)
            yield folder, group


@pytest.mark.needs("test_module", "fmod_ret")
def test_what_is_done_without_a_right_is_refused(
    locked: RunningAgent, test_module: TestModule, place: tuple[Path, Path], rounds: int
) -> None:
    """The kernel's own checks say yes; the credentials say no."""
    folder, _ = place
    before = len(locked.lines(ACT))
    with mounted(folder / "busy", "-t", "tmpfs", "none"):
        answers = json.loads(acts.run(acts.DO, rounds, *place, acts.NOBODY, acts.UNCHECKED))
    assert answers == {act: {"EPERM": rounds} for act in (*acts.ACTS, *acts.ANOTHER_WAY)}
    lines = locked.wait(ACT, count=before + rounds * len(answers))[before:]
    for act in acts.ACTS:
        told = [each for each in lines if each["event"]["act"] == act]
        assert len(told) == rounds * [act, *acts.ANOTHER_WAY.values()].count(act)
        for line in told:
            event, decision = line["event"], line["decision"]
            assert ([each["id"] for each in decision["rules"]], decision["tier"]) == (["CFI005"], "kernel")
            assert line["done"] == ["refused"]
            assert (event["fsuid"], event["acting_fsuid"], event["foreign"]) == (acts.NOBODY, acts.NOBODY, False)
    secret = next(each["event"] for each in lines if each["event"]["act"] == "open_for_writing")
    assert (secret["name"], secret["owner"], secret["mode"]) == ("secret", 0, 0o100600)
    assert secret["ino"] == (folder / "secret").stat().st_ino


@pytest.mark.needs("test_module", "fmod_ret")
def test_root_without_capabilities_gives_files_none(
    locked: RunningAgent, test_module: TestModule, place: tuple[Path, Path]
) -> None:
    folder, _ = place
    before = len(locked.lines(ACT))
    assert acts.run(acts.BARE_ROOT, folder / "plain", acts.UNCHECKED) == f"{errno.EPERM}\n"
    (line,) = locked.wait(ACT, count=before + 1)[before:]
    assert (line["event"]["act"], line["event"]["fsuid"], line["done"]) == ("file_capability", 0, ["refused"])


@pytest.mark.needs("fmod_ret")
def test_what_is_done_by_right_or_refused_by_the_kernel_is_silent(
    locked: RunningAgent, place: tuple[Path, Path], record_property: Record
) -> None:
    folder, _ = place
    before = len(locked.lines(ACT))
    with mounted(folder / "busy", "-t", "tmpfs", "none"):
        refused = json.loads(acts.run(acts.DO, 2, *place, acts.NOBODY, ""))
        assert {act for act, answers in refused.items() if "done" not in answers} == {*acts.ACTS, *acts.ANOTHER_WAY}
    subprocess.run(["mount", "-t", "tmpfs", "none", folder / "busy"], check=True)
    done = json.loads(acts.run(acts.DO, 1, *place, 0, ""))
    assert {act for act, answers in done.items() if "done" in answers} == {*acts.ACTS, *acts.ANOTHER_WAY} - {"module"}
    with overlaid(folder, "below", "merged"):
        acts.run(acts.LEGAL, folder, by=acts.AS_NOBODY)
    own_namespace = ("unshare", "--user", "--map-root-user", "--mount")
    by = (*acts.AS_NOBODY, *own_namespace)
    assert acts.run(acts.IN_A_NAMESPACE, folder, folder / "inner", by=by) == "done\n"
    record_property("a mount that maps users", acts.run(acts.MAPPED, folder, acts.IN_A_NAMESPACE))
    # root, without a capability outside
    assert acts.run(acts.IN_A_NAMESPACE, folder / "plain", by=own_namespace) == "done\n"
    assert acts.run(acts.AS_A_SERVICE, folder, acts.NOBODY) == "done\n"
    locked.settle()
    assert [each["event"] for each in locked.lines(ACT)[before:]] == []


@pytest.mark.needs("fmod_ret")
def test_what_a_server_in_user_space_permits_is_silent(locked: RunningAgent, place: tuple[Path, Path]) -> None:
    """Its files' owners and modes say nothing: it has judged."""
    folder = place[0] / "served"
    folder.mkdir()
    before = len(locked.lines(ACT))
    with fuse.served(folder, owner=1001, mode=0o100600):
        assert acts.run(acts.BY_A_SERVER, folder) == "done\n"
    locked.settle()
    assert [each["event"] for each in locked.lines(ACT)[before:]] == []
