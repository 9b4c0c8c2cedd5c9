"""A file system that an ordinary user's process serves, as a FUSE server does with the help of fusermount."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .acts import AS_NOBODY, NOBODY

CONTENT = b"#!/bin/sh\n"
SETUID_BY_ALL = 0o104777

_SERVER = """
import errno, os, struct, sys
device, uid, gid, mode, content = *map(int, sys.argv[1:5]), sys.argv[5].encode()
LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE = 1, 2, 3, 4, 14, 15, 16
STATFS, RELEASE, FLUSH, INIT, OPENDIR, RELEASEDIR, INTERRUPT, BATCH_FORGET = 17, 18, 25, 26, 27, 29, 36, 42
ROOT = 1                                                    # the node of the folder; any name in it is a file

def attributes(node):
    folder = node == ROOT
    what, links, owner, group = (0o40755, 2, 0, 0) if folder else (mode, 1, uid, gid)
    return struct.pack("<6Q3I7I", node, len(content), 1, 0, 0, 0, 0, 0, 0, what, links, owner, group, 0, 4096, 0)

def answer(opcode, node, words):
    if opcode == INIT:
        return struct.pack("<4I2H2I2H8I", 7, 31, 4096, 0, 8, 6, 4096, 1, 1, 0, *[0] * 8)
    if opcode == LOOKUP:
        found = 2 + sum(256**n * each for n, each in enumerate(words.rstrip(bytes(1))[:4]))
        return struct.pack("<4Q2I", found, 0, 60, 60, 0, 0) + attributes(found)
    if opcode in (GETATTR, SETATTR):
        return struct.pack("<Q2I", 60, 0, 0) + attributes(node)
    if opcode in (OPEN, OPENDIR):
        return struct.pack("<Q2I", 0, 0, 0)
    if opcode == READ:
        _, offset, size = struct.unpack_from("<2QI", words)
        return content[offset:offset + size]
    if opcode == WRITE:
        return struct.pack("<2I", struct.unpack_from("<2QI", words)[2], 0)
    if opcode == STATFS:
        return struct.pack("<5Q10I", 0, 0, 0, 0, 0, 4096, 255, 4096, *[0] * 7)
    if opcode in (RELEASE, RELEASEDIR, FLUSH):
        return b""
    return None                                             # of all else the kernel learns that there is none

while True:
    try:
        asked = os.read(device, 1 << 17)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):      # whoever asked is gone
            continue
        sys.exit(error.errno != errno.ENODEV)               # unmounted
    _, opcode, unique, node = struct.unpack_from("<2I2Q", asked)
    if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
        continue
    data = answer(opcode, node, asked[40:])
    error = 0 if data is not None else -errno.ENOSYS
    data = data or b""
    try:
        os.write(device, struct.pack("<IiQ", 16 + len(data), error, unique) + data)
    except OSError as failed:
        if failed.errno not in (errno.ENOENT, errno.ENODEV):
            raise
"""


@contextmanager
def served(folder: Path, *, owner: int, mode: int = SETUID_BY_ALL) -> Iterator[None]:
    """Whatever name is looked for in the folder is a file of this owner, or so says its server, who is nobody.

    Needs root, for the mount; everybody may look.
    """
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id={NOBODY},group_id={NOBODY},allow_other"
    line = [*AS_NOBODY, sys.executable, "-I", "-c", _SERVER]
    words = [str(each) for each in (device, owner, NOBODY, mode)]
    try:
        _mount(folder, options, device)
        with subprocess.Popen([*line, *words, CONTENT.decode()], pass_fds=(device,)) as server:
            try:
                yield
            finally:
                subprocess.run(["umount", "-l", folder], check=True)
                server.wait(30)
    finally:
        os.close(device)


def _mount(folder: Path, options: str, device: int) -> None:
    """By a process that has the device: the kernel takes the number for one of whoever mounts."""
    code = "import ctypes,sys; l=ctypes.CDLL(None,use_errno=True); a=[x.encode() for x in sys.argv[1:]]"
    code += "; sys.exit(l.mount(b'krie-test',a[0],b'fuse',6,a[1]) and ctypes.get_errno())"  # MS_NOSUID | MS_NODEV
    subprocess.run([sys.executable, "-I", "-c", code, str(folder), options], pass_fds=(device,), check=True)
