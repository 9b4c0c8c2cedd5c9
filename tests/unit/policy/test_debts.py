"""What failed rests, and what fails too often is asked less."""

from krie.policy.debts import Debts


def test_what_failed_rests_and_what_fails_too_often_is_asked_less() -> None:
    now = [100.0]
    debts = Debts(lambda: now[0])
    assert debts.none
    debts.failed("p", "k", "one", 0.5, "too slow")
    assert "too slow" in debts.rests("p", "k", "one")
    assert debts.rests("p", "k", "two") == debts.rests("q", "k", "one") == ""
    now[0] += 5.1
    assert debts.rests("p", "k", "one") == ""
    for number in range(4):
        assert debts.rests("p", "k", str(number)) == ""
        debts.failed("p", "k", str(number), 0.6, "too slow")
    assert "not asked about k for" in debts.rests("p", "k", "another")
    assert debts.rests("p", "other", "another") == ""
    asked = 0
    for _ in range(1000):
        now[0] += 0.1
        if not debts.rests("p", "k", f"at {now[0]}"):
            asked += 1
            debts.failed("p", "k", f"at {now[0]}", 0.6, "too slow")
    assert 10 <= asked <= 20  # a tenth of 100 s
    now[0] += 3600
    assert debts.rests("p", "k", "another") == ""
    for number in range(1000):
        debts.failed("p", "k", f"{number}", 0.0, "")
    assert len(debts._inputs) == 256
