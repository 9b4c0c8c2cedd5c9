"""The plugin contract, and how the agent calls what fulfils it."""
