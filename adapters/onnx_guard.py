"""What is refused before a file is trusted."""

from pathlib import Path

import onnx_ir as ir

from mal_graph.errors import FileError


def checked_path(path: Path) -> Path:
    if not path.is_file():
        raise FileError(f"cannot load {path}: no such file; check the path")
    return path.resolve()


def check_file(path: Path) -> None:
    pass


def check_model(model: ir.Model, path: Path) -> None:
    pass
