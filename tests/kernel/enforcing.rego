# METADATA
# title: What the tests of enforcement ask for
# description: The number that a victim writes to one harmless sysctl says what shall be done to it.
package krie.site

tried contains input.event.new_int if {
	input.event.kind == "runtime_integrity.sysctl_write"
	input.event.name == "kernel/printk_ratelimit_burst"
}

# METADATA
# title: A write is refused
# custom: {id: SITE001, severity: low, action: override}
rules contains {"id": "SITE001", "action": "override", "errno": 13} if 1001 in tried

# METADATA
# title: A process is poisoned
# custom: {id: SITE002, severity: low, action: override}
rules contains {"id": "SITE002", "action": "override", "errno": 13, "scope": "process", "ttl_s": 300} if 1002 in tried

# METADATA
# title: A process is killed
# custom: {id: SITE003, severity: low, action: kill}
rules contains {"id": "SITE003", "action": "kill"} if 1003 in tried

# METADATA
# title: A process is poisoned for a short time
# custom: {id: SITE004, severity: low, action: override}
rules contains {"id": "SITE004", "action": "override", "scope": "process", "ttl_s": 10} if 1004 in tried

# METADATA
# title: The whole host is bound
# custom: {id: SITE005, severity: low, action: override}
rules contains {"id": "SITE005", "action": "override", "scope": "host", "ttl_s": 20} if 1005 in tried

# METADATA
# title: A rule that hits many
# custom: {id: SITE006, severity: low, action: override}
rules contains {"id": "SITE006", "action": "override", "scope": "process", "ttl_s": 60} if 1006 in tried

# METADATA
# title: A BPF map is made by a victim
# custom: {id: SITE007, severity: low, action: override}
rules contains {"id": "SITE007", "action": "override", "errno": 13} if {
	input.event.kind == "runtime_integrity.bpf"
	input.event.name == "krie-victim"
}

# METADATA
# title: A victim reads another process
# custom: {id: SITE008, severity: low, action: override}
rules contains {"id": "SITE008", "action": "override", "errno": 13} if {
	input.event.kind == "runtime_integrity.ptrace"
	input.process.comm == "krie-victim"
}

# METADATA
# title: A named victim freezes a map
# custom: {id: SITE009, severity: low, action: override, enforce: inline}
rules contains {"id": "SITE009", "action": "override", "errno": 13} if {
	input.event.kind == "runtime_integrity.bpf"
	input.event.command == "map_freeze"
	input.process.program == "victim"
}

# METADATA
# title: A named victim looks for BTF
# custom: {id: SITE010, severity: low, action: kill, enforce: inline}
rules contains {"id": "SITE010", "action": "kill"} if {
	input.event.kind == "runtime_integrity.bpf"
	input.event.command == "btf_get_next_id"
	input.process.program == "victim"
}

# METADATA
# title: A named victim wants to be traced
# custom: {id: SITE011, severity: low, action: override, enforce: inline}
rules contains {"id": "SITE011", "action": "override", "errno": 13} if {
	input.event.kind == "runtime_integrity.ptrace"
	input.event.operation == "traceme"
	input.process.program == "victim"
}

# METADATA
# title: A named victim filters a socket
# custom: {id: SITE012, severity: low, action: override, enforce: inline}
rules contains {"id": "SITE012", "action": "override", "errno": 13} if {
	input.event.kind == "runtime_integrity.socket_filter"
	input.event.operation == "lock_filter"
	input.process.program == "victim"
}

# METADATA
# title: A named victim opens a performance event
# custom: {id: SITE013, severity: low, action: override, enforce: inline}
rules contains {"id": "SITE013", "action": "override", "errno": 13} if {
	input.event.kind == "runtime_integrity.perf_event_open"
	input.event.pmu == "software"
	input.process.program == "victim"
}

# METADATA
# title: A named victim loads a module
# custom: {id: SITE014, severity: low, action: override, enforce: inline}
rules contains {"id": "SITE014", "action": "override", "errno": 13} if {
	input.event.kind == "runtime_integrity.module_load"
	input.event.step in {"file", "memory"}
	input.process.program == "victim"
}

# METADATA
# title: A process is killed whose files in /proc are covered
# custom: {id: SITE016, severity: low, action: kill}
rules contains {"id": "SITE016", "action": "kill", "scope": "process", "ttl_s": 300} if 1007 in tried

# METADATA
# title: A named victim unloads a module
# custom: {id: SITE015, severity: low, action: override, enforce: inline}
rules contains {"id": "SITE015", "action": "override", "errno": 13} if {
	input.event.kind == "runtime_integrity.module_unload"
	input.event.name == "krie_no_module"
	input.process.program == "victim"
}
