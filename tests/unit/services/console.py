"""A console for decisions and status, an agent that tells it, and what waits on disk for it."""

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from krie.agent.agent import Agent
from krie.config import Config
from krie.services.decisions import Drops
from krie.services.spool import Spool

from ..agent.setting import Setting
from ..web import Server, reply

MASK = """package system.log

mask contains "/input/process/comm"
mask contains {"op": "upsert", "path": "/input/process/exe", "value": name} if name := data.hidden
mask contains "/result/rules/0" if input.path == "nowhere"
drop if input.input.event.name == "secret"
"""


class Console:
    """A decision log and status service."""

    def __init__(self) -> None:
        self.status = 200

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        reply(handler, self.status)


@contextmanager
def logging_agent(folder: Path, url: str, **sections: object) -> Iterator[tuple[Setting, Agent]]:
    folder.mkdir(exist_ok=True)
    setting = Setting(folder)
    token = folder / "token"
    token.write_text("t0ken")
    token.chmod(0o600)
    content = setting.config.model_dump()
    content["decision_logs"] = {"url": url, "token": str(token), "min_delay_s": 1, "max_delay_s": 1}
    setting.config = Config.model_validate({**content, **sections})
    with setting.stack:
        yield setting, setting.start()


def sent(server: Server, path: str = "/logs") -> list[dict[str, Any]]:
    requests = [each for each in list(server.requests) if each.path == path]
    assert all(each.headers["content-encoding"] == "gzip" for each in requests)
    return [event for each in requests for event in json.loads(gzip.decompress(each.body))]


def sent_bytes(server: Server) -> bytes:
    return b"".join(gzip.decompress(each.body) for each in list(server.requests) if each.path == "/logs")


def spool(folder: Path, drops: Drops, most: int = 1 << 20, batch: int = 1 << 16) -> Spool:
    return Spool(folder / "spool", most, batch, drops.put)


def line(number: int, size: int = 10) -> bytes:
    import random

    return json.dumps({"n": number, "x": random.Random(number).randbytes(size).hex()}).encode()


def batches(made: Spool) -> Iterator[list[int]]:
    while (batch := made.oldest()) is not None:
        numbers = [each["n"] for each in json.loads(gzip.decompress(batch.path.read_bytes()))]
        assert batch.count == len(numbers)
        yield numbers
        made.remove(batch)
