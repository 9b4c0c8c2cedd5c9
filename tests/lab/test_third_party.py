"""The page for plugin authors, run as it stands: KRIe and a plugin from wheels, in an environment of their own."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..environment import PIP, ROOT, Environment

BLOCKS = re.findall(
    r"^```sh\n(.*?)^```", (ROOT / "docs/tutorial/first-plugin.md").read_text(), re.MULTILINE | re.DOTALL
)


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    folder = ROOT / f".cache/third-party-{os.getpid()}"
    try:
        made = Environment(folder)
        made.install_krie()
        yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_krie_is_the_installed_one(environment: Environment) -> None:
    place = environment.run('python -c "import krie; print(krie.__file__)"')
    assert Path(place.strip()).is_relative_to(environment.venv)


def test_the_page_goes_from_nothing_to_an_enforced_rule(environment: Environment) -> None:
    assert [block.split()[1] for block in BLOCKS] == ["plugin", "install", "policy", "doctor", "lab"]
    *here, lab = BLOCKS
    said = [environment.run(f"[ ! -d krie-clock ] || cd krie-clock\n{block}") for block in here]
    assert "clock" in said[1]
    assert re.search(r"tier +kernel", said[2])
    assert re.search(r"settime.*alive", said[3].replace("\n", " "))
    assert re.search(r"\d+ passed, 1 skipped", said[3]), said[3]
    assert "1 passed" in environment.run(f"cd krie-clock\n{lab}")


def test_another_name_passes_its_own_tests_unchanged(environment: Environment) -> None:
    printed = environment.run("krie plugin new usb_door")
    lines = re.findall(r"^  (.*?)(?:    #.*)?$", printed, re.MULTILINE)
    assert [re.sub(r".*/python", "python", each).split()[:3] for each in lines[1:4]] == [
        ["python", "-m", "pip"],
        ["krie", "plugins", "--config"],
        ["python", "-m", "pytest"],
    ]
    said = environment.run("\n".join(lines[:4]))
    assert re.search(r"usb_door.* observe", said), said
    assert re.search(r"\d+ passed, 1 skipped", said), said


def test_the_example_in_this_repository_does(environment: Environment) -> None:
    copy = environment.work / "example"
    shutil.copytree(ROOT / "examples/krie-clock", copy, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    rows = environment.run(f"cd example; {PIP} .; krie plugins --load --json --config krie.toml")
    (clock,) = [each for each in json.loads(rows) if each["name"] == "clock"]
    assert (clock["state"], clock["probes"], clock["events"]) == ("observe", ["settime"], ["clock.settime"])
    assert clock["distribution"] == "krie-clock 0.1.0"
    rules = json.loads(environment.run("cd example; krie policy check --json --config krie.toml"))["rules"]
    assert "CLOCK001" in [each["id"] for each in rules]


def test_c_that_does_not_compile_is_shown_with_its_line(environment: Environment) -> None:
    environment.run(
        f"krie plugin new broken; cd krie-broken; echo 'int x = nothing;' >> krie_broken/broken.bpf.c; {PIP} ."
    )
    said = environment.run("cd krie-broken; ! krie doctor --config krie.toml; ! python -m krie.testing.check_c broken")
    assert re.search(r"broken\.bpf\.c:\d+:9: error: use of undeclared identifier 'nothing'", said), said
