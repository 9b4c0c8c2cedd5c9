"""The embedded engine and a real OPA server decide the same, document by document: the rules that ship with KRIe."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest
from krie.config import OpaConfig
from krie.opa.server import OpaServer
from krie.policy.delegated import Delegated
from krie.policy.embedded import EmbeddedEngine
from krie.policy.engine import Answer, Package, Partly
from krie.policy.sources import PolicySources, read_sources

from ..unit.opa_servers import running, wait_until_it_decides
from .documents import Documents, drawn
from .rule_cases import CASES, document_of

ROOT = Path(__file__).parents[2] / "policies"
SHIPPED = [ROOT / each for each in ("agent", "cfi", "runtime_integrity", "smep_smap", "syscall_table")]
SOURCES = read_sources(SHIPPED, {"executables": {"apt": "/usr/bin/apt", "sysctl": "/usr/sbin/sysctl"}})
BATCH = 256


def same(one: Answer, other: Answer) -> bool:
    """In any order; of the rules that failed in `other`, `one` may say anything."""
    if isinstance(one, tuple) and isinstance(other, Partly):
        more = {each.id for each in set(one) - set(other.fired)}
        return set(other.fired) <= set(one) and more <= other.errors.keys()
    return set(one) == set(other) if isinstance(one, tuple) and isinstance(other, tuple) else one == other


class Both:
    def __init__(self, folder: Path, stack: ExitStack, sources: PolicySources = SOURCES) -> None:
        opa = stack.enter_context(running(folder, sources))
        self.engine = EmbeddedEngine(sources)
        self.server = OpaServer(OpaConfig(url=opa.url, timeout_ms=10_000, batch=BATCH, waiting_percent=100))
        stack.callback(self.server.close)
        self._delegated = Delegated(self.server, self.engine)
        wait_until_it_decides(self.server, sources.revision)

    def compare(self, seed: int, count: int) -> tuple[int, int]:
        """How many documents let a rule fire, and how many had an error."""
        batches = drawn(Documents(self.engine, Random(seed)), count, BATCH)
        fired, failed = zip(*map(self.judge, batches), strict=True)
        return sum(fired), sum(failed)

    def judge(self, batch: Sequence[tuple[tuple[Package, ...], str]]) -> tuple[int, int]:
        """The same of these."""
        here = [self.engine.evaluate(packages, document) for packages, document in batch]
        wrong = [not all(isinstance(each, tuple) for each in answers) for answers in here]
        for (packages, document), answers, is_wrong in zip(batch, here, wrong, strict=True):
            if is_wrong:  # by the type of a field, which no event has: OPA may not get as far as that
                (told,) = self._delegated.evaluate_many([(packages, document)])
                for there, mine in zip(told.answers, answers, strict=True):
                    assert isinstance(mine, str) or same(there, mine), document
                self.server._declined_in_a_row = 0
        right = [(asked, answers) for asked, answers, is_wrong in zip(batch, here, wrong, strict=True) if not is_wrong]
        told_of = self._delegated.evaluate_many([asked for asked, _ in right])
        for ((_, document), answers), told in zip(right, told_of, strict=True):
            assert told.engine == "opa", self.server.to_json()
            assert all(map(same, told.answers, answers)), document
        return sum(any(answers) for _, answers in right), sum(wrong)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    with ExitStack() as stack:
        yield Both(tmp_path_factory.mktemp("opa"), stack)


def test_on_some_documents_of_all_kinds(both: Both) -> None:
    fired, _ = both.compare(1, 20 * BATCH)
    assert fired > BATCH


def test_where_every_list_is_missing(tmp_path: Path) -> None:
    """As where somebody's own folder has the rules without the lists: `not x in data.y` is another thing to OPA."""
    rules = tmp_path / "rules"
    for each in SHIPPED:
        shutil.copytree(each, rules / each.name, ignore=shutil.ignore_patterns("*.json", "*_test.rego"))
    with ExitStack() as stack:
        both = Both(tmp_path, stack, read_sources([rules], {}))
        documents = [document_of(event) for case in CASES for event in (case[0], case[2])]
        fired, failed = both.judge(
            [
                (tuple(package for package in both.engine.packages if package.concerns(kind)), json.dumps(document))
                for kind, document in documents
            ]
        )
    assert (fired > len(CASES) // 2, failed) == (True, 0)


def test_on_fifty_thousand(both: Both) -> None:
    fired, failed = both.compare(2, 50_000)
    print(f"{fired} with a rule that fired, {failed} with an error")
    assert fired > 10_000
