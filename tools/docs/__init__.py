"""Renews what the documentation has from the code: `make docs`. A test compares the two.

Between `<!-- table: NAME -->` and `<!-- end -->` of a page lies what `BLOCKS[NAME]` makes. Blocks named `measured` are
written by whoever measured: `tests.lab.all_suites` and `tests.bench.lab`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from krie.config import Config, load_config
from krie.kernel.features import Features
from krie.plugin.installed import available
from krie.plugin.manager import Plugins

from . import api, commands, rules, tables

ROOT = Path(__file__).resolve().parents[2]
README, DOCS = ROOT / "README.md", ROOT / "docs"
SAMPLE = ROOT / "core/sample.toml"
"""What `krie config init` writes: a copy of krie.toml, which is not installed."""
_BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
BLOCKS: dict[str, Callable[[Config, Plugins], str]] = {
    "api": api.names,
    "commands": commands.commands,
    "configuration": tables.keys,
    "done": tables.done,
    "events": tables.events,
    "exit_codes": tables.exit_codes,
    "fields": tables.fields,
    "grid": rules.grid,
    "guarded": tables.guarded,
    "hooks": api.hooks,
    "operations": tables.operations,
    "probes": tables.probes,
    "rule_details": rules.details,
    "rules": rules.table_of,
    "unguarded": tables.unguarded,
}
"""What each block is made of, from the configuration with all shipped plugins."""


def pages() -> dict[Path, str]:
    """Each page with its blocks as the code has them now."""
    config, plugins = everything()

    def fresh(text: str) -> str:
        return _BLOCK.sub(lambda block: f"{block[1]}{BLOCKS[block[2]](config, plugins)}{block[3]}", text)

    made = {page: fresh(page.read_text()) for page in (README, *sorted(DOCS.rglob("*.md")))}
    return {**made, SAMPLE: (ROOT / "krie.toml").read_text()}


def everything() -> tuple[Config, Plugins]:
    """krie.toml, also with those plugins that it leaves for the administrator to switch on; and these, loaded."""
    place = ROOT / "krie.toml"
    config = load_config(place)
    further: dict[str, dict[str, Any]] = {**{each: {} for each in _shipped()}, "cfi": {"acts": True}}
    config = config.model_copy(update={"plugins": {**further, **config.plugins}})
    return config, Plugins.load(config, str(place), Features(), lambda fault: _fail(fault.error))


def _shipped() -> list[str]:
    return sorted(name for name, entry in available().items() if entry.dist is not None and entry.dist.name == "krie")


def _fail(problem: str) -> None:
    raise SystemExit(problem)
