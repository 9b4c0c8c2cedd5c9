"""[bundle], [decision_logs] and [status] in krie.toml."""

from pathlib import Path
from typing import get_args

import pytest
from krie.config import load_config
from krie.errors import ConfigError
from krie.policy.signature import ALGORITHMS
from krie.services_config import Algorithm, BundleConfig, DecisionLogsConfig, PinnedKey, StatusConfig

KEY = '[bundle.keys.ci]\nfile = "ci.pem"\n'
URL = 'policy.bundle = "https://a/b.tar.gz"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "krie.toml"
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_relative_files_are_below_the_file_s_folder(tmp_path: Path) -> None:
    config = load_config(
        written(
            tmp_path, f'{URL}{KEY}[decision_logs]\nurl = "https://a"\ntoken = "t"\nca = "/ca"\n[status]\nca = "c"\n'
        )
    )
    assert config.bundle.keys["ci"] == PinnedKey(file=str(tmp_path / "ci.pem"))
    assert (config.decision_logs.token, config.decision_logs.ca) == (str(tmp_path / "t"), "/ca")
    assert (config.status.ca, config.status.token) == (str(tmp_path / "c"), "")
    assert config.policy.bundle == "https://a/b.tar.gz"
    assert load_config(written(tmp_path, 'policy.bundle = "b.tar.gz"')).policy.bundle == str(tmp_path / "b.tar.gz")


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        (URL, "bundle.keys", "a bundle from a URL has to be signed"),
        (f'policy.bundle = "ftp://a/b"\n{KEY}', "policy.bundle", "must be a URL that begins with https://"),
        (f'policy.bundle = "http://a/b"\n[bundle]\ntoken = "t"\n{KEY}', "policy.bundle", "would send a token"),
        (f'{KEY}algorithm = "none"', "bundle.keys.ci.algorithm", "Input should be 'RS256', 'RS384'"),
        ("[bundle.keys.ci]\nfile = 'k'\nfil = 1", "bundle.keys.ci.fil", "no such key; did you mean 'file'?"),
        ("[bundle.keys.ci]\n", "bundle.keys.ci.file", "Field required"),
        ("[bundle]\nmin_delay_s = 500", "bundle.min_delay_s", "must not be larger than max_delay_s, 120"),
        ('[decision_logs]\nurl = "http://console"', "decision_logs.url", "would tell others on the way"),
        (
            '[bundle]\nkey = "ci.pem"',
            "bundle.key",
            "is the private key of a certificate, but no certificate is set; keys that",
        ),
        ('[status]\nurl = "console"', "status.url", "must be a URL"),
        ('[status]\nresource = "x"', "status.resource", "String should match pattern"),
    ],
)
def test_mistakes(text: str, place: str, problem: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: {place}: {problem}")


def test_all_is_off_by_default(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, ""))
    assert (config.policy.bundle, config.decision_logs.url, config.status.url) == ("", "", "")


def test_the_same_algorithms_as_where_bundles_are_signed() -> None:
    assert set(get_args(Algorithm)) == set(ALGORITHMS)


@pytest.mark.parametrize("model", [BundleConfig, DecisionLogsConfig, StatusConfig, PinnedKey])
def test_every_key_is_described(model: type[BundleConfig]) -> None:
    assert [name for name, field in model.model_fields.items() if not field.description] == []
