"""The programs that tests run do not outlive their test."""

from pathlib import Path

from krie.testing.victims import new_victims


def test_what_stays_in_the_background_is_ended() -> None:
    with new_victims() as victims:
        done = victims.execute(["/bin/sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!"])
        state = Path("/proc", done.stdout.strip(), "stat")
        assert state.exists()
    assert not state.exists() or ") Z " in state.read_text()  # init has yet to ask what became of it
