"""Rules of the plugin syscall_table."""
