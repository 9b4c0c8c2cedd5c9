package krie.site_test

import data.krie.site

written_by(program) := {
	"event": {"kind": "runtime_integrity.sysctl_write", "name": "kernel/core_pattern"},
	"process": {"program": program},
}

traced_by(uid) := {
	"event": {"kind": "runtime_integrity.ptrace"},
	"process": {"uid": uid},
}

fired contains rule.id if some rule in site.rules

test_only_systemd_sysctl_writes_core_pattern if {
	fired == {"SITE001"} with input as written_by("")
	fired == set() with input as written_by("systemd-sysctl")
}

test_service_accounts_trace_nothing if {
	fired == set() with input as traced_by(99)
	fired == {"SITE002"} with input as traced_by(100)
	fired == {"SITE002"} with input as traced_by(999)
	fired == set() with input as traced_by(1000)
}
