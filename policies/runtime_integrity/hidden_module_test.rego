package krie.runtime_integrity_test

import data.krie.runtime_integrity

hidden(missing) := ids if {
	event := {"kind": "runtime_integrity.hidden_module", "name": "x", "seen": ["kset"], "missing": missing}
	ids := {rule.id | some rule in runtime_integrity.rules} with input as {"event": event, "process": {"program": ""}}
}

test_hidden_module if hidden(["list"]) == {"HIDDEN001"}

test_module_that_is_everywhere if hidden([]) == set()
