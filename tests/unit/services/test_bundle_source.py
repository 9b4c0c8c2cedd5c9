"""An agent whose policy comes as a bundle, from a real web server and from a file."""

import gzip
from pathlib import Path

import pytest
from krie.errors import PolicyError
from krie.testing.patience import PATIENCE_S

from ...policy.bundles import bundle, signed
from .bundle_site import Site, decided_by, refused, revision, ruled, told, until, wait


def test_a_bundle_comes_into_force_and_starts_the_next_agent_without_a_network(site: Site) -> None:
    site.shelf.put(signed(ruled("B1")).to_bytes())
    with site.agent() as (setting, agent):
        assert decided_by(setting, agent) == ["R1"]  # the folders' until there is a bundle
        until(agent, revision(agent, "B1"))
        assert decided_by(setting, agent) == ["B1"]
        wait((site.kept / "state.json").exists)
        (loaded,) = told(setting, agent, "krie.policy")
        assert (loaded["state"], loaded["revision"][:6], loaded["rules"]) == ("loaded", "rev-B1", 1)
    assert (site.kept / "active.tar.gz").read_bytes() == site.shelf.raw
    assert sorted(each.name for each in site.kept.iterdir()) == ["active.tar.gz", "state.json"]
    site.url = "http://127.0.0.1:9"  # nobody is there
    with site.agent() as (setting, agent):
        assert decided_by(setting, agent) == ["B1"]
        until(agent, lambda: bool(agent._desk.troubles))
        agent._health.update()
        assert agent._bus.health["services"] == ["bundle"]
        (trouble,) = told(setting, agent, "krie.service")
        assert (trouble["service"], trouble["state"]) == ("bundle", "trouble")
        assert "Connection refused" in trouble["reason"]


def test_rules_of_a_fetched_bundle_are_told_by_its_url(site: Site) -> None:
    """The file that it was fetched into is gone once it is in force."""
    site.shelf.put(signed(ruled("B1")).to_bytes())
    with site.agent() as (_, agent):
        until(agent, revision(agent, "B1"))
        assert [each.place for each in agent._in_force.policy.rules] == [f"{site.url}/krie.tar.gz/site/site.rego:3"]
    wrong = signed(bundle("package krie.site\n\nrules contains", revision="b")).to_bytes()
    refused(site, wrong, f"{site.url}/krie.tar.gz/site/site.rego:3")


@pytest.mark.parametrize("tag", ['"6b0bae8e-%d"', 'W/"6b0bae8e-%d"'])
def test_any_web_server_for_files_will_do(site: Site, tag: str) -> None:
    """As nginx 1.22 answers: a weak tag where it packs what it sends, and the type of the name's end."""
    site.shelf.headers = {
        "Content_Type": "text/plain",
        "Last_Modified": "Sun, 29 Nov 2026 04:48:14 GMT",
        "Accept_Ranges": "bytes",
        "Server": "nginx/1.22.1",
    }
    site.shelf.put(signed(ruled("B1")).to_bytes(), tag)
    with site.agent(min_delay_s=1, max_delay_s=1) as (setting, agent):
        until(agent, revision(agent, "B1"))
        until(agent, lambda: site.shelf.unchanged > 0)
        site.shelf.put(signed(ruled("B2", 2)).to_bytes(), tag)
        until(agent, revision(agent, "B2"))
        assert decided_by(setting, agent) == ["B2"]


def test_a_server_that_packs_its_bundle_for_each_answer_forces_no_reload(site: Site) -> None:
    raw = signed(ruled("B1")).to_bytes()
    site.shelf.put(raw)
    with site.agent(min_delay_s=1, max_delay_s=1) as (setting, agent):
        until(agent, revision(agent, "B1"))
        for level in (1, 2):
            site.shelf.put(gzip.compress(gzip.decompress(raw), level, mtime=level))
            assert site.shelf.raw != raw
            before = site.shelf.unchanged
            until(agent, lambda before=before: site.shelf.unchanged > before)  # type: ignore[misc]  # it was taken
        site.shelf.put(signed(ruled("B2", 2)).to_bytes())
        until(agent, revision(agent, "B2"))
        loaded = [each["revision"][:6] for each in told(setting, agent, "krie.policy")]
        assert loaded == ["rev-B1", "rev-B2"]


def test_names_of_executables_come_from_the_bundle_and_this_host(site: Site) -> None:
    own = str(site.key)
    site.shelf.put(signed(ruled("B1", executables={"key": own, "tool": "/nowhere"})).to_bytes())
    with site.agent() as (_, agent):
        until(
            agent, lambda: agent._in_force.policy.revision.startswith("rev-B1+")
        )  # the host's own name changed the data
        names = set(agent._enricher.programs.values())
        assert names == {"key", "tool"}  # `tool` is the host's
        assert agent._policy_files.problems == ()


def test_a_bundle_in_a_file(tmp_path: Path) -> None:
    site = Site(tmp_path)
    file = tmp_path / "krie.tar.gz"
    file.write_bytes(signed(ruled("F1")).to_bytes())
    with site.agent(str(file)) as (setting, agent):
        assert decided_by(setting, agent) == ["F1"]
        assert agent._desk._server is None  # no process for it
        (tmp_path / "new").write_bytes(ruled("F2").to_bytes())
        (tmp_path / "new").rename(file)
        agent._reload.look_for_changes()
        agent._reload.finish(PATIENCE_S)
        assert decided_by(setting, agent) == ["F1"]
        (tmp_path / "new").write_bytes(signed(ruled("F2")).to_bytes())
        (tmp_path / "new").rename(file)
        agent._reload.look_for_changes()
        agent._reload.finish(PATIENCE_S)
        assert decided_by(setting, agent) == ["F2"]
        states = [each["state"] for each in told(setting, agent, "krie.policy")]
        assert states == ["refused", "loaded"]
    file.write_bytes(b"nonsense")
    with pytest.raises(PolicyError, match=r"krie\.tar\.gz: is not a bundle"), site.agent(str(file)):
        pass


def test_a_bundle_in_a_file_of_root_s_need_not_be_signed(tmp_path: Path) -> None:
    site = Site(tmp_path)
    file = tmp_path / "krie.tar.gz"
    file.write_bytes(ruled("F1", None).to_bytes())
    with site.agent(str(file), keys={}) as (setting, agent):
        assert decided_by(setting, agent) == ["F1"]
    file.chmod(0o666)
    with pytest.raises(PolicyError, match="can be changed by other users"), site.agent(str(file), keys={}):
        pass
