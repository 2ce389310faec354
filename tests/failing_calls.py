"""Saves that are stopped at each of their calls of the system in turn: by a kill, or by an error that the system gives.

Run as a program it tries every call of every case in processes of its own, and prints what went wrong as JSON. Writes
of files count too; a write that is killed has written half. Saves that resume are followed by one that resumes: it must
give the bytes of an undisturbed one, and takes what is written of tensors instead of computing it.
"""

import builtins
import io
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from builders import mlp, save

from mal_graph.atomic_write import DRAFT
from mal_graph.errors import FileError
from mal_graph.seals import PROVENANCE
from mal_graph_adapters.onnx_format import data_files, writing
from mal_graph_adapters.onnx_format import file as onnx_file

CALLS = ("open", "fsync", "replace", "rename", "link", "unlink", "mkdir", "rmdir", "chmod", "truncate", "ftruncate")
KILLED, FULL = 77, 28
SHARD = 64  # bytes: two files for the four tensors of a model
ADAPTER = onnx_file.OnnxAdapter()


class Stopped:
    """Counts calls, and does something at one of them."""

    def __init__(self, at, act):
        self.at, self.act, self.calls = at, act, []

    def reached(self, name):
        self.calls.append(name)
        return len(self.calls) == self.at

    def around(self, name, function):
        def call(*args, **options):
            if self.reached(name):
                self.act()
            return function(*args, **options)

        return call

    def writer(self, function):
        def pwrite(handle, content, offset):
            if self.reached("pwrite"):
                function(handle, bytes(content)[: len(content) // 2], offset)
                self.act()
            return function(handle, content, offset)

        return pwrite

    def opener(self, function):
        def call(*args, **options):
            file = function(*args, **options)
            return Writer(file, self) if file.writable() else file

        return call


class Writer:
    """A file that is written to, of which the last write may be stopped half way."""

    def __init__(self, file, stopped):
        self.file, self.stopped = file, stopped

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, content):
        if self.stopped.reached("write"):
            self.file.write(bytes(content)[: len(content) // 2])
            self.file.flush()
            self.stopped.act()
        return self.file.write(content)

    def writelines(self, pieces):
        for piece in pieces:
            self.write(piece)


def stop(at, act):
    """From now on, act at the call number `at` of this process."""
    stopped = Stopped(at, act)
    for name in CALLS:
        setattr(os, name, stopped.around(name, getattr(os, name)))
    os.pwrite = stopped.writer(os.pwrite)
    builtins.open = io.open = stopped.opener(io.open)
    return stopped


def kill():
    os._exit(KILLED)


def fill():
    raise OSError(FULL, "No space left on device")


class Case:
    """A save of other weights to a file that may be there already."""

    def __init__(self, has_old, has_data, resume=False):
        self.has_old, self.resume = has_old, resume
        onnx_file.EXTERNAL_DATA_FROM = 0 if has_data else 2**40
        data_files.EXTERNAL_TENSOR_FROM = 0
        self.start = Path(mkdtemp())
        self.models = {}
        for seed, name in enumerate(("old", "new")):
            source = self.start.with_name(f"{self.start.name}.{name}.onnx")
            save(mlp((4, 3, 2), seed=seed), source)
            graph = ADAPTER.load(source)
            marked = {name: w.read() + 0 for name, w in graph.weights.items()}  # nothing is mapped
            self.models[name] = graph.with_weights(marked)
            source.unlink()
        if has_old:
            ADAPTER.save(self.models["old"], self.start / "m.onnx")
        self.computed = 0  # tensors that were computed by resumed saves
        undisturbed = Path(mkdtemp())
        self.saved(undisturbed)
        self.new = contents(undisturbed)
        shutil.rmtree(undisturbed)

    def saved(self, folder):
        """Save the new model as a command does, sealed."""
        graph = self.models["new"]
        graph = onnx_file.replace(graph, metadata={**graph.metadata, PROVENANCE: "{}"})
        more = {"shard_size": SHARD, "resume": True} if self.resume else {}
        ADAPTER.save(graph, folder / "m.onnx", overwrite=self.has_old, **more)

    def run(self, at, act):
        """What is wrong after the call number `at` was stopped, and with which code that ended."""
        folder, before = self.prepared()
        child = os.fork()
        if not child:
            self.in_child(folder, at, act)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return code, self.judged(folder, code, before)

    def run_killed_after(self, seconds):
        """What is wrong after a save that was killed after some time."""
        folder, before = self.prepared()
        child = os.fork()
        if not child:
            self.saved(folder)
            os._exit(0)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return self.judged(folder, KILLED if code == -signal.SIGKILL else code, before)

    def prepared(self):
        """A folder of its own, and what is in it."""
        folder = Path(mkdtemp())
        shutil.copytree(self.start, folder, dirs_exist_ok=True)
        return folder, contents(folder)

    def judged(self, folder, code, before):
        """What is wrong in a folder after a save that ended with a code; the folder is removed."""
        wrong = [] if code in (0, 1, 3, KILLED) else [f"it ended with {code}"]
        seen = self.visible(folder)
        wrong += [f"there is {seen}"] if seen not in (("old",) if self.has_old else ("none",)) + ("new",) else []
        if code == 1 and self.kept(folder) != before:
            wrong.append(f"after an error there are {sorted(contents(folder))}")
        if code == KILLED or (code == 1 and seen != "new"):
            wrong += self.again(folder)
        shutil.rmtree(folder)
        return wrong

    def kept(self, folder):
        """What is in a folder beside the draft that a save leaves which resumes."""
        is_draft = str.startswith if self.resume else lambda *_: False
        return {name: content for name, content in contents(folder).items() if not is_draft(name, DRAFT)}

    def in_child(self, folder, at, act):
        stopped, out, code = stop(at, act), os._exit, 0
        try:
            self.saved(folder)
        except FileError:
            code = 1
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            code = 2
        out(code if len(stopped.calls) >= at else 3)

    def again(self, folder):
        """What is wrong after the same save."""
        if not self.has_old and (folder / "m.onnx").exists():
            return []  # it had come to the end, and may not overwrite
        pieces_of = writing.pieces_of
        writing.pieces_of = self.counting(pieces_of)
        self.saved(folder)
        writing.pieces_of = pieces_of
        seen, left = self.visible(folder), contents(folder)
        wrong = [] if seen == "new" else [f"after the same save there is {seen}"]
        if {name: left.get(name) for name in self.new} != self.new:
            wrong.append("the bytes are not those of an undisturbed save")
        return wrong if not any(name.startswith(DRAFT) for name in left) else [*wrong, f"there stay {sorted(left)}"]

    def counting(self, pieces_of):
        def pieces(tensor):
            self.computed += 1
            return pieces_of(tensor)

        return pieces

    def visible(self, folder):
        """Which model is to be seen."""
        if not (folder / "m.onnx").exists():
            return "none"
        try:
            found = ADAPTER.load(folder / "m.onnx").weights
            for name, graph in self.models.items():
                if all(np.array_equal(found[key].read(), weight.read()) for key, weight in graph.weights.items()):
                    is_sealed = name == "old" or not ADAPTER.read_seal(folder / "m.onnx").changed
                    return name if is_sealed else "a model with a broken seal"
        except (FileError, KeyError) as error:
            return f"a broken model: {error}"
        return "a mixture"


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


TENSORS = 4
CASES = ((False, False, False), (False, True, False), (True, False, False), (True, True, True))  # old, data, resume


def main():
    os.fsync = lambda handle: None  # a kill does not ask for it, and it takes longest
    wrong, tried, computed = [], Counter(), []
    for has_old, has_data, resume in CASES:
        case = Case(has_old, has_data, resume)
        for act in (kill, fill):
            at, code, case.computed = 1, KILLED, 0
            while code != 3:
                code, found = case.run(at, act)
                if code == 3:
                    break
                told = f"{act.__name__} at call {at}, old {has_old}, data {has_data}, resume {resume}"
                wrong += [f"{told}: {text}" for text in found]
                tried[act.__name__] += 1
                at += 1
            if resume:
                computed.append(case.computed / (TENSORS * at))
    print(json.dumps({"tried": tried, "wrong": wrong, "computed": computed}))


if __name__ == "__main__":
    main()
