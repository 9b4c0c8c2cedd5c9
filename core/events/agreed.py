"""Numbers that C and Python agree on, and that are needed where little is imported, as by the keeper.

`krie.events.core_maps` gives them to C, with all others.
"""

from __future__ import annotations

SECRET_ARGUMENT = 6
"""The argument by which who runs a program of the agent's own says the secret."""
SELF = 0x6B72696573656C66
"""What `krie_self()` in C is before the loader writes over it: "krieself"."""
SECRET = 0x6B72696573656372
"""What `krie_secret()` is before that: "kriesecr"."""
FROZEN = 1 << 30
"""The flag of a map that programs alone write. The kernel does not know it: the loader freezes the map instead."""
PEEK_BYTES = 4096
"""What `krie_peek` reads at most."""
C_DEFINES = {
    "KRIE_SECRET_ARGUMENT": SECRET_ARGUMENT,
    "KRIE_SELF": SELF,
    "KRIE_SECRET": SECRET,
    "KRIE_FROZEN": FROZEN,
    "KRIE_PEEK_BYTES": PEEK_BYTES,
}
