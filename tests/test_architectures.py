"""The table of architectures, in docs/architectures.md: a random miniature of each goes from snapshot to measured variants, or is refused with the reason."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from builders import bnb, calibrate, mmproj, quantize
from builders.plan import plan
from builders.sensitivity import measure
from builders.sensitivity.table import Sensitivity
from config.errors import UpstreamError
from engines import gguf_table, hf, llama, quantizable, tools
from qa import file_checks, group, parity, preflight, templates, texts
from qa import mmproj as seen
from tests import architectures, seeing

ROOT = Path(__file__).parents[1]
DATA = ROOT / "demo" / "data"
DOCS = ROOT / "docs" / "architectures.md"
MODELS = {**architectures.MODELS, **seeing.MODELS}
THREADS = 1
CONTEXT = 128
TEXT: dict[str, Any] = {"chat": [], "plain": [DATA / "calibration_questions.txt"], "context": CONTEXT, "threads": THREADS}
EVALUATED = 512  # tokens
PARITY = 5e-4  # nats: what rounding activations to the weights' type makes
ROUTED = 0.02  # and what it makes where that sends a token to another expert, for random routers are never sure
COMPOSED = {"Qwen2"}  # whose tokenizer composes characters first, which llama.cpp is known not to do
UNREACHED = {"Mixtral of many experts"}  # by text of this length, some of its experts
# a vocabulary of 50,000 or more: their planned files are not compared weight by weight
SLOWLY_READ = {"Llama 4", "Qwen2", "Qwen3", "Qwen3-MoE", "Qwen3-Next", "GLM4-MoE", "DeepSeek", "Mamba", "Qwen2-VL", "Qwen2.5-VL", "Qwen3-VL", "InternVL"}


@dataclass(kw_only=True)
class Way:
    """A miniature, and what was made of it."""

    out: Path
    model: Path
    gguf: Path
    made: dict[str, Any] = field(default_factory=dict)

    def folder(self, name: str) -> Path:
        (folder := self.out / name).mkdir(exist_ok=True)
        return folder


Ways = Callable[[str], Way]


@pytest.fixture(scope="session")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Ways:
    """Each miniature, repaired and converted when it is first asked for."""
    made: dict[str, Way] = {}

    def way(name: str) -> Way:
        if name not in made:
            made[name] = _converted(MODELS[name], tmp_path_factory.mktemp(re.sub(r"\W", "", name)))
        return made[name]

    return way


def _converted(make: architectures.Make, out: Path) -> Way:
    model, gguf = architectures.converted(make, out)
    return Way(out=out, model=model, gguf=gguf)


def values(measured: Mapping[str, Any]) -> dict[str, Any]:
    return {item["name"]: item["value"] for item in measured["measurements"]}


@pytest.mark.parametrize("name", MODELS)
def test_the_conversion_is_right(name: str, ways: Ways) -> None:
    way = ways(name)
    assert values(preflight.metadata(way.out, model=way.model, gguf=way.gguf))["metadata.failures"] == 0
    found = values(parity.compare(way.out, model=way.model, gguf=way.gguf, texts=[_short(way.out)], threads=THREADS))
    assert found["parity.token_mismatches"] == 0
    routed = any("_exps." in entry.name for entry in gguf_table.read(way.gguf).entries)
    assert found["parity.kld"] < (ROUTED if routed else PARITY)


@pytest.mark.parametrize("name", MODELS)
def test_nobody_departs_from_the_tokenizer(name: str, ways: Ways) -> None:
    """Both engines read every text of the battery as its file says."""
    way = ways(name)
    with llama.open_vocabulary(way.gguf) as vocabulary:
        mismatches, known, _ = templates.tokenizer_mismatches(hf.load_tokenizer(way.model), vocabulary)
    assert mismatches.details == ()
    assert (known.value > 0) == (name in COMPOSED)


@pytest.mark.parametrize("nested", [False, True], ids=["at the top", "in text_config"])
def test_the_epsilon_of_llama_4_is_that_of_its_config(nested: bool, ways: Ways) -> None:
    """llama.cpp takes the same number for the norms of queries and keys, which have no weights that would tell."""
    way = ways("Llama 4")
    model = Path(shutil.copytree(way.model, way.folder(f"epsilon-{nested}") / "model"))
    text = json.loads((model / "config.json").read_text(encoding="utf-8"))
    gguf = way.gguf
    if nested:
        _as_of_the_whole_model(model, text)
        gguf = model.parent / "whole.gguf"
        tools.convert(model, "--outtype", "bf16", "--outfile", gguf)
    assert preflight.Header(file_checks.open_gguf(gguf)).own(preflight.EPSILON) == pytest.approx(1e-5, rel=1e-6)
    assert values(preflight.metadata(way.out, model=model, gguf=gguf))["metadata.failures"] == 0
    other = text | {"rms_norm_eps": 1e-6}
    (model / "config.json").write_text(json.dumps({"model_type": "llama4", "text_config": other} if nested else other), encoding="utf-8")
    (found, _) = preflight.metadata(way.out, model=model, gguf=gguf)["measurements"]
    (said,) = found["details"]
    assert said.startswith(f"{preflight.EPSILON} is 9.99")
    assert said.endswith(", and rms_norm_eps of config.json is 1e-06")


def _as_of_the_whole_model(model: Path, text: Mapping[str, Any]) -> None:
    """The form in which Llama 4 comes with its eyes, which the text part of the converter passes over."""
    config = {"architectures": ["Llama4ForConditionalGeneration"], "model_type": "llama4", "text_config": text, "vision_config": {}}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = load_file(model / "model.safetensors")
    save_file({f"language_model.{name}": value for name, value in weights.items()}, model / "model.safetensors", metadata={"format": "pt"})


def _short(out: Path) -> Path:
    """A text of about two windows."""
    file = out / "text.txt"
    file.write_text((DATA / "evaluation_questions.txt").read_text(encoding="utf-8")[:4000], encoding="utf-8")
    return file


@pytest.mark.parametrize("name", MODELS)
def test_transformers_goes_on_with_a_text_as_if_it_read_it_anew(name: str, ways: Ways) -> None:
    """Whatever it remembers of the text: keys and values, a window of them, a state."""
    with hf.open_model(ways(name).model, threads=THREADS) as engine:
        text = engine.tokenize("What is the chemical symbol of nitrogen?", add_special=True)
        whole = engine.logits(text, len(text) - 1)
        assert engine.continuations(text[:-3], [text[-3:]]) == pytest.approx(whole, abs=1e-4)
        said = engine.generate(text, max_tokens=4, stop=())
        anew = [int(engine.logits([*text, *said[:count]], len(text) + count - 1).argmax()) for count in range(len(said))]
        assert said == anew


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_variants_are_made_and_measured(name: str, ways: Ways) -> None:
    way = ways(name)
    imatrix = way.folder("imatrix") / str(calibrate.imatrix(way.folder("imatrix"), model=way.model, gguf=way.gguf, tokens=1024, **TEXT)["file"])
    known = values(preflight.imatrix(way.out, imatrix=imatrix, gguf=way.gguf))
    assert known["imatrix.failures"] == 0
    assert known["imatrix.unreached"] > 0 or name not in UNREACHED
    stock = quantize.quantize(way.out, gguf=way.gguf, imatrix=imatrix, type="Q4_K_M", name="miniature", threads=THREADS)
    planned = _planned(name, way, imatrix)
    windows = way.folder("windows")
    texts.prepare(windows, model=way.model, chat=[], plain=[DATA / "evaluation_questions.txt"], context=CONTEXT, tokens=EVALUATED, most_tokens=EVALUATED)
    files = [way.out / str(stock["file"]), planned]
    assert group.measure(way.folder("scores"), reference=way.gguf, variants=files, windows=windows, context=CONTEXT, threads=THREADS)["errors"] == {}
    pooled = [group.pool([group.Part(file=way.out / "scores" / f"{number}.npy", start=0, end=EVALUATED)], windows, CONTEXT).measurements for number in range(2)]
    stock_kld, planned_kld = (next(item.value for item in measured if item.name == "kld.mean") for measured in pooled)
    assert 0 < planned_kld < stock_kld
    assert planned.stat().st_size <= files[0].stat().st_size


def _planned(name: str, way: Way, imatrix: Path) -> Path:
    """The planned mix of the stock one's size, rounded where transformers has gradients; every matrix that llama.cpp multiplies by is in the plan."""
    sensitivity = way.folder("sensitivity")
    found = measure.measure(sensitivity, model=way.model, gguf=way.gguf, imatrix=imatrix, tokens=256, **TEXT)
    unused = quantizable.without_importances(way.gguf, imatrix)
    wanted = {entry.name for entry in quantizable.in_layers(way.gguf)} - set(unused)
    assert wanted < {tensor.name for tensor in Sensitivity.load(sensitivity).tensors}
    importances, mix = sensitivity / "importances.gguf", way.folder("plan")
    plan(mix, sensitivity=sensitivity, gguf=way.gguf, imatrix=importances, budget={"like": "Q4_K_M"}, threads=THREADS)
    made = quantize.mixed(mix, gguf=way.gguf, imatrix=importances, mix=mix / "mix.json", name="miniature", tag="UD-Q4_K_XL", threads=THREADS)
    file = mix / str(made["file"])
    if name not in SLOWLY_READ:
        assert file_checks.weights(file, way.gguf).details == ()
    way.made = {"sensitivities": "gradients" if found["reason"] is None else "probes", "why": found["reason"]}
    return file


