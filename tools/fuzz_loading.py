"""A fuzz target for atheris: whatever bytes a file holds, loading it gives a graph or one sentence.

    pip install atheris
    python tools/fuzz_loading.py [-runs=100000] [FOLDER with files to begin with]

Small models and the crafted files of the tests are written into the folder first, if it is empty. What is found is left
by atheris as a file beside, which `python tools/fuzz_loading.py FILE` meets again.
"""

import sys
import tempfile
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from builders import cnn, mlp, save
from crafted import KINDS
from crafted.kind import MODEL

from mal_graph import registry
from mal_graph.errors import MalGraphError
from mal_graph.limits import Limits, limited

LARGEST = 1 << 20  # bytes of a file to begin with


def meet(content: bytes) -> None:
    """Load a file; whatever is raised but a sentence of ours is a fault."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, MODEL)
        path.write_bytes(content)
        with limited(Limits()):
            try:
                registry.as_graph(str(path))
            except MalGraphError as error:
                if "\n" in str(error):
                    raise AssertionError(f"more than one line: {error}") from error


def begin_with(folder: Path) -> None:
    """Write files to begin with."""
    for number, graph in enumerate((mlp((8, 6, 5)), cnn((2, 3)))):
        save(graph, folder / f"small{number}.onnx")
    for kind in KINDS.values():
        if kind.words[1:2] != (MODEL,) or kind.is_slow:
            continue
        with tempfile.TemporaryDirectory() as scratch, suppress(OSError):  # some need what a file system may not have
            kind.build(Path(scratch))
            path = Path(scratch, MODEL)
            if path.is_file() and path.stat().st_size < LARGEST:
                (folder / f"{kind.name}.onnx").write_bytes(path.read_bytes())


def main() -> int:
    try:
        import atheris
    except ImportError:
        print(
            "error: atheris is not installed: pip install atheris, which needs clang on most systems", file=sys.stderr
        )
        return 2
    folders = [Path(word) for word in sys.argv[1:] if Path(word).is_dir()]
    if folders and not any(folders[0].iterdir()):
        begin_with(folders[0])
    atheris.instrument_all()
    atheris.Setup(sys.argv, meet)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
