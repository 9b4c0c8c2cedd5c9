"""The note that tells the next agent how this one ended."""

import os
import time
from pathlib import Path

import pytest
from krie.errors import ConfigError
from krie.presence import Note, Presence


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
    assert not presence.same_boot(Note("another", 1, 0.0, clean=False))
    presence.note(clean=True)
    after = presence.before()
    assert after is not None
    assert after.clean


@pytest.mark.parametrize("content", ["", "{", "[]", '{"boot_id": 1}', '{"boot_id": "", "tgid": "x"}', "\0"])
def test_a_broken_note_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "agent.json").write_text(content)
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
