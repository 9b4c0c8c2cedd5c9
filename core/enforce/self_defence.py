"""What the agent guards of itself beyond its process: its BPF objects, its files, and switches of the whole kernel."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..events.core_maps import File
from ..events.identity import Identity
from ..events.numbers import PRESENT, WORD
from ..events.operations import GUARDED
from ..kernel import bpf
from ..kernel.maps import Map
from ..kernel.mounts import mount_points
from ..kernel_files import KernelFile
from ..roots import open_debugfs

_SWITCH = "kprobes/enabled"
_ATTEMPTS = {name: number for number, name in GUARDED.items()}
_OWN = {"map": "own_maps", "prog": "own_programs", "link": "own_links"}


@dataclass(frozen=True, slots=True)
class Held:
    """A BPF object of the agent's."""

    kind: str
    """`map`, `prog` or `link`."""
    id: int
    """Its number, unique among those of its kind."""
    name: str
    """As the kernel knows it; links have none."""


def held_objects() -> Iterator[Held]:
    """All BPF objects that this process holds a descriptor of."""
    for _, each in held_files():
        yield each


def held_files() -> Iterator[tuple[int, Held]]:
    """The same with these descriptors."""
    for file in KernelFile("/proc/self/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # the one of the listing
            for line in file.read_text().splitlines():
                word, _, number = line.partition(":")
                kind = word.removesuffix("_id")
                if kind in _OWN and word != kind:
                    descriptor = int(file.name)
                    name = "" if kind == "link" else bpf.object_name(descriptor)
                    yield descriptor, Held(kind, int(number), name)
                    break  # a link's description goes on with its program


def _mount_of(descriptor: int) -> int:
    """The id of the mount that a file was opened by."""
    text = KernelFile(f"/proc/self/fdinfo/{descriptor}").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("mnt_id:")).split()[1])


def _place_of(descriptor: int) -> Path:
    """Where a file is now, whatever is mounted over it."""
    return Path(KernelFile(f"/proc/self/fd/{descriptor}").link())


def ways_to(folders: Iterable[Path]) -> set[Path]:
    """These folders, what is above them, and the same of what symbolic links on the way lead to."""
    found: set[Path] = set()
    ahead = list(folders)
    while ahead:
        folder = ahead.pop()
        for way in {folder, *folder.parents} - found:
            found.add(way)
            with suppress(OSError):  # it is no link
                ahead.append(way.parent / os.readlink(way))
    return found


def open_sysrq() -> int:
    """A descriptor of what triggers sysrq. Raises `OSError`."""
    return KernelFile("/proc/sysrq-trigger").descriptor(os.O_PATH)


