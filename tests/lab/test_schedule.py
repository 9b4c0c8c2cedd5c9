"""`make test` runs everything, in order, and is red where anything is."""

import sys
import time
import tomllib
from pathlib import Path

import pytest

from .. import durations, everything, schedule
from ..schedule import Part, Schedule
from . import all_suites, suites


def part(name: str, code: str, *after: str, decisive: bool = False) -> Part:
    return Part(name, (sys.executable, "-IS", "-c", f"import os, sys, time\n{code}"), after, decisive)


def run(folder: Path, *parts: Part) -> tuple[bool, list[str], str]:
    """Whether it went well, which parts ended, and what was said."""
    said: list[str] = []
    made = Schedule(parts, folder, said.append)
    return made.run(), [each.part.name for each in made.ended], "\n".join(said)


def test_parts_run_beside_each_other_and_in_their_order(tmp_path: Path) -> None:
    wait = "while not os.path.exists({!r}): time.sleep(0.01)"
    first, second = tmp_path / "first", tmp_path / "second"
    parts = (
        part("one", f"open({str(first)!r}, 'w').close()\n{wait.format(str(second))}"),
        part("other", f"open({str(second)!r}, 'w').close()\n{wait.format(str(first))}\nprint('met')"),
        part("last", "pass", "one", "other"),
    )
    well, ended, said = run(tmp_path / "logs", *parts)
    assert (well, ended[-1]) == (True, "last")
    assert "ok      other" in said
    assert "s: met" in said


def test_no_more_than_wanted_run_at_once(tmp_path: Path) -> None:
    lock = f"""
with open({str(tmp_path / "held")!r}, "x"): time.sleep(0.2)
os.unlink({str(tmp_path / "held")!r})
"""
    made = Schedule([part(name, lock) for name in ("a", "b", "c")], tmp_path / "logs", print, at_once=1)
    assert made.run()
    assert [each.part.name for each in made.ended] == ["a", "b", "c"]


def test_labels_choose_suites() -> None:
    assert [each.name for each in all_suites.parts(["override", "debian-6.1"])] == ["debian-6.1", "override"]
    assert [each.name for each in all_suites.parts([])][-2:] == ["systemd unit", "slow unit tests"]
    assert len(all_suites.parts([])) == len(suites.SUITES) + 2
    with pytest.raises(SystemExit, match=r"no suite is labelled debian-9; there are debian-5\.10, "):
        all_suites.parts(["debian-9"])


@pytest.mark.parametrize("code", ["sys.exit(3)", "os.kill(os.getpid(), 9)"])
def test_a_failure_is_red_and_shown_and_what_depends_on_it_is_not_run(tmp_path: Path, code: str) -> None:
    parts = (part("bad", f"print('why', flush=True); {code}"), part("other", "time.sleep(0.5)"), part("on", "", "bad"))
    well, ended, said = run(tmp_path, *parts)
    assert (well, sorted(ended)) == (False, ["bad", "other"])
    assert "why\n  FAILED  bad" in said


def test_a_decisive_failure_ends_what_runs(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    guest = tmp_path / "test_guest.py"
    guest.write_text(f"""
import time
def test_guest():
    try:
        open({str(tmp_path / "started")!r}, "w").close()
        time.sleep(600)
    finally:
        open({str(ended)!r}, "w").close()
""")
    pytests = (sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", str(guest))
    wait = f"while not os.path.exists({str(tmp_path / 'started')!r}): time.sleep(0.01)\nsys.exit(1)"
    start = time.monotonic()
    well, names, _ = run(tmp_path / "logs", Part("guest", pytests), part("checks", wait, decisive=True))
    assert (well, names) == (False, ["checks"])
    assert ended.exists()
    assert time.monotonic() - start < 300


def test_no_test_is_left_out() -> None:
    """Each part names places of its own, and the last one takes whatever those leave."""
    (root,) = tomllib.loads((schedule.ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"][
        "testpaths"
    ]
    *parts, last = everything.all_parts()
    places = [word.partition("::")[0] for each in parts for word in each.command if word.startswith(f"{root}/")]
    ignored = [word.partition("=")[2] for word in last.command if word.startswith("--ignore=")]
    assert sorted(set(places)) == sorted(ignored)
    assert all((schedule.ROOT / each).exists() for each in places)
    assert last.command[-len(ignored) - 1] == root
    assert not [
        word for each in (*parts, last) for word in each.command if word == "-k" or word.startswith("--deselect")
    ]


def test_times_tell_where_they_went(tmp_path: Path) -> None:
    assert durations.summary(tmp_path) == ""
    durations.note(tmp_path, "tests/kernel/test_a.py::test_one", "setup", 4.0)
    durations.note(tmp_path, "tests/kernel/test_a.py::test_one", "call", 1.0)
    durations.note(tmp_path, "tests/kernel/test_b.py::test_two", "call", 2.0)
    assert durations.summary(tmp_path, 1) == "setup 4, call 3; test_a.py::test_one 5"
    made = Schedule([Part("guest", ("true",), detail=lambda: durations.summary(tmp_path, 0))], tmp_path, print)
    assert made.run()
    assert "s  guest: setup 4, call 3" in schedule.times(made.ended, 10)
