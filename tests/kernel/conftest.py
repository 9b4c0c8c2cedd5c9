"""Every test here attaches to a kernel: this machine's, or a guest's."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
from krie import AttachType
from krie.kernel.features import Features
from krie.testing.agent import RunningAgent
from krie.testing.agent_process import end_forks
from krie.testing.fixtures import SharedAgent
from krie.testing.lab.cache import Cache
from krie.testing.needs import RESULTS_VARIABLE

from ..durations import note
from .judges import Judges
from .stage import Stage, in_turn

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.kernel)
    in_turn(items)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if results := os.environ.get(RESULTS_VARIABLE):
        note(Path(results), report.nodeid, report.when or "", report.duration)


def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    if nextitem is None or _HERE not in nextitem.path.parents:
        end_forks()  # tests elsewhere look whether any process is left


@pytest.fixture(scope="session")
def whole_plugin(features: Features) -> Mapping[str, Any]:
    """runtime_integrity with all that this kernel can have."""
    return {"required": True, "watch_credentials": AttachType.FENTRY not in features.refused}


@pytest.fixture(scope="session")
def agent_options(features: Features, whole_plugin: Mapping[str, Any]) -> Mapping[str, Any]:
    # To compare all code at each scan keeps a guest busy; test_syscall_table_code.py has an agent that does.
    syscall_table = {"required": False, "code": False}
    plugins: dict[str, Any] = {"runtime_integrity": whole_plugin, "syscall_table": syscall_table}
    if AttachType.KPROBE not in features.refused:
        plugins |= {"smep_smap": {"required": False}, "cfi": {"required": False}}
    return {"plugins": plugins, "agent": {"scan_interval_s": 10, "roaming_interval_s": 20}}


@pytest.fixture(scope="session")
def stage(shared_agent: SharedAgent) -> Iterator[Stage]:
    """Where agents of several modules run, one at a time."""
    made = Stage(shared_agent)
    yield made
    made.clear()


@pytest.fixture(scope="session")
def judges(tmp_path_factory: pytest.TempPathFactory, stage: Stage) -> Judges:
    """What `observer`, `enforcer` and `judging` are taken from."""
    return Judges(lambda: tmp_path_factory.mktemp("judge"), stage)


@pytest.fixture
def observer(judges: Judges) -> RunningAgent:
    """An agent with runtime_integrity alone, which does not look by itself whether its probes are silent."""
    return judges.running("observe")


@pytest.fixture
def enforcer(judges: Judges) -> RunningAgent:
    """One that enforces what runtime_integrity finds, and compares often."""
    return judges.running("enforce")


@pytest.fixture(params=["observe", "enforce"])
def judging(request: pytest.FixtureRequest, judges: Judges) -> RunningAgent:
    """One that tells, and one that refuses and kills."""
    return judges.running(request.param)


@pytest.fixture(scope="module")
def alone(alone: None, stage: Stage) -> None:
    """As `krie.testing.fixtures` has it; and nobody on the stage runs beside it."""
    stage.clear()


@pytest.fixture
def agent(stage: Stage, shared_agent: SharedAgent) -> RunningAgent:
    """As `krie.testing.fixtures` has it, without anybody on the stage."""
    stage.clear()
    return shared_agent.running()


@pytest.fixture(scope="session")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of attacker.c, which becomes root through the test module."""
    program = tmp_path_factory.mktemp("attacker") / "attacker"
    subprocess.run(["gcc", "-O1", "-o", program, Path(__file__).with_name("attacker.c")], check=True)
    return program


def _image_of(manifest: Path) -> Path | None:
    """The bootable image of one of the lab's kernels: to search all its files takes a guest minutes."""
    image = manifest.parent / json.loads(manifest.read_text())["image"]
    return image if image.name.startswith("vmlinuz") else None


@pytest.fixture
def boot_image(lacks: Callable[[str], NoReturn]) -> Iterator[Path]:
    """Where some distributions have it: /boot of guests cannot be written."""
    release = os.uname().release
    there = Path(f"/lib/modules/{release}/vmlinuz")
    if there.exists():
        yield there
        return
    found = next((each for each in map(_image_of, Cache().root.glob("*/kernel.json")) if release in str(each)), None)
    if found is None:
        lacks("boot_image: the lab's cache holds none of this kernel")
    shutil.copyfile(found, there)
    yield there
    there.unlink()
