"""krie.toml: mistakes at its edges, where a message could mislead or a crash could hide."""

from pathlib import Path

import pytest
from krie.config import AgentConfig, JournalConfig, PluginConfig, PolicyConfig, load_config, plugin_config
from krie.errors import ConfigError, ExitCode, UntrustedFileError


def load(folder: Path, content: bytes) -> None:
    path = folder / "krie.toml"
    path.write_bytes(content)
    path.chmod(0o600)
    load_config(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"agent = 3", "agent: Input should be a valid dictionary, not 3"),
        (b"# \xc3\xa9\nx = 1 # \xff", "is not UTF-8: byte 0xff in line 2"),
        (
            b'[executables]\n"" = "/bin/true"',
            'executables: an empty name is that of every other executable; write a name before the "="',
        ),
        (
            b"[policy]\non_error = 'override'",
            "policy.on_error: Input should be 'allow' or 'log', not 'override'; an error must not enforce",
        ),
        (b"[policy]\non_error = 'lgo'", "policy.on_error: Input should be 'allow' or 'log', not 'lgo'"),
        (b"[policy]\npaths = [1]", "policy.paths.0: Input should be a valid string, not 1"),
        (b"[agent]\nscan_interval_s = 1.5", "agent.scan_interval_s: Input should be a valid integer, not 1.5"),
        (
            b"[agent]\nallow_syscall_tracepoints = 1",
            "agent.allow_syscall_tracepoints: Input should be a valid boolean, not 1",
        ),
        (b"[plugins]\nx = [1]", "plugins.x: Input should be a valid dictionary, not (1,)"),
    ],
)
def test_one_sentence_names_place_and_fix(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, content)
    assert str(caught.value) == f"{tmp_path / 'krie.toml'}: {message}"
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_key_that_is_there_twice_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not valid TOML: .*line 3"):
        load(tmp_path, b"[agent]\nring_mib = 1\nring_mib = 2\n")


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(UntrustedFileError, match="is not a regular file"):
        load_config(tmp_path)


class Window(PluginConfig):
    """A table within a plugin's table."""

    size_s: int = 1


class Nested(PluginConfig):
    window: Window = Window()
    windows: tuple[Window, ...] = ()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"window": {"size": 1}}, "plugins.p.window.size: no such key; did you mean 'size_s'?"),
        ({"windows": [{"size": 1}]}, "plugins.p.windows.0.size: no such key; did you mean 'size_s'?"),
        ({"windows": [{"size_s": "x"}]}, "plugins.p.windows.0.size_s: Input should be a valid integer, not 'x'"),
        ({"zzz": 1}, "plugins.p.zzz: no such key; known are mode, required, window, windows"),
    ],
)
def test_tables_within_a_plugins_table(raw: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plugin_config("p", raw, Nested, "krie.toml")
    assert str(caught.value) == f"krie.toml: {message}"


def test_configurations_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        PluginConfig().required = True  # type: ignore[misc]


@pytest.mark.parametrize("model", [AgentConfig, JournalConfig, PolicyConfig, PluginConfig])
def test_every_key_is_described(model: type[AgentConfig]) -> None:
    """The manual's table is made of these."""
    assert [name for name, field in model.model_fields.items() if not field.description] == []
