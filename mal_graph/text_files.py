"""Texts that people write, read in bounds: a pipe would never end, and no list of names or pairs is large."""

import errno
import stat
from pathlib import Path

MOST = 64 * 2**20  # bytes
MOST_PARTS = 2**21  # lines, and values of JSON: an empty list is three letters, and takes 56 bytes in memory
VALUES = ",[{"  # one of them stands before each value of JSON but the first


def read_text(path: str | Path, encoding: str = "utf-8") -> str:
    """The text in a file.

    Raises:
        OSError: it cannot be read, is no regular file, is larger than any list, or has more parts.
        UnicodeDecodeError: it is no text.
    """
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    if status.st_size > MOST:
        raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes, and lists end at {MOST:,}")
    text = Path(path).read_text(encoding=encoding)
    parts = max(text.count("\n"), sum(map(text.count, VALUES)))
    if parts > MOST_PARTS:
        raise OSError(errno.EFBIG, f"it has {parts:,} lines or values, and lists end at {MOST_PARTS:,}")
    return text