# ---- images -----------------------------------------------------------------------------------------------------------------------------------

SEEING = {"Gemma 3 with vision": architectures.MODELS["Gemma 3 with vision"], **seeing.MODELS}
SEEN = 0.01  # error of a projector in BF16, as a share: what rounding activations to that type makes in a few layers
SEEN_OTHERWISE = {"InternVL"}
STRETCHED = {"Gemma 3 with vision"}  # pictures of another shape are, by transformers alone


@pytest.mark.parametrize("name", SEEING)
def test_projectors_make_of_images_what_the_model_does(name: str, ways: Ways) -> None:
    way = ways(name)
    built = mmproj.build(way.folder("eyes"), model=way.model, name="miniature", types=["BF16"])
    said = rows("Images")[name]
    if built["reason"] is not None:
        assert (said[0], said[1] in built["reason"]) == ("no projector", True)
        return
    file = way.folder("eyes") / built["files"]["mmproj-BF16"]["file"]
    found = seen.compare(way.out, model=way.model, gguf=way.gguf, projectors=[file], threads=THREADS)
    assert found["errors"] == {}
    measured = {item["name"]: item["value"] for item in found["measured"]["mmproj-BF16"]}
    assert said[0] == ("another" if name in SEEN_OTHERWISE else "compared")
    if name in SEEN_OTHERWISE:
        assert measured["mmproj.error"] > SEEN
        return
    assert measured["mmproj.error"] < SEEN
    assert measured["mmproj.cosine"] > 1 - SEEN
    assert (measured["mmproj.reshaped"] < SEEN) == (name not in STRETCHED)


