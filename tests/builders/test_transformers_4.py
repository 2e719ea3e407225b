"""transformers 4.57 reads what Sluice publishes as transformers 5 does: configs, tokenizers, and the logits of 16-bit and NF4 weights.

The library is fetched once from the Python index into the user's cache, beside and not into this environment, and runs in processes of its own.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer

from builders import bnb, fixes
from builders.fixes import transformers_4
from engines import environments
from tests import architectures, releases, seeing
from tests.builders import reading
from tests.releases import edit, read

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

BASE = {
    "vocab_size": 320, "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
OWN = {"rope_type": "default", "rope_theta": 54_321.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
LONGROPE = {"rope_type": "longrope", "factor": 32.0, "short_factor": [1.0] * 16, "long_factor": [2.0] * 16, "original_max_position_embeddings": 16}
LAYERED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
MODELS: Mapping[str, Mapping[str, Any]] = {
    "llama": {"rope_parameters": OWN | LLAMA3},
    "qwen2": {"rope_parameters": OWN | YARN},
    "mistral": {"rope_parameters": OWN, "sliding_window": 8},
    "gemma3_text": {
        "rope_parameters": {"full_attention": OWN | {"rope_type": "linear", "factor": 8.0}, "sliding_attention": OWN | {"rope_theta": 20_000.0}},
        "query_pre_attn_scalar": 32,
        **LAYERED,
    },
    "olmo3": {"rope_parameters": {"full_attention": OWN | YARN, "sliding_attention": OWN}, **LAYERED},
    "phi3": {"rope_parameters": OWN | LONGROPE, "original_max_position_embeddings": 16},
    "gpt_neox": {"rope_parameters": OWN | {"partial_rotary_factor": 0.5}},
    "glm4": {"rope_parameters": OWN | {"partial_rotary_factor": 0.25}},
    "qwen3_moe": {"rope_parameters": OWN, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64},
    "gpt_oss": {"rope_parameters": OWN, "num_local_experts": 4, "num_experts_per_tok": 2, **LAYERED},
}
"""Architectures and how their models differ from the defaults of transformers 4, which it takes where it does not find what it knows."""
VISION: Mapping[str, architectures.Make] = {
    **{name: seeing.MODELS[name] for name in ("Qwen2-VL", "Qwen2.5-VL", "Qwen3-VL", "SmolVLM")},
    "Gemma 3 with vision": architectures.MODELS["Gemma 3 with vision"],
}
"""Models that read images, of whose answers to text the same is asked."""
ALL = (*MODELS, *VISION)
MADE_UP = ("llama", "gemma3_text", "phi3", "gpt_oss", "SmolVLM")  # of which it is shown that what is not repaired is read otherwise

Read = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def library(fetched: Callable[[environments.Environment], None]) -> Path:
    """The folder with transformers 4.57; skips when the Python index cannot be asked for it."""
    assert environments.TRANSFORMERS_4.version == transformers_4.VERSION
    fetched(environments.TRANSFORMERS_4)
    return environments.TRANSFORMERS_4.folder


@pytest.fixture(scope="session")
def older(library: Path) -> Iterator[Read]:
    with reader(transformers_4.VERSION, PYTHONPATH=str(library)) as ask:
        yield ask


@pytest.fixture(scope="session")
def newer() -> Iterator[Read]:
    with reader("5.") as ask:
        yield ask


@contextmanager
def reader(version: str, **environment: str) -> Iterator[Read]:
    """A process with its own transformers, which is asked what it makes of model folders."""
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    settings |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **environment}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, reading.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=settings, cwd="/"
        )
        assert process.stdin is not None
        assert process.stdout is not None
        to, back = process.stdin, process.stdout

        def ask(folders: Iterable[Path] = (), **request: Any) -> dict[str, Any]:
            to.write(json.dumps({"folders": [str(folder) for folder in folders], **request}) + "\n")
            to.flush()
            if not (line := back.readline()):
                log.seek(0)
                pytest.fail(f"the reader ended: {log.read()[-3000:]}")
            answer: dict[str, Any] = json.loads(line)
            assert answer["version"].startswith(version)
            return answer

        yield ask
        to.close()
        process.wait(timeout=60)
        back.close()


def difference(folder: Path) -> float:
    """The largest between the logits of both."""
    one, other = (np.load(path) for path in sorted(folder.glob("*.npy")))
    return float(np.abs(one - other).max())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random models of several architectures, as transformers 5 saves them."""
    out = tmp_path_factory.mktemp("made")
    for kind, own in MODELS.items():
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**BASE, **json.loads(json.dumps(own)))).to(torch.bfloat16)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(6 if parameter.ndim > 1 else 1)  # or a fresh model's logits say nothing of positions
        network.save_pretrained(out / kind)
    for kind, make in VISION.items():
        _turned(make(out / kind))
    return out


