"""Bundles that come while another one is loaded or tried: which one comes into force, and what is said of it."""

import os
import signal

import pytest
from krie.testing.patience import PATIENCE_S

from ...policy.bundles import bundle, signed
from .bundle_site import Site, decided_by, offer, revision, ruled, until, wait


def test_an_offer_that_comes_amid_another_load_is_not_in_force_by_that(site: Site) -> None:
    site.shelf.put(signed(ruled("B1")).to_bytes())
    with site.agent() as (_, agent):
        until(agent, revision(agent, "B1"))
        desk, before = agent._desk, agent._desk.bundles._active
        agent._reload.begin()  # of B1
        offer = {"service": "bundle", "state": "offered", "digest": "d", "revision": "B2", "serial": 2}
        desk._take({**offer, "executables": {}})
        agent._reload.finish(PATIENCE_S)
        assert desk.bundles._active == before
        assert desk.bundles._offers.waiting is not None
        assert desk.bundles.take_offer()


def test_an_offer_that_is_overtaken_while_it_is_tried_is_kept_under_its_own_name(site: Site) -> None:
    site.shelf.put(signed(ruled("B1")).to_bytes())
    with site.agent() as (setting, agent):
        until(agent, revision(agent, "B1"))
        desk = agent._desk
        first = offer(agent, signed(ruled("B2", 2)), 2)
        assert desk.bundles.take_offer()
        agent._reload.begin()
        assert agent._policy_files.loading
        second = offer(agent, signed(ruled("B3", 3)), 3)
        agent._reload.finish(PATIENCE_S)
        assert revision(agent, "B2")()
        assert decided_by(setting, agent) == ["B2"]
        assert (site.kept / "active.tar.gz").read_bytes() == first
        assert desk.bundles.take_offer()  # which is not forgotten
        agent._reload.begin()
        agent._reload.finish(PATIENCE_S)
        assert revision(agent, "B3")()
        assert (site.kept / "active.tar.gz").read_bytes() == second
        assert not list(site.kept.glob("offered*"))


def test_an_offer_that_comes_twice_is_tried_once(site: Site) -> None:
    site.shelf.put(signed(ruled("B1")).to_bytes())
    with site.agent() as (_, agent):
        until(agent, revision(agent, "B1"))
        desk, made = agent._desk, signed(ruled("B2", 2))
        offer(agent, made, 2)
        assert desk.bundles.take_offer()
        agent._reload.begin()
        offer(agent, made, 2)
        agent._reload.finish(PATIENCE_S)
        assert revision(agent, "B2")()
        assert not desk.bundles.take_offer()
        assert desk.troubles == {}


def test_nothing_older_comes_into_force_by_overtaking(site: Site) -> None:
    site.shelf.put(signed(ruled("B1")).to_bytes())
    with site.agent() as (_, agent):
        until(agent, revision(agent, "B1"))
        offer(agent, signed(ruled("B5", 5)), 5)
        assert agent._desk.bundles.take_offer()
        agent._reload.begin()
        offer(agent, signed(ruled("B4", 4)), 4)  # by a courier that knows of B1 only
        agent._reload.finish(PATIENCE_S)
        assert revision(agent, "B5")()
        assert not agent._desk.bundles.take_offer()
        assert "older" in agent._desk.troubles["bundle"]
        assert not list(site.kept.glob("offered*"))


def test_what_one_offer_is_refused_for_is_not_said_of_the_next(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A courier ends while the agent tries what it offered, and the next one offers what fixes it."""
    monkeypatch.setattr("krie.services.desk.backoff_s", lambda *_: 0.0)
    site.shelf.put(signed(bundle("package krie.site\n\nrules contains", revision="rev-B1")).to_bytes())
    with site.agent() as (setting, agent):
        desk = agent._desk
        reload, agent._reload.finish = agent._reload.finish, lambda *_: None  # type: ignore[method-assign]
        until(agent, lambda: agent._policy_files.loading)
        assert desk._courier is not None
        os.kill(desk._courier.tgid, signal.SIGKILL)
        site.shelf.put(signed(ruled("B2", 2)).to_bytes())
        until(agent, lambda: desk.bundles._offers.waiting is not None and desk.bundles._offers.waiting.serial == 2)
        agent._reload.finish = reload  # type: ignore[method-assign]
        agent._reload.finish(PATIENCE_S)
        until(agent, revision(agent, "B2"))
        wait((site.kept / "state.json").exists)
        assert (site.kept / "active.tar.gz").read_bytes() == site.shelf.raw
        assert decided_by(setting, agent) == ["B2"]
