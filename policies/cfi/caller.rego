package krie.cfi

# METADATA
# title: Credentials made or changed from outside the known callers
# description: |
#   commit_creds() or prepare_kernel_cred() was called from code of the kernel that does not call it, or from no code at
#   all: a chain of return addresses, or a jump to a chosen address.
# custom:
#   id: CFI001
#   severity: critical
#   action: kill
#   technique: T1068
#   seen: |
#     The process ends by SIGKILL, before the function runs. No legal code of the kernel is known that meets it.
rules contains {"id": "CFI001", "action": "kill", "scope": "process"} if {
	input.event.kind == "cfi.caller"
	input.event.lock == "caller"
	input.event.function in {"commit_creds", "prepare_kernel_cred"}
	input.event.owner in {"kernel", "other"}
	input.event.certain
}

# METADATA
# title: A module gives the current task more rights
# description: |
#   commit_creds() was called from a module, with credentials that have what the task does not: root's user, further
#   capabilities, another user or user namespace. No module of the kernel does that; rootkits do. While live patches are
#   loaded, whose functions may be callers, it is only told (CFI004).
# custom:
#   id: CFI002
#   severity: critical
#   action: kill
#   technique: T1014
#   seen: |
#     The process ends by SIGKILL, before the function runs. A module from elsewhere that is meant to do this meets it.
rules contains {"id": "CFI002", "action": "kill", "scope": "process"} if {
	input.event.kind == "cfi.caller"
	input.event.lock == "caller"
	input.event.function == "commit_creds"
	input.event.owner == "module"
	input.event.certain
	some gain in {"euid0", "caps", "userns", "uid"}
	gain in input.event.gain
}

# METADATA
# title: Credentials gain what this task may not be given
# description: |
#   commit_creds() was called by one of its callers, with credentials that have what the task does not, in a system call
#   in which the kernel never does that: the caller was reached by another way than its own. Or in one that may give it,
#   but to a task that has no right to it: the system call's own check was passed by.
# custom:
#   id: CFI003
#   severity: critical
#   action: kill
#   technique: T1068
#   seen: |
#     The process ends by SIGKILL, before the function runs. No legal code of the kernel is known that meets it.
rules contains {"id": "CFI003", "action": "kill", "scope": "process"} if {
	input.event.kind == "cfi.caller"
	input.event.lock in {"path", "right"}
}

# METADATA
# title: A locked function was called from elsewhere
# description: |
#   A function that gives power over the kernel was called from outside its known callers, but its purpose
#   cannot be told, or there may be callers by pointer that are not known. What modules call is legal by their files,
#   which are read some seconds after they were loaded.
# custom:
#   id: CFI004
#   severity: high
#   action: log
#   technique: T1068
#   seen: |
#     A line in the journal. Modules meet it that run a program, or change what memory may be executed or written, in
#     the seconds before their file was read; and those without a file below /lib/modules.
rules contains {"id": "CFI004", "action": "log"} if {
	input.event.kind == "cfi.caller"
	input.event.lock == "caller"
	not spoken_of
}

# METADATA
# title: A module makes credentials, and its file does not
# description: |
#   prepare_kernel_cred() was called from the code of a module, at a place where the module's file calls nothing of the
#   kind: its code was changed. Or from one that has no file of its build below /lib/modules, so that nobody knows. What
#   a module does in the seconds before its file was read is not told: network file systems make credentials then.
# custom:
#   id: CFI007
#   severity: high
#   action: log
#   technique: T1014
#   seen: |
#     A line in the journal. Modules from elsewhere that make credentials, and have no file there, meet it.
rules contains {"id": "CFI007", "action": "log"} if {
	input.event.kind == "cfi.caller"
	input.event.lock == "caller"
	input.event.function == "prepare_kernel_cred"
	input.event.owner == "module"
	input.event.module_file in {"read", "none"}
}

# METADATA
# title: The kernel's code is not that of its lock file
# description: |
#   The running kernel calls locked functions from other places than the build that the lock file was made of: its code
#   was changed before KRIe started.
# custom:
#   id: CFI006
#   severity: high
#   action: log
#   technique: T1014
#   seen: |
#     A line in the journal. Only what the lock file has counts as legal. A tracer's probe at a call does not meet it.
rules contains {"id": "CFI006", "action": "log"} if {
	input.event.kind == "cfi.lock"
	input.event.differing > 0
}

# Of modules that make credentials CFI007 speaks. Of those from the kernel's own code CFI001 does, but where callers are
# not known.
spoken_of if {
	input.event.function == "prepare_kernel_cred"
	input.event.owner == "module"
}

spoken_of if {
	input.event.function in {"commit_creds", "prepare_kernel_cred"}
	input.event.owner in {"kernel", "other"}
	input.event.certain
}
