"""An enforcer with tables that only remember, and decisions to enforce."""

from collections.abc import Iterator
from pathlib import Path

from krie import Action, FiredRule, Scope
from krie.config import EnforcementConfig
from krie.decision import Decision, Mode, merge
from krie.enforce.breaker import CircuitBreaker
from krie.enforce.enforcer import WORDS, Ability, Enforcer, RuleNumbers
from krie.enforce.verdicts import Verdict
from krie.errors import KernelError
from krie.events.event import Event
from krie.plugins.runtime_integrity.sysctl_write import SysctlWrite
from krie.processes.principal import Principal
from krie.testing.events import build

AGENT = 77
CAN = Ability(Mode.ENFORCE, refuses=True)


class Remembering:
    def __init__(self) -> None:
        self.given: list[Verdict] = []
        """Poison."""
        self.bound: list[Verdict] = []
        self.host: list[Verdict] = []
        self.full = False
        """No share has room, and no other table has any."""

    def poison(self, verdict: Verdict, *, beyond_share: bool = False) -> bool:
        room = beyond_share or not self.full
        self.given += [verdict] if room else []
        return room

    def poisoned(self) -> Iterator[Verdict]:
        return iter(self.given)

    def stands(self, verdict: Verdict) -> bool:
        return verdict in self.given

    def bind(self, verdict: Verdict) -> None:
        if self.full:
            raise KernelError("writing a map", 7)
        self.bound.append(verdict)

    def bind_host(self, verdict: Verdict) -> None:
        self.host.append(verdict)

    def clear(self, verdict: Verdict) -> None:
        (self.bound if verdict.kind else self.given).remove(verdict)


class Setting:
    def __init__(self, ability: Ability = CAN, most: int = 100, **config: object) -> None:
        self.tables, self.rules = Remembering(), RuleNumbers()
        self.tripped: list[tuple[str, int]] = []
        breaker = CircuitBreaker(most, 10**12, lambda rule, count: self.tripped.append((rule, count)))
        settings = EnforcementConfig.model_validate(config)
        self.in_kernel: frozenset[str] = frozenset()
        self.gave_way: list[Verdict] = []
        self.start_times: dict[int, int] = {}
        """As the kernel's side tells them."""
        self.enforcer = Enforcer(
            settings,
            self.tables,
            breaker,
            self.rules,
            AGENT,
            lambda _: ability,
            lambda _: self.in_kernel,
            lambda event: Principal("user", event.uid),
            self.gave_way.append,
            lambda tgid: self.start_times.get(tgid, 0),
        )
        self.enforcer.contained = 18

    def done(self, event: Event, decision: Decision) -> list[str]:
        done = list(self.enforcer(event, decision).done)
        assert {each.partition(":")[0] for each in done} <= WORDS.keys()
        return done

    @property
    def untouched(self) -> bool:
        return not (self.tables.given or self.tables.bound or self.tables.host)


def decided(action: Action, scope: Scope = Scope.EVENT, ttl_s: int = 0, errno: int = 0, rule: str = "R1") -> Decision:
    return merge([FiredRule(rule, action, scope, errno, ttl_s)], tier="user", revision="r")


def start_time(tgid: int) -> int:
    """As exactly as /proc tells it."""
    return int(Path(f"/proc/{tgid}/stat").read_text().rpartition(")")[2].split()[19]) * 10_000_000


def by(tgid: int, **fields: object) -> Event:
    return build(SysctlWrite, **{"tgid": tgid, "start_time": start_time(tgid), "exe_ino": 5, "exe_dev": 1, **fields})


def lives(tgid: int) -> bool:
    return Path(f"/proc/{tgid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
