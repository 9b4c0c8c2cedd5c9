"""What OPA's management services are for: policies that come as bundles, decision logs and status that go to a console.

All of it is done by one process of its own, so that nothing that a network does ends or blocks the agent.
"""
