package krie.runtime_integrity_test

import data.krie.runtime_integrity

prog_load := {
	"kind": "runtime_integrity.bpf",
	"command": "prog_load",
	"prog_type": "kprobe",
	"helpers": [],
	"helpers_known": true,
	"attr_known": true,
}

bpf(changes, program) := ids if {
	ids := {rule.id | some rule in runtime_integrity.rules} with input as {
		"event": object.union(prog_load, changes),
		"process": {"program": program},
	}
}

test_unnamed_loader if bpf({}, "") == {"BPF001"}

test_named_loader if bpf({}, "systemd") == set()

test_unnamed_inspector if bpf({"command": "prog_get_next_id"}, "") == set()

test_unnamed_interferes if bpf({"helpers": ["send_signal"]}, "") == {"BPF001", "BPF002"}

test_named_interferes if bpf({"helpers": ["override_return"]}, "systemd") == {"BPF003"}

test_helpers_of_another_command if bpf({"command": "map_create", "helpers": ["send_signal"]}, "") == set()

test_unreadable_program if bpf({"helpers_known": false}, "systemd") == {"BPF004"}

test_unreadable_program_of_nobody if bpf({"helpers_known": false}, "") == {"BPF001", "BPF007"}

test_unreadable_attributes_of_nobody if {
	bpf({"helpers_known": false, "attr_known": false}, "") == {"BPF001", "BPF007"}
}

test_unreadable_attributes if {
	bpf({"command": "map_create", "helpers_known": false, "attr_known": false}, "systemd") == set()
}

test_loaded_for_sysctls if bpf({"prog_type": "cgroup_sysctl"}, "") == {"BPF001", "BPF008"}

test_loaded_for_sysctls_by_a_named_program if bpf({"prog_type": "cgroup_sysctl"}, "systemd") == {"BPF008"}

test_attached_to_sysctls if {
	every command in ["prog_attach", "link_create"] {
		bpf({"command": command, "prog_type": "cgroup_sysctl"}, "systemd") == {"BPF008"}
	}
}

test_loaded_for_sysctls_by_who_watches_them if {
	bpf({"prog_type": "cgroup_sysctl"}, "systemd-networkd") == set() with data.sysctl_programs as ["systemd-networkd"]
}

test_inspected_or_detached if bpf({"command": "prog_detach", "prog_type": "cgroup_sysctl"}, "systemd") == set()

test_unnamed_pins if bpf({"command": "obj_pin"}, "") == {"BPF005"}

test_named_pins if bpf({"command": "obj_pin"}, "systemd") == set()

test_unnamed_detaches if bpf({"command": "link_detach"}, "") == {"BPF006"}

test_named_detaches if bpf({"command": "prog_detach"}, "systemd") == set()

test_unnamed_attaches if bpf({"command": "link_create"}, "") == set()
