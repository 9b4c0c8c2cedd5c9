"""The agent's socket, served while a test asks."""

import select
import threading
from pathlib import Path
from typing import Any

from krie.agent.control import Control
from krie.processes.peer import Peer


class Serving:
    def __init__(self, folder: Path) -> None:
        self.asked: list[tuple[dict[str, Any], Peer]] = []
        self.control = Control(folder, self._answer)
        self._poll = select.epoll()
        self.control.wait_on(self._poll)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join()
        self.control.close()

    def _serve(self) -> None:
        while not self._end.is_set():
            self._poll.poll(0.01)
            self.control.serve()

    def _answer(self, request: dict[str, Any], peer: Peer) -> dict[str, Any]:
        self.asked.append((request, peer))
        if request.get("ask") == "wrong":
            raise ValueError("ask for something else")
        if "bytes" in request:
            return {"long": "x" * int(request["bytes"])}
        return {"echo": request, "long": "x" * 200_000}
