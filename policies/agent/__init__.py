"""Rules about the agent's own events."""
