"""What a user may send of each kind before records are held back (`bpf/budget.bpf.c`), and what was.

Held back is only the telling: programs decide about every attempt. Where a rule that only the agent knows might refuse
or kill, though, what it cannot be told of is refused, if the program can. Within its budget, what matters to the policy
may use all of the ring; beyond it, an attempt unlike recent ones is sent while there is room in the common part of
the ring and in a second budget. What was not sent is counted exactly by kind.

All of that is per CPU, so that nobody waits for anybody. Each CPU has its part of what a user may send, so that using
many at once gives nobody more; but no less than what tells of all that few acts at a time do on one CPU.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..decision import Action
from ..events.core_maps import Budget, Count, Importance, Limits, Spender
from ..events.event import EventType, EventTypes
from ..events.inline import inline_fields
from ..events.numbers import ONLY, WORD
from ..kernel.maps import Map, possible_cpus
from ..policy.engine import SEVERE, Rule

COMMON = 0.75
"""Part of the ring that is for all records."""
LEAST_BURST, LEAST_PER_S = 16, 10
"""On each CPU, unless even a whole budget is less: so many records at once, and so many a second."""
_SECOND_NS = 1_000_000_000
_COMPARED = frozenset(
    "uid euid gid exe exe_known program comm tgid tid start_time kernel_thread container parent ancestors".split()
)
"""What of `input.process` is alike where programs find two attempts alike."""
_COMPARED_OF_OTHERS = frozenset("exe exe_known program tgid start_time known".split())
"""The same of the other processes that an event is about and `Event.ALIKE` names: not who they are, nor their name."""


@dataclass(frozen=True, slots=True)
class HeldReport:
    """Records of one kind that were held back since the last look."""

    kind: str
    alike: int
    """Like one that was sent within a second before."""
    over: int
    """Others."""
    total: int
    """Both, since the start."""
    user: int
    """Of whom most were, as far as that is known."""


def part(budget: int, cpus: int, least: int) -> int:
    """What one CPU has of a budget: all of them together have no more than that, or than `least` of each."""
    return max(budget // cpus, min(budget, least))


def importance(rules: Iterable[Rule], event_type: EventType) -> Importance:
    """What programs need to know of a policy about a kind."""
    severe = [
        each
        for each in rules
        if each.concerns(event_type.name) and (each.fired.action >= Action.OVERRIDE or each.metadata.severity in SEVERE)
    ]
    if not severe:
        return Importance(0)
    inline = {name for part, name in inline_fields(event_type) if part == "event"}
    compared, processes = {"kind", *inline}, frozenset(event_type.event.ALIKE)
    alike = all(_is_compared(path, compared, processes) for each in severe for path in each.reads)
    return Importance.MATTERS if alike else Importance.MATTERS | Importance.UNLIKE


def _is_compared(path: Sequence[str], fields: set[str], processes: frozenset[str]) -> bool:
    match tuple(path[:3]):
        case ("event", name, part) if name in processes:
            return part in _COMPARED_OF_OTHERS
        case ("event", name, *_):
            return name in fields
        case ("process", name, *_):
            return name in _COMPARED
        case ("host" | "health", *_):
            return True
    return False


Needs = tuple[Importance, ...]
"""What programs need to know of one policy, by slot of the kind."""


class Budgets:
    """The maps of `bpf/budget.bpf.c`. Errors are `KernelError`."""

    def __init__(
        self, types: EventTypes, kinds: Sequence[int], maps: Mapping[str, Map], cpus: int | None = None
    ) -> None:
        """`kinds`: in order of their slots; `cpus`: how many each have a part of a budget."""
        self._types, self._kinds, self._cpus = types, kinds, cpus or possible_cpus()
        self._limits, self._importance = maps["krie_limits"], maps["krie_importance"]
        self._counts, self._budgets = maps["krie_counts"], maps["krie_budgets"]
        self._known: dict[int, Importance] = {}
        """What programs know, by slot."""
        self._told: dict[int, tuple[int, int]] = {}
        self._by_user: dict[Spender, int] = {}
        self._ring_bytes = maps["krie_ring"].entries

    def limit(self, burst: int, per_s: int) -> None:
        """Begin to hold back: more than `burst` records of one kind by one user at once, or `per_s`, as `part` says."""
        burst = part(burst, self._cpus, LEAST_BURST)
        interval = _SECOND_NS // part(per_s, self._cpus, LEAST_PER_S)
        common = int(self._ring_bytes * COMMON)
        seed = secrets.randbits(64) | 1
        own, other = (interval, interval * burst), (interval // 2, interval // 2 * burst * 4)
        self._limits.set(ONLY, Limits(seed, common, *own, *other, _SECOND_NS).encode())

    def needs(self, rules: Sequence[Rule], unjudged: Collection[str] = ()) -> Needs:
        """What matters to these rules. `unjudged`: kinds about which only the agent knows all that is to be done."""
        types = [self._types[kind] for kind in self._kinds]
        judged = (Importance.UNJUDGED if each.name in unjudged else Importance(0) for each in types)
        return tuple(importance(rules, each) | flags for each, flags in zip(types, judged, strict=True))

    def tell(self, needs: Needs) -> None:
        """Let programs know that, as far as they do not. Where it fails, what was told until then stays so."""
        for slot, flags in enumerate(needs):
            if self._known.get(slot) != flags:
                self._importance.set(WORD.encode(slot), WORD.encode(flags))
                self._known[slot] = flags

    def look(self) -> Iterator[HeldReport]:
        """What was held back since the last look."""
        users: dict[int, tuple[int, int]] | None = None
        for slot, (kind, value) in enumerate(zip(self._kinds, self._counts.array(), strict=False)):
            counts = Count.total(value)
            alike, over = counts.alike, counts.over
            alike_before, over_before = self._told.get(slot, (0, 0))
            if (alike, over) != (alike_before, over_before):
                users = users if users is not None else self._users()
                self._told[slot] = alike, over
                _, user = users.get(slot, (0, 0))
                name = self._types[kind].name
                yield HeldReport(name, alike - alike_before, over - over_before, alike + over, user)

    def _users(self) -> dict[int, tuple[int, int]]:
        """For each slot how many were held back of whom most were."""
        found: dict[int, tuple[int, int]] = {}
        # Only those whom the kernel's side has still: somebody may take any number of user ids, one after the other.
        before, self._by_user = self._by_user, {}
        for key, value in self._budgets.items():
            spender, held = Spender.decode(key), Budget.total(value).held
            known = before.get(spender, 0)
            new = held - known if held >= known else held  # forgotten there meanwhile, and counted anew
            self._by_user[spender] = held
            slot = spender.what // 2
            found[slot] = max(found.get(slot, (0, 0)), (new, spender.user))
        return found
