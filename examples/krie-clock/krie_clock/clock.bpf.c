/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * The sample's C: setting the clock. One small function per attach type turns what it is given into the arguments of
 * one common function.
 */

/* Which of the two is set. The names are those of WHAT in events.py: KRIe makes constants of them. */
static __always_inline u32 clock_settime_what(u64 time, u64 zone)
{
	return (time ? CLOCK_SETTIME_WHAT_TIME : 0) | (zone ? CLOCK_SETTIME_WHAT_ZONE : 0);
}

/* `can`: what the program is able to do about it. Returns the call's error, 0 where the program cannot refuse. */
static __always_inline int clock_settime_event(s64 seconds, u32 what, const u32 can)
{
	struct clock_settime_inline known = { .what = what };
	struct clock_settime *record;
	struct krie_answer answer;
	int error = 0;

	answer = krie_decide_clock_settime(&known, can);
	record = krie_reserve_clock_settime(&answer, can);
	if (!record) /* a full ring buffer lets nobody through */
		return can & KRIE_CAN_REFUSE ? krie_error(&answer) : 0;
	if (can & KRIE_CAN_REFUSE)
		error = krie_error(&answer);
	krie_stamp(&record->header, &answer);
	krie_put_clock_settime(record, &known);
	record->seconds = seconds;
	krie_submit_clock_settime(record);
	return error;
}

/* security_settime64(time, zone), by LSM and fmod_ret: each may be NULL. They are read as numbers: clang makes
 * arithmetic of comparisons, which the verifier forbids on pointers. */
int clock_settime_hook(u64 *ctx)
{
	u64 arguments[2] = {};
	u64 time, zone;

	bpf_probe_read_kernel(arguments, sizeof(arguments), ctx);
	time = arguments[0];
	zone = arguments[1];
	if (!krie_enter()) /* not armed yet, or the agent's own canary */
		return 0;
	if (!time && !zone)
		return 0;
	/* A time that is not there is read as 0. */
	return clock_settime_event(KRIE_READ(timespec64, time, tv_sec), clock_settime_what(time, zone),
				   KRIE_CAN_REFUSE | KRIE_CAN_KILL);
}

/* A system call with these two arguments, in user memory. */
static __always_inline int clock_settime_called(u64 time, u64 zone)
{
	s64 seconds = 0;

	if (!time && !zone)
		return 0;
	bpf_probe_read_user(&seconds, sizeof(seconds), (void *)time);
	return clock_settime_event(seconds, clock_settime_what(time, zone), KRIE_CAN_KILL);
}

/* settimeofday(time, zone) */
int clock_by_timeofday_syscall(struct bpf_raw_tracepoint_args *ctx)
{
	struct krie_syscall call;

	if (!krie_enter())
		return 0;
	call = krie_syscall_of(ctx);
	return call.compat ? 0 : clock_settime_called(call.first, call.second);
}

#define CLOCK_REALTIME 0 /* the clock that is the machine's time */

/* clock_settime(clock, time) */
int clock_by_settime_syscall(struct bpf_raw_tracepoint_args *ctx)
{
	struct krie_syscall call;

	if (!krie_enter())
		return 0;
	call = krie_syscall_of(ctx);
	return call.compat || call.first != CLOCK_REALTIME ? 0 : clock_settime_called(call.second, 0);
}
