"""The embedded engine and a real OPA server decide the same, document by document: the rules that ship with KRIe."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest
from krie.config import OpaConfig
from krie.opa.server import OpaServer
from krie.policy.delegated import Delegated
from krie.policy.embedded import EmbeddedEngine
from krie.policy.sources import read_sources

from ..unit.opa_servers import running, wait_until_it_decides
from .documents import Documents, drawn

ROOT = Path(__file__).parents[2] / "policies"
SHIPPED = [ROOT / each for each in ("agent", "cfi", "runtime_integrity", "smep_smap", "syscall_table")]
SOURCES = read_sources(SHIPPED, {"executables": {"apt": "/usr/bin/apt", "sysctl": "/usr/sbin/sysctl"}})
BATCH = 256


class Both:
    def __init__(self, folder: Path, stack: ExitStack) -> None:
        opa = stack.enter_context(running(folder, SOURCES))
        self.engine = EmbeddedEngine(SOURCES)
        self.server = OpaServer(OpaConfig(url=opa.url, timeout_ms=10_000, batch=BATCH, waiting_percent=100))
        stack.callback(self.server.close)
        self._delegated = Delegated(self.server, self.engine)
        wait_until_it_decides(self.server, SOURCES.revision)

    def compare(self, seed: int, count: int) -> tuple[int, int]:
        """How many documents let a rule fire, and how many had an error."""
        fired = failed = 0
        documents = Documents(self.engine, Random(seed))
        for batch in drawn(documents, count, BATCH):
            here = [self.engine.evaluate(packages, document) for packages, document in batch]
            wrong = [any(isinstance(each, str) for each in answers) for answers in here]
            for (packages, document), answers, is_wrong in zip(batch, here, wrong, strict=True):
                if is_wrong:  # by the type of a field, which no event has: OPA may not get as far as that
                    (told,) = self._delegated.evaluate_many([(packages, document)])
                    for there, mine in zip(told.answers, answers, strict=True):
                        assert isinstance(mine, str) or set(there) == set(mine), document
                    self.server._declined_in_a_row = 0
            right = [
                (asked, answers) for asked, answers, is_wrong in zip(batch, here, wrong, strict=True) if not is_wrong
            ]
            told_of = self._delegated.evaluate_many([asked for asked, _ in right])
            for ((_, document), answers), told in zip(right, told_of, strict=True):
                assert told.engine == "opa", self.server.to_json()
                assert [set(each) for each in told.answers] == [set(each) for each in answers], document
            fired += sum(any(answers) for _, answers in right)
            failed += sum(wrong)
        return fired, failed


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    with ExitStack() as stack:
        yield Both(tmp_path_factory.mktemp("opa"), stack)


def test_on_some_documents_of_all_kinds(both: Both) -> None:
    fired, _ = both.compare(1, 20 * BATCH)
    assert fired > BATCH


@pytest.mark.slow
def test_on_fifty_thousand(both: Both) -> None:
    fired, failed = both.compare(2, 50_000)
    print(f"{fired} with a rule that fired, {failed} with an error")
    assert fired > 10_000
