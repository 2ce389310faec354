"""Checks what is shipped, with nothing of the checkout at hand.

    python tools/check_distribution.py

Builds the source distribution and from it the wheel, installs the wheel in an environment of its own, runs the command
line and merges two models there, and runs a quick selection of the tests of the unpacked source distribution on it.
Ends with the first step that fails.
"""

import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
QUICK = ["tests/test_config.py", "tests/test_api.py", "tests/network/test_layers.py"]
DESCRIBED = """
import re
from importlib.metadata import metadata

broken = re.findall(r"[]][(](?!https?:)[^)]*[)]", metadata("mal-graph")["Description"])
assert not broken, f"links of the description that lead nowhere on an index page: {broken}"
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        programs = new_environment(folder / "env")
        source, wheel = build(folder / "dist", programs)
        run(programs / "python", "-m", "pip", "install", "--quiet", f"{wheel}[test]", cwd=folder)
        with tarfile.open(source) as archive:
            archive.extractall(folder, filter="data")
        unpacked = folder / source.name.removesuffix(".tar.gz")
        check_commands(programs, unpacked / "examples" / "01_first_merge", folder)
        selected = ["-m", "not slow and not torch and not whole", "-n", "auto", *QUICK]
        run(programs / "pytest", *selected, cwd=unpacked)  # `python -m pytest` would import the unpacked packages


def new_environment(folder: Path) -> Path:
    """The programs of a fresh virtual environment that can build."""
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if sys.platform == "win32" else "bin")
    run(programs / "python", "-m", "pip", "install", "--quiet", "build", cwd=folder)
    return programs


def build(folder: Path, programs: Path) -> tuple[Path, Path]:
    """The source distribution and the wheel."""
    run(programs / "python", "-m", "build", "--outdir", folder, ROOT, cwd=folder.parent)
    return next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))


def check_commands(programs: Path, example: Path, folder: Path) -> None:
    """What a user does first."""
    run(programs / "mal-graph", "--version", cwd=folder)
    run(programs / "python", "-m", "mal_graph", "--help", cwd=folder)
    run(programs / "python", "-c", DESCRIBED, cwd=folder)
    models = [example / "mlp_a.onnx", example / "mlp_b.onnx"]
    run(programs / "mal-graph", "assemble", *models, "-o", "m.onnx", "--data", example / "data.npz", cwd=folder)
    if not (folder / "m.onnx").stat().st_size:
        raise SystemExit("the merged model is empty")


def run(*words: object, cwd: Path) -> None:
    """Run a command, or end with what it ended with."""
    command = [str(word) for word in words]
    print("+", *(Path(command[0]).name, *command[1:]), flush=True)
    code = subprocess.run(command, cwd=cwd).returncode
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    main()
