"""The tools that lint asks: which are there, which may be run, how they are configured, and those that fail."""

from pathlib import Path

import pytest
from krie.review.findings import KRIE, OPA, REGAL

from .linted import FINE, configure, fake, install, report, run, told


@pytest.mark.parametrize(("required", "code"), [((), 0), (("regal",), 4), (("opa", "regal"), 4)])
def test_who_is_not_installed_is_said_and_may_be_required(
    repository: Path, required: tuple[str, ...], code: int
) -> None:
    found = report(*required)
    assert [bool(each.why) for each in found.looked] == [False, True, True]
    assert told(found, KRIE) == [("krie.toml", "not-run")] * len(required)
    result = run("--require", ",".join(required))
    assert result.exit_code == code
    assert "opa   did not look: no opa is installed" in result.stdout
    assert result.stdout.splitlines()[-1].endswith("did not look: opa, regal")


def test_a_tool_that_nobody_knows_is_not_required(repository: Path) -> None:
    result = run("--require", "opa,ruff")
    assert result.exit_code == 2
    assert "ruff is not a known tool; known are opa, regal" in result.output


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("echo oh >&2; exit 7", "ended with code 7: oh"),
        ('echo \'{"errors": [{"location": {}}]}\' >&2; echo \'{"violations": [{}]}\'; exit 1', "ended with code 1: "),
        ("echo '[]' >&2; echo '[]'; exit 1", "ended with code 1: "),
        ("head -c 100000000 /dev/zero >&2; head -c 100000000 /dev/zero", "ended with code "),
    ],
)
def test_tools_that_fail_have_not_looked(repository: Path, body: str, why: str) -> None:
    for name in ("opa", "regal"):
        fake(repository, name, body)
    found = report()
    assert found.findings == ()
    for each in found.looked[1:]:
        assert each.why.startswith(f"{repository}/bin/{each.tool}: {why}")


def test_a_tool_that_others_could_change_is_not_run(repository: Path) -> None:
    fake(repository, "regal", f"touch {repository}/ran")
    (repository / "bin/regal").chmod(0o777)
    assert "can be changed by other users" in report().looked[2].why
    assert not (repository / "ran").exists()


def test_what_keeps_regal_from_looking_is_told_in_its_words(repository: Path) -> None:
    install(repository, "regal")
    (repository / "policies/a_test.rego").write_text("package krie.site_test\n\n}\n")
    (why,) = [each.why for each in report().looked if each.tool == REGAL]
    assert "a_test.rego:3" in why
    assert '"' not in why
    assert "error(s)" not in why


def test_regal_is_configured_by_the_repository_or_by_what_suits_krie(repository: Path) -> None:
    install(repository, "regal")
    assert told(report(), REGAL) == []
    (repository / ".regal").mkdir()
    (repository / ".regal/config.yaml").write_text("rules: {style: {opa-fmt: {level: warning}}}\n")
    (repository / "policies/site.rego").write_text(FINE.replace("\tinput.event.name", "  input.event.name"))
    found = report()
    by_code = {each.code: each.severity for each in found.findings if each.tool == REGAL}
    assert by_code == {"idiomatic/directory-package-mismatch": "error", "style/opa-fmt": "warning"}


def test_a_policy_with_schemas_of_its_own(repository: Path) -> None:
    install(repository, "opa")
    own = "# METADATA\n# scope: subpackages\n# schemas: [{input: schema.runtime_integrity.ptrace}]\n"
    (repository / "policies/site.rego").write_text(own + FINE)
    assert told(report(), OPA) == [("policies/site.rego:11:2", "type-error")]  # ptrace has no name


def test_the_configured_opa_is_asked_once_and_tells_more_than_one_error(repository: Path) -> None:
    install(repository, "opa")
    (repository / ".cache/tools/opa").rename(repository / "my-opa")
    configure(repository, 'opa = "my-opa"')
    (repository / "policies/site.rego").write_text(f"{FINE}\nfirst if nosuch(1)\n\nsecond if nosuch(2)\n")
    found = report()
    assert found.looked[1].path == str(repository / "my-opa")
    assert told(found, OPA) == [("policies/site.rego:11:10", "type-error"), ("policies/site.rego:13:11", "type-error")]
