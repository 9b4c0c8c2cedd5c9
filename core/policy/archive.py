"""A bundle's archive: a gzipped tar of small regular files, written the same way each time and read within limits.

What is read may come from anywhere: nothing is extracted to disk, and no name, link, size or number of it is believed.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator, Mapping

from ..errors import PolicyError
from .snapshot import MOST_ENTRIES, place_of
from .sources import MOST_BYTES

MOST_PACKED = 16 << 20
"""Bytes of a bundle as it is stored and sent."""
_MOST_UNPACKED = MOST_BYTES + (4 << 20)  # the headers of as many files as there may be
_LONGEST_PATH = 512
_BLOCK = 512


def pack(files: Mapping[str, bytes]) -> bytes:
    """The archive of these files, by path: the same files give the same bytes."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, content in sorted(files.items()):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode, entry.mtime = len(content), 0o644, 0
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(written.getvalue(), mtime=0)


def unpack(raw: bytes, place: str) -> dict[str, bytes]:
    """The files of an archive by path, without a leading slash. `place`: what messages call it.

    Raises `PolicyError` for whatever is not a plain archive: too large, packed or unpacked; too many members; links,
    devices, sparse files; paths that leave it or that exist twice; bytes behind its end.
    """
    files: dict[str, bytes] = {}
    folders: set[str] = set()
    try:
        with tarfile.open(fileobj=io.BytesIO(_decompressed(raw, place)), mode="r:") as archive:
            for entry in _entries(archive, place):
                path = _path(entry.name, place)
                if entry.isdir():
                    folders.add(path)
                    continue
                if not entry.isreg() or entry.issparse():
                    raise PolicyError(f"{place}: {place_of(path)} is not a regular file; a bundle holds nothing else")
                content = archive.extractfile(entry)
                if path in files:
                    raise PolicyError(f"{place}: {place_of(path)} is in it twice")
                files[path] = content.read() if content is not None else b""
                if len(files[path]) != entry.size:
                    raise PolicyError(f"{place}: {place_of(path)} is cut off")
    except (PolicyError, MemoryError):
        raise
    except Exception as error:  # whatever the library makes of hostile bytes, be it an IndexError
        raise PolicyError(f"{place}: is not a bundle: {_said(error)}") from None
    for path in files:
        above = path.rpartition("/")[0]
        while above:
            if above in files:
                raise PolicyError(f"{place}: {place_of(above)} is a file and a folder")
            above = above.rpartition("/")[0]
        if path in folders:
            raise PolicyError(f"{place}: {place_of(path)} is a file and a folder")
    return files


def _decompressed(raw: bytes, place: str) -> bytes:
    if len(raw) > MOST_PACKED:
        raise PolicyError(f"{place}: is larger than {MOST_PACKED >> 20} MiB; a bundle for KRIe is not")
    stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        content = stream.decompress(raw, _MOST_UNPACKED)
    except zlib.error as error:
        raise PolicyError(f"{place}: is not a bundle, which is a gzipped tar: {error}") from None
    if stream.unconsumed_tail:
        raise PolicyError(f"{place}: unpacks to more than {_MOST_UNPACKED >> 20} MiB")
    if not stream.eof:
        raise PolicyError(f"{place}: is cut off")
    if stream.unused_data:
        raise PolicyError(f"{place}: has {len(stream.unused_data)} bytes behind its end")
    return content


def _entries(archive: tarfile.TarFile, place: str) -> Iterator[tarfile.TarInfo]:
    count = 0
    while (entry := archive.next()) is not None:
        count += 1
        if count > MOST_ENTRIES:
            raise PolicyError(f"{place}: has more than {MOST_ENTRIES} members")
        yield entry


def _path(name: str, place: str) -> str:
    path = name.removeprefix("./").strip("/") if name not in (".", "./") else ""
    parts = path.split("/") if path else []
    # What cannot be printed would be in each message about the file, or, as half of a surrogate pair, in none.
    plain = len(name) <= _LONGEST_PATH and "\\" not in name and name.isprintable()
    if not plain or any(part in ("", ".", "..") for part in parts):
        raise PolicyError(f"{place}: a member is called {place_of(name[:80])}, which is not a plain path")
    return path


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
