"""What the agent asks the kernel side about who runs what, and what it tells of those that ran before."""

import struct
from pathlib import Path

import pytest
from krie.errors import KernelError
from krie.events.event import INFLUENCE
from krie.events.identity import Identity
from krie.processes.binding import Bindings, Running
from krie.processes.process import NOTHING
from krie.procfs import Procfs

from ..kernel_side import LoggedMap

TOOL, OTHER = Identity(8, 100, 1), Identity(8, 200, 1)
BITS = {word: bit for bit, word in INFLUENCE.items()}


class Setting:
    """A kernel side that answers for the processes of a folder that looks like /proc."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        self.runs: dict[int, Identity] = {}
        self.influence: dict[int, int] = {}
        self.asked: list[int] = []
        self.answer = LoggedMap("process_running", 1, 1, 4, 32, 1, True, {}, [], set())
        self.named = LoggedMap("krie_named", 2, 1, 16, 4, 64, False, {}, [], set())
        maps = {"process_running": self.answer, "krie_named": self.named}
        self.bindings = Bindings(9, maps, self.run, Procfs.at(proc))

    def process(self, tgid: int, runs: Identity, environ: bytes = b"A=1\0", tracer: int = 0) -> None:
        folder = self.proc / str(tgid)
        folder.mkdir()
        (folder / "environ").write_bytes(environ)
        (folder / "status").write_text(f"Name:\tx\nTracerPid:\t{tracer}\n")
        self.runs[tgid] = runs

    def run(self, program: int, arguments: tuple[int, ...]) -> int:
        assert program == 9
        tgid, found = arguments
        self.asked.append(tgid)
        if found:
            self.influence[tgid] = found
        file, told = self.runs.get(tgid, NOTHING), self.influence.get(tgid, 0)
        packed = struct.pack("=QQIIII", 5, file.ino, file.dev, file.generation, told & ~1, told & 1)
        self.answer.set(bytes(4), packed)
        return 0


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


def test_everybody_is_noted_once(setting: Setting) -> None:
    for tgid in (5, 6):
        setting.process(tgid, TOOL)
    (setting.proc / "meminfo").touch()
    setting.bindings.note_all()
    assert sorted(setting.asked) == [5, 6]
    assert setting.bindings.identity(5) == TOOL
    assert setting.bindings.identity(7) == NOTHING


@pytest.mark.parametrize(
    ("environ", "tracer", "influence"),
    [
        (b"A=1\0LD_PRELOAD=x\0", 0, {"environment"}),
        (b"LD_X\0", 7, {"environment", "traced"}),
        (b"OLD_PRELOAD=LD_\0B=\0", 0, set()),
        (b"", 0, set()),
    ],
)
def test_who_ran_before_a_name_is_looked_at_once(
    setting: Setting, environ: bytes, tracer: int, influence: set[str]
) -> None:
    setting.process(5, TOOL, environ, tracer)
    setting.process(6, OTHER, environ, tracer)
    setting.bindings.look_at([TOOL])
    found = setting.bindings.of(5)
    assert ({word for word, bit in BITS.items() if found.influence & bit}, found.looked) == (influence, True)
    assert not setting.bindings.of(6).looked
    before = len(setting.asked)
    setting.bindings.look_at([TOOL])
    assert len(setting.asked) == before + 2


def test_what_cannot_be_read_counts_as_influence(setting: Setting) -> None:
    setting.process(5, TOOL)
    (setting.proc / "5/environ").unlink()
    setting.bindings.look_at([TOOL])
    assert setting.bindings.of(5).influence == BITS["environment"]


def test_only_files_that_are_asked_for_stay(setting: Setting) -> None:
    setting.bindings.look_at([TOOL, OTHER])
    setting.bindings.look_only_at([OTHER])
    assert [key for key, _ in setting.named.items()] == [struct.pack("=QII", OTHER.ino, OTHER.dev, OTHER.generation)]
    setting.bindings.look_at([])
    assert setting.asked == []


def test_a_file_that_stays_costs_no_policy(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    setting.bindings.look_at([TOOL])
    setting.named.failing.add(("remove", "krie_named"))
    setting.bindings.look_only_at([])
    assert "still looked at" in caplog.text


def test_a_look_that_fails_changes_nothing(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    setting.process(5, TOOL)
    setting.bindings.look_at([OTHER])
    before = list(setting.named.items())

    def refuse(_: int) -> Running:
        raise KernelError("running krie_running", 12)

    monkeypatch.setattr(setting.bindings, "of", refuse)
    with pytest.raises(KernelError):
        setting.bindings.look_at([TOOL, OTHER])
    assert list(setting.named.items()) == before


def test_the_kernels_side_tells_when_a_process_started(setting: Setting) -> None:
    assert setting.bindings.start_time(7) == 5
    assert setting.asked == [7]
