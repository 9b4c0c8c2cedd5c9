"""The bundle on disk: what was in force last, by which the next agent starts without a network, and one that
is to be tried."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..policy.archive import MOST_PACKED
from ..trust import read_trusted, require_trusted

_MOST_STATE = 64 << 10
_OFFERED = "offered-"


def digest_of(raw: bytes) -> str:
    """By which a bundle's bytes are known."""
    return hashlib.sha256(raw).hexdigest()


@dataclass(frozen=True, slots=True)
class State:
    """What is known of the bundle that was in force last."""

    url: str = ""
    etag: str = ""
    digest: str = ""
    """Of its bytes, by `digest_of`."""
    highest: int | None = None
    """The highest serial that was in force here; None: none was, so that any may follow."""


class KeptBundle:
    """A folder that only root can write to. Files in it are replaced by one rename each."""

    def __init__(self, folder: Path) -> None:
        """Nothing is made or read yet."""
        self._folder = folder
        self.active = folder / "active.tar.gz"
        """The bundle that was in force last; nothing has verified it since it was written."""
        self.state_file = folder / "state.json"

    def make(self) -> None:
        """Make the folder, if need be. Raises `ConfigError`, `UntrustedFileError`."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            require_trusted(self._folder)
            for each in self._folder.glob(f"{_OFFERED}*"):
                each.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError("agent.state_dir", f"{self._folder} cannot be used: {error.strerror}") from error

    def state(self) -> State:
        """All that is known; nothing where the file is missing, which is how an older bundle is let in once.

        Raises `ConfigError` for a file that is there and cannot be believed.
        """
        if not os.path.lexists(self.state_file):
            return State()
        try:
            content: dict[str, Any] = json.loads(read_trusted(self.state_file, _MOST_STATE))
            texts = [content[name] for name in ("url", "etag", "digest")]
            highest = content["highest"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigError(str(self.state_file), self._remove(f"is damaged: {error!r}")) from error
        if not all(isinstance(each, str) for each in texts) or (highest is not None and type(highest) is not int):
            raise ConfigError(str(self.state_file), self._remove("is damaged: a value in it is of another type"))
        return State(texts[0], texts[1], texts[2], highest)

    def disown(self) -> None:
        """The one that was in force last no longer is: the next one is examined even if it is the same.

        Raises `OSError`, and `ConfigError` as `state`.
        """
        self.note(replace(self.state(), etag="", digest=""))

    def note(self, state: State) -> None:
        """Write the state. Raises `OSError`."""
        self._replace(self.state_file, json.dumps(asdict(state)).encode())

    def offered(self, digest: str) -> Path:
        """Where one lies that has been verified, and is to be tried: by its digest, since another one may come while it
        is read."""
        return self._folder / f"{_OFFERED}{digest}.tar.gz"

    def offer(self, raw: bytes) -> None:
        """Put a verified bundle where the policy is read from when it is tried. Raises `OSError`."""
        self._replace(self.offered(digest_of(raw)), raw)

    def adopt(self, digest: str) -> None:
        """The one with this digest is in force. Raises `OSError`."""
        self.offered(digest).rename(self.active)

    def withdraw(self, digest: str) -> None:
        """It will not be in force. Raises `OSError`."""
        self.offered(digest).unlink(missing_ok=True)

    def read(self, path: Path) -> bytes:
        """The bytes of one of both. Raises `ConfigError`, `UntrustedFileError`."""
        return read_trusted(path, MOST_PACKED)

    def _remove(self, why: str) -> str:
        return f"{why}; remove it, and the next bundle is taken whatever its serial is"

    def _replace(self, path: Path, content: bytes) -> None:
        new = self._folder / f"{path.name.partition('-')[0].partition('.')[0]}.new"
        _write(new, content)
        new.rename(path)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
