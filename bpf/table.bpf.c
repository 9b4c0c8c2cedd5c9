/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * The part of the policy that is decided here: one table a kind of event, made by krie/tier/tables.py from the rules
 * whose answer depends on nothing but inline fields. Pasted behind the verdicts.
 *
 * A field's value falls between two of its break points; each interval adds its step to the number of a row; the row
 * names an outcome. The steps are mixed-radix digits, so that each combination has a row of its own. The struct comes
 * from krie/events/table_layout.py. A generation is a fresh inner map with the tables of all kinds. It comes into force
 * by one pointer, and the kernel waits for all readers of the one before (maybe_wait_bpf_programs, since 1ae80cf31938).
 */

#define KRIE_SEARCH 13 /* halvings from KRIE_POINTS to 1 */
_Static_assert(1 << (KRIE_SEARCH - 1) == KRIE_POINTS, "the search has another number of halvings");

/* An array of maps, of which only one is in force; see krie_table_of(). To BCC it is an array of numbers, and the
 * loader puts a map of maps in its place: the type of such a map's values would cost BCC half a second. */
BPF_ARRAY(krie_tables, u32, 1);

/* Numbers for text and for executables, given once for as long as the agent lives; 0: none, any other. */
struct krie_name {
	char text[KRIE_NAME_BYTES];
};
KRIE_STATE("hash", struct krie_name, u32, krie_names, 8192);
KRIE_STATE("hash", struct krie_file, u32, krie_programs, 1024);

/* What all kinds know about the current process: PROCESS_FIELDS in krie/events/inline.py. */
struct krie_actor {
	u32 uid, euid, gid, program, kernel_thread, container;
	u32 row; /* 0, where the number of the row begins: forgotten by the verifier with all the rest */
	u32 unused;
};

#define KRIE_CAN_REFUSE 1 /* what the probe's program can do */
#define KRIE_CAN_KILL 2
#define KRIE_CAN_REFUSE_KERNEL 4 /* also to a thread of the kernel's own, which does it in somebody's name */

static __always_inline struct krie_table *krie_table_of(u32 slot)
{
	u32 zero = 0;
	void *generation = (void *)krie_tables.lookup(&zero);

	return generation ? bpf_map_lookup_elem(generation, &slot) : NULL;
}

static __always_inline u64 krie_name_number(const char *text)
{
	u32 *number = krie_names.lookup((struct krie_name *)text);

	return number ? *number : 0;
}

static __always_inline u64 krie_program_number(void)
{
	struct krie_image *noted;
	u32 *number, lost;

	noted = krie_current_image(&lost);
	if (!noted || lost)
		return 0;
	number = krie_programs.lookup(&noted->file);
	return number ? *number : 0;
}

static __always_inline u32 krie_step_at(struct krie_table *table, struct krie_field_table *field, u64 interval)
{
	return table->steps[(field->first_step + interval) & (KRIE_STEPS - 1)];
}

/* What a small number adds to the number of the row: it is the interval; those above the last are like the last. All of
 * this is without branches: the verifier would follow the two ways of each of them. */
static __always_inline u32 krie_step(struct krie_table *table, u32 index, u64 value)
{
	struct krie_field_table *field = &table->fields[index];
	u64 last = field->points;

	return krie_step_at(table, field, last ^ ((last ^ value) & (0 - krie_less(value, last))));
}

/* The same of any number, by the break points that are not above it. */
static __always_inline u32 krie_step_of(struct krie_table *table, u32 index, u64 value)
{
	struct krie_field_table *field = &table->fields[index];
	u64 points = field->points, half = field->half;
	u64 left = points, before = field->first_point - 1;

	value ^= field->flip;
	value = (value & field->mask) | krie_truth(value & field->rest) << 63;
#pragma clang loop unroll(disable) /* which would cost seconds of compiling */
	for (u64 i = 0; half && (KRIE_ENDS_AT_LAST || i < KRIE_SEARCH) && KRIE_GOES_ON; i++, half >>= 1) {
		u64 point = table->points[(before + half) & (KRIE_POINTS - 1)];
		u64 borrow = (~value & point) | (~(value ^ point) & (value - point)); /* highest bit: value < point */
		u64 not_taken = (borrow | (left - half)) >> 63;

		asm volatile("" : "+r"(not_taken)); /* clang must not make a branch of it */
		u64 taken = half & (not_taken - 1);

		left -= taken;
		before += taken;
	}
	return krie_step_at(table, field, points - left);
}

static __always_inline struct krie_outcome *krie_outcome_of(struct krie_table *table, u32 row)
{
	return &table->outcomes[table->rows[row & (KRIE_ROWS - 1)] & (KRIE_OUTCOMES - 1)];
}

static __always_inline struct krie_actor krie_actor_now(void)
{
	const struct cred *cred = KRIE_LOAD(task_struct, krie_current_btf(), cred);
	u16 context = krie_context();
	struct krie_actor actor = {
		.uid = KRIE_LOAD(cred, cred, uid.val),
		.euid = KRIE_LOAD(cred, cred, euid.val),
		.gid = KRIE_LOAD(cred, cred, gid.val),
		.program = krie_program_number(),
		.kernel_thread = context & KRIE_CONTEXT_KERNEL_THREAD,
		.container = context & KRIE_CONTEXT_CONTAINER,
	};

	return actor;
}

/* The same out of a record. */
static __always_inline struct krie_actor krie_actor_of(struct krie_header *header)
{
	struct krie_file identity = {
		.ino = header->exe_ino,
		.dev = header->exe_dev,
		.generation = header->exe_generation,
	};
	u32 *number = header->context & KRIE_LOST ? NULL : krie_programs.lookup(&identity);
	struct krie_actor actor = {
		.uid = header->uid,
		.euid = header->euid,
		.gid = header->gid,
		.program = number ? *number : 0,
		.kernel_thread = header->context & KRIE_CONTEXT_KERNEL_THREAD,
		.container = header->context & KRIE_CONTEXT_CONTAINER,
	};

	return actor;
}

/* Do what the row says. `can` is what this program can do, constant. */
static __always_inline void krie_act(struct krie_table *table, u32 row, const u32 can, struct krie_answer *answer)
{
	struct krie_outcome *outcome = krie_outcome_of(table, row);
	struct krie_verdict verdict = {};

	if (!outcome->rule)
		return;
	verdict.process = krie_current_process();
	answer->by = KRIE_BY_TABLE;
	answer->rule = outcome->rule;
	answer->generation = table->generation;
	if (krie_is_spared(verdict.process.tgid, can & KRIE_CAN_REFUSE_KERNEL))
		return;
	if (can & KRIE_CAN_REFUSE)
		answer->error = outcome->error;
	if ((can & KRIE_CAN_REFUSE_KERNEL) && !krie_has_memory())
		return; /* this and no more: such a thread works for many, and never ends */
	if (outcome->poison_ns) {
		verdict.share = krie_share_now();
		verdict.until = bpf_ktime_get_boot_ns() + outcome->poison_ns;
		verdict.rule = outcome->rule;
		verdict.error = outcome->error;
		answer->done |= krie_poison(&verdict, false) ? KRIE_DONE_POISONED : KRIE_DONE_POISON_FAILED;
	}
	if ((can & KRIE_CAN_KILL) && outcome->kill)
		krie_signal(answer);
}
