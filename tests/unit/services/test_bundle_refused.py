"""Bundles that are refused, when they come and when they were kept: the one before stays."""

import os
import signal
from collections.abc import Callable

import pytest
from krie.policy.archive import pack

from ...policy.bundles import bundle, key_pair, signed
from .bundle_site import Site, decided_by, refused, revision, ruled, told, until, wait


def test_a_kept_bundle_that_is_refused_at_start_stays_told(site: Site) -> None:
    site.shelf.put(signed(ruled("B1")).to_bytes())
    with site.agent() as (setting, agent):
        until(agent, revision(agent, "B1"))
        wait((site.kept / "state.json").exists)
    site.key.write_bytes(key_pair("ES256", 1)[1])  # the old one is trusted no more
    with site.agent() as (setting, agent):
        assert "not by the pinned key" in agent._desk.troubles["bundle"]
        assert "the kept bundle" in agent._desk.troubles["bundle"]
        until(agent, lambda: "the kept bundle" not in agent._desk.troubles.get("bundle", ""))
        assert site.url in agent._desk.troubles["bundle"]  # the server's was examined, and is no better
        assert decided_by(setting, agent) == ["R1"]


def test_an_older_bundle_is_refused_though_the_host_died_before_it_noted_the_newer(site: Site) -> None:
    site.shelf.put(signed(ruled("B1", serial=1)).to_bytes())
    with site.agent() as (_, agent):
        until(agent, revision(agent, "B1"))
        wait((site.kept / "state.json").exists)
    noted = (site.kept / "state.json").read_bytes()
    site.shelf.put(signed(ruled("B5", serial=5)).to_bytes())
    with site.agent() as (_, agent):
        until(agent, revision(agent, "B5"))
        wait(lambda: b'"highest": 5' in (site.kept / "state.json").read_bytes())
    (site.kept / "state.json").write_bytes(noted)
    site.shelf.put(signed(ruled("B3", serial=3)).to_bytes())
    with site.agent() as (_, agent):
        until(agent, lambda: "serial" in agent._desk.troubles.get("bundle", ""))
        assert revision(agent, "B5")()


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (lambda: ruled("B1").to_bytes(), "is not signed"),
        (lambda: signed(ruled("B1"), number=1).to_bytes(), "the signature is not by the pinned key"),
        (lambda: signed(ruled("B1"), "RS256").to_bytes(), "is not by ES256"),
        (lambda: signed(ruled("B1")).to_bytes()[:-20], "is cut off"),
        (lambda: b"nonsense", "is not a bundle"),
        (lambda: signed(bundle("package krie.site\n\nrules contains", revision="b")).to_bytes(), "site.rego:3"),
        (lambda: signed(ruled("B1", executables=["x"])).to_bytes(), "data.executables"),
        (lambda: bytes(17 << 20), "16777216 are the most"),
        # A reason that quotes all of it would be a line for which the agent ends the courier.
        (lambda: pack({"x.rego": b"package " + b"x" * (5 << 20), ".manifest": b'{"roots": []}'}), "package xxx"),
    ],
)
def test_what_is_refused(site: Site, raw: Callable[[], bytes], why: str) -> None:
    refused(site, raw(), why)
    assert not (site.kept / "active.tar.gz").exists()
    assert not (site.kept / "offered.tar.gz").exists() or "site.rego" in why


def test_nothing_older_follows_unless_it_is_let_in(site: Site) -> None:
    site.shelf.put(signed(ruled("B5", 5)).to_bytes())
    with site.agent() as (_, agent):
        until(agent, revision(agent, "B5"))
        wait((site.kept / "state.json").exists)
    refused(site, signed(ruled("B4", 4)).to_bytes(), "is older than what was in force here: its serial is 4")
    refused(site, signed(ruled("B0", None)).to_bytes(), "has no serial")
    site.shelf.put(signed(ruled("B4", 4)).to_bytes())
    with site.agent() as (setting, agent):
        until(agent, lambda: "bundle" in agent._desk.troubles)
        (site.kept / "state.json").unlink()
        os.kill(os.getpid(), signal.SIGHUP)
        until(agent, revision(agent, "B4"))
        until(agent, lambda: "bundle" not in agent._desk.troubles)
        assert decided_by(setting, agent) == ["B4"]


def test_a_refused_bundle_leaves_the_one_before_over_a_restart(site: Site) -> None:
    site.shelf.put(signed(ruled("B1")).to_bytes())
    with site.agent() as (_, agent):
        until(agent, revision(agent, "B1"))
    refused(site, ruled("B2", 2).to_bytes(), "is not signed")
    with site.agent() as (setting, agent):
        assert decided_by(setting, agent) == ["B1"]


def test_a_kept_bundle_that_somebody_changed_is_verified_again(site: Site) -> None:
    site.shelf.put(signed(ruled("B1")).to_bytes())
    with site.agent() as (_, agent):
        until(agent, revision(agent, "B1"))
    (site.kept / "active.tar.gz").write_bytes(ruled("EVIL").to_bytes())
    site.url = "http://127.0.0.1:9"
    with site.agent() as (setting, agent):
        assert decided_by(setting, agent) == ["R1"]
        (said,) = [each for each in told(setting, agent, "krie.policy") if each["state"] == "refused"]
        assert "the kept bundle" in said["reason"]
        assert "is not signed" in said["reason"]


def test_what_somebody_puts_into_the_folder_is_not_believed(site: Site) -> None:
    """Root alone can: then by mistake, such as a copied state."""
    (site.kept).mkdir(parents=True)
    (site.kept / "offered-0.tar.gz").symlink_to("/etc/shadow")
    (site.kept / "offered.new").symlink_to(site.folder / "victim")
    site.shelf.put(signed(ruled("B1")).to_bytes())
    with site.agent() as (setting, agent):
        until(agent, lambda: bool(agent._desk.troubles))
        assert "bundle" in agent._desk.troubles
        assert not (site.folder / "victim").exists()
        assert decided_by(setting, agent) == ["R1"]
        assert not (site.kept / "offered-0.tar.gz").is_symlink()
        (site.kept / "offered.new").unlink()
        agent._desk.try_again()
        until(agent, revision(agent, "B1"))
