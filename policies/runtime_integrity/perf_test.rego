package krie.runtime_integrity_test

import data.krie.runtime_integrity

perf(changes, program, euid) := ids if {
	event := {"kind": "runtime_integrity.perf_event_open", "pmu": "software", "probe": false}
	ids := {rule.id | some rule in runtime_integrity.rules} with input as {
		"event": object.union(event, changes),
		"process": {"program": program, "euid": euid},
	}
}

test_counter if perf({}, "", 1000) == set()

test_kprobe if perf({"pmu": "kprobe", "probe": true}, "", 0) == {"PERF001"}

test_kprobe_by_a_named_program if perf({"pmu": "kprobe", "probe": true}, "perf", 0) == set()

test_kprobe_of_a_user if perf({"pmu": "kprobe", "probe": true}, "perf", 1000) == {"PERF002"}

test_uprobe if perf({"pmu": "uprobe", "probe": true}, "", 0) == {"PERF003"}
