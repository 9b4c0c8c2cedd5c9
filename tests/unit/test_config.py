"""krie.toml: every mistake gets one sentence that names the place and the fix."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from krie.config import PluginConfig, load_config, plugin_config
from krie.errors import ConfigError, UntrustedFileError


@pytest.fixture
def write(tmp_path: Path) -> "Writer":
    return Writer(tmp_path / "krie.toml")


class Writer:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, text: str) -> Path:
        self.path.write_text(text)
        self.path.chmod(0o600)
        return self.path


def test_an_empty_file_is_a_valid_configuration(write: Writer) -> None:
    config = load_config(write(""))
    assert config.agent.allow_syscall_tracepoints is False
    assert config.plugins == {}


def test_relative_paths_are_below_the_files_folder(write: Writer, tmp_path: Path) -> None:
    config = load_config(
        write('journal.path = "j.jsonl"\npolicy.paths = ["rules", "/etc/krie"]\nopa.token = "t"\nopa.ca = "/etc/ca"')
    )
    assert (config.opa.token, config.opa.ca, config.opa.key) == (str(tmp_path / "t"), "/etc/ca", "")
    assert config.journal.path == str(tmp_path / "j.jsonl")
    assert config.policy.paths == (str(tmp_path / "rules"), "/etc/krie")


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("[agent]\nring_mb = 1", "agent.ring_mb", "no such key; did you mean 'ring_mib'?"),
        ("[agnt]", "agnt", "no such key; did you mean 'agent'?"),
        (
            "[agent]\nzzz = 1",
            "agent.zzz",
            "no such key; known are allow_syscall_tracepoints, cache_dir, canary_interval_s",
        ),
        ("[agent]\nring_mib = 3", "agent.ring_mib", "must be a power of two, not 3"),
        ("[agent]\nring_mib = 1024", "agent.ring_mib", "Input should be less than or equal to 512, not 1024"),
        ('[agent]\nring_mib = "32"', "agent.ring_mib", "Input should be a valid integer, not '32'"),
        ('[agent]\nrun_dir = "run"', "agent.run_dir", "must be an absolute path, not 'run'"),
        ('[policy]\non_error = "kill"', "policy.on_error", "Input should be 'allow' or 'log', not 'kill'"),
        ('[executables]\napt = "apt"', "executables.apt", "must be an absolute path, not 'apt'"),
        ("[journal]\nkeep = 0", "journal.keep", "Input should be greater than or equal to 1, not 0"),
        ("[plugins]\nx = 1", "plugins.x", "Input should be a valid dictionary, not 1"),
        ('[policy]\nengine = "opa"', "", 'policy.engine is "opa", and opa.url names no server'),
        (
            '[policy]\nengine = "opa"\ndecision_ms = 100\n[opa]\nurl = "http://127.0.0.1:1"',
            "",
            "opa.timeout_ms must be less than policy.decision_ms",
        ),
        *(
            (f'[opa]\nurl = "{url}"', "opa.url", "must be http://HOST:PORT, https://HOST:PORT or unix:///PATH")
            for url in (
                "127.0.0.1:8181",
                "ftp://x",
                "http://",
                "http://a:b@c",
                "http://a/v1",
                "http://a?b",
                "http://a:0",
                "http://a:99999",
                "http://a:x",
                "http://[::1",
                "unix://run/opa.sock",
                "http://\u00e9:1",
            )
        ),
        (f'[opa]\nurl = "unix:///{"x" * 120}"', "opa.url", "names a socket of more than 107 bytes"),
        ('[opa]\nurl = "http://far:1"\ntoken = "t"', "opa", "opa.token would be sent in clear"),
        ('[opa]\nurl = "http://127.0.0.1:1"\nca = "t"', "opa", "opa.ca and opa.certificate need a url with https"),
        ('[opa]\nurl = "https://a"\nkey = "t"', "opa", "opa.key needs opa.certificate"),
        ("[opa]\nbatch = 0", "opa.batch", "Input should be greater than or equal to 1, not 0"),
    ],
)
def test_mistakes_name_the_place_and_the_fix(write: Writer, text: str, place: str, problem: str) -> None:
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    where = f"{path}: {place}" if place else str(path)
    assert str(caught.value).startswith(f"{where}: {problem}")


def test_pydantic_imports_nothing_that_a_package_announces(tmp_path: Path) -> None:
    (tmp_path / "stranger.py").write_text("print('imported')\ndef new_schema_validator(*_): return None, None, None\n")
    distribution = tmp_path / "stranger-1.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1\n")
    (distribution / "entry_points.txt").write_text("[pydantic]\nstranger = stranger\n")
    code = f"import sys; sys.path.append({str(tmp_path)!r})"
    command = [sys.executable, "-I", "-c"]
    environment = {name: value for name, value in os.environ.items() if name != "PYDANTIC_DISABLE_PLUGINS"}
    said = [
        subprocess.run(
            [*command, f"{code}\n{more}"], env=environment, capture_output=True, text=True, check=True
        ).stdout
        for more in ("import krie.config", "from pydantic import BaseModel\nclass Model(BaseModel): pass")
    ]
    assert said == ["", "imported\n"]


def test_broken_toml_names_the_line(write: Writer) -> None:
    with pytest.raises(ConfigError, match=r"krie.toml: is not valid TOML: .*line 2"):
        load_config(write("[agent]\nring_mib = \n"))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none.toml: cannot be read: No such file or directory"):
        load_config(tmp_path / "none.toml")


class Own(PluginConfig):
    threshold: int = 3


def test_plugins_have_keys_of_their_own() -> None:
    assert plugin_config("p", {"threshold": 4}, Own, "krie.toml").threshold == 4


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"treshold": 1}, "krie.toml: plugins.p.treshold: no such key; did you mean 'threshold'?"),
        ({"threshold": "x"}, "krie.toml: plugins.p.threshold: Input should be a valid integer, not 'x'"),
        ({"mode": "watch"}, "krie.toml: plugins.p.mode: Input should be 'observe' or 'enforce', not 'watch'"),
    ],
)
def test_mistakes_in_a_plugins_keys(raw: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plugin_config("p", raw, Own, "krie.toml")
    assert str(caught.value) == message


def test_a_file_that_others_can_write_is_refused(write: Writer) -> None:
    path = write("")
    path.chmod(0o666)
    with pytest.raises(UntrustedFileError, match="can be changed by other users: chmod go-w"):
        load_config(path)


def test_a_folder_that_others_can_write_is_refused(write: Writer) -> None:
    path = write("")
    path.parent.chmod(0o777)
    with pytest.raises(UntrustedFileError, match=f"{path.parent}: can be changed by other users"):
        load_config(path)
    path.parent.chmod(0o1777)
    with pytest.raises(UntrustedFileError, match=f"lies in {path.parent}, into which others may move files"):
        load_config(path)


def test_a_file_of_another_user_is_refused(write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("")
    import os

    os.chown(path, 12345, -1)
    with pytest.raises(UntrustedFileError, match=f"belongs to user 12345, who could change it: chown root {path}"):
        load_config(path)
    monkeypatch.setenv("SUDO_UID", "12345")
    with pytest.raises(UntrustedFileError, match="belongs to user 12345"):
        load_config(path)


def test_a_fifo_is_no_configuration(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "krie.toml", 0o600)
    with pytest.raises(UntrustedFileError, match="is not a regular file"):
        load_config(tmp_path / "krie.toml")


def test_the_shipped_file_is_valid() -> None:
    config = load_config(Path(__file__).parents[2] / "krie.toml")
    assert config.agent.allow_syscall_tracepoints is True
    assert list(config.plugins) == ["runtime_integrity", "smep_smap", "syscall_table"]
