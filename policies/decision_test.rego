package decision_test

import data.krie.decision

nothing := {"action": "allow", "scope": "event", "errno": 0, "ttl_s": 0, "rules": []}

merged(one, other) := answer if {
	answer := decision.result with data.krie.one as {"rules": one} with data.krie.other as {"rules": other}
}

test_nothing if merged([], []) == nothing

test_strongest_wins if {
	answer := merged(
		[{"id": "A1", "action": "log", "scope": "process"}],
		[{"id": "B1", "action": "override", "errno": 13}],
	)
	answer == {
		"action": "override",
		"scope": "event",
		"errno": 13,
		"ttl_s": 0,
		"rules": [{"id": "A1", "action": "log"}, {"id": "B1", "action": "override"}],
	}
}

test_defaults if {
	answer := merged([{"id": "A1", "action": "override", "scope": "process"}], [])
	answer.errno == 1
	answer.ttl_s == 600
}

test_widest_scope_and_its_time if {
	answer := merged(
		[{"id": "A1", "action": "kill", "scope": "process", "ttl_s": 900}],
		[{"id": "A2", "action": "kill", "scope": "host", "ttl_s": 30}],
	)
	answer.scope == "host"
	answer.ttl_s == 30
}
