"""Pages of files that tensors are read from where they lie: memory of this process as long as they stay mapped.

Chosen: what was read longest ago is let go of as soon as more than a bound is mapped, whoever reads: to touch it again
costs no more than the system's copy of the file. Refused: letting go where a reader has done, which every reader would
have to think of.
"""

import mmap
import threading
from weakref import ref

import onnx_ir as ir

MOST = 2**29  # bytes of tensors that were read last


class MappedPages:
    """The tensors that were read last, and may be in memory. Safe to use from several threads.

    Attributes:
        most: how many bytes they may have together; the last one stays, however large.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most, self.held = most, 0
        self.tensors: dict[int, tuple[ref[ir.ExternalTensor], int]] = {}  # what was read last stands last
        self.lock = threading.Lock()

    def note(self, tensor: ir.ExternalTensor) -> None:
        """A tensor is read now: let go of others, those first that were read longest ago."""
        with self.lock:
            self.held += tensor.nbytes - self.tensors.pop(id(tensor), (None, 0))[1]
            self.tensors[id(tensor)] = ref(tensor), tensor.nbytes
            while self.held > self.most and len(self.tensors) > 1:
                first, size = self.tensors.pop(next(iter(self.tensors)))
                self.held -= size
                if (other := first()) is not None:
                    release(other)


PAGES = MappedPages()


def release(tensor: ir.ExternalTensor) -> None:
    """Let go of the pages that a tensor was read from, and of those that the system mapped with them: they are read
    again where they are needed."""
    if tensor.raw is not None:
        tensor.raw.madvise(mmap.MADV_DONTNEED)
