"""Rules of the plugin cfi."""