class Guard:
    """Knows the agent's own things; the programs of the sensors containment and guard refuse access to them."""

    def __init__(
        self,
        open_debugfs: Callable[[], int] = open_debugfs,
        held: Callable[[], Iterable[Held]] = held_objects,
        open_sysrq: Callable[[], int] = open_sysrq,
    ) -> None:
        """Open debugfs for ourselves alone: whether and where it is mounted is not ours to depend on.

        `held`: the BPF objects of this process.
        """
        self._debugfs, self._held, self._open_sysrq = open_debugfs(), held, open_sysrq
        self.objects: tuple[Held, ...] = ()
        """What is guarded, in no order."""
        self._maps: Mapping[str, Map] = {}
        self._identify: Callable[[int], Identity] = lambda _: Identity(0, 0, 0)
        self._files: dict[Path, tuple[tuple[int, int], bytes]] = {}
        self._systems: set[bytes] = set()
        self._folders: dict[Path, tuple[int, Path]] = {}
        self._mounts: set[tuple[int, Path]] = set()

    def close(self) -> None:
        """Let go of it."""
        while self._folders:
            os.close(self._folders.popitem()[1][0])
        if self._debugfs >= 0:
            os.close(self._debugfs)

    def prepare(
        self,
        maps: Mapping[str, Map],
        identify: Callable[[int], Identity],
        folders: Mapping[Path, bool],
        used: Iterable[Path] = (),
    ) -> None:
        """Tell the programs what they guard; `maps` are the sensor's own.

        `folders`: those that are the agent's alone, and whether others may open nothing there for writing. They may
        change no names there in any case. `used`: further ones that the agent needs; what lies on the way to any of
        them is neither unmounted nor mounted over, renamed nor, where it is a symbolic link, removed.
        """
        self._maps, self._identify = maps, identify
        self.look_at_objects()
        with suppress(OSError):  # this kernel has no kprobes
            switch = os.open(_SWITCH, os.O_PATH | os.O_CLOEXEC, dir_fd=self._debugfs)
            self._guard_file(switch, _ATTEMPTS["kprobes_switched"])
        with suppress(OSError):  # this kernel has no sysrq
            key = self._key(self._open_sysrq())
            # Each mount of procfs is a device of its own.
            anywhere = replace(File.decode(key), dev=0, generation=0).encode()
            maps["containment_files"].set(anywhere, WORD.encode(_ATTEMPTS["sysrq_written"]))
        for folder, closed in folders.items():
            with suppress(OSError):
                descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
                self._folders[folder] = descriptor, _place_of(descriptor)
                key = self._key(os.dup(descriptor))
                maps["containment_folders"].set(key, WORD.encode(closed))
                self._look_after_system(key)
        self._mounts = mount_points()
        for way in ways_to((*folders, *used)):
            with suppress(OSError):
                descriptor = os.open(way, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
                maps["containment_mounts"].set(WORD.encode(_mount_of(descriptor)), PRESENT)
                place, key = _place_of(descriptor), self._key(descriptor)
                if place != place.parent:  # what is mounted over the root hides nothing from who has it
                    maps["containment_ways"].set(key, PRESENT)

    def look_at_objects(self) -> None:
        """Guard the BPF objects that the agent has now."""
        self.objects = tuple(self._held())
        for each in self.objects:
            self._maps[f"containment_{_OWN[each.kind]}"].set(WORD.encode(each.id), PRESENT)

    def look_after(self, files: Iterable[Path]) -> None:
        """Guard these files as they are now: each may have been replaced since the last time."""
        over = self._mounted_since()
        found: dict[Path, tuple[tuple[int, int], bytes]] = {}
        for path in files:
            if not over.isdisjoint((path, *path.parents)):  # nothing there is asked; what lies below stays guarded
                found |= {path: self._files[path]} if path in self._files else {}
                continue
            with suppress(OSError):  # it is not there
                status = path.lstat()
                at = (status.st_dev, status.st_ino)
                before, key = self._files.get(path, ((0, 0), b""))
                if before != at:
                    key = self._key(os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC))
                    self._look_after_system(key)
                found[path] = (at, key)
        table = self._maps["containment_files"]
        keys, known_keys = ({key for _, key in each.values()} for each in (found, self._files))
        for key in keys - known_keys:
            table.set(key, WORD.encode(_ATTEMPTS["files_changed"]))
        for key in known_keys - keys:
            table.remove(key)
        self._files = found

    def covered(self) -> set[Path]:
        """Which of the agent's folders is elsewhere, or hidden by a mount: no hook sees what another namespace brings.

        Nothing is asked of what is mounted there, as by a path: a file system in user space need not answer.
        """
        over = self._mounted_since()
        return {
            folder
            for folder, (descriptor, place) in self._folders.items()
            if _place_of(descriptor) != place or not over.isdisjoint((place, *place.parents))
        }

    def _mounted_since(self) -> set[Path]:
        return {point for number, point in mount_points() if (number, point) not in self._mounts}

    def _look_after_system(self, key: bytes) -> None:
        """Of the file system that this file is on, what is done to all of it."""
        whole = replace(File.decode(key), ino=0, generation=0).encode()
        if whole not in self._systems:
            self._maps["containment_files"].set(whole, WORD.encode(_ATTEMPTS["files_frozen"]))
            self._systems.add(whole)

    def kprobes_off(self) -> bool:
        """Whether all kprobes are disarmed, by the switch or by a write to the kernel's variable behind it.

        False where that cannot be known: without kprobes, or where lockdown refuses the file.
        """
        try:
            descriptor = os.open(_SWITCH, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._debugfs)
        except OSError:
            return False
        try:
            return os.read(descriptor, 8).strip() == b"0"
        finally:
            os.close(descriptor)

    def arm_kprobes(self) -> bool:
        """Turn all kprobes on again; whether that could be done."""
        try:
            descriptor = os.open(_SWITCH, os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._debugfs)
        except OSError:
            return False
        try:
            return os.write(descriptor, b"1") == 1
        except OSError:
            return False
        finally:
            os.close(descriptor)

    def _guard_file(self, descriptor: int, attempt: int) -> None:
        self._maps["containment_files"].set(self._key(descriptor), WORD.encode(attempt))

    def _key(self, descriptor: int) -> bytes:
        """The file's key in the maps; closes the descriptor."""
        try:
            file = self._identify(descriptor)
        finally:
            os.close(descriptor)
        return File.key(file)
