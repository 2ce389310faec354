"""What of the data of a model is written already, noted beside its draft, so that a write that was killed can go on.

A line of JSON is noted of each tensor once its bytes are handed to the system, with their digest, and of each file that
gets its last name. Chosen: what a line says counts where the file still has bytes of that digest, and where all that
they follow from is the same (`key`). Refused: to flush data before a line is noted - what a power cut took shows in the
digests, and flushing after every tensor takes longer than computing it.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mal_graph.atomic_write import checkpoint_of, data_name

from .digests import Written

UNNAMED = "data"  # what data files are called until their content is known, with their number behind
DIGEST = re.compile(r"[0-9a-f]{64}")


class Checkpoint:
    """What is written of the data files beside a draft; what is there and belongs to another model is removed.

    Args:
        draft: where the model is going to be written.
        key: a digest of what its bytes follow from; "" where that is not known, and nothing is noted then.
    """

    def __init__(self, draft: Path, key: str) -> None:
        self.draft, self.path, self.known = draft, checkpoint_of(draft), dict[int, dict[int, Written]]()
        self.is_kept = bool(key)
        lines = list(complete_lines(self.path)) if self.path.is_file() else []
        if key and lines[:1] == [[key]]:
            for line in lines[1:]:
                self.take_up(line)
            self.remove_others(f"{UNNAMED}*", self.path.name)
        else:
            self.remove_others()
            self.note(key)

    def take_up(self, line: Any) -> None:
        """Know what a line says. A file with its last name gets the one back that it was written under."""
        match line:
            case [int(number), int(offset), int(length), str(digest)] if DIGEST.fullmatch(digest):
                self.known.setdefault(number, {})[offset] = Written(offset, length, digest)
            case [int(number), str(digest)] if DIGEST.fullmatch(digest):
                if self.named(digest).is_file() and not self.file(number).exists():
                    os.replace(self.named(digest), self.file(number))

    def remove_others(self, *kept: str) -> None:
        """Remove what lies beside the draft, but for files of these names or patterns."""
        for path in self.draft.parent.iterdir():
            if not any(path.match(pattern) for pattern in kept):
                path.unlink()

    def file(self, number: int) -> Path:
        """A data file that is being written."""
        return self.draft.with_name(f"{UNNAMED}{number}")

    def named(self, digest: str) -> Path:
        """A data file under its last name."""
        return self.draft.with_name(data_name(self.draft.name, digest))

    def finish(self, number: int, digest: str) -> Path:
        """Give a data file its last name. Raises OSError."""
        self.note(number, digest)
        os.replace(self.file(number), self.named(digest))
        return self.named(digest)

    def note_tensor(self, number: int, tensor: Written) -> None:
        """Note that a tensor is written to a data file. Raises OSError."""
        self.note(number, tensor.offset, tensor.length, tensor.digest)

    def note(self, *line: Any) -> None:
        """Note a line. Raises OSError."""
        if self.is_kept:
            with self.path.open("ab", buffering=0) as file:
                file.write(f"{json.dumps(line)}\n".encode())


def complete_lines(path: Path) -> Iterator[Any]:
    """What the lines of a checkpoint hold, None for one that is broken; what is cut off at its end is taken away, so
    that lines can follow. Raises OSError."""
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    os.truncate(path, end)
    for line in content[:end].split(b"\n")[:-1]:
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            yield None
