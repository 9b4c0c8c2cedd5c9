"""The note that tells the next agent how this one ended."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from krie.agent.presence import OWN_WAITING_S, Note, Presence, Pulse
from krie.errors import ConfigError

OUT_OF_RANGE = [
    json.dumps({"boot_id": "x", "tgid": 5, "last_seen_s": 5, "uptime_s": 5, "clean": False, **changed})
    for changed in (
        {"tgid": 1 << 40},
        {"tgid": -1},
        {"tgid": float("inf")},
        {"last_seen_s": 1e300},
        {"last_seen_s": float("nan")},
        {"last_seen_s": -1},
        {"uptime_s": float("inf")},
        {"uptime_s": 10**400},
    )
]


def test_nothing_was_there(tmp_path: Path) -> None:
    assert Presence(tmp_path / "state").before() is None
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_the_next_one_finds_it(tmp_path: Path) -> None:
    Presence(tmp_path).note()
    presence = Presence(tmp_path)
    before = presence.before()
    assert before is not None
    assert (before.tgid, before.clean) == (os.getpid(), False)
    assert abs(before.last_seen_s - time.time()) < 60
    assert presence.same_boot(before)
    assert not presence.same_boot(Note("another", 1, 0.0, 0.0, clean=False))
    presence.note(clean=True)
    after = presence.before()
    assert after is not None
    assert after.clean


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"boot_id": 1}', '{"boot_id": "", "tgid": "x"}', "\0", *OUT_OF_RANGE]
)
def test_a_broken_note_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "agent.json").write_text(content)
    assert Presence(tmp_path).before() is None


def a_fifo(place: Path) -> None:
    os.mkfifo(place)


def without_end(place: Path) -> None:
    place.symlink_to("/dev/zero")


def a_folder(place: Path) -> None:
    place.mkdir()


def of_others(place: Path) -> None:
    place.write_text(json.dumps({"boot_id": "x", "tgid": 5, "last_seen_s": 5, "uptime_s": 5, "clean": True}))
    os.chown(place, 12345, -1)


@pytest.mark.parametrize("make", [a_fifo, without_end, a_folder, of_others])
def test_what_is_no_note_of_ours_blocks_no_start_and_says_nothing(
    tmp_path: Path, make: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    tmp_path.chmod(0o700)
    make(tmp_path / "agent.json")
    assert Presence(tmp_path).before() is None
    (said,) = caplog.messages
    assert said.startswith(f"agent.state_dir: ignoring the previous agent's note: {tmp_path}/agent.json: ")


def test_a_note_without_end_is_none(tmp_path: Path) -> None:
    (tmp_path / "agent.json").write_text(" " * 10_000 + "{}")
    assert Presence(tmp_path).before() is None


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "agent.new").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic link"):
        Presence(tmp_path).note()
    assert not (tmp_path / "victim").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"agent\.state_dir: .* cannot be used"):
        Presence(tmp_path / "file" / "state")


@pytest.mark.parametrize("step_s", [-100_000, 0, 100_000])
def test_a_step_of_the_clock_changes_no_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_s: float) -> None:
    presence = Presence(tmp_path)
    presence.note()
    note = presence.before()
    assert note is not None
    wall, boot = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
    monkeypatch.setattr(time, "time", lambda: wall + step_s)
    monkeypatch.setattr(time, "clock_gettime", lambda _: boot + 100.5)
    assert presence.gap_s(note) == 100


@pytest.mark.parametrize(("seconds", "gap_s"), [(100.5, 100), (-50.0, 0)])
def test_of_another_boot_the_walls_clock_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, gap_s: int
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0 + seconds)
    assert Presence(tmp_path).gap_s(Note("another", 1, 1_000_000.0, 5.0, clean=False)) == gap_s


class Clocks:
    def __init__(self) -> None:
        self.now = self.busy = 0.0
        self.pulse = Pulse(lambda: self.busy, lambda: self.now)

    def beat(self, elapsed: float, busy: float, *, continued: bool = False) -> float:
        self.now += elapsed
        self.busy += busy
        return self.pulse.beat(continued=continued)


def test_who_runs_or_waits_for_a_processor_is_not_held_up() -> None:
    clocks = Clocks()
    assert clocks.beat(1, 0) == 0
    assert clocks.beat(300, 295) == 0  # a scan on a busy machine
    assert clocks.beat(OWN_WAITING_S, 0) == 0


def test_who_does_neither_is() -> None:
    clocks = Clocks()
    assert clocks.beat(30, 0.5) == 29.5
    assert clocks.beat(1, 0.5) == 0
    assert clocks.beat(3.5, 0.5, continued=True) == 3
    assert clocks.beat(3.5, 0.5) == 0  # nobody says that it was stopped
    assert clocks.beat(1, 0, continued=True) == 0  # as systemd sends it with SIGTERM


def stopped_for(seconds: float) -> tuple[float, float]:
    """What a real thread's clocks say of a stop; the pulse of a process that was stopped, and then works as long."""
    code = f"""
import os, signal, subprocess, time
from krie.agent.presence import Pulse
pulse = Pulse()
continued = []
signal.signal(signal.SIGCONT, lambda *_: continued.append(1))
subprocess.Popen(["sh", "-c", f"kill -STOP {{os.getpid()}}; sleep {seconds}; kill -CONT {{os.getpid()}}"])
while time.thread_time() < 0.2 or not continued:
    pass
print(pulse.beat(continued=True))
end = time.monotonic() + {seconds}
while time.monotonic() < end:
    pass
print(pulse.beat(continued=True))
"""
    answer = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    stopped, worked = map(float, answer.stdout.split())
    return stopped, worked


def test_a_stopped_thread_is_told_from_one_that_works() -> None:
    stopped, worked = stopped_for(2.0)
    assert stopped > 1.5
    assert worked == 0
