package krie.runtime_integrity

# METADATA
# title: An unnamed program loads a kernel module from memory
# description: |
#   No file remains of such a module. kmod does this with compressed modules on older kernels; the loader here is not
#   in data.executables.
# custom:
#   id: MODULE001
#   severity: critical
#   action: override
#   technique: T1620
#   seen: |
#     Loading fails with EPERM. Installers and boot tools with a module loader of their own meet it where
#     data.executables does not name them.
rules contains {"id": "MODULE001", "action": "override", "errno": 1} if {
	input.event.kind == "runtime_integrity.module_load"
	input.event.step == "memory"
	input.process.program == ""
}

# METADATA
# title: A kernel module is loaded from a file that users other than root can change
# description: |
#   Somebody else owns the file, may write to it, or it has no name (a memfd, or a file that was deleted).
# custom:
#   id: MODULE002
#   severity: high
#   action: override
#   technique: T1547.006
#   seen: |
#     Loading fails with EPERM. Developers who load a module that they built as an ordinary user meet it: let root own a
#     copy.
rules contains {"id": "MODULE002", "action": "override", "errno": 1} if {
	input.event.kind == "runtime_integrity.module_load"
	input.event.step == "file"
	others_control_file
}

# METADATA
# title: An unnamed program loads a kernel module
# description: |
#   From a file, by a program that is not in data.executables.
# custom:
#   id: MODULE003
#   severity: medium
#   action: log
#   technique: T1547.006
#   seen: |
#     Nothing. Tools with a module loader of their own cause it where data.executables does not name them.
rules contains {"id": "MODULE003", "action": "log"} if {
	input.event.kind == "runtime_integrity.module_load"
	input.event.step == "file"
	input.process.program == ""
}

# METADATA
# title: A process in a container loads a kernel module
# description: |
#   Modules are the host's. What the kernel loads by itself on behalf of a container is left out.
# custom:
#   id: MODULE004
#   severity: high
#   action: override
#   technique: T1611
#   seen: |
#     Loading fails with EPERM. Privileged containers that prepare networks or storage meet it: load the module on the
#     host.
rules contains {"id": "MODULE004", "action": "override", "errno": 1} if {
	input.event.kind == "runtime_integrity.module_load"
	input.event.step in {"file", "memory"}
	input.process.container
}

# METADATA
# title: A kernel module is loaded by force
# description: |
#   Whoever loads it asked the kernel not to check that it was built for this kernel.
# custom:
#   id: MODULE005
#   severity: high
#   action: log
#   technique: T1547.006
#   seen: |
#     Nothing. modprobe --force causes it.
rules contains {"id": "MODULE005", "action": "log"} if {
	input.event.kind == "runtime_integrity.module_load"
	loaded_by_force
}

# METADATA
# title: A kernel module without a valid signature is loaded
# description: |
#   It is not in data.known_modules. Its name is known only when it is about to run, too late to refuse it.
# custom:
#   id: MODULE006
#   severity: low
#   action: log
#   technique: T1547.006
#   seen: |
#     Nothing. Drivers that are built on the machine (DKMS) cause it, unless they are signed or data.known_modules names
#     them. On a kernel that was built without signatures nothing does.
rules contains {"id": "MODULE006", "action": "log"} if {
	input.event.kind == "runtime_integrity.module_load"
	input.event.step == "linked"
	"unsigned" in input.event.taints
	not is_known_module
}

# METADATA
# title: An unnamed program unloads a kernel module
# description: |
#   By a program that is not in data.executables.
# custom:
#   id: MODULE007
#   severity: medium
#   action: log
#   technique: T1562.001
#   seen: |
#     Nothing. Tools with a module loader of their own cause it where data.executables does not name them.
rules contains {"id": "MODULE007", "action": "log"} if {
	input.event.kind == "runtime_integrity.module_unload"
	input.event.step == "asked"
	input.process.program == ""
}

# METADATA
# title: A module that guards the kernel is unloaded
# description: |
#   It is one of data.guarded_modules. The name is read where the caller can still change it.
# custom:
#   id: MODULE008
#   severity: high
#   action: override
#   technique: T1562.001
#   seen: |
#     Unloading fails with EPERM. An administrator who replaces such a module meets it.
rules contains {"id": "MODULE008", "action": "override", "errno": 1} if {
	input.event.kind == "runtime_integrity.module_unload"
	input.event.step == "asked"
	input.event.name in data.guarded_modules
}

others_control_file if input.event.file_uid != 0

others_control_file if input.event.others_write

others_control_file if input.event.file_deleted

loaded_by_force if "ignore_modversions" in input.event.flags

loaded_by_force if "ignore_vermagic" in input.event.flags

loaded_by_force if "forced" in input.event.taints

# Not negated in its place: where data.known_modules is missing, no module is known.
is_known_module if input.event.name in data.known_modules
