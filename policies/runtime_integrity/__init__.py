"""Rules of the plugin runtime_integrity."""
