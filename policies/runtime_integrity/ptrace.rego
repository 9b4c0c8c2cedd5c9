package krie.runtime_integrity

# METADATA
# title: An ordinary user takes control over another user's process
# description: |
#   Or reads its memory. The kernel forbids this; where it happens, a capability or an exploit made it possible. The
#   attempt is seen before the kernel answers it. A container's users are all those of whoever made its user namespace,
#   or is privileged in it.
# custom:
#   id: PTRACE001
#   severity: high
#   action: override
#   technique: T1055.008
#   seen: |
#     Tracing fails with EPERM, as it does without KRIe where no capability helps. Who debugs other users' processes by
#     file capabilities meets it.
rules contains {"id": "PTRACE001", "action": "override", "errno": 1} if {
	input.event.kind == "runtime_integrity.ptrace"
	reaches_memory
	input.process.euid != 0
	input.event.other_user
}

# METADATA
# title: The first process is taken control of
# description: |
#   Whoever controls it controls everything that runs outside the kernel. Reading its memory is not control.
# custom:
#   id: PTRACE002
#   severity: critical
#   action: override
#   technique: T1055.008
#   seen: |
#     Tracing fails with EPERM. Who debugs systemd itself meets it; so does a thread with rings of io_uring that reads
#     /proc/1/stack, syscall or personality, since it could be opening the memory to write.
rules contains {"id": "PTRACE002", "action": "override", "errno": 1} if {
	input.event.kind == "runtime_integrity.ptrace"
	takes_control
	input.event.target_tgid == 1
}

# METADATA
# title: Root takes control over another user's process
# description: |
#   Debuggers and tracers of administrators do this; so does whoever steals credentials from memory.
# custom:
#   id: PTRACE003
#   severity: low
#   action: log
#   technique: T1055.008
#   seen: |
#     Nothing. Every administrator who runs strace or gdb on a service causes it.
rules contains {"id": "PTRACE003", "action": "log"} if {
	input.event.kind == "runtime_integrity.ptrace"
	reaches_memory
	input.process.euid == 0
	input.event.other_user
}

# METADATA
# title: A protected program is taken control of
# description: |
#   Or its memory is read. The target's executable is named in data.protected_programs. Programs in the kernel know the
#   target by its number, and by name only who acts: so the agent decides, and the first attempt goes through.
# custom:
#   id: PTRACE004
#   severity: high
#   action: override
#   technique: T1055.008
#   seen: |
#     Further tracing fails with EPERM. Who debugs one of these programs meets it: take it out of
#     data.protected_programs. Where the agent cannot be told of an attempt (its user is beyond his budget, or the ring
#     is full), it fails with EAGAIN, whoever the target is: only the agent could have judged it.
rules contains {"id": "PTRACE004", "action": "override", "errno": 1} if {
	input.event.kind == "runtime_integrity.ptrace"
	reaches_memory
	input.event.target.program in data.protected_programs
}

takes_control if {
	reaches_memory
	input.event.operation != "vm_read"
	input.event.operation != "procfs_read"
}

reaches_memory if {
	input.event.target_known
	input.event.operation != "traceme"
}
