"""The C that is generated for each kind of event: reserve and submit its record, decide about it before."""

from __future__ import annotations

from dataclasses import dataclass

from ..events.inline import PROCESS_FIELDS, shape_of
from ..events.wire import NAME_BYTES


@dataclass(frozen=True, slots=True)
class RecordSource:
    """One record's share of the translation unit: see `EventType`."""

    c_name: str
    kind: int
    version: int
    declaration: str
    inline: tuple[tuple[str, str], ...] = ()
    """Name and shape (see `krie.events.inline.shape_of`) of each of its own inline fields."""
    background: bool = False
    """See `Event.BACKGROUND`."""


def record_functions(slot: int, record: RecordSource, *, trial: bool) -> str:
    """All functions of one kind. `trial`: with the program by which `krie policy verify` looks a record up."""
    parts = (_record(slot, record), _decision(slot, record), _trial(slot, record) if trial else "")
    return "".join(parts)


# Whether there is one is asked once: what has none is held back or refused, whatever happens on this CPU meanwhile.
# That it is there is looked at once, too: 5.10's verifier does not know it any more when it is looked at again.
_PLACE = """	u64 digest = answer ? answer->digest : 0, decided = answer ? krie_truth(answer->by) : 0;
	u32 held = krie_admit({slot}, digest, decided);

	if (!held) {{
		record = krie_ring.ringbuf_reserve(sizeof(struct {name}));
		if (record)
			return krie_begin_{name}(record);
		krie_found_no_room({slot});
	}}
	if (can & KRIE_CAN_REFUSE && held != KRIE_ALIKE)
		krie_refuse_unjudged({slot}, answer);"""
_BACKGROUND_PLACE = """	if (!krie_admit_background({slot}))
		return NULL;
	krie_will_not_wake();
	record = krie_ring.ringbuf_reserve(sizeof(struct {name}));
	if (record)
		return krie_begin_{name}(record);
	krie_lost({slot});"""


def _record(slot: int, record: RecordSource) -> str:
    name = record.c_name
    fill, wake, given, place = "krie_fill_header", "krie_wake()", "struct krie_answer *answer, const u32 can", _PLACE
    if record.background:
        fill, wake, given = "krie_fill_process", "krie_wake_at_times(record->header.seq)", "void"
        place = _BACKGROUND_PLACE
    return f"""
static __always_inline struct {name} *krie_begin_{name}(struct {name} *record)
{{
	__builtin_memset(record, 0, sizeof(*record));
	{fill}(&record->header);
	krie_fill_image(&record->header);
	record->header.kind = {record.kind};
	record->header.version = {record.version};
	record->header.size = sizeof(*record);
	record->header.seq = krie_number({slot});
	return record;
}}
static __always_inline struct {name} *krie_reserve_{name}({given})
{{
	struct {name} *record;

	if (krie_own_child())
		return NULL;
{place.format(slot=slot, name=name)}
	return NULL;
}}
static __always_inline void krie_submit_{name}(struct {name} *record)
{{
	krie_ring.ringbuf_submit(record, {wake});
}}
"""


def _decision(slot: int, record: RecordSource) -> str:
    name = record.c_name
    members = "".join(
        f"	char {field}[{NAME_BYTES}];\n" if shape == "text" else f"	u64 {field};\n"
        for field, shape in record.inline
    )
    own = [
        (f"krie_name_number(known->{field})" if shape == "text" else f"known->{field}", shape)
        for field, shape in record.inline
    ]
    values = [*own, *((f"actor->{field}", shape_of(wire)) for field, wire in PROCESS_FIELDS.items())]
    steps = "".join(
        f"	if (used & {1 << index:#x})\n"
        f"		row += {'krie_step_of' if shape == 'number' else 'krie_step'}(table, {index}, {value});\n"
        for index, (value, shape) in enumerate(values)
    )
    copies = "".join(f"	{_copy('record', 'known', field, shape)}\n" for field, shape in record.inline)
    return f"""
struct {name}_inline {{
{members}}};
static __always_inline u32 krie_row_{name}(struct krie_table *table, struct {name}_inline *known,
	struct krie_actor *actor)
{{
	u32 used = table->used;
	u32 row = actor->row;

{steps}	return row;
}}
static __always_inline struct krie_answer krie_decide_{name}(struct {name}_inline *known, const u32 can)
{{
	struct krie_answer answer = {{}};
	struct krie_table *table;
	struct krie_actor actor;

	if (can & KRIE_CAN_REFUSE) {{
		krie_standing({record.kind}, &answer);
		krie_forget(&answer, sizeof(answer));
	}}
	table = answer.error ? NULL : krie_table_of({slot});
	if (table && table->used) {{
		actor = krie_actor_now();
		krie_forget(&actor, sizeof(actor));
		krie_forget(known, sizeof(*known));
		krie_act(table, krie_row_{name}(table, known, &actor), can, &answer);
	}}
	krie_forget(&answer, sizeof(answer));
	answer.digest = krie_digest(known, sizeof(*known), (u64)answer.by << 32 | answer.rule);
	krie_forget(&answer.digest, sizeof(answer.digest));
	return answer;
}}
static __always_inline void krie_put_{name}(struct {name} *record, struct {name}_inline *known)
{{
{copies}}}
"""


def _copy(to: str, source: str, field: str, shape: str) -> str:
    if shape == "text":
        return f"__builtin_memcpy({to}->{field}, {source}->{field}, sizeof(record->{field}));"
    value = f"{source}->{field}"
    return f"{to}->{field} = {f'krie_truth({value})' if shape == 'boolean' else value};"


def trial_map(c_name: str) -> str:
    """The map that holds the record which the trial program of a kind looks up."""
    return f"krie_trial_{c_name}"


def trial_program(c_name: str) -> str:
    """The program of a kind that `krie policy verify` runs."""
    return f"krie_try_{c_name}"


def _trial(slot: int, record: RecordSource) -> str:
    name = record.c_name
    copies = "".join(f"	{_copy('(&known)', 'record', field, shape)}\n" for field, shape in record.inline)
    return f"""
BPF_ARRAY({trial_map(name)}, struct {name}, 1);
int {trial_program(name)}(struct bpf_raw_tracepoint_args *ctx)
{{
	u32 zero = 0;
	struct {name} *record = {trial_map(name)}.lookup(&zero);
	struct krie_table *table = krie_table_of({slot});
	struct {name}_inline known = {{}};
	struct krie_actor actor = {{}};

	if (!record || !table)
		return 0;
{copies}	actor = krie_actor_of(&record->header);
	record->header.verdict = 0;
	if (table->used)
		record->header.verdict = krie_outcome_of(table, krie_row_{name}(table, &known, &actor))->rule;
	record->header.generation = table->generation;
	return 0;
}}
"""
