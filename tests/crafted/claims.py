"""What files say of models beside their graphs: seals and the notes under them, reports, states of a search."""

import hashlib
import json
import os

import onnx
from builders import mlp, save

from crafted.kind import written
from crafted.names import ESCAPE
from mal_graph.seals import PROVENANCE
from mal_graph_adapters.onnx_format.seal import DIGEST, MARK, TENSORS, ZEROS

AUDIT, CARD = ("audit", "m.onnx"), ("card", "m.onnx")
AGAIN = ("audit", "m.onnx", "--from", "base.onnx", "base.onnx")
REPORT = ("report", "r.json", "-o", "r.html")
ZOO = ("zoo", "base.onnx", "zoo", "--data", "data.npz", "-o", "out.onnx")
NOT_READ = "it does not say how it was made in a form that this version reads"
DEEP = "[" * 100_000


def sealed(folder, provenance: str, tensors: str | None = None, **notes: str) -> None:
    """A sound model under a seal of ours that fits, with these notes."""
    save(mlp((8, 16, 12, 5), seed=1), folder / "m.onnx")
    proto = onnx.load(folder / "m.onnx")
    stored = {"data": {}, "tensors": []}
    held = {PROVENANCE: provenance, TENSORS: json.dumps(stored) if tensors is None else tensors, **notes}
    for key, value in held.items():
        proto.metadata_props.add(key=key, value=value)
    proto.metadata_props.add(key=DIGEST, value=ZEROS.decode())
    content = proto.SerializeToString()
    digest = hashlib.sha256(content).hexdigest().encode()
    place = content.rindex(MARK) + len(MARK)
    (folder / "m.onnx").write_bytes(content[:place] + digest + content[place + len(digest) :])


def made(**changed: object) -> str:
    """A note on how a model was made that can be read, but for what is changed."""
    source = {"files": [hashlib.sha256(b"").hexdigest()]}
    note = {
        "job": "assemble",
        "options": {},
        "seed": 0,
        "versions": {},
        "sources": [source, source],
        "schema": "mal-graph/provenance/1",
    }
    return json.dumps({**note, **changed})


def nested_sources(depth: int) -> str:
    """Models made of models made of models."""
    text = '{"files":[]}'
    for _ in range(depth):
        text = f'{{"files":[],"sources":[{text}]}}'
    return made().replace('"sources": [', f'"sources": [{text},', 1)


for name, note in {
    "that_is_no_json": "{",
    "that_is_empty": "",
    "that_is_a_number": "9" * 5000,
    "that_is_deep": DEEP,
    "that_is_a_list": "[]",
    "of_another_version": made(schema="mal-graph/provenance/999"),
    "of_an_unknown_job": made(job=ESCAPE),
    "of_unknown_options": made(options={ESCAPE: ESCAPE}),
    "of_options_that_are_files": made(options={"calibrate": "/dev/zero", "matches": "/dev/zero"}),
    "of_options_without_end": made(options={"lam": 1e300, "seed": 10**300}),
    "of_a_seed_without_end": made(seed=10**300),
    "of_a_negative_seed": made(seed=-1),
    "of_sources_in_sources": nested_sources(5000),
    "of_a_few_sources_in_sources": nested_sources(90),
    "of_many_sources": made(sources=[{"files": ["0" * 64]}] * 20_000),
    "of_no_sources": made(sources=[]),
    "of_names_that_a_terminal_would_obey": made(versions={ESCAPE: ESCAPE}, arrays={ESCAPE: ESCAPE}, way=ESCAPE),
    "of_orders_that_unfold": made(orders=[["16777216"] * 200]),
    "of_orders_that_are_none": made(orders=[["<i2:!!!!", "-1", "<f8:AAAA"]]),
}.items():
    for words, what in ((AUDIT, "audit"), (CARD, "card"), (AGAIN, "repetition")):

        def build(folder, note=note):
            sealed(folder, note)

        build.__name__ = f"{what}_of_a_note_{name}"
        written("", *words)(build)


for name, tensors in {
    "that_are_no_json": "{",
    "that_are_a_number": "1",
    "of_another_form": '{"data": 3, "tensors": "abc"}',
    "of_deep_lists": DEEP,
    "of_files_elsewhere": json.dumps({"data": {"../../../etc/passwd": "0"}, "tensors": []}),
    "of_places_that_a_terminal_would_obey": json.dumps({"data": {ESCAPE: "0"}, "tensors": [[ESCAPE, "0"]] * 99}),
}.items():

    def build(folder, tensors=tensors):
        sealed(folder, made(), tensors)

    build.__name__ = f"audit_of_digests_{name}"
    written("", *AUDIT)(build)


@written("it has no seal", *AUDIT)
def audit_of_a_file_without_a_seal(folder):
    save(mlp(), folder / "m.onnx")


@written("more than once", *AUDIT)
def audit_of_two_seals(folder):
    sealed(folder, made(), note=(MARK + ZEROS).decode("latin-1"))


@written("error: ", *AUDIT)
def audit_of_a_pipe(folder):
    os.mkfifo(folder / "m.onnx")


@written("", *AUDIT)
def audit_of_a_seal_and_nothing_else(folder):
    (folder / "m.onnx").write_bytes(MARK + ZEROS)


for name, text in {
    "that_is_no_json": "{",
    "that_is_deep": DEEP,
    "that_is_a_number": "9" * 5000,
    "of_another_form": json.dumps({"schema": "mal-graph/assemble/0"}),
    "of_a_form_that_a_terminal_would_obey": json.dumps({"schema": f"mal-graph/{ESCAPE}"}),
    "with_nothing_in_it": json.dumps({"schema": "mal-graph/inspect/1"}),
    "that_is_a_list": json.dumps([1, 2, 3]),
    "that_is_no_text": None,
}.items():

    def build(folder, text=text):
        (folder / "r.json").write_bytes(b"\xff\xfe\x00" if text is None else text.encode())

    build.__name__ = f"report_{name}"
    written("error: ", *REPORT)(build)


@written("error: ", *REPORT)
def report_that_is_a_pipe(folder):
    os.mkfifo(folder / "r.json")


@written("error: ", "report", "/dev/zero", "-o", "r.html")
def report_without_an_end(folder):
    pass


for name, text in {
    "that_is_no_json": "{",
    "that_is_deep": DEEP,
    "of_another_form": "[]",
    "with_another_digest": json.dumps({"schema": "mal-graph/zoo-state/3", "digest": "0" * 64, "donors": []}),
    "that_a_terminal_would_obey": json.dumps({"schema": ESCAPE}),
}.items():

    def build(folder, text=text):
        (folder / "zoo").mkdir()
        save(mlp((8, 16, 12, 5), seed=1), folder / "zoo/a.onnx")
        (folder / "out.onnx.zoo.json").write_text(text)

    build.__name__ = f"state_of_a_search_{name}"
    written("error: ", *ZOO)(build)
