"""A rule of a test, and what `krie policy check` warns of in it."""

from functools import cache
from pathlib import Path
from typing import Any

from krie.config import Config
from krie.kernel.features import Features
from krie.plugin.manager import Plugins
from krie.policy.embedded import EmbeddedEngine
from krie.policy.mistake import Mistake
from krie.policy.sources import PolicyFile, PolicySources
from krie.review.warnings import warnings

from .checked import DATA

ROOT = Path(__file__).parents[2]
CONFIG = Config.model_validate(
    {
        "plugins": {"runtime_integrity": {}, "smep_smap": {}},
        "executables": {"apt": "/usr/bin/apt", "sysctl": "/usr/sbin/sysctl"},
    }
)
SYSCTL, BPF, PTRACE = (f"runtime_integrity.{each}" for each in ("sysctl_write", "bpf", "ptrace"))
DOCUMENTS: dict[str, Any] = {
    **DATA,
    "executables": dict(CONFIG.executables),
    "protected_sysctls": {"kernel/x": {"least": 1}, "kernel/y": {"most": 0}},
    "programs": ["sshd", "sudo"],
    "numbers": [1, 2],
    "nothing": [],
    "no_names": {},
}


@cache
def plugins() -> Plugins:
    return Plugins.load(CONFIG, "krie.toml", Features(), print)


def told(*texts: str, data: dict[str, Any] | None = None) -> list[Mistake]:
    files = tuple(PolicyFile(f"p{number}.rego", text) for number, text in enumerate(texts))
    engine = EmbeddedEngine(PolicySources(files, DOCUMENTS if data is None else data, "r"))
    return warnings(engine, CONFIG, plugins())


def rule(body: str, more: str = "", *, kind: str = SYSCTL, head: str = "") -> str:
    text = f'{head}rules contains {{"id": "R1", "action": "log"}} if {{\n\tinput.event.kind == "{kind}"\n{body}\n}}\n'
    return f"package krie.site\n\n{text}{more}"
