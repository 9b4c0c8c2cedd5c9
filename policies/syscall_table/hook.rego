package krie.syscall_table

explained if input.event.explained in {"kprobe", "ftrace"}

code_changed if input.event.where in {"entry", "idt", "handler", "register"}

code_changed if {
	input.event.where == "dispatch"
	input.event.target == "none"
}

leads_elsewhere if input.event.where == "pointer"

leads_elsewhere if {
	input.event.where in {"table", "dispatch"}
	input.event.target == "kernel"
}

leads_elsewhere if {
	input.event.where == "table"
	input.event.target == "none"
}

# METADATA
# title: A system call leads out of the kernel's code
# description: |
#   A slot of a system call table, or a jump of the function that dispatches system calls, leads to a module or to
#   memory that is nobody's. No code of the kernel does that: live patches and tracers change handlers, not what leads
#   to them.
# custom:
#   id: SYSCALL001
#   severity: critical
#   action: log
#   technique: T1014
#   seen: |
#     A line in the journal that names the system call, what it led to, and whose code it leads to now.
rules contains {"id": "SYSCALL001", "action": "log"} if {
	input.event.kind == "syscall_table.hook"
	input.event.where in {"table", "dispatch"}
	input.event.target in {"module", "other"}
	not input.event.restored
}

# METADATA
# title: Caught while leading a system call out of the kernel's code
# description: |
#   The same, noticed in the process that did it: it leads into the module that the process loads, and was found while
#   that module's init function runs, or when it returns, where the look before still found nothing. Nobody is killed
#   for what leads elsewhere: somebody else may have done that on another CPU meanwhile. Nor is whoever the timer
#   interrupts.
# custom:
#   id: SYSCALL002
#   severity: critical
#   action: kill
#   technique: T1014
#   seen: |
#     The process that loads the module ends by SIGKILL, before its system call returns. What the init function did
#     stays: nothing is put back.
rules contains {"id": "SYSCALL002", "action": "kill", "scope": "process"} if {
	input.event.kind == "syscall_table.hook"
	input.event.where in {"table", "dispatch"}
	input.event.own_module
	not input.event.restored
}

# METADATA
# title: Code in the system call path was changed
# description: |
#   Entry code, a gate of the interrupt table, the first bytes of a handler, an instruction of the function that
#   dispatches, or a register by which system calls enter the kernel is not what it was, and the kernel lists no kprobe
#   and no function that ftrace handles there.
# custom:
#   id: SYSCALL003
#   severity: critical
#   action: log
#   technique: T1014
#   seen: |
#     A line in the journal with the bytes before and now. So does a kprobe that is gone by the time that it is looked
#     for, and code that is patched on a machine whose list of kprobes cannot be read.
rules contains {"id": "SYSCALL003", "action": "log"} if {
	input.event.kind == "syscall_table.hook"
	code_changed
	not explained
	not input.event.restored
}

# METADATA
# title: A system call leads to another function of the kernel
# description: |
#   A slot of a table, or a jump of the function that dispatches, leads to the kernel's own code, but not where it led;
#   or a slot is empty; or a pointer to one of the kernel's functions was changed (`pointer`), wherever it leads now, or
#   led to nobody's code when the agent started.
# custom:
#   id: SYSCALL004
#   severity: high
#   action: log
#   technique: T1014
#   seen: |
#     A line in the journal with the functions before and now.
rules contains {"id": "SYSCALL004", "action": "log"} if {
	input.event.kind == "syscall_table.hook"
	leads_elsewhere
	not input.event.restored
}

# METADATA
# title: The kernel's code or read-only data was changed
# description: |
#   Bytes are not what the boot image says or, without one, what they were when the agent started, and none of the ways
#   by which the kernel patches itself explains them: no jump label, static call, function that ftrace handles, nor
#   kprobe at exactly that place.
# custom:
#   id: SYSCALL005
#   severity: critical
#   action: log
#   technique: T1014
#   seen: |
#     A line in the journal with the function, the bytes before and now, and whose code a jump there leads to.
rules contains {"id": "SYSCALL005", "action": "log"} if {
	input.event.kind == "syscall_table.code"
	input.event.section != "list"
	not input.event.restored
}

# METADATA
# title: A handler of a system call was called by foreign code
# description: |
#   Its caller is not one of the functions that dispatch system calls: a hook that calls the original and works on what
#   it returns, as rootkits do that hide processes and files.
# custom:
#   id: SYSCALL006
#   severity: high
#   action: log
#   technique: T1014
#   seen: |
#     A line in the journal at the first use, with the module that called it.
rules contains {"id": "SYSCALL006", "action": "log"} if {
	input.event.kind == "syscall_table.wrapped"
	input.event.target in {"module", "other"}
}

# METADATA
# title: The kernel calls a function that belongs to nobody
# description: |
#   A function in one of the kernel's lists (notifiers, tracepoints, ftrace, kprobes, packet filters, timers, work
#   items) lies neither in the kernel, nor in a module that is listed, nor in code that BPF or ftrace made: a module
#   that hides.
# custom:
#   id: SYSCALL008
#   severity: critical
#   action: log
#   technique: T1014
#   seen: |
#     A line in the journal with the list and the function's address.
rules contains {"id": "SYSCALL008", "action": "log"} if {
	input.event.kind == "syscall_table.code"
	input.event.section == "list"
	not input.event.restored
}

# METADATA
# title: The system call path was restored
# description: |
#   A place, or code, that was reported as changed was restored: somebody has put it back, as rootkits do when they
#   leave, or for the moment in which somebody looks.
# custom:
#   id: SYSCALL007
#   severity: medium
#   action: log
#   technique: T1070
#   seen: |
#     A line in the journal. So does a kprobe that was removed.
rules contains {"id": "SYSCALL007", "action": "log"} if {
	input.event.kind in {"syscall_table.hook", "syscall_table.code"}
	input.event.restored
}
