"""A loader that is killed while it attaches: what it attached lives on until it may end, and then ends."""

import os
import signal
from itertools import count
from pathlib import Path

import pytest
from krie.errors import LoaderError
from krie.kernel import attach
from krie.kernel.keeper import KEY, Held
from krie.kernel.program import Program
from krie.kernel.standing import place_of
from krie.loader import launcher, second
from krie.loader.holding import let_go_safely
from krie.loader.launcher import LoaderProcess
from krie.loader.messages import Request
from krie.loader.request import sensor_request
from krie.loader.second import Second
from krie.processes.sensor import process_sensor
from krie.testing.bpf_objects import bpf_objects
from krie.testing.needs import compiled_dir
from krie.testing.patience import wait_for

_ATTACHED = 2
"""Of the sensor's programs, when the loader is killed."""


def links_of(held: list[Held]) -> set[int]:
    texts = (Path(f"/proc/self/fdinfo/{each.descriptor}").read_text() for each in held)
    return {int(line.split()[1]) for text in texts for line in text.splitlines() if line.startswith("link_id:")}


def test_what_it_attached_has_another_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sensor = process_sensor()
    programs = [each for probe in sensor.probes for way in probe.alternatives for each in way.programs]
    request = Request((sensor_request(sensor),), 64, allow_every_syscall=False, compiled_dir=compiled_dir())
    said, safe = tmp_path / "said", tmp_path / "safe"
    note, attach_ = Second.note, attach.attach

    calls = count()

    def so_many(program: Program, descriptor: int, places: attach.Places) -> list[int]:
        """In the loader."""
        if next(calls) == _ATTACHED:
            signal.pause()
        return attach_(program, descriptor, places)

    def kill_behind(self: Second, kind: str, address: int, links: dict[int, int]) -> None:
        note(self, kind, address, links)
        if len(self._held) == _ATTACHED:
            os.kill(child._tgid, signal.SIGKILL)

    def say_and_wait(held: list[Held], switches: tuple[int, ...], state: int) -> None:
        (tmp_path / "new").write_text(" ".join(map(str, links_of(held))))
        (tmp_path / "new").rename(said)
        wait_for(safe.exists)
        let_go_safely(held, switches, state)

    monkeypatch.setattr(attach, "attach", so_many)
    monkeypatch.setattr(Second, "note", kill_behind)
    monkeypatch.setattr(second, "let_go_safely", say_and_wait)
    monkeypatch.setattr(launcher, "_LETS_GO_WITHIN_S", 0.01)
    with LoaderProcess(600) as child:
        child.features()
        with pytest.raises(LoaderError, match="the loader was ended by SIGKILL"):
            child.load(request, lambda: {place_of(each): (KEY, 0) for each in programs})
    wait_for(said.exists)
    links = {("link", int(each)) for each in said.read_text().split()}
    assert len(links) == _ATTACHED
    assert links <= bpf_objects()
    safe.touch()
    wait_for(lambda: not links & bpf_objects())
