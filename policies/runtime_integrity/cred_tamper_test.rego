package krie.runtime_integrity_test

import data.krie.runtime_integrity

tampered(changed) := ids if {
	event := {"kind": "runtime_integrity.cred_tamper", "operation": "exec", "changed": changed}
	ids := {rule.id | some rule in runtime_integrity.rules} with input as {"event": event, "process": {"program": ""}}
}

test_tampered_users if tampered(["users"]) == {"CRED001"}

test_other_credentials if tampered(["pointer"]) == {"CRED001"}
