"""Answers of engines, read."""

import pytest
from krie.errors import DecisionError
from krie.policy.engine import fired_rules


@pytest.mark.parametrize("answer", ["[" * 5000 + "]" * 5000, "[" + "1" * 5000 + "]", "[", '[{"id": ' + "[" * 600])
def test_answers_that_python_cannot_read(answer: str) -> None:
    with pytest.raises(DecisionError):
        fired_rules(answer)
