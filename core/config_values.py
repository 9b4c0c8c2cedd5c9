"""What single values of krie.toml may be, beyond their type. All raise `ValueError`, whose text people see."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

_LONGEST_SOCKET = 107


def power_of_two(value: int) -> int:
    """1, 2, 4 and so on."""
    if value & (value - 1):
        raise ValueError("must be a power of two")
    return value


def digest(text: str) -> str:
    """A SHA-256 in hexadecimal digits; empty stays empty."""
    if text and not (len(text) == 64 and set(text) <= set("0123456789abcdef")):
        raise ValueError("must be 64 hexadecimal digits, as sha256sum prints them")
    return text


def absolute(path: str) -> str:
    """A path from the root on."""
    if not path.startswith("/"):
        raise ValueError("must be an absolute path")
    return path


def absolute_or_empty(path: str) -> str:
    """The same; empty stays empty."""
    return absolute(path) if path else path


def named(name: str) -> str:
    """Any name but an empty one."""
    if not name:
        raise ValueError('an empty name is that of every other executable; write a name before the "="')
    return name


def server(url: str) -> str:
    """One of http://HOST[:PORT], https://HOST[:PORT] and unix:///PATH; empty stays empty."""
    if not url:
        return url
    if url.startswith("unix:///"):
        if len(os.fsencode(url.removeprefix("unix://"))) > _LONGEST_SOCKET:
            raise ValueError(f"names a socket of more than {_LONGEST_SOCKET} bytes, which Linux cannot take")
        return url
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and url.isascii()
    except ValueError:
        whole = False
    if not whole or parts.username is not None or parts.query or parts.fragment or parts.path not in ("", "/"):
        raise ValueError("must be http://HOST:PORT, https://HOST:PORT or unix:///PATH, with nothing behind it")
    return url.rstrip("/")
