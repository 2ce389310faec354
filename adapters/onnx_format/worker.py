"""The process that runs models for another one: it opens sessions, runs them, and ends with its parent.

Its memory is bounded by its parent, and its life: what hangs or crashes here ends nothing else.
"""

import ctypes
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from mal_graph.errors import RunError

from .sessions import OrtSession
from .wire import Link, Tray

Message = Mapping[str, Any]
Answer = dict[str, Any]
ALLOCATION_FAILED = re.compile("allocat|bad_alloc", re.IGNORECASE)  # in the words of onnxruntime and of C++
PR_SET_PDEATHSIG = 1  # of prctl(2)


class Worker:
    """The sessions of one process.

    Args:
        coming, going: where arrays lie that the parent sends, and that it is sent.
    """

    def __init__(self, coming: Tray, going: Tray) -> None:
        self.coming, self.going = coming, going
        self.sessions: dict[int, Any] = {}  # of one of the `KINDS`
        self.calls: Mapping[str, Callable[[Message, Sequence[int]], Answer]] = {
            "open": self.open,
            "load": self.load,
            "run": self.run,
            "check": self.check,
            "convert": self.convert,
        }

    def answer(self, message: Message, files: Sequence[int]) -> Answer:
        """What is said to a message."""
        for key in message["closed"]:
            self.sessions.pop(key, None)
        try:
            return self.calls[message["call"]](message, files)
        except RunError as error:
            return {"error": str(error), "is_short": ALLOCATION_FAILED.search(str(error)) is not None}
        except MemoryError:
            return {"error": f"there is no memory left for {message['name']}", "is_short": True}
        finally:
            for handle in files:
                os.close(handle)

    def open(self, message: Message, files: Sequence[int]) -> Answer:
        """Open a session on the model in a file."""
        path, kept = f"/proc/self/fd/{files[0]}", ("name", "optimize", "threads", "written")
        try:
            session = KINDS[message["kind"]](model=path, **{key: message[key] for key in kept})
        except RunError as error:
            raise RunError(str(error).replace(path, message["name"])) from None
        self.sessions[message["key"]] = session
        return {"types": dict(session.types), "inputs": sorted(session.inputs)}

    def load(self, message: Message, files: Sequence[int]) -> Answer:
        """Open a file as any program would, and close it again."""
        OrtSession(message["name"], message["path"])
        return {}

    def check(self, message: Message, files: Sequence[int]) -> Answer:
        """Have the checker of onnx look at a file."""
        libraries().check(Path(message["path"]))
        return {}

    def convert(self, message: Message, files: Sequence[int]) -> Answer:
        """The model in a file in another version of the standard operators."""
        made = libraries().convert(message["name"], Path(f"/proc/self/fd/{files[0]}").read_bytes(), message["version"])
        self.going.clear()
        return {"made": self.going.lay([("model", np.frombuffer(made, np.uint8))])}

    def run(self, message: Message, files: Sequence[int]) -> Answer:
        """Run a session on the arrays that were laid ready."""
        fed = {name: self.coming.taken(one, is_copy=False) for name, one in message["fed"].items()}
        session = self.sessions[message["key"]]
        made = session.run(fed, None, message["read"], message["deadline"])
        self.going.clear()
        return {"made": self.going.lay(made.items()), "took": session.took}


def libraries() -> Any:
    """What onnx itself makes of files: most processes never need it, and it takes as long to load as the runtime."""
    return import_module("mal_graph_adapters.onnx_format.libraries")


KINDS: Mapping[str, Callable[..., Any]] = {
    "runtime": OrtSession,
    "reference": lambda **given: libraries().Evaluator(**given),
}


def end_with_parent() -> None:
    """Have this process killed when its parent ends, in whatever it is then."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main(connection: int, coming: int, going: int) -> None:
    """Answer messages until the parent has no more of them."""
    end_with_parent()
    link, worker = Link(socket.socket(fileno=connection)), Worker(Tray(coming), Tray(going))
    link.send({"ready": True})
    while True:
        try:
            message, files = link.receive()
            link.send(worker.answer(message, files))
        except (EOFError, ConnectionError):
            sys.exit()
