"""Files that steer a root process: the whole way to them counts, not just the file."""

import os
import socket
import struct
from pathlib import Path

import pytest
from krie.errors import ConfigError, UntrustedFileError
from krie.trust import read_trusted, require_trusted, require_trusted_socket

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


@pytest.fixture
def sticky(tmp_path: Path) -> Path:
    """As /tmp: everybody puts things there, and takes away only their own."""
    folder = tmp_path / "sticky"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


def test_a_file_or_link_in_a_sticky_folder_is_refused_whoever_owns_it(file: Path, sticky: Path) -> None:
    (sticky / "moved").write_bytes(b"root's own, which somebody moved here out of a folder of theirs")
    (sticky / "link").symlink_to(file)
    for name in ("moved", "link"):
        with pytest.raises(UntrustedFileError, match=f"^{sticky / name}: lies in {sticky}, into which others may move"):
            read_trusted(sticky / name)


def test_a_strangers_link_is_refused_wherever_it_lies(file: Path) -> None:
    link = file.parent / "link"
    link.symlink_to(file)
    assert read_trusted(link) == b"content"
    os.lchown(link, STRANGER, -1)
    with pytest.raises(UntrustedFileError, match=f"^{link}: belongs to user {STRANGER}.*: chown -h root {link}$"):
        read_trusted(link)


def test_a_sticky_folder_itself_is_refused(sticky: Path) -> None:
    with pytest.raises(UntrustedFileError, match=f"^{sticky}: is a folder into which others may put files"):
        require_trusted(sticky)


def test_a_folder_of_its_own_in_a_sticky_one_is_roots(sticky: Path) -> None:
    """Nobody can move it there or away: renaming a folder into another one needs leave to write to itself."""
    (sticky / "own").mkdir(mode=0o700)
    (sticky / "own" / "file").write_bytes(b"content")
    assert read_trusted(sticky / "own" / "file") == b"content"
    os.chown(sticky / "own", STRANGER, -1)
    with pytest.raises(UntrustedFileError, match=f"^{sticky}/own: belongs to user {STRANGER}"):
        read_trusted(sticky / "own" / "file")


@pytest.mark.parametrize("group", [0, STRANGER])
def test_no_group_may_write(file: Path, group: int) -> None:
    os.chown(file, -1, group)
    file.chmod(0o664)
    with pytest.raises(UntrustedFileError, match=f"^{file}: can be changed by other users: chmod go-w {file}$"):
        read_trusted(file)
    file.chmod(0o644)
    file.parent.chmod(0o775)
    os.chown(file.parent, -1, group)
    with pytest.raises(UntrustedFileError, match=f"^{file.parent}: can be changed by other users"):
        read_trusted(file)


USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32


def set_acl(path: Path, *entries: tuple[int, int, int], kind: str = "access") -> None:
    """Entries: tag, permissions, user or group."""
    text = b"".join(struct.pack("<HHI", *each) for each in sorted(entries))
    os.setxattr(path, f"system.posix_acl_{kind}", struct.pack("<I", 2) + text)


def acl(tag: int, permissions: int, identity: int, mask: int = 7) -> tuple[tuple[int, int, int], ...]:
    none = 0xFFFF_FFFF
    return (
        (USER_OBJ, 7, none),
        (tag, permissions, identity),
        (GROUP_OBJ, 5, none),
        (MASK, mask, none),
        (OTHER, 5, none),
    )


@pytest.mark.parametrize(("tag", "who"), [(USER, f"user {STRANGER}"), (GROUP, f"group {STRANGER}")])
def test_whom_an_acl_lets_write_is_named(file: Path, tag: int, who: str) -> None:
    for path in (file, file.parent):
        set_acl(path, *acl(tag, 7, STRANGER))
        with pytest.raises(
            UntrustedFileError, match=f"^{path}: can be changed by {who}, by an ACL: setfacl -b {path}$"
        ):
            read_trusted(file)
        os.removexattr(path, "system.posix_acl_access")
        path.chmod(0o755)
    assert read_trusted(file) == b"content"


def test_an_acl_that_only_lets_read_is_fine(file: Path) -> None:
    set_acl(file, *acl(USER, 5, STRANGER, mask=5))
    set_acl(file.parent, *acl(USER, 7, STRANGER, mask=5))
    set_acl(file.parent, *acl(GROUP, 5, STRANGER), kind="default")
    assert read_trusted(file) == b"content"


def test_a_folder_that_hands_on_an_acl_is_refused(file: Path) -> None:
    set_acl(file.parent, *acl(USER, 7, STRANGER), kind="default")
    with pytest.raises(UntrustedFileError, match=f"^{file.parent}: lets user {STRANGER} change what is made in it"):
        read_trusted(file)
    os.removexattr(file.parent, "system.posix_acl_default")
    assert read_trusted(file) == b"content"


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


def listening(path: Path, owner: int) -> Path:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
    os.chown(path, owner, -1)
    return path


def test_whose_socket_may_answer(tmp_path: Path, strange_folder: Path) -> None:
    own = os.geteuid()
    require_trusted_socket(listening(tmp_path / "own", own))
    require_trusted_socket(listening(strange_folder / "theirs", STRANGER))  # a server with a user of its own
    require_trusted_socket(listening(tmp_path / "theirs", STRANGER))
    (tmp_path / "link").symlink_to(strange_folder / "theirs")
    require_trusted_socket(tmp_path / "link")
    with pytest.raises(UntrustedFileError, match=f"^{strange_folder}: belongs to user {STRANGER}, and the socket"):
        require_trusted_socket(listening(strange_folder / "own", own))
    with pytest.raises(FileNotFoundError):
        require_trusted_socket(tmp_path / "none")


def test_a_socket_where_everybody_may_put_one_is_not_believed(tmp_path: Path) -> None:
    sticky, loose = tmp_path / "sticky", tmp_path / "loose"
    for folder, mode in ((sticky, 0o1777), (loose, 0o777)):
        folder.mkdir()
        folder.chmod(mode)
    require_trusted_socket(listening(sticky / "own", os.geteuid()))
    with pytest.raises(UntrustedFileError, match=f"^{sticky}/theirs: lies in {sticky}, where everybody may put things"):
        require_trusted_socket(listening(sticky / "theirs", STRANGER))
    (sticky / "folder").mkdir()
    path = listening(sticky / "folder/theirs", STRANGER)
    require_trusted_socket(path)
    os.chown(sticky / "folder", STRANGER, -1)
    with pytest.raises(UntrustedFileError, match=f"^{sticky}/folder: lies in {sticky}"):
        require_trusted_socket(path)
    with pytest.raises(UntrustedFileError, match=f"^{loose}: lets others put a socket in the place of"):
        require_trusted_socket(listening(loose / "own", os.geteuid()))
