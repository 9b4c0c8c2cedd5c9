"""Schemas of what rules see, for OPA's checker and for others."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from krie.cli.policy import policy as policy_command
from krie.config import Config, load_config
from krie.plugin.offline import load_plugins
from krie.review.input_schemas import event_schemas, file_of, kinds_of
from krie.review.lint import lint
from krie.tier.tried import tried_engine


@pytest.fixture(scope="module")
def everything() -> tuple[Config, Any]:
    place = Path(__file__).parents[2] / "krie.toml"
    config = load_config(place)
    return config, load_plugins(config, str(place))[0]


def test_the_shipped_policies_are_clean_by_opa_with_types(everything: tuple[Config, Any]) -> None:
    found = lint(everything[0], Path(__file__).parents[2] / "krie.toml", everything[1], ["opa"])
    assert (found.findings, found.looked[1].why) == ((), "")


def test_a_package_sees_the_kinds_that_its_rules_are_about(everything: tuple[Config, Any]) -> None:
    config, loaded = everything
    known = event_schemas(loaded)
    packages = {each.name: kinds_of(each, known) for each in tried_engine(config, loaded).packages}
    assert all(each.startswith("smep_smap.") for each in packages["data.krie.smep_smap"])
    assert all(each.startswith("krie.") for each in packages["data.krie.agent"])


def test_schemas_for_others(repository: Path) -> None:
    result = CliRunner().invoke(policy_command, ["schemas", "types"])
    assert result.exit_code == 0
    schema = json.loads((repository / "types" / file_of("runtime_integrity.sysctl_write")).read_text())
    assert schema["properties"]["event"]["properties"]["kind"]["type"] == "string"
    shutil.copytree(repository / "types", repository / "again")
    assert CliRunner().invoke(policy_command, ["schemas", "types"]).exit_code == 0
