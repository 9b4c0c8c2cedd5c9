"""Files that steer a root process must not be changeable by anybody else.

What decides is the file system alone: owners, modes and POSIX ACLs of the file and of all that leads to it. Nothing of
the environment is believed, SUDO_UID neither.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

from .errors import ConfigError, UntrustedFileError

_MOST_BYTES = 16 << 20
_MOST_SECRET_BYTES = 64 << 10
_ACL_VERSION = 2
_ACL_HEADER, _ACL_ENTRY = struct.Struct("<I"), struct.Struct("<HHI")  # include/uapi/linux/posix_acl_xattr.h
_PEER = struct.Struct("=iII")  # struct ucred: tgid, uid, gid
_USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x02, 0x04, 0x08, 0x10, 0x20
_MAY_WRITE = 2


def read_trusted(path: Path, most: int = _MOST_BYTES) -> bytes:
    """Read a file that steers the agent, of at most so many bytes.

    Raises `ConfigError` where it cannot be read, `UntrustedFileError` where somebody else than root and the current
    user could change it or a folder above it.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # before it is opened, which does something to some devices
            raise UntrustedFileError(str(path), "is not a regular file")
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UntrustedFileError(str(path), "is not a regular file")
        _require(path, status)
        require_trusted(path)
        if status.st_size > most:
            raise ConfigError(str(path), f"is larger than {f'{most >> 20} MiB' if most >> 20 else f'{most >> 10} KiB'}")
        # Never more than it says to have: some files of /proc and /sys have no end, or are emptied by reading.
        content = b""
        while len(content) < status.st_size and (piece := os.read(descriptor, status.st_size - len(content))):
            content += piece
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(content) != status.st_size:
        raise ConfigError(str(path), f"has {len(content)} bytes, and says to have {status.st_size}: no file on a disk")
    return content


def read_secret(path: Path) -> bytes:
    """The same for a token or a key that others may not even read. Raises `ConfigError`, `UntrustedFileError`."""
    content = read_trusted(path, _MOST_SECRET_BYTES)
    if path.stat().st_mode & stat.S_IROTH:
        raise UntrustedFileError(str(path), f"holds a secret, and all users can read it: chmod o-r {path}")
    return content


def read_token(path: Path) -> str:
    """The one token that such a file holds. Raises `ConfigError`, `UntrustedFileError`."""
    try:
        token = read_secret(path).decode().strip()
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), "is not UTF-8") from error
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(str(path), "must hold one token, and nothing else")
    return token


def require_trusted(path: Path) -> None:
    """Raise `UntrustedFileError` where others could change this file, or which file it is. Raises `OSError` too."""
    require_all_trusted((path,))


Stat = Callable[[Path], os.stat_result]


def require_all_trusted(paths: Iterable[Path], lstat: Stat = Path.lstat) -> None:
    """The same for many files: what leads to several of them is looked at once. `lstat`: one that remembers, for who
    has looked at them already."""
    seen: set[Path] = set()
    status_of = cache(Path.stat)  # of folders, in which many lie
    for path in paths:
        itself: os.stat_result | None = None
        for step, status in _way_to(path, seen, lstat):
            itself = itself or status  # a path's own comes first
            _require(step, status, status_of)
        if itself is None or not stat.S_ISREG(itself.st_mode):
            _require_not_sticky(path, status_of(path))


def require_trusted_socket(path: Path) -> int:
    """The owner. Raises `UntrustedFileError` where anybody but root and that user could have put a socket in its place.

    Whoever owns it answers, be it a user of its own for the server. So it must not lie where everybody may put things,
    and the folders that lead to it must be root's or that user's. Raises `OSError` too.
    """
    owner = path.stat().st_uid
    for step, status in _way_to(path, set()):
        if status.st_uid not in _trusted_owners() | {owner}:
            raise UntrustedFileError(
                str(step), f"belongs to user {status.st_uid}, and the socket {path} to user {owner}"
            )
        folder, above = stat.S_ISDIR(status.st_mode), step.parent.stat()
        if folder and _others_may_write(status) and not status.st_mode & stat.S_ISVTX:
            raise UntrustedFileError(str(step), f"lets others put a socket in the place of {path}: chmod go-w {step}")
        if status.st_uid not in _trusted_owners() and _others_may_write(above):
            problem = (
                f"lies in {step.parent}, where everybody may put things, and is not root's: use a folder of its own"
            )
            raise UntrustedFileError(str(step), problem)
    return owner


