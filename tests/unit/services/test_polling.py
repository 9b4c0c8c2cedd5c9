"""OPA's bundle protocol, question by question, and what becomes of the answers."""

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from krie.errors import ConfigError, PolicyError
from krie.service import Service
from krie.services.http import Answer, ServiceError
from krie.services.intake import Intake
from krie.services.kept import KeptBundle, State, digest_of
from krie.services.polling import Polled, Polling
from krie.services_config import BundleConfig

from ...policy.bundles import bundle, pinned, signed

URL = "https://a/b.tar.gz"
LONG = {"content-type": "application/vnd.openpolicyagent.bundles; x=y"}
RULE = 'package krie.site\n\nrules contains {"id": "%s", "action": "log"} if input.event.kind == "sample.seen"\n'


class Web:
    """Gives prepared answers, and notes what it was asked."""

    def __init__(self, *answers: Answer | Exception, took_s: float = 0.0) -> None:
        self.answers, self.took_s, self.now = list(answers), took_s, 0.0
        self.asked: list[dict[str, Any]] = []

    def ask(self, service: Service, method: str, *, headers: Mapping[str, str], **more: object) -> Answer:
        self.asked.append({"url": service.url, "method": method, **headers, **more})
        self.now += self.took_s
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def polling(web: Web, **keys: int) -> Polling:
    return Polling(BundleConfig(**keys), URL, ask=web.ask, draw=lambda: 0.5, clock=lambda: web.now)  # type: ignore[arg-type]


def test_a_new_bundle_and_then_the_same_one() -> None:
    web = Web(Answer(200, b"raw", {"etag": '"1"'}), Answer(304))
    made = polling(web)
    first = made.ask()
    assert first == Polled(b"raw", '"1"', 3)
    assert made.delay_s == 90.0
    made.etag = first.etag
    assert made.ask() == Polled(None, '"1"')
    assert [each.get("If-None-Match") for each in web.asked] == [None, '"1"']
    assert [each["Prefer"] for each in web.asked] == ["modes=snapshot", "modes=snapshot"]
    assert web.asked[0]["url"] == URL


@pytest.mark.parametrize(
    ("headers", "took_s", "delay_s"),
    [(LONG, 300.0, 0.0), (LONG, 0.25, 0.75), ({}, 0.25, 90.0), ({"content-type": "application/gzip"}, 0.25, 90.0)],
)
def test_a_request_that_is_held_open(headers: dict[str, str], took_s: float, delay_s: float) -> None:
    web = Web(Answer(200, b"raw", headers), took_s=took_s)
    made = polling(web, long_poll_s=300, timeout_s=20)
    made.ask()
    assert web.asked[0]["Prefer"] == "modes=snapshot;wait=300"
    assert (web.asked[0]["seconds"], web.asked[0]["silent_s"]) == (320, 320)
    assert made.delay_s == delay_s


def test_failures_are_asked_again_later_and_later() -> None:
    web = Web(ServiceError("x"), Answer(500, b"<html>\n\x1b[31m"), Answer(304), *[Answer(404)] * 20, Answer(200, b"r"))
    made = polling(web)
    delays = []
    for _ in range(23):
        with pytest.raises(ServiceError) as caught:
            made.ask()
        assert "\n" not in str(caught.value)
        assert "\x1b" not in str(caught.value)
        delays.append(made.delay_s)
    assert delays[:4] == [0.75, 1.5, 3.0, 6.0]
    assert delays[-1] == 90.0
    made.ask()
    assert made.delay_s == 90.0


@pytest.mark.parametrize("etag", ["x" * 2000, "a\nb", "\x7f"])
def test_a_tag_that_cannot_be_sent_is_none(etag: str) -> None:
    assert polling(Web(Answer(200, b"raw", {"etag": etag}))).ask().etag == ""


class Host:
    """A folder of bundles, and what takes them in."""

    def __init__(self, folder: Path, now: float = 1000.0) -> None:
        self.kept = KeptBundle(folder / "bundle")
        self.kept.make()
        self.now = now
        self.keys = pinned()
        self.made = self.again()

    def again(self, url: str = URL) -> Intake:
        self.made = Intake(self.kept, url, lambda: self.keys, "https://a/b", lambda: self.now)
        return self.made

    def in_force(self, name: str, serial: int | None, etag: str = "e") -> bytes:
        raw = signed(bundle(RULE % name, serial=serial)).to_bytes()
        offer = self.made.take(Polled(raw, etag, len(raw)))
        assert offer is not None
        self.kept.adopt(offer.digest)
        self.made.in_force(offer.digest)
        return raw


def test_what_is_in_force_is_noted_and_known_to_the_next_one(tmp_path: Path) -> None:
    host = Host(tmp_path)
    assert host.made.known_etag() == ""
    raw = host.in_force("A", 5, "tag")
    assert host.kept.state().highest == 5
    assert host.again().known_etag() == "tag"
    assert host.made.take(Polled(raw, "other tag")) is None  # the same
    assert host.again("https://elsewhere/b").known_etag() == ""
    host.again()
    host.kept.active.write_bytes(b"changed")
    assert host.made.known_etag() == ""  # so that it is fetched again
    assert host.made.take(Polled(raw, "tag")) is not None


def packed_anew(raw: bytes, level: int = 1) -> bytes:
    """The same files in another archive."""
    made = gzip.compress(gzip.decompress(raw), level, mtime=level)
    assert made != raw
    return made


