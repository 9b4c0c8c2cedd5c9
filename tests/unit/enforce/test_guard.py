"""What the agent guards of itself beyond its process."""

import os
import struct
from pathlib import Path

import pytest
from krie.enforce import self_defence
from krie.enforce.self_defence import Guard, Held, held_objects
from krie.events.identity import Identity

from ..kernel_side import KernelSide

SWITCH = Identity(6, 1234, 9)
HELD = (Held("map", 7, "krie_ring"), Held("prog", 8, "krie_change"), Held("link", 9, ""))


@pytest.fixture
def debugfs(tmp_path: Path) -> Path:
    (tmp_path / "kprobes").mkdir()
    (tmp_path / "kprobes/enabled").write_text("1\n")
    return tmp_path


def guard(debugfs: Path | None, sysrq: Path = Path("/nowhere")) -> Guard:
    return Guard(
        lambda: os.open(debugfs, os.O_PATH) if debugfs is not None else -1,
        lambda: HELD,
        lambda: os.open(sysrq, os.O_PATH),
    )


def number(value: int) -> bytes:
    return struct.pack("=I", value)


def key(file: Identity) -> bytes:
    return struct.pack("=QII", file.ino, file.dev, file.generation)


def key_of(path: Path) -> bytes:
    status = path.stat()
    return key(Identity(status.st_dev, status.st_ino, 3))


def system_of(path: Path) -> bytes:
    return key(Identity(path.stat().st_dev, 0, 0))


def by_status(descriptor: int) -> Identity:
    status = os.fstat(descriptor)
    return Identity(status.st_dev, status.st_ino, 3)


def prepared(debugfs: Path | None) -> tuple[KernelSide, list[str]]:
    kernel, seen = KernelSide(), list[str]()

    def identify(descriptor: int) -> Identity:
        seen.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        return SWITCH

    made = guard(debugfs)
    made.prepare(kernel.maps, identify, {})
    made.close()
    return kernel, seen


def test_all_objects_of_the_agent_are_guarded(debugfs: Path) -> None:
    kernel, _ = prepared(debugfs)
    found = {name: set(kernel.content[f"containment_own_{name}"]) for name in ("maps", "programs", "links")}
    assert found == {"maps": {number(7)}, "programs": {number(8)}, "links": {number(9)}}


def test_what_this_process_holds() -> None:
    """None of BPF, which needs rights; and nobody is confused by other descriptors."""
    assert list(held_objects()) == []


def test_the_switch_of_all_kprobes_is_known_by_file(debugfs: Path) -> None:
    kernel, seen = prepared(debugfs)
    assert seen == [str(debugfs / "kprobes/enabled")]
    assert kernel.content["containment_files"] == {key(SWITCH): number(36)}


@pytest.mark.parametrize("has_debugfs", [False, True])
def test_a_kernel_without_kprobes_has_no_switch(tmp_path: Path, has_debugfs: bool) -> None:
    kernel, seen = prepared(tmp_path if has_debugfs else None)
    assert kernel.content["containment_own_maps"]
    assert (seen, kernel.content["containment_files"]) == ([], {})


def test_sysrq_is_known_by_inode_whatever_procfs_it_is_reached_by(tmp_path: Path) -> None:
    (tmp_path / "trigger").touch()
    kernel, made = KernelSide(), guard(None, tmp_path / "trigger")
    made.prepare(kernel.maps, by_status, {})
    inode = (tmp_path / "trigger").stat().st_ino
    assert kernel.content["containment_files"] == {key(Identity(0, inode, 0)): number(46)}


def test_own_folders(tmp_path: Path) -> None:
    kernel, made = KernelSide(), guard(None)
    for name in ("state", "run"):
        (tmp_path / name).mkdir()
    folders = {tmp_path / "state": True, tmp_path / "run": False, tmp_path / "gone": True}
    made.prepare(kernel.maps, by_status, folders, [Path("/proc")])
    expected = {key_of(tmp_path / "state"): number(1), key_of(tmp_path / "run"): number(0)}
    assert kernel.content["containment_folders"] == expected
    assert kernel.content["containment_files"] == {system_of(tmp_path): number(51)}
    assert set(kernel.content["containment_ways"]) >= {*expected, key_of(tmp_path), key_of(Path("/proc"))}
    assert key_of(Path("/")) not in kernel.content["containment_ways"]
    descriptor = os.open("/proc", os.O_PATH)
    fields = Path(f"/proc/self/fdinfo/{descriptor}").read_text().split()
    os.close(descriptor)
    assert number(int(fields[fields.index("mnt_id:") + 1])) in kernel.content["containment_mounts"]


