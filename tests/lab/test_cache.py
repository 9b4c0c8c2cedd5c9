"""The lab's cache shows nothing that is half done."""

from pathlib import Path

import pytest
from krie.testing.lab.cache import Cache, size_of


def test_a_thing_appears_when_it_is_done(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "lab")
    with cache.locked("a"), cache.making("a") as folder:
        (folder / "file").write_bytes(b"12345")
        assert not cache.folder("a").exists()
    assert size_of(cache.folder("a")) == 5
    with cache.locked("a"), cache.making("a") as folder:
        (folder / "other").touch()
    assert [each.name for each in cache.folder("a").iterdir()] == ["other"]


def test_an_interruption_leaves_what_was_there(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "lab")
    with cache.locked("a"), cache.making("a") as folder:
        (folder / "whole").touch()

    def interrupted() -> None:
        with cache.locked("a"), cache.making("a") as folder:
            (folder / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [each.name for each in cache.folder("a").iterdir()] == ["whole"]
    assert [each.name for each in cache.root.iterdir() if each.is_dir()] == ["a"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "lab")
    left = cache.root / ".a.partial"
    left.mkdir(parents=True)
    (left / "half").touch()
    with cache.locked("a"), cache.making("a") as folder:
        assert list(folder.iterdir()) == []