def _turned(model: Path) -> None:
    """Let a miniature's text part attend to positions by a base of its own."""
    text = read(model / "config.json")["text_config"]
    stated = text["rope_parameters"]
    for parameters in (value for value in (stated, *stated.values()) if isinstance(value, dict) and "rope_theta" in value):
        parameters["rope_theta"] = OWN["rope_theta"]
    edit(model / "config.json", text_config=text)
    weights = load_file(model / "model.safetensors")
    sharper = {name: value * 6 if name.endswith(("q_proj.weight", "k_proj.weight")) else value for name, value in weights.items()}
    save_file(sharper, model / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module")
def repaired(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("repaired")
    for kind in ALL:
        (out / kind).mkdir()
        patches = fixes.repair(out / kind, snapshot=made / kind, repo="someone/miniature", fixes=True)["patches"]
        assert kind in VISION or {patch["fix"] for patch in patches} <= {"rope-forms", "older-names", "sampling-defaults"}
    return out


def test_the_table_is_what_the_library_takes(older: Read) -> None:
    found = older(defaults=True)["defaults"]
    assert {kind: said["rope_theta"] for kind, said in found.items()} == dict(transformers_4.THETAS)
    shares = {kind: said["partial_rotary_factor"] for kind, said in found.items() if said["partial_rotary_factor"] not in (None, 1.0)}
    assert shares == dict(transformers_4.PARTIAL)
    assert {kind: said["rope_scaling"] for kind, said in found.items() if said["rope_scaling"]} == dict(transformers_4.SCALINGS)
    assert {kind: said["rope_local_base_freq"] for kind, said in found.items() if said["rope_local_base_freq"]} == dict(transformers_4.LOCAL)


def test_16_bit_models_are_the_same_in_both(repaired: Path, older: Read, newer: Read) -> None:
    folders = [repaired / kind for kind in ALL]
    for answer in (older(folders, dtype="float32"), newer(folders, dtype="float32")):
        assert [folder.name for folder in folders if "failed" in answer[str(folder)]] == []
    assert {folder.name: difference(folder) for folder in folders if difference(folder) > 1e-3} == {}


def test_what_is_not_repaired_is_another_model_in_transformers_4(made: Path, older: Read, newer: Read) -> None:
    folders = [made / kind for kind in MADE_UP]
    older(folders, dtype="float32")
    newer(folders, dtype="float32")
    assert all(difference(folder) > 0.1 for folder in folders)
    failing = {"qwen3_moe": "size mismatch", "Qwen2-VL": "not subscriptable", "Qwen3-VL": "no attribute 'get'"}  # it looks for 128 experts, and for sections
    answer = older([made / kind for kind in failing], dtype="float32")
    assert {kind: said in answer[str(made / kind)]["failed"] for kind, said in failing.items()} == dict.fromkeys(failing, True)


def test_dynamic_nf4_models_are_the_same_in_both(repaired: Path, older: Read, newer: Read, tmp_path: Path) -> None:
    """The two libraries match names of what stays in 16 bits by other rules; what is published says them so that both keep the same."""
    kept = ("model.layers.0.mlp.down_proj", "model.layers.1.self_attn.o_proj")
    folders = [tmp_path / kind for kind in ("llama", "qwen2", "gemma3_text")]
    for folder in folders:
        folder.mkdir()
        bnb.quantize(folder, model=repaired / folder.name, threads=1, skip=kept)
        assert set(kept) <= set(read(folder / "config.json")["quantization_config"]["llm_int8_skip_modules"])
    for answer in (older(folders, dtype="bfloat16"), newer(folders, dtype="bfloat16")):
        assert {folder.name: answer[str(folder)]["failed"] for folder in folders if "failed" in answer[str(folder)]} == {}
    assert {folder.name: difference(folder) for folder in folders if difference(folder) > 1e-3} == {}


def test_nf4_models_are_the_same_in_both(repaired: Path, older: Read, newer: Read, tmp_path: Path) -> None:
    """In bfloat16, in which bitsandbytes computes in either version."""
    folders = [tmp_path / kind for kind in ALL]
    for folder in folders:
        folder.mkdir()
        bnb.quantize(folder, model=repaired / folder.name, threads=1)
    for answer in (older(folders, dtype="bfloat16"), newer(folders, dtype="bfloat16")):
        assert {folder.name: answer[str(folder)]["failed"] for folder in folders if "failed" in answer[str(folder)]} == {}
    assert {folder.name: difference(folder) for folder in folders if difference(folder) > 1e-3} == {}
    kept = read(tmp_path / "qwen3_moe" / "config.json")["quantization_config"]["llm_int8_skip_modules"]
    assert {"lm_head", "model.layers.0.mlp.experts", "model.layers.0.mlp.gate"} <= set(kept)


def test_an_output_matrix_that_config_json_denies_is_used_by_both_or_by_none(older: Read, newer: Read, tmp_path: Path) -> None:
    """Of the whole vocabulary transformers 4 takes the embeddings' rows instead, and nobody hears of it."""
    made, fixed = releases.head_of_its_own(tmp_path / "made"), tmp_path / "fixed"
    fixed.mkdir()
    fixes.repair(fixed, snapshot=made, repo="upstream/tiny-chat", fixes=True)
    for ask in (older, newer):
        ask([made, fixed], dtype="float32")
    assert difference(made) > 0.1
    assert difference(fixed) < 1e-3


@pytest.mark.parametrize("form", ["transformers 4", "transformers 5"])
def test_an_nf4_repo_has_the_base_of_its_upstream(form: str, older: Read, newer: Read, tmp_path: Path) -> None:
    made = releases.clean(tmp_path / "made")
    edit(made / "config.json", rope_parameters={"rope_type": "default", "rope_theta": 500_000.0})
    if form == "transformers 4":
        gone = dict.fromkeys(("rope_parameters", "dtype"), releases.GONE)
        edit(made / "config.json", rope_theta=500_000.0, rope_scaling=None, torch_dtype="bfloat16", transformers_version="4.45.0", **gone)
    (tmp_path / "fixed").mkdir()
    fixes.repair(tmp_path / "fixed", snapshot=made, repo="upstream/tiny-chat", fixes=True)
    (tmp_path / "nf4").mkdir()
    bnb.quantize(tmp_path / "nf4", model=tmp_path / "fixed", threads=1)
    answers = [ask([tmp_path / "fixed", tmp_path / "nf4"], dtype="bfloat16", text="The capital of France<|im_end|>\n") for ask in (older, newer)]
    for folder in (tmp_path / "fixed", tmp_path / "nf4"):
        assert difference(folder) < 1e-3
        assert answers[0][str(folder)]["ids"] == answers[1][str(folder)]["ids"]
        assert answers[0][str(folder)]["dtype"] == "torch.bfloat16"
        assert answers[0][str(folder)]["rope"]["rope_theta"] == 500_000.0


def test_a_tokenizer_that_transformers_5_saved_is_read_alike(older: Read, newer: Read, tmp_path: Path) -> None:
    made = releases.clean(tmp_path / "made")
    tokenizer = AutoTokenizer.from_pretrained(made)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>"]})
    for name in ("tokenizer_config.json", "special_tokens_map.json", "tokenizer.model"):
        (made / name).unlink()
    tokenizer.save_pretrained(made)
    assert "TokenizersBackend does not exist" in older([made], text="a")[str(made)]["failed"]
    (tmp_path / "fixed").mkdir()
    fixes.repair(tmp_path / "fixed", snapshot=made, repo="upstream/tiny-chat", fixes=True)
    text = "<|im_start|>user\nHé! ½ 数<|im_end|>\n"
    one, other, before = (answer[str(folder)] for answer, folder in zip(
        (older([tmp_path / "fixed"], text=text), newer([tmp_path / "fixed"], text=text), newer([made], text=text)),
        (tmp_path / "fixed", tmp_path / "fixed", made),
        strict=True,
    ))  # fmt: skip
    assert one["ids"] == other["ids"] == before["ids"]
    assert one["special"] == other["special"] == before["special"]
    shutil.copytree(tmp_path / "fixed", tmp_path / "copy")
    (tmp_path / "again").mkdir()
    assert fixes.repair(tmp_path / "again", snapshot=tmp_path / "copy", repo="upstream/tiny-chat", fixes=True)["patches"] == []


def test_generation_settings_that_neither_would_save_can_be_saved_by_both(older: Read, newer: Read, tmp_path: Path) -> None:
    made = releases.idle_sampling(tmp_path / "made")
    assert "do_sample" in older([made], save=True)[str(made)]["saved"]
    (tmp_path / "fixed").mkdir()
    fixes.repair(tmp_path / "fixed", snapshot=made, repo="someone/miniature", fixes=True)
    for ask in (older, newer):
        assert ask([tmp_path / "fixed"], save=True)[str(tmp_path / "fixed")]["saved"] is None


# ---- chat templates ----------------------------------------------------------------------------------------------------------------------------

LIST = [{"name": "default", "template": "{{ 'listed' }}"}, {"name": "tool_use", "template": "{{ 'listed tools' }}"}]
JINJA = {"chat_template.jinja": "{{ 'file' }}"}
BESIDE = {"additional_chat_templates/tool_use.jinja": "{{ 'tools of a file' }}"}
PROCESSING = {"chat_template.json": "{{ 'processor' }}"}
MIXES: Mapping[str, tuple[object, Mapping[str, str], list[str]]] = {
    "a file and a list": (LIST, JINJA, ["file", "file"]),
    "a file and a list without a default": (LIST[1:], JINJA, ["file", "file"]),
    "a file and another": ("{{ 'string' }}", JINJA, ["file", "file"]),
    "a file and null": (None, JINJA, ["file", "file"]),
    "files with names and a list": (LIST, JINJA | BESIDE, ["file", "tools of a file"]),
    "files with names and a list with the default": (LIST, BESIDE, ["listed", "tools of a file"]),
    "files with names and a string": ("{{ 'string' }}", JINJA | BESIDE, ["file", "tools of a file"]),
    "two files for the default": ("{{ 'string' }}", JINJA | {"additional_chat_templates/default.jinja": "{{ 'first' }}"}, ["first", "first"]),
    "a processor's": (releases.GONE, PROCESSING, ["processor", "processor"]),
}
"""What tokenizer_config.json holds, files beside it, and the templates in force without tools and with them."""


def mixed(folder: Path, settings: object, beside: Mapping[str, str]) -> Path:
    edit(releases.clean(folder) / "tokenizer_config.json", chat_template=settings)
    if settings is None:
        content = read(folder / "tokenizer_config.json") | {"chat_template": None}
        (folder / "tokenizer_config.json").write_text(json.dumps(content), encoding="utf-8")
    for name, text in beside.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps({"chat_template": text}) if name.endswith(".json") else text, encoding="utf-8")
    return folder


def converted(folder: Path) -> list[str | None]:
    """What llama.cpp's converter writes into the header, by which llama.cpp takes the one without and the one with tools."""
    found = gguf.SpecialVocab(folder).chat_template
    named = {entry["name"]: entry["template"] for entry in found} if isinstance(found, list) else {"default": found}
    return [named.get("default"), named.get("tool_use", named.get("default"))]


def test_every_reader_has_the_same_chat_templates_of_every_mix(older: Read, newer: Read, tmp_path: Path) -> None:
    made, fixed = tmp_path / "made", tmp_path / "fixed"
    for name, (settings, beside, _) in MIXES.items():
        mixed(made / name, settings, beside)
        (fixed / name).mkdir(parents=True)
        fixes.repair(fixed / name, snapshot=made / name, repo="upstream/tiny-chat", fixes=True)
    expected = {name: [f"{{{{ '{word}' }}}}" for word in words] for name, (_, _, words) in MIXES.items()}
    for ask in (older, newer):
        answers = ask([fixed / name for name in MIXES], templates=True)
        assert {name: answers[str(fixed / name)].get("templates") for name in MIXES} == expected
    assert {name: converted(fixed / name) for name in MIXES} == expected
    alike = [name for name, words in expected.items() if converted(made / name) == words]
    assert alike == ["a processor's"], "of that, transformers finds none"
