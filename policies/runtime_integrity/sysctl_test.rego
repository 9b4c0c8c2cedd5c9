package krie.runtime_integrity_test

import data.krie.runtime_integrity

protected := {"kernel/kptr_restrict": {"least": 1}, "vm/unprivileged_userfaultfd": {"least": 0, "most": 0}}

sysctl_write := {
	"kind": "runtime_integrity.sysctl_write",
	"name": "kernel/kptr_restrict",
	"old": "1\n",
	"new": "0\n",
	"old_int": 1,
	"new_int": 0,
	"old_parsed": true,
	"new_parsed": true,
	"file_pos": 0,
}

# As the probe's program finds it.
change(event) := "unread" if not event.new_parsed

change(event) := "other" if {
	event.new_parsed
	not event.old_parsed
}

change(event) := "lower" if {
	both(event)
	event.new_int < event.old_int
}

change(event) := "same" if {
	both(event)
	event.new_int == event.old_int
}

change(event) := "higher" if {
	both(event)
	event.new_int > event.old_int
}

both(event) if {
	event.old_parsed
	event.new_parsed
}

sysctl(changes) := ids if {
	event := object.union(sysctl_write, changes)
	ids := {rule.id | some rule in runtime_integrity.rules} with input as {
		"event": object.union({"change": change(event)}, event),
		"process": {"program": ""},
	}
		with data.protected_sysctls as protected
		with data.helper_sysctls as ["kernel/core_pattern", "kernel/modprobe"]
}

test_weakened if sysctl({}) == {"SYSCTL001"}

test_weakened_from_unknown if sysctl({"old_parsed": false, "old_int": 0}) == {"SYSCTL001"}

test_raised_above_the_safe if {
	sysctl({"name": "vm/unprivileged_userfaultfd", "old_int": 0, "new_int": 1}) == {"SYSCTL001"}
}

test_lowered_into_the_safe if {
	sysctl({"name": "vm/unprivileged_userfaultfd", "old_int": 1, "new_int": 0}) == set()
}

test_as_weak_as_before if sysctl({"old_int": 0}) == set()

test_hardened if sysctl({"old_int": 0, "new_int": 2}) == set()

test_another_sysctl if sysctl({"name": "kernel/core_uses_pid"}) == set()

test_unreadable if sysctl({"new": "x", "new_int": 0, "new_parsed": false}) == {"SYSCTL002"}

test_what_follows_the_number if sysctl({"new": "0 0"}) == {"SYSCTL001"}

test_behind_the_start if sysctl({"file_pos": 1}) == {"SYSCTL001"}

test_hardened_behind_the_start if sysctl({"new_int": 2, "file_pos": 1}) == set()

test_ignored_behind_the_start if sysctl({"file_pos": 1, "change": "none"}) == set()

test_ignored_blanks if {
	sysctl({"new": "\n", "new_int": 0, "new_parsed": false, "file_pos": 1, "change": "none"}) == set()
}

test_unreadable_of_another_sysctl if sysctl({"name": "kernel/hostname", "new_parsed": false}) == set()

test_helper_program if {
	sysctl({"name": "kernel/modprobe", "new": "/tmp/x\n", "new_parsed": false}) == {"SYSCTL003"}
}

test_helper_pipe if {
	sysctl({"name": "kernel/core_pattern", "new": "|/tmp/x\n", "new_parsed": false}) == {"SYSCTL003"}
}

test_relative_helper if {
	sysctl({"name": "kernel/modprobe", "new": "tmp/x", "new_parsed": false}) == {"SYSCTL003"}
}

test_helper_in_pieces if {
	piece := {"name": "kernel/core_pattern", "old": "|/\n", "new": "tmp/x", "new_parsed": false, "file_pos": 2}
	sysctl(piece) == {"SYSCTL003"}
}

test_no_helper if sysctl({"name": "kernel/modprobe", "new": "\n", "new_parsed": false, "change": "none"}) == set()

test_core_file if sysctl({"name": "kernel/core_pattern", "new": "core.%p\n", "new_parsed": false}) == set()

test_same_helper_again if {
	same := {"name": "kernel/modprobe", "old": "/sbin/modprobe\n", "new": "/sbin/modprobe\n", "new_parsed": false}
	sysctl(same) == set()
}
