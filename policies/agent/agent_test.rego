package krie.agent_test

import data.krie.agent

fired(event) := ids if {
	ids := {rule.id | some rule in agent.rules} with input as {"event": event}
}

test_loss if fired({"kind": "krie.loss", "cause": "ring_full"}) == {"AGENT001"}

test_silent_probe if fired({"kind": "krie.probe", "state": "silent"}) == {"AGENT002"}

test_missing_probe if fired({"kind": "krie.probe", "state": "missing"}) == {"AGENT002"}

test_alive_probe if fired({"kind": "krie.probe", "state": "alive"}) == set()

test_plugin if fired({"kind": "krie.plugin", "state": "fault"}) == {"AGENT003"}

test_refused_policy if fired({"kind": "krie.policy", "state": "refused"}) == {"AGENT004"}

test_failed_policy if fired({"kind": "krie.policy", "state": "failed"}) == {"AGENT014"}

test_loaded_policy if fired({"kind": "krie.policy", "state": "loaded"}) == set()

test_start if fired({"kind": "krie.started"}) == set()

test_guarded if fired({"kind": "krie.guarded", "attempt": "agent_signalled"}) == {"AGENT005"}

test_opened if fired({"kind": "krie.guarded", "attempt": "program_opened"}) == {"AGENT041"}

test_frozen if fired({"kind": "krie.guarded", "attempt": "files_frozen"}) == {"AGENT043"}

test_trouble if fired({"kind": "krie.trouble", "work": "scan"}) == {"AGENT042"}

test_contained if fired({"kind": "krie.contained", "operation": "file_open"}) == {"AGENT006"}

test_tripped_breaker if fired({"kind": "krie.breaker", "state": "tripped"}) == {"AGENT007"}

test_rearmed_breaker if fired({"kind": "krie.breaker", "state": "rearmed"}) == set()

test_gap if fired({"kind": "krie.gap", "state": "died"}) == {"AGENT008"}

test_held_up if fired({"kind": "krie.gap", "state": "held_up"}) == {"AGENT008"}

test_cleared if fired({"kind": "krie.cleared", "what": "all"}) == {"AGENT009"}

test_missed if fired({"kind": "krie.missed", "program": "x"}) == {"AGENT010"}

test_held if fired({"kind": "krie.held", "alike": 0, "over": 1}) == {"AGENT011"}

test_held_alike if fired({"kind": "krie.held", "alike": 1, "over": 0}) == set()

test_journal if fired({"kind": "krie.journal", "state": "emptied"}) == {"AGENT021"}

test_service if fired({"kind": "krie.service", "state": "trouble"}) == {"AGENT031"}

test_service_dropped if fired({"kind": "krie.service", "state": "dropped"}) == {"AGENT031"}

test_service_well if fired({"kind": "krie.service", "state": "well"}) == set()