def test_links_on_the_way_and_where_they_lead_are_known(tmp_path: Path) -> None:
    """Also those that lead to others, to where they are, to the root, or nowhere."""
    kernel, made = KernelSide(), guard(None)
    (tmp_path / "disk/log").mkdir(parents=True)
    links = {
        "log": "disk/other",
        "disk/other": "../disk/log",
        "loop": "loop",
        "root": "/",
        "nowhere": "/nowhere/at/all",
    }
    for name, to in links.items():
        (tmp_path / name).symlink_to(to)
    made.prepare(kernel.maps, by_status, {tmp_path / "log": True}, [tmp_path / each for each in links])
    ways = set(kernel.content["containment_ways"])
    assert ways >= {key_of(tmp_path / each) for each in ("disk", "disk/log")}
    for name in links:
        descriptor = os.open(tmp_path / name, os.O_PATH | os.O_NOFOLLOW)
        assert key(by_status(descriptor)) in ways
        os.close(descriptor)
    assert key_of(Path("/")) not in ways


def test_a_folder_that_is_hidden_by_another_one_is_found(tmp_path: Path) -> None:
    kernel, made = KernelSide(), guard(None)
    state, run = (tmp_path / name for name in ("state", "run"))
    state.mkdir()
    run.mkdir()
    made.prepare(kernel.maps, by_status, {state: True, run: False, tmp_path / "never": True})
    assert made.covered() == set()
    state.rename(tmp_path / "away")
    run.rename(tmp_path / "elsewhere")
    run.mkdir()
    assert made.covered() == {state, run}
    (tmp_path / "away").rename(state)
    assert made.covered() == {run}


def test_what_is_mounted_over_it_is_asked_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system in user space need not answer, and whoever asks waits."""
    kernel, made, points = KernelSide(), guard(None), {(1, Path("/")), (2, tmp_path)}
    monkeypatch.setattr(self_defence, "mount_points", lambda: points)
    state, journal = tmp_path / "state", tmp_path / "state/journal"
    state.mkdir()
    journal.touch()
    made.prepare(kernel.maps, by_status, {state: True})
    made.look_after((journal,))
    files = dict(kernel.content["containment_files"])
    assert made.covered() == set()
    points = points | {(3, tmp_path.parent / "elsewhere")}
    assert made.covered() == set()
    points = points | {(4, tmp_path)}
    assert made.covered() == {state}
    journal.unlink()  # as the path says
    made.look_after((journal,))
    assert kernel.content["containment_files"] == files
    points = points - {(4, tmp_path)}
    made.look_after((journal,))
    assert kernel.content["containment_files"] != files
    made.close()


def test_files_are_guarded_as_they_come_and_go(tmp_path: Path) -> None:
    kernel, made = KernelSide(), guard(None)
    made.prepare(kernel.maps, by_status, {})
    journal, rotated = tmp_path / "journal", tmp_path / "journal.1"
    files = kernel.content["containment_files"]
    made.look_after((journal, rotated))
    assert files == {}
    journal.touch()
    made.look_after((journal, rotated))
    first, system = key_of(journal), {system_of(journal): number(51)}
    assert files == {first: number(47), **system}
    journal.rename(rotated)
    journal.touch()
    made.look_after((journal, rotated))
    assert files == {first: number(47), key_of(journal): number(47), **system}
    rotated.unlink()
    made.look_after((journal, rotated))
    assert files == {key_of(journal): number(47), **system}
    kernel.log.clear()
    made.look_after((journal, rotated))
    assert kernel.log == []


def test_kprobes_are_turned_on_again(debugfs: Path) -> None:
    made = guard(debugfs)
    (debugfs / "kprobes/enabled").write_text("0\n")
    assert made.arm_kprobes()
    assert not made.kprobes_off()
    assert not guard(None).arm_kprobes()
    made.close()


def test_whether_kprobes_are_off(debugfs: Path) -> None:
    made = guard(debugfs)
    found = []
    for text in ("1\n", "0\n", "", "1\n"):
        (debugfs / "kprobes/enabled").write_text(text)
        found.append(made.kprobes_off())
    assert found == [False, True, False, False]
    (debugfs / "kprobes/enabled").unlink()
    assert not made.kprobes_off()  # nobody can tell
    made.close()
    assert not guard(None).kprobes_off()


def test_nothing_stays_open(debugfs: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    prepared(debugfs)
    made = guard(debugfs)
    made.kprobes_off()
    made.close()
    assert len(os.listdir("/proc/self/fd")) == before
