"""A note that the agent lives, by which the next one finds out that it died, and for how long nobody watched."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from .errors import ConfigError


@dataclass(frozen=True, slots=True)
class Note:
    """What an agent leaves. `clean`: it ended by itself."""

    boot_id: str
    tgid: int
    last_seen_s: float
    clean: bool


class Presence:
    """The note of this agent, in a folder that only root can write to."""

    def __init__(self, folder: Path) -> None:
        """Make the folder. Raises `ConfigError`."""
        self._file = folder / "agent.json"
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError("agent.state_dir", f"{folder} cannot be used: {error.strerror}") from error

    def before(self) -> Note | None:
        """What the agent before left, None where there was none or its note is unreadable."""
        try:
            content = json.loads(self._file.read_text())
            return Note(
                str(content["boot_id"]), int(content["tgid"]), float(content["last_seen_s"]), bool(content["clean"])
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def same_boot(self, note: Note) -> bool:
        """Whether the machine has not been started anew since."""
        return note.boot_id == self._boot_id

    def note(self, *, clean: bool = False) -> None:
        """Say that this agent lives, or ends by itself. Raises `OSError`."""
        note = Note(self._boot_id, os.getpid(), time.time(), clean)
        new = self._file.with_suffix(".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(note), file)
        new.rename(self._file)
