/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Setting the clock. One small function per attach type turns what it is given into the arguments of one common
 * function.
 */

#define CLOCK_WHAT_TIME 1 /* bits of `what`: WHAT in events.py */
#define CLOCK_WHAT_ZONE 2

/* `can`: what the program is able to do about it. Returns the call's error, 0 where the program cannot refuse. */
static __always_inline int clock_settime_event(u32 program, s64 seconds, u32 what, const u32 can)
{
	struct clock_settime_inline known = { .what = what };
	struct clock_settime *record;
	struct krie_answer answer;
	int error = 0;

	answer = krie_decide_clock_settime(&known, can);
	if (can & KRIE_CAN_REFUSE)
		error = krie_error(&answer);
	record = krie_reserve_clock_settime(program);
	if (!record)
		return error; /* a full ring buffer lets nobody through */
	krie_stamp(&record->header, &answer);
	krie_put_clock_settime(record, &known);
	record->seconds = seconds;
	krie_submit_clock_settime(record);
	return error;
}

/* security_settime64(time, zone): each may be NULL. They are read as numbers: clang makes arithmetic of comparisons, which
 * the verifier forbids on pointers. */
static __always_inline int clock_settime_asked(u32 program, u64 *ctx)
{
	u64 arguments[2] = {};
	u64 time, zone;

	bpf_probe_read_kernel(arguments, sizeof(arguments), ctx);
	time = arguments[0];
	zone = arguments[1];
	if (!krie_enter(program)) /* not armed yet, or the agent's own canary */
		return 0;
	if (!time && !zone)
		return 0;
	return clock_settime_event(program, KRIE_READ(timespec64, time, tv_sec), /* 0 where there is none */
				    (time ? CLOCK_WHAT_TIME : 0) | (zone ? CLOCK_WHAT_ZONE : 0),
				    KRIE_CAN_REFUSE | KRIE_CAN_KILL);
}

#ifdef KRIE_USE_CLOCK_SETTIME_LSM
int clock_settime_lsm(u64 *ctx)
{
	return clock_settime_asked(KRIE_PROGRAM_clock_settime_lsm, ctx);
}
#endif

#ifdef KRIE_USE_CLOCK_SETTIME_FMOD_RET
int clock_settime_fmod_ret(u64 *ctx)
{
	return clock_settime_asked(KRIE_PROGRAM_clock_settime_fmod_ret, ctx);
}
#endif

#ifdef KRIE_USE_CLOCK_SETTIME_RAW_TRACEPOINT
#define CLOCK_SETTIMEOFDAY 164 /* (time, zone) */
#define CLOCK_CLOCK_SETTIME 227 /* (clock, time) */
#define CLOCK_REALTIME 0 /* the clock that is the machine's time */

int clock_settime_raw(struct bpf_raw_tracepoint_args *ctx)
{
	u64 time, zone = 0;
	s64 seconds = 0;

	if (!krie_syscall_is_either(ctx, CLOCK_SETTIMEOFDAY, CLOCK_CLOCK_SETTIME))
		return 0;
	if (!krie_enter(KRIE_PROGRAM_clock_settime_raw))
		return 0;
	struct krie_syscall call = krie_syscall_of(ctx);

	if (call.compat) /* other calls have these numbers there */
		return 0;
	if (call.number == CLOCK_SETTIMEOFDAY) {
		time = call.first;
		zone = call.second;
	} else if (call.first == CLOCK_REALTIME) {
		time = call.second;
	} else {
		return 0;
	}
	if (!time && !zone)
		return 0;
	bpf_probe_read_user(&seconds, sizeof(seconds), (void *)time);
	return clock_settime_event(KRIE_PROGRAM_clock_settime_raw, seconds,
				    (time ? CLOCK_WHAT_TIME : 0) | (zone ? CLOCK_WHAT_ZONE : 0), KRIE_CAN_KILL);
}
#endif