def require_trusted_peer(connected: socket.socket, path: Path, owner: int) -> None:
    """Raise `UntrustedFileError` where neither root nor the socket's owner listens: another one may have come into its
    place after it was looked at."""
    peer = _PEER.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[1]
    if peer not in _trusted_owners() | {owner}:
        raise UntrustedFileError(str(path), f"user {peer} listens there, and it belongs to user {owner}")


def _way_to(path: Path, seen: set[Path], lstat: Stat = Path.lstat) -> Iterator[tuple[Path, os.stat_result]]:
    """The file, and every folder and symbolic link that leads to it: who controls one of them chooses the file."""
    targets = [path.absolute()]
    while targets:
        step = targets.pop()
        while step not in seen:  # if one has been looked at, those above it were, too
            seen.add(step)
            status = lstat(step)
            if stat.S_ISLNK(status.st_mode):
                targets.append(step.parent / step.readlink())
            yield step, status
            step = step.parent


def _trusted_owners() -> frozenset[int]:
    return frozenset({0, os.geteuid()})


def _require(path: Path, status: os.stat_result, status_of: Stat = Path.stat) -> None:
    link, folder = stat.S_ISLNK(status.st_mode), stat.S_ISDIR(status.st_mode)
    if status.st_uid not in _trusted_owners():
        chown = "chown -h" if link else "chown"
        raise UntrustedFileError(
            str(path), f"belongs to user {status.st_uid}, who could change it: {chown} root {path}"
        )
    if not folder:
        _require_not_loose(path, status_of(path.parent))
    if link:  # its mode says nothing: only its owner can replace it, unless the folder allows more
        return
    if folder and (writer := _who_inherits(path)):
        problem = f"lets {writer} change what is made in it, by a default ACL: setfacl -k {path}"
        raise UntrustedFileError(str(path), problem)
    if not _others_may_write(status) or (folder and status.st_mode & stat.S_ISVTX):
        return
    if writer := _who_writes(path):
        raise UntrustedFileError(str(path), f"can be changed by {writer}, by an ACL: setfacl -b {path}")
    raise UntrustedFileError(str(path), f"can be changed by other users: chmod go-w {path}")


def _require_not_sticky(path: Path, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX and _others_may_write(status):
        raise UntrustedFileError(str(path), "is a folder into which others may put files: take one of your own")


def _require_not_loose(path: Path, above: os.stat_result) -> None:
    """A file or a link that lies in a folder where everybody may put things, as /tmp, is not known to be there by the
    will of its owner: others can move root's files into it, out of folders of their own. A folder is: only its owner
    can move it to another place."""
    if _others_may_write(above) and above.st_mode & stat.S_ISVTX:
        problem = f"lies in {path.parent}, into which others may move files: put it into a folder of its own"
        raise UntrustedFileError(str(path), problem)


def _others_may_write(status: os.stat_result) -> bool:
    """Whether the mode lets anybody but the owner write, which it also says where an ACL does: the bits of the group
    are then the most that any entry gives. Of root's groups everybody could be a member."""
    own_group = os.geteuid() != 0 and status.st_gid == os.getegid()
    return bool(status.st_mode & (stat.S_IWOTH if own_group else stat.S_IWOTH | stat.S_IWGRP))


def _who_writes(path: Path) -> str:
    return _writer(path, "system.posix_acl_access")


def _who_inherits(folder: Path) -> str:
    return _writer(folder, "system.posix_acl_default")


def _writer(path: Path, name: str) -> str:
    """Whom an ACL lets write who is not trusted; empty where there is none, or no such ACL. Raises `OSError`."""
    try:
        raw = os.getxattr(path, name)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return ""
        raise
    if len(raw) < _ACL_HEADER.size or _ACL_HEADER.unpack_from(raw)[0] != _ACL_VERSION:
        return "whoever an ACL of unknown format names"
    entries = [_ACL_ENTRY.unpack_from(raw, at) for at in range(_ACL_HEADER.size, len(raw), _ACL_ENTRY.size)]
    mask = next((permissions for tag, permissions, _ in entries if tag == _MASK), _MAY_WRITE)
    for tag, permissions, identity in entries:
        if not permissions & _MAY_WRITE:
            continue
        if tag == _OTHER:
            return "other users"
        if not mask & _MAY_WRITE:
            continue
        if tag == _USER and identity not in _trusted_owners():
            return f"user {identity}"
        if tag == _GROUP:
            return f"group {identity}"
        if tag == _GROUP_OBJ:
            return "its group"
    return ""
