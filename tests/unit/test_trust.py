"""Files that steer a root process: the whole way to them counts, not just the file."""

import os
from pathlib import Path

import pytest
from krie.errors import ConfigError, UntrustedFileError
from krie.trust import read_trusted

STRANGER = 12345


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "ours"
    folder.mkdir(mode=0o755)
    path = folder / "file"
    path.write_bytes(b"content")
    path.chmod(0o644)
    return path


@pytest.fixture
def strange_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "strange"
    folder.mkdir(mode=0o755)
    os.chown(folder, STRANGER, -1)
    return folder


def test_usual_links_are_followed(file: Path, tmp_path: Path) -> None:
    (tmp_path / "absolute").symlink_to(file)
    (tmp_path / "relative").symlink_to("ours/../ours/file")
    (tmp_path / "folder").symlink_to("ours")
    (tmp_path / "twice").symlink_to("absolute")
    for way in ("absolute", "relative", "folder/file", "twice", "folder/../ours/file"):
        assert read_trusted(tmp_path / way) == b"content"


def test_a_relative_path_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert read_trusted(Path("file")) == b"content"


def test_a_link_in_a_strangers_folder_is_refused(file: Path, strange_folder: Path) -> None:
    (strange_folder / "link").symlink_to(file)
    with pytest.raises(UntrustedFileError, match=f"^{strange_folder}: belongs to user {STRANGER}"):
        read_trusted(strange_folder / "link")


def test_a_link_through_a_strangers_folder_is_refused(file: Path, strange_folder: Path, tmp_path: Path) -> None:
    (strange_folder / "inner").symlink_to(file)
    (tmp_path / "outer").symlink_to(strange_folder / "inner")
    with pytest.raises(UntrustedFileError, match=f"^{strange_folder}: belongs to user {STRANGER}"):
        read_trusted(tmp_path / "outer")


def test_a_linked_folder_of_a_stranger_is_refused(strange_folder: Path, tmp_path: Path) -> None:
    (strange_folder / "file").write_bytes(b"root's own file")
    (tmp_path / "folder").symlink_to(strange_folder)
    with pytest.raises(UntrustedFileError, match=f"^{strange_folder}: belongs to user {STRANGER}"):
        read_trusted(tmp_path / "folder" / "file")


def test_a_strangers_link_in_a_sticky_folder_is_refused(file: Path, tmp_path: Path) -> None:
    sticky = tmp_path / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    link = sticky / "link"
    link.symlink_to(file)
    assert read_trusted(link) == b"content"
    os.lchown(link, STRANGER, -1)
    with pytest.raises(UntrustedFileError, match=f"^{link}: belongs to user {STRANGER}.*: chown -h root {link}$"):
        read_trusted(link)


def test_the_group_root_may_write_and_others_may_not(file: Path) -> None:
    file.chmod(0o664)
    assert read_trusted(file) == b"content"
    os.chown(file, -1, STRANGER)
    with pytest.raises(UntrustedFileError, match=f"^{file}: can be changed by other users: chmod go-w {file}$"):
        read_trusted(file)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UntrustedFileError, match="is not a regular file"):
        read_trusted(tmp_path)


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(ConfigError, match="cannot be read: Too many levels of symbolic links"):
        read_trusted(tmp_path / "a")


def test_a_huge_file_is_refused(file: Path) -> None:
    os.truncate(file, (16 << 20) + 1)
    with pytest.raises(ConfigError, match="is larger than 16 MiB"):
        read_trusted(file)
    os.truncate(file, 16 << 20)
    assert len(read_trusted(file)) == 16 << 20


def test_descriptors_are_given_back(file: Path, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path in (file, tmp_path):
        try:
            read_trusted(path)
        except UntrustedFileError:
            assert path is tmp_path
    assert len(os.listdir("/proc/self/fd")) == before
