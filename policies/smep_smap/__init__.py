"""Rules of the plugin smep_smap."""
