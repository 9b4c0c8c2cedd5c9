"""The programs that tests run: each a process of its own, in the test's cgroup, that does not outlive it."""

import os
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from krie.testing.patience import PATIENCE_S, wait_for
from krie.testing.victims import Interpreter, Victims, new_victims


def lives(tgid: int) -> bool:
    """And no zombie, of whom init has yet to ask what became of it."""
    with suppress(OSError):
        return ") Z " not in Path(f"/proc/{tgid}/stat").read_text()
    return False


def test_what_stays_in_the_background_is_ended(interpreter: Interpreter) -> None:
    with new_victims(interpreter) as victims:
        done = victims.execute(["/bin/sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!"])
        tgid = int(done.stdout)
        assert lives(tgid)
    wait_for(lambda: not lives(tgid))


def test_whoever_does_not_end_is_given_up(victims: Victims, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who was killed may leave a child behind that is stopped, and holds his output."""
    said, seconds = "", 1
    while "begun" not in said and seconds < PATIENCE_S:  # an emulated one takes its time to begin
        seconds *= 4
        monkeypatch.setattr("krie.testing.victims._HANGS_S", seconds)
        with pytest.raises(TimeoutError) as raised:
            victims.run('print("begun", flush=True)\nos.fork() or os.kill(os.getpid(), 19)')
        said = str(raised.value)
    assert re.search(f"did not end within {seconds} s: .*begun", said)
    monkeypatch.undo()
    assert victims.run('print("the next one")').stdout == "the next one\n"


def test_each_piece_of_code_has_a_process_and_names_of_its_own(victims: Victims) -> None:
    code = """
assert "kept" not in globals()
kept = 1
child = os.fork()
child or os.execv("/bin/echo", ["echo", *sys.argv[1:]])
os.waitpid(child, 0)
sys.stderr.write("told")
print(os.getpid(), open("/proc/self/cgroup").read().rpartition(":")[2], libc.getpid())
"""
    runs = [victims.run(code, "a", "b c") for _ in range(2)]
    said = [run.stdout.split() for run in runs]
    assert [each[:3] for each in said] == [["a", "b", "c"]] * 2
    assert [(each[4], run.stderr) for each, run in zip(said, runs, strict=True)] == [(victims.path, "told")] * 2
    assert len({each[3] for each in said} | {str(os.getpid())}) == 3
    assert all(each[3] == each[5] for each in said)


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("sys.exit(5)", 5, ""),
        ("print('said'); os.kill(os.getpid(), 9)", -signal.SIGKILL, ""),
        ("print('said', flush=True); nothing", 1, "NameError"),
        ("libc.ptrace(0, 0, 0, 0); os.kill(os.getpid(), 19)", -signal.SIGKILL, ""),
    ],
)
def test_how_it_ended_is_told(victims: Victims, code: str, status: int, error: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as ended:
        victims.run(code)
    assert ended.value.returncode == status
    assert error in ended.value.stderr
    assert victims.run("print(1)").stdout == "1\n"


def test_output_of_any_size_comes_whole(victims: Victims) -> None:
    done = victims.run("print('x' * 300_000); sys.stderr.write('y' * 300_000)")
    assert (done.stdout, done.stderr) == ("x" * 300_000 + "\n", "y" * 300_000)
