"""What decisions cost by each engine: the embedded one, opa-python-client as it is, and KRIe's batches by it."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from krie.child import forked
from krie.config import OpaConfig, PolicyConfig
from krie.events.event import EventTypes
from krie.opa.server import OpaServer
from krie.policy.bundle import bundle_of, read_bundle
from krie.policy.delegated import Delegated
from krie.policy.embedded import EmbeddedEngine
from krie.policy.engine import Package
from krie.policy.sources import PolicySources, read_sources
from krie.tier.compiled import Job, compile_and_serve
from krie.tier.evaluator import Compiling, Evaluator
from opa_client.opa import OpaClient  # type: ignore[import-untyped]

from tests.policy.documents import Documents
from tests.unit.opa_servers import Opa, running, wait_until_it_decides

_ROOT = Path(__file__).parents[2] / "policies"
_SHIPPED = [_ROOT / each for each in ("agent", "cfi", "runtime_integrity", "smep_smap", "syscall_table")]
_COUNT = 2048
_ROUNDS = 3
_RULES = 200
Row = Callable[..., None]
Asked = tuple[tuple[Package, ...], str]


def _sources() -> PolicySources:
    return read_sources(_SHIPPED, {"executables": {"apt": "/usr/bin/apt"}})


def _asked(engine: EmbeddedEngine) -> list[Asked]:
    """Documents that no engine has an error about."""
    documents, found = Documents(engine, Random(3)), list[Asked]()
    while len(found) < _COUNT:
        packages, document = documents.draw()
        if not any(isinstance(each, str) for each in engine.evaluate(packages, document)):
            found.append((packages, document))
    return found


@contextmanager
def _one_core() -> Iterator[None]:
    """This process and all that it starts have one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _measured(row: Row, name: str, act: Callable[[list[Asked]], object], asked: list[Asked], size: int) -> float:
    """A row; returns decisions a second. The times are those of a query, however many it holds."""
    best: list[float] = []
    for _ in range(_ROUNDS):
        times = []
        for start in range(0, len(asked), size):
            some = asked[start : start + size]
            begun = time.perf_counter()
            act(some)
            times.append(time.perf_counter() - begun)
        best = min(best, times, key=sum) if best else times
    cuts = statistics.quantiles(best, n=100)
    rate = len(asked) / sum(best)
    row(name, f"{rate:,.0f}/s", f"a query: p50 {1e3 * cuts[49]:.2f} ms, p99 {1e3 * cuts[98]:.2f} ms")
    return rate


def _by_client(client: OpaClient, asked: list[Asked]) -> None:
    """As its manual has it: one query a package and event."""
    for packages, document in asked:
        for package in packages:
            client.query_rule(json.loads(document), package.name.removeprefix("data."), "rules")


def decisions(row: Row) -> None:
    """Decisions a second on one core, which the OPA server has too."""
    found = _sources()
    engine = EmbeddedEngine(found)
    asked = _asked(engine)
    with tempfile.TemporaryDirectory() as folder, _one_core(), ExitStack() as stack:
        rate = _measured(
            row, "embedded, in this process", lambda some: [engine.evaluate(*each) for each in some], asked, 1
        )
        compiled, keeper = Compiling(_fork, Job(PolicyConfig(), sources=found)).wait()
        evaluator = Evaluator(compiled, keeper, _fork, PolicyConfig())
        stack.callback(evaluator.close)
        _measured(
            row, "embedded, as an agent has it", lambda some: [evaluator.evaluate(*each) for each in some], asked, 1
        )
        _measured(row, "embedded, as policy eval has it", evaluator.evaluate_many, asked, evaluator.together)
        opa = stack.enter_context(running(Path(folder), found))
        client = OpaClient(host="127.0.0.1", port=opa.port)
        stack.callback(client.close_connection)
        alone = _measured(row, "opa-python-client as it is", lambda some: _by_client(client, some), asked, 1)
        rates = {size: _by_krie(row, opa, found, asked, size) for size in (1, 16, 64, 256)}
    row("batches of 64 against the client alone", f"{rates[64] / alone:.1f} x", f"embedded: {rate / alone:.1f} x")
    unix = tempfile.TemporaryDirectory()
    with unix as folder, _one_core(), running(Path(folder), found, unix=True) as opa:
        _by_krie(row, opa, found, asked, 64, "Unix socket, ")


def _fork() -> Any:
    return forked(partial(compile_and_serve, EventTypes(())))


def _by_krie(row: Row, opa: Opa, found: PolicySources, asked: list[Asked], size: int, how: str = "") -> float:
    server = OpaServer(OpaConfig(url=opa.url, timeout_ms=10_000, batch=size, waiting_percent=100))
    try:
        wait_until_it_decides(server, found.revision)
        delegated = Delegated(server, EmbeddedEngine(found))
        rate = _measured(row, f"OPA by KRIe, {how}batches of {size}", delegated.evaluate_many, asked, size)
        if server.stood_in:
            raise SystemExit(f"the server did not decide all: {server.to_json()}")
    finally:
        server.close()
    return rate


def bundle_of_200_rules(row: Row) -> None:
    """From the bundle's bytes to what decides, on one core."""
    rules = "\n\n".join(
        f'rules contains {{"id": "R{number}", "action": "log"}} if {{\n'
        f'\tinput.event.kind == "runtime_integrity.sysctl_write"\n\tinput.event.name == "net/x{number}"\n'
        f"\tstartswith(input.event.new, data.texts[{number}])\n}}"
        for number in range(_RULES)
    )
    with tempfile.TemporaryDirectory() as name, _one_core():
        folder = Path(name) / "site"
        folder.mkdir()
        (folder / "site.rego").write_text(f"package krie.site\n\n{rules}\n")
        (folder / "site.json").write_text(json.dumps({"texts": [str(number) for number in range(_RULES)]}))
        found = read_sources([folder], {})
        raw = bundle_of(found).to_bytes()
        times: dict[str, list[float]] = {"read": [], "compiled": []}
        for _ in range(_ROUNDS):
            begun = time.perf_counter()
            read = read_bundle(raw, "b")
            times["read"].append(time.perf_counter() - begun)
            compiled, keeper = Compiling(_fork, Job(PolicyConfig(), sources=read.sources)).wait()
            times["compiled"].append(time.perf_counter() - begun)
            keeper.end()
            assert sum(len(each.rules) for each in compiled.packages) == _RULES
        read_ms, compiled_ms = (1e3 * min(each) for each in times.values())
        row(
            f"a bundle of {_RULES} rules", f"{compiled_ms:.0f} ms", f"{read_ms:.1f} ms of it to read {len(raw):,} bytes"
        )
