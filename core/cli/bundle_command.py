"""`krie policy bundle`: everything that decides, as one file for OPA servers and for other agents."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import click

from ..config import load_config
from ..errors import ConfigError
from ..output import say, say_json
from ..plugin.offline import load_plugins
from ..policy.bundle import bundle_of
from ..policy.serial import MOST, with_serial
from ..policy.signature import ALGORITHMS, KEY_ID, sign
from ..tier.subject import subject_of
from ..tier.tried import tried_engine
from ..trust import read_trusted
from .command import PATH, config_file, config_option, json_option

_MOST_KEY = 1 << 16


@click.command("bundle")
@config_option
@click.option("--output", type=PATH, metavar="FILE", required=True, help="The file to write, such as bundle.tar.gz.")
@click.option("--sign", "key", type=PATH, metavar="KEY", help="Sign it by this private key (PEM), or secret for HS256.")
@click.option("--algorithm", type=click.Choice(ALGORITHMS), default="RS256", show_default=True, help="How to sign it.")
@click.option("--key-id", default=KEY_ID, show_default=True, help="The key's name in the configuration of servers.")
@click.option(
    "--serial",
    type=click.IntRange(0, MOST),
    help="A number that grows with each bundle: agents refuse one with a lower number than they had. Without it a "
    "signed bundle gets the time, in seconds since 1970.",
)
@json_option
def policy_bundle(
    config: Path | None,
    output: Path,
    key: Path | None,
    algorithm: str,
    key_id: str,
    serial: int | None,
    as_json: bool,
) -> None:
    """Make an OPA bundle of everything that decides by this configuration. Needs no root.

    It is compiled and tried first, as `krie policy check` does. The same rules, data and serial give the same file, but
    for the signature of some algorithms. Its revision is the one that the agent tells;
    docs/how-to/decide-by-an-opa-server.md says how to serve it.
    """
    path = config_file(config)
    settings = load_config(path)
    loaded, _ = load_plugins(settings, str(path))
    engine = tried_engine(settings, loaded)
    subject_of(settings, loaded, engine)  # raises for a rule that must be inline and cannot be
    bundle = bundle_of(engine.sources)
    if serial is None and key is not None:
        serial = int(time.time())
    if serial is not None:
        bundle = with_serial(bundle, serial)
    if key is not None:
        bundle = sign(bundle, read_trusted(key, _MOST_KEY), algorithm, key_id)
    raw = bundle.to_bytes()
    _write(output, raw)
    if as_json:
        say_json({"revision": bundle.revision, "roots": bundle.manifest.roots, "bytes": len(raw), "signed": bool(key)})
    else:
        say(f"{output}: revision {bundle.revision}, {len(raw)} bytes, {'signed' if key else 'not signed'}")


def _write(path: Path, raw: bytes) -> None:
    """A reader sees the previous file or all of this one. Raises `ConfigError`."""
    if path.is_dir():
        raise ConfigError(str(path), "is a folder; name a file in it")
    if path.is_symlink() or (path.exists() and not path.is_file()):  # such as /dev/stdout, which would be one no more
        raise ConfigError(str(path), "is not a regular file, and would be replaced by one; name another")
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as written:
            try:
                written.write(raw)
                written.flush()
                os.fchmod(written.fileno(), 0o644)
                os.fsync(written.fileno())
                Path(written.name).replace(path)
            except BaseException:
                Path(written.name).unlink()
                raise
    except OSError as error:
        raise ConfigError(str(path), f"cannot be written: {error.strerror}") from error