def test_positions_one_place_off_are_why_internvl_sees_otherwise(ways: Ways) -> None:
    """llama.cpp puts the class token behind the patches, and adds the positions as if it stood before them (https://github.com/ggml-org/llama.cpp/issues/25814)."""
    way = ways("InternVL")
    turned = Path(shutil.copytree(way.model, way.folder("turned") / "model"))
    weights = load_file(turned / "model.safetensors")
    (positions,) = (name for name in weights if name.endswith("embeddings.position_embeddings"))
    weights[positions] = weights[positions].roll(-1, dims=1).contiguous()
    save_file(weights, turned / "model.safetensors", metadata={"format": "pt"})
    built = mmproj.build(way.folder("turned"), model=turned, name="miniature", types=["BF16"])
    file = way.folder("turned") / built["files"]["mmproj-BF16"]["file"]
    found = seen.compare(way.out, model=way.model, gguf=way.gguf, projectors=[file], threads=THREADS)
    measured = {item["name"]: item["value"] for item in found["measured"]["mmproj-BF16"]}
    assert measured["mmproj.error"] < SEEN


@pytest.mark.parametrize("name", SEEING)
def test_4_bits_leave_what_reads_images_in_16(name: str, ways: Ways) -> None:
    """And the whole model loads, as what it was, and continues a text nearly as before."""
    way = ways(name)
    folder = way.folder("nf4")
    bnb.quantize(folder, model=way.model, threads=THREADS)
    network = hf.load_model(folder)
    assert type(network).__name__ == json.loads((way.model / "config.json").read_text(encoding="utf-8"))["architectures"][0]
    packed = {module for module, part in network.named_modules() if type(part).__name__ == "Linear4bit"}
    beside = tuple(f"{module}." for module in hf.seeing(network))
    assert beside
    assert packed
    assert not [module for module in packed if module.startswith(beside)]


# ---- what the table says ----------------------------------------------------------------------------------------------------------------------


def rows(heading: str = "Architectures") -> dict[str, list[str]]:
    """The table of docs/architectures.md under that heading by its first column."""
    under = re.split(r"^#+ (.+)$", DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = [line for line in under[under.index(heading) + 1].splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first: rest for first, *rest in cells[1:]}


def test_the_tables_list_what_is_tried_here() -> None:
    assert set(rows()) == {*MODELS, *architectures.REFUSED}
    assert set(rows("Images")) == set(SEEING)


def test_no_exception_is_made_for_what_is_not_tried() -> None:
    assert set(MODELS) >= SLOWLY_READ | UNREACHED | COMPOSED
    assert set(SEEING) >= SEEN_OTHERWISE | STRETCHED


@pytest.mark.parametrize("name", MODELS)
def test_the_table_says_what_was_found(name: str, ways: Ways) -> None:
    way = ways(name)
    config = json.loads((way.model / "config.json").read_text(encoding="utf-8"))
    assert rows()[name][:2] == [f"`{config['architectures'][0]}`", "converted, measured, planned"]
    if way.made:  # by the test of variants, where that ran
        assert rows()[name][2] == way.made["sensitivities"]


@pytest.mark.parametrize("name", architectures.REFUSED)
def test_what_cannot_be_converted_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(UpstreamError) as refused:
        _converted(architectures.REFUSED[name], tmp_path)
    config = json.loads((tmp_path / "snapshot" / "config.json").read_text(encoding="utf-8"))
    assert rows()[name][:2] == [f"`{config['architectures'][0]}`", "refused"]
    assert rows()[name][3] in str(refused.value)
