"""The process that asks an OPA server: whatever that does, the agent gets an answer or a reason in time, or ends this.

It gets one list of questions at a time, and gives for each the fired rules by package, as texts that are checked again.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

from ..child import Link, limit_memory
from ..config import OpaConfig
from ..errors import KrieError
from .entry_points import BATCH, PACKAGE

Question = tuple[tuple[str, ...], str]
"""Names of packages, and the input as JSON."""
ANSWERED, DECLINED, FAILED = b"+", b"?", b"-"
"""First byte of what the agent gets."""
_MEMORY_MIB = 256
_LONGEST_REASON = 300
_MOST_FIRED = 1000
"""Rules of one package in an answer, packages, and bundles."""


class _Fired(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    n: int
    fired: dict[str, Annotated[list[dict[str, str | int]], Field(max_length=_MOST_FIRED)]] = Field(
        max_length=_MOST_FIRED
    )


class _Revision(BaseModel):
    revision: str = ""


class _Provenance(BaseModel):
    bundles: dict[str, _Revision] = Field(default_factory=dict, max_length=_MOST_FIRED)


class _Body(BaseModel):
    """What an OPA server answers. Keys that are not named here may be there."""

    result: Annotated[list[_Fired], FailFast()]
    provenance: _Provenance = _Provenance()


class _Late(BaseException):
    """The time is over. Not an `Exception`, which a library could take for one of its own."""


def asked(revision: str, questions: Sequence[Question]) -> bytes:
    """A request to the worker. `revision`: the one that the server must decide by."""
    return json.dumps([revision, [[packages, document] for packages, document in questions]]).encode()


def answers_of(raw: bytes) -> tuple[float, list[list[str]]]:
    """Of what begins with `ANSWERED`: how long the server took, s, and for each question its rules by package."""
    took_s, answers = json.loads(raw[1:])
    return took_s, answers


def serve(config: OpaConfig, link: Link) -> None:
    """Answer requests until the agent has gone."""
    from .client import Client  # noqa: PLC0415 - 20 MB and 0.3 s, in this process only

    limit_memory(_MEMORY_MIB)
    signal.signal(signal.SIGALRM, _late)
    client: Client | None = None
    while True:
        revision, questions = json.loads(link.receive_bytes())
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, config.timeout_ms / 1000)
                client = client or Client(config)
                kind, answer = _ask(client, revision, questions)
            except Exception as error:  # whatever a library makes of a hostile answer
                kind, answer = FAILED, _why(error).encode(errors="backslashreplace")
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except _Late:
            kind, answer = FAILED, f"it gave no answer within {config.timeout_ms} ms (opa.timeout_ms)".encode()
        if kind == FAILED and client is not None:  # a connection that was left within an answer is of no use
            with suppress(Exception):
                client.close_connection()
            client = None
        link.send_bytes(kind + answer)


def _late(_number: int, _frame: FrameType | None) -> None:
    raise _Late


def _ask(client: Any, revision: str, questions: Sequence[Sequence[Any]]) -> tuple[bytes, bytes]:
    from .client import Declined, RefusedAnswer  # noqa: PLC0415 - see above

    batch = [
        {"n": number, "packages": packages, "input": json.loads(document)}
        for number, (packages, document) in enumerate(questions)
    ]
    begun = time.monotonic()
    try:
        body = client.answer(PACKAGE, BATCH, {"batch": batch})
    except Declined as error:
        return DECLINED, str(error).encode(errors="backslashreplace")
    took_s = time.monotonic() - begun
    if not isinstance(body, dict) or "result" not in body:
        raise RefusedAnswer(f"it has no document {PACKAGE}.{BATCH}; is a bundle of KRIe in force there?")
    result = body["result"]
    if not isinstance(result, list) or len(result) != len(questions):
        many = len(result) if isinstance(result, list) else "none"
        raise RefusedAnswer(f"it answered {many} of {len(questions)} questions")
    found = _Body.model_validate(body)
    revisions = sorted(each.revision for each in found.provenance.bundles.values())
    if revision not in revisions:
        others = ", ".join(revisions) or "none"
        raise RefusedAnswer(f"it decides by revision {others[:80]}, and revision {revision} is in force here")
    if [each.n for each in found.result] != list(range(len(questions))):
        raise RefusedAnswer("it did not answer the questions in their order")
    answers = []
    for (packages, _), each in zip(questions, found.result, strict=True):
        if each.fired.keys() != set(packages):
            raise RefusedAnswer("it answered about other packages than it was asked about")
        answers.append([json.dumps(each.fired[package], sort_keys=True) for package in packages])
    return ANSWERED, json.dumps([took_s, answers]).encode()


def _why(error: Exception) -> str:
    """One short line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:60]
        return f"its answer has the wrong shape at {where or 'its top'}: {first['msg']}"[:_LONGEST_REASON]
    if isinstance(error, OSError) and not isinstance(error, KrieError):  # what `requests` raises is one too
        causes = _causes(error)
        if (tls := next((each for each in causes if isinstance(each, ssl.SSLError)), None)) is not None:
            said = getattr(tls, "verify_message", "") or tls.reason or str(tls)
            return f"TLS fails: {' '.join(str(said).split())}; look at opa.ca and opa.certificate"[:_LONGEST_REASON]
        number = next((each.errno for each in causes if each.errno), None)
        if number is not None:
            return f"it cannot be reached: {os.strerror(number)}"
    return " ".join(f"{str(error) or type(error).__name__}".split())[:_LONGEST_REASON]


def _causes(error: BaseException) -> Sequence[OSError]:
    """The error, and those that led to it, also where they are only an argument of another: the last one first."""
    found: list[OSError] = []
    todo: list[object] = [error]
    seen: set[int] = set()
    while todo and len(seen) < 20:
        each = todo.pop(0)
        if id(each) in seen or not isinstance(each, BaseException):
            continue
        seen.add(id(each))
        if isinstance(each, OSError):
            found.append(each)
        todo += [*each.args, getattr(each, "reason", None), each.__cause__, each.__context__]
    return found