def test_what_is_packed_anew_is_not_offered(tmp_path: Path) -> None:
    host = Host(tmp_path)
    raw = host.in_force("A", 5, "tag")
    assert host.made.take(Polled(packed_anew(raw), "tag 2")) is None
    assert host.made.known_etag() == "tag 2"
    assert host.kept.read(host.kept.active) == raw
    assert host.made.take(Polled(signed(bundle(RULE % "A", serial=5)).to_bytes(), "tag 3")) is None  # signed again
    for other in (
        bundle(RULE % "A", serial=6),
        bundle(RULE % "A", serial=5, revision="r2"),
        bundle(RULE % "B", serial=5),
        bundle(RULE % "A", serial=5, more=1),
    ):
        assert host.made.take(Polled(signed(other).to_bytes(), "tag")) is not None
    with pytest.raises(PolicyError, match="is not signed"):  # what is not verified is not compared
        host.made.take(Polled(bundle(RULE % "A", serial=5).to_bytes(), "tag"))
    assert host.made.refusal
    assert host.made.take(Polled(packed_anew(raw, 2), "tag 4")) is None
    assert host.made.refusal == ""


def test_what_is_packed_anew_replaces_one_that_the_next_start_would_refuse(tmp_path: Path) -> None:
    host = Host(tmp_path)
    raw = host.in_force("A", 5)
    host.keys = pinned(number=1)
    assert host.made.take(Polled(signed(bundle(RULE % "A", serial=5), number=1).to_bytes(), "tag")) is not None
    host.keys = pinned()
    assert host.made.take(Polled(packed_anew(raw), "tag")) is None
    host.kept.disown()  # the agent says that it is not in force
    host.again()
    assert host.made.take(Polled(packed_anew(raw), "tag")) is not None


def test_the_highest_serial_stays(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.in_force("A", None)
    assert host.kept.state().highest is None
    host.in_force("B", 5)
    host.in_force("C", 5)
    assert host.kept.state().highest == 5
    with pytest.raises(PolicyError, match="is older"):
        host.in_force("D", 4)
    assert "is older" in host.made.refusal
    host.in_force("E", 6)
    assert (host.kept.state().highest, host.made.refusal) == (6, "")
    host.again()
    with pytest.raises(PolicyError, match="has no serial"):
        host.in_force("F", None)
    host.kept.state_file.unlink()
    host.made.forget_refused()
    host.in_force("G", 1)
    assert host.kept.state().highest == 1


def test_what_a_process_before_has_offered_is_noted_and_costs_no_other_offer(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.in_force("A", 1)
    before = signed(bundle(RULE % "B", serial=5)).to_bytes()
    raw = signed(bundle(RULE % "C", serial=6)).to_bytes()
    host.kept.offer(before)  # by a courier that has ended since
    offer = host.made.take(Polled(raw, "tag"))
    assert offer is not None
    host.kept.adopt(digest_of(before))
    host.made.in_force(digest_of(before))
    assert host.kept.state().highest == 5
    assert host.kept.state().digest == digest_of(before)
    assert host.made.waits
    host.made.refused("another digest", "why", again=False)
    assert host.made.waits
    host.kept.adopt(offer.digest)
    host.made.in_force(offer.digest)
    assert (host.kept.state().highest, host.kept.state().etag, host.made.waits) == (6, "tag", False)


def test_what_the_agent_refuses_is_not_offered_again(tmp_path: Path) -> None:
    host = Host(tmp_path)
    raw = signed(bundle(RULE % "A")).to_bytes()
    offer = host.made.take(Polled(raw, ""))
    assert offer is not None
    host.made.refused("another digest", "why", again=False)
    host.made.take(Polled(raw, ""))
    host.made.refused(offer.digest, "memory is used up", again=True)
    assert host.made.take(Polled(raw, "")) is not None
    host.made.refused(offer.digest, "does not compile", again=False)
    with pytest.raises(PolicyError, match="does not compile"):
        host.made.take(Polled(raw, ""))
    host.made.in_force(offer.digest)  # which nobody has offered by now
    assert host.kept.state() == State()
    host.made.forget_refused()
    assert host.made.take(Polled(raw, "")) is not None


def test_a_bundle_that_takes_all_memory_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path)
    calls = []

    def read(*_: object) -> None:
        calls.append(1)
        raise MemoryError

    monkeypatch.setattr("krie.services.intake.read_bundle", read)
    for _ in range(2):
        with pytest.raises(PolicyError, match=r"https://a/b: needs too much memory to be read \(MemoryError\)"):
            host.made.take(Polled(b"raw", ""))
    assert calls == [1]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"url": "", "etag": "", "digest": "", "highest": "5"}', '{"url": 1}', "[" * 10000]
)
def test_a_damaged_state_is_told_and_nothing_is_believed(tmp_path: Path, content: str) -> None:
    host = Host(tmp_path)
    host.kept.state_file.write_text(content)
    with pytest.raises(ConfigError, match=r"state\.json: is damaged.*remove it"):
        host.again()


def test_others_may_not_have_put_anything_there(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.kept.offer(b"x")
    offered = host.kept.offered(digest_of(b"x"))
    offered.chmod(0o666)
    with pytest.raises(ConfigError, match="can be changed by other users"):
        host.kept.read(offered)
    (tmp_path / "bundle").chmod(0o777)
    with pytest.raises(ConfigError, match="can be changed by other users"):
        KeptBundle(tmp_path / "bundle").make()


def test_an_expired_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from krie.policy.verification import Signed

    host = Host(tmp_path, now=1000.0)
    monkeypatch.setattr("krie.services.intake.verify", lambda *_: Signed("ci", 999.0))
    with pytest.raises(PolicyError, match="its signature has expired"):
        host.in_force("A", 1)
    monkeypatch.setattr("krie.services.intake.verify", lambda *_: Signed("ci", 1001.0))
    host.in_force("B", 1)
