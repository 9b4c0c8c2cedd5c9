"""The number by which a host tells a newer bundle from an older one: a revision has no order.

It lies in the manifest, which is signed: `{"metadata": {"krie": {"serial": 1796000000}}}`.
"""

from __future__ import annotations

import json
from dataclasses import replace

from ..errors import PolicyError
from .bundle import MANIFEST, Bundle

_OWNER, _SERIAL = "krie", "serial"
MOST = (1 << 53) - 1
"""What JSON holds everywhere."""


def serial_of(bundle: Bundle) -> int | None:
    """None: it has none. Raises `PolicyError` for one that is no such number."""
    own = bundle.manifest.metadata.get(_OWNER, {})
    serial = own.get(_SERIAL) if isinstance(own, dict) else own
    if serial is None:
        return None
    if isinstance(serial, bool) or not isinstance(serial, int) or not 0 <= serial <= MOST:
        raise PolicyError(f"{MANIFEST}: metadata.{_OWNER}.{_SERIAL} must be a number from 0 to {MOST}")
    return serial


def with_serial(bundle: Bundle, serial: int) -> Bundle:
    """The same, with this number, and not signed any more. Raises `PolicyError` as `serial_of` does."""
    content = json.loads(bundle.files.get(MANIFEST, b"{}"))
    metadata = {**bundle.manifest.metadata, _OWNER: {_SERIAL: serial}}
    content["metadata"] = metadata
    files = {**bundle.files, MANIFEST: json.dumps(content, sort_keys=True, indent=1).encode() + b"\n"}
    made = replace(bundle, files=files, manifest=bundle.manifest.model_copy(update={"metadata": metadata}))
    serial_of(made)
    return made.signed(b"")


def refused_for_age(serial: int | None, highest: int | None) -> str:
    """Why a bundle with this number may not follow one with that; empty where it may. None: without a number."""
    if highest is None or (serial is not None and serial >= highest):
        return ""
    if serial is None:
        return f"has no serial, and one with serial {highest} was in force here"
    return f"is older than what was in force here: its serial is {serial}, and the highest was {highest}"
