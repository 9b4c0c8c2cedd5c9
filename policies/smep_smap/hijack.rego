package krie.smep_smap

# METADATA
# title: The kernel's stack is in user memory
# description: |
#   The stack pointer was set to memory that the process controls, which is how a chain of return addresses is run. No
#   code of the kernel does that. With SMAP the processor prevents it; here it is off, or was switched off.
# custom:
#   id: SMEP001
#   severity: critical
#   action: kill
#   technique: T1068
#   seen: |
#     The process ends by SIGKILL, before the function runs. No legal code of the kernel is known that meets it.
rules contains {"id": "SMEP001", "action": "kill", "scope": "process"} if {
	input.event.kind == "smep_smap.register_check"
	"stack_user" in input.event.failed
}

# METADATA
# title: The kernel's stack is not the task's own
# description: |
#   The stack pointer is in kernel memory, but not on the stack of the task, in a function that is called on it only: a
#   chain of return addresses that lies in an object of the kernel's. SMAP does not prevent it.
# custom:
#   id: SMEP002
#   severity: critical
#   action: kill
#   technique: T1068
#   seen: |
#     The process ends by SIGKILL, before the function runs. So does one that calls a function which was configured
#     with context `process`, and runs in interrupts too.
rules contains {"id": "SMEP002", "action": "kill", "scope": "process"} if {
	input.event.kind == "smep_smap.register_check"
	"stack_kernel" in input.event.failed
}

# METADATA
# title: A function was reached without a call
# description: |
#   It will return to user memory, to memory that holds no code, or to an instruction that no call precedes: whoever
#   jumped there had control over what the kernel executes next.
# custom:
#   id: SMEP003
#   severity: critical
#   action: kill
#   technique: T1068
#   seen: |
#     The process ends by SIGKILL, before the function runs. Tracers of the function do not: their return addresses
#     are known.
rules contains {"id": "SMEP003", "action": "kill", "scope": "process"} if {
	input.event.kind == "smep_smap.register_check"
	not input.event.traced
	some check in {"return_user", "return_text", "return_call"}
	check in input.event.failed
}

# METADATA
# title: The first task's credentials are handed out
# description: |
#   commit_creds() was given init_cred itself. The kernel makes a copy for everybody; exploits take the original, since
#   prepare_kernel_cred() no longer gives root's for nothing.
# custom:
#   id: SMEP004
#   severity: critical
#   action: kill
#   technique: T1068
#   seen: |
#     The process ends by SIGKILL, before the function runs. No legal code of the kernel is known that meets it.
rules contains {"id": "SMEP004", "action": "kill", "scope": "process"} if {
	input.event.kind == "smep_smap.register_check"
	"init_cred" in input.event.failed
}

# METADATA
# title: A trap of this plugin is gone
# description: |
#   A kprobe is not listed any more where the agent put it, or is listed as disarmed. Whoever
#   may do that to kprobes is root or in the kernel.
# custom:
#   id: SMEP005
#   severity: high
#   action: log
#   technique: T1562.001
#   seen: |
#     A line in the journal. Who removes or disarms other tools' kprobes meets it, too.
rules contains {"id": "SMEP005", "action": "log"} if {
	input.event.kind == "smep_smap.trap"
	input.event.state in {"vanished", "disarmed"}
}
