"""The plugin keeps the contract, its C compiles, and each rule fires and has a near miss. Attaches nothing."""

import shutil
import subprocess
from pathlib import Path

import pytest
from krie.testing.check_c import warnings
from krie.testing.events import build
from krie.testing.rules import Rules
from krie_clock import plugin
from krie_clock.events import SetTime


@pytest.fixture(scope="module")
def rules() -> Rules:
    return Rules("clock")


def test_a_program_without_a_name_sets_the_clock(rules: Rules) -> None:
    assert rules.fired(build(SetTime, what="time")) == {"CLOCK001"}
    assert rules.fired(build(SetTime, what="both")) == {"CLOCK001"}
    assert rules.fired(build(SetTime, what="zone")) == set()
    assert rules.fired(build(SetTime, what="time"), program="chronyd") == set()


def test_the_kernel_decides(rules: Rules) -> None:
    assert rules.tier("CLOCK001") == "kernel"


def test_the_c_compiles_without_a_warning() -> None:
    assert warnings(["clock"]) == []


@pytest.mark.skipif(shutil.which("opa") is None, reason="opa is not installed")
def test_the_tests_in_rego() -> None:
    policy = Path(plugin.__file__).with_name("policy")
    subprocess.run(["opa", "check", "--strict", policy], check=True)
    subprocess.run(["opa", "test", policy], check=True)
