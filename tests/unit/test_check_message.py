"""The hook that looks at the message of each commit."""

import subprocess
from pathlib import Path

import pytest

HOOK = Path(__file__).parents[2] / "tools/check-message"
EDITED = "\n# Please enter the message\n# ------------------------ >8 ------------------------\ndiff --git a/b b/b\n"


def told(folder: Path, message: str) -> str:
    """What the hook says of a message; empty where it lets it pass."""
    (folder / "message").write_text(message)
    done = subprocess.run([HOOK, folder / "message"], capture_output=True, text=True)
    assert bool(done.stderr) == bool(done.returncode)
    return done.stderr


@pytest.mark.parametrize("end", ["", EDITED])
def test_a_message_says_what_and_why(tmp_path: Path, end: str) -> None:
    assert told(tmp_path, f"area, other: what\n\nWhy.\n{end}") == ""


@pytest.mark.parametrize("message", ["area: what\n\n  \n\nWhy.\n", "\narea: what\n\nWhy.\n"])
def test_a_message_is_looked_at_as_git_cleans_it_up(tmp_path: Path, message: str) -> None:
    assert told(tmp_path, message) == ""


@pytest.mark.parametrize("subject", ["what", "Area: what", "area: " + 67 * "x", "area:  what", ""])
def test_a_subject_names_its_area_and_is_short(tmp_path: Path, subject: str) -> None:
    assert 'the subject must be "area: what"' in told(tmp_path, f"{subject}\n\nWhy.\n")


@pytest.mark.parametrize("body", ["", "\n", "\n\n", "Why.\n", EDITED])
def test_a_message_without_a_body_is_refused(tmp_path: Path, body: str) -> None:
    assert "the message must say why" in told(tmp_path, f"area: what\n{body}")
