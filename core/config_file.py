"""The configuration's file as text: read, parsed, and asked for what needs no more than a look.

Kept apart from `krie.config`, whose models take several times as long to import as `krie status` takes for the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import tomli

from .errors import ConfigError
from .trust import read_trusted

RUN_DIR = "/run/krie"
"""`agent.run_dir` where the file does not say it."""
PluginMode = Literal["observe", "enforce"]
MODES = get_args(PluginMode)
MODE: PluginMode = "observe"
"""`plugins.<name>.mode` where the file does not say it."""


def read_content(path: Path) -> dict[str, Any]:
    """The tables and keys of the file, not checked yet. Raises `ConfigError`, `UntrustedFileError`."""
    raw = read_trusted(path)
    try:
        return tomli.loads(raw.decode())
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(str(path), f"is not UTF-8: byte {raw[error.start]:#04x} in line {line}") from error
    except tomli.TOMLDecodeError as error:
        raise ConfigError(str(path), f"is not valid TOML: {error}") from error


def run_dir(path: Path | None) -> Path:
    """The folder of the agent's socket; None: by the defaults. Nothing else of the file is checked.

    Raises `ConfigError`, `UntrustedFileError`.
    """
    if path is None:
        return Path(RUN_DIR)
    agent = read_content(path).get("agent", {})
    value = agent.get("run_dir", RUN_DIR) if isinstance(agent, Mapping) else None
    if isinstance(value, str) and value.startswith("/"):
        return Path(value)
    from .config import load_config  # noqa: PLC0415 - only to say what is wrong, in the same words as everywhere

    return Path(load_config(path).agent.run_dir)


def plugin_modes(path: Path | None) -> dict[str, PluginMode]:
    """The mode of each plugin that the file names; None: none is named. Nothing else of the file is checked.

    Raises `ConfigError`, `UntrustedFileError`.
    """
    if path is None:
        return {}
    plugins = read_content(path).get("plugins", {})
    if isinstance(plugins, Mapping) and all(isinstance(keys, Mapping) for keys in plugins.values()):
        modes = {name: keys.get("mode", MODE) for name, keys in plugins.items()}
        if all(mode in MODES for mode in modes.values()):
            return modes
    from .config import PluginConfig, load_config, plugin_config  # noqa: PLC0415 - likewise

    checked = load_config(path).plugins.items()
    return {
        name: plugin_config(name, {"mode": keys.get("mode", MODE)}, PluginConfig, str(path)).mode
        for name, keys in checked
    }
