"""`make release`: what a release consists of, in build/release, from a fresh clone of the commit that is checked out.

An sdist and a wheel, an SBOM of what the wheel needs (CycloneDX, from requirements.lock), a provenance statement
(in-toto, SLSA v1: from which commit, with which tools), and SHA256SUMS over them. Nothing is signed or published here:
the statement says what this machine did, and is worth as much as whoever signs it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "build/release"
_LOCK = "requirements-release.lock"
_TAG = re.compile(r"v\d+\.\d+\.\d+((a|b|rc)\d+)?")


def main(arguments: list[str]) -> None:
    """`--snapshot`: also of a commit without a tag. Exits with a message for what may not be released."""
    started = datetime.now(UTC)
    commit, tag = _git("rev-parse", "HEAD"), _git("tag", "--points-at", "HEAD").partition("\n")[0]
    if arguments != ["--snapshot"]:
        _may_be_released(tag)
    python = _tools()
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        _run("git", "clone", "-q", str(ROOT), folder)
        _run("git", "-C", folder, "checkout", "-q", commit)
        date = _git("show", "-s", "--format=%ct", commit)  # so that two builds give the same wheel
        environment = {**os.environ, "SOURCE_DATE_EPOCH": date}
        _run(python, "-m", "build", "--no-isolation", "--outdir", str(OUTPUT), folder, environment=environment)
        wheel = next(OUTPUT.glob("*.whl"))
        name = wheel.name.split("-py3", 1)[0]
        sbom = OUTPUT / f"{name}.cdx.json"
        lock = f"{folder}/requirements.lock"
        _run(python, "-m", "cyclonedx_py", "requirements", "--output-reproducible", "-o", str(sbom), lock)
        locks = {each: _digest(Path(folder) / each) for each in (_LOCK, "requirements.lock")}
    subjects = {each.name: _digest(each) for each in sorted(OUTPUT.iterdir())}
    statement = _provenance(subjects, commit, tag, locks, started)
    (OUTPUT / f"{name}.provenance.json").write_text(json.dumps(statement, indent=2) + "\n")
    sums = "".join(f"{_digest(each)}  {each.name}\n" for each in sorted(OUTPUT.iterdir()))
    (OUTPUT / "SHA256SUMS").write_text(sums)
    print(sums, end="")


def _may_be_released(tag: str) -> None:
    if changed := _git("status", "--porcelain"):
        sys.exit(f"release: the tree has changes that no commit has; commit or stash them:\n{changed}")
    if not _TAG.fullmatch(tag):
        sys.exit("release: this commit has no tag like v1.2.3; `git tag -s v1.2.3` it, or make a --snapshot")
    if f"## {tag[1:]}" not in (ROOT / "CHANGELOG.md").read_text():
        sys.exit(f"release: CHANGELOG.md has no section '## {tag[1:]}'; rename 'Unreleased' before the tag")


def _tools() -> str:
    """An environment of its own with what is locked for releases; returns its Python."""
    folder = ROOT / ".cache/release"
    python = str(folder / "bin/python")
    stamp = folder / _digest(ROOT / _LOCK)
    if not stamp.exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run("/usr/bin/python3", "-m", "venv", str(folder))
        _run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--require-hashes", "-r", _LOCK)
        stamp.touch()
    return python


def _provenance(subjects: dict[str, str], commit: str, tag: str, locks: dict[str, str], started: datetime) -> Any:
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in subjects.items()],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:krie:tools/release.py:1",
                "externalParameters": {"tag": tag or None, "commit": commit},
                "internalParameters": {"python": platform.python_version(), "machine": platform.machine()},
                "resolvedDependencies": [
                    {"name": "source", "digest": {"gitCommit": commit}},
                    *({"name": name, "digest": {"sha256": digest}} for name, digest in locks.items()),
                ],
            },
            "runDetails": {
                "builder": {"id": "urn:krie:local"},
                "metadata": {"startedOn": started.isoformat(), "finishedOn": datetime.now(UTC).isoformat()},
            },
        },
    }


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _run(*command: str, environment: dict[str, str] | None = None) -> None:
    pipe, out = subprocess.PIPE, subprocess.STDOUT
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment, stdout=pipe, stderr=out, text=True)
    if done.returncode:
        sys.exit(f"release: {' '.join(command)} ended with {done.returncode}:\n{done.stdout}")


if __name__ == "__main__":
    main(sys.argv[1:])
