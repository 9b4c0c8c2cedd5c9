"""Records out of the ring: what is a backlog, what is lost or held back, and how that is told."""

from typing import cast

from krie.agent.inbox import Inbox
from krie.kernel.ring import Ring

from .setting import BATCH, Records, Setting


def test_a_full_batch_is_a_backlog_and_no_loss(setting: Setting) -> None:
    agent = setting.start()
    setting.happens(BATCH + 1)
    assert agent._inbox.drain()
    agent._news.tell()
    agent._news.tell()
    assert agent._status.to_json()["backlog"]
    assert not agent._inbox.drain()
    agent._news.tell()
    assert agent._losses.total == 0


def test_what_never_came_is_a_loss_that_policies_know(setting: Setting) -> None:
    agent = setting.start()
    setting.sent(attempts=5, lost=2)
    agent._inbox.drain()
    agent._news.tell()
    agent._news.tell()
    assert agent._bus.health["lost"] == 5
    told = [(each["event"]["cause"], each["event"]["count"]) for each in setting.journal(agent)[1:]]
    assert told == [("ring_full", 2), ("missing", 3)]


def test_what_was_held_back_is_told_exactly(setting: Setting) -> None:
    agent = setting.start()
    setting.happens(2)
    setting.sent(attempts=40, lost=0, alike=30, over=10)
    agent._inbox.drain()
    agent._news.tell()
    held = [each for each in setting.journal(agent) if each["kind"] == "krie.held"]
    assert [(each["event"]["held_kind"], each["event"]["alike"], each["event"]["over"]) for each in held] == [
        ("sample.seen", 30, 10)
    ]
    assert agent._losses.total == 0


def test_what_is_held_is_bounded_and_taken_in_order() -> None:
    ring, taken = Records(), list[bytes]()
    ring.close()
    inbox = Inbox(cast("Ring", ring), taken.append, 2 * BATCH)
    sent = [bytes([number]) for number in range(5 * BATCH)]
    ring.waiting.extend(sent)
    inbox.hold()
    assert (inbox.waiting, len(ring.waiting)) == (2 * BATCH, 3 * BATCH)
    while inbox.drain():
        pass
    assert taken == sent


def test_nothing_waits_only_where_the_ring_was_read_too() -> None:
    ring, taken = Records(), list[bytes]()
    ring.close()
    inbox = Inbox(cast("Ring", ring), taken.append, 2 * BATCH)
    ring.waiting.extend([b"1"])
    inbox.hold()
    ring.waiting.extend([b"2"])
    assert not inbox.drain()
    assert (taken, ring.waiting) == ([b"1", b"2"], type(ring.waiting)())
