"""A table of planted defects: each is caught by the gate that should catch it, for the right reason, and the clean model passes every gate."""

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import calibrate
from config.errors import SluiceError
from config.words import Kind, Measurement, Outcome, Variant, Verdict
from config.written import load_recipe
from engines import hf, llama, tools
from qa import divergence, file_checks, gates, generation, parity, preflight, sanity, templates
from qa.texts import conversations, cut
from tests.qa import damage as d
from tests.qa.conftest import DATA, ROOT, Release
from tests.qa.damage import Damage, Specimen

QUESTION = "What is the capital of France?"
RECIPE = load_recipe(str(ROOT / "demo" / "recipe.yaml"))


@pytest.fixture(scope="module")
def sound(clean: Release, tmp_path_factory: pytest.TempPathFactory) -> Specimen:
    """The clean model with everything that is made of it."""
    folder = tmp_path_factory.mktemp("sound")
    texts = {}
    for name in ("calibration", "evaluation"):
        texts[name] = folder / name
        texts[name].mkdir()
        shutil.copy(DATA / f"{name}.jsonl", texts[name] / "chat.jsonl")
        shutil.copy(DATA / f"{name}_questions.txt", texts[name] / "plain.txt")
    chat = [texts["calibration"] / "chat.jsonl"]
    calibrate.imatrix(folder, model=clean.model, gguf=clean.gguf, chat=chat, plain=[], tokens=2048, context=256, threads=1)
    variant = folder / "Q4_K_S.gguf"
    tools.run("llama-quantize", "--imatrix", folder / "imatrix.gguf", clean.gguf, variant, "Q4_K_S", "1")
    return Specimen(model=clean.model, gguf=clean.gguf, variant=variant, imatrix=folder / "imatrix.gguf", **texts)


def overlap(it: Specimen, out: Path) -> dict[str, Any]:
    read, measured = it.calibration, it.evaluation
    return preflight.overlap(
        out, chat=[read / "chat.jsonl"], plain=[read / "plain.txt"], evaluated_chat=[measured / "chat.jsonl"], evaluated_plain=[measured / "plain.txt"]
    )


def tokenizer(it: Specimen, out: Path) -> list[Measurement]:
    with llama.open_vocabulary(it.gguf) as vocabulary:
        return list(templates.tokenizer_mismatches(hf.load_tokenizer(it.model), vocabulary))


def conversion(it: Specimen, out: Path) -> dict[str, Any]:
    text = out / "short.txt"
    text.write_text("".join((it.evaluation / "plain.txt").read_text().splitlines(keepends=True)[:300]))
    return parity.compare(out, model=it.model, gguf=it.gguf, texts=[text], threads=1)


def closeness(it: Specimen, out: Path) -> list[Measurement]:
    tokens = hf.load_tokenizer(it.model)
    text = "".join(hf.render_chat(tokens, messages) for messages in conversations([it.evaluation / "chat.jsonl"]))
    windows = cut(hf.encode(tokens, text, add_special=False)[:2048], context=256, bos=1)
    with llama.open_model(it.gguf, context=256, threads=1) as original, llama.open_model(it.variant, context=256, threads=1) as model:
        return divergence.measurements(divergence.compare(original.logits, model.logits, windows))


def answers(it: Specimen, out: Path) -> Measurement:
    prompt = hf.render_chat(hf.load_tokenizer(it.model), [{"role": "user", "content": QUESTION}], add_generation_prompt=True)
    with llama.open_model(it.variant, context=256, threads=1) as model:
        stop = model.vocabulary.end_of_generation
        found = generation.answers(model, [generation.Prompt(question=QUESTION, rendered=prompt)], bos="<s>", stop=stop, max_tokens=64)
    return generation.measurements(found)


MEASURES: Mapping[str, Callable[[Specimen, Path], Any]] = {
    "overlap.share": overlap,
    "sanity.failures": lambda it, out: sanity.check(out, model=it.model, prompts=[QUESTION], max_tokens=64, threads=1),
    "metadata.failures": lambda it, out: preflight.metadata(out, model=it.model, gguf=it.gguf),
    "parity.token_mismatches": conversion,
    "parity.kld": conversion,
    "sanity.loops": lambda it, out: sanity.check(out, model=it.model, prompts=[QUESTION], max_tokens=64, threads=1),
    "template.failures": lambda it, out: templates.check(out, model=it.model, gguf=it.gguf, threads=1),
    "template.system": lambda it, out: templates.check(out, model=it.model, gguf=it.gguf, threads=1),
    "tokenizer.mismatches": tokenizer,
    "imatrix.failures": lambda it, out: preflight.imatrix(out, imatrix=it.imatrix, gguf=it.gguf),
    "imatrix.unreached": lambda it, out: preflight.imatrix(out, imatrix=it.imatrix, gguf=it.gguf),
    "file.failures": lambda it, out: file_checks.gguf(it.variant, it.gguf, threads=1),
    "weights.failures": lambda it, out: file_checks.weights(it.variant, it.gguf),
    "kld.mean": closeness,
    "same_top": closeness,
    "generation.failures": answers,
}


def judged(it: Specimen, measure: str, out: Path) -> Verdict:
    """The verdict of the demo recipe's gate on this measurement; a check that raises is an error of its measurement, as in a run."""
    found: dict[str, Measurement] = {}
    errors: dict[str, str] = {}
    try:
        result = MEASURES[measure](it, out)
        listed = [result] if isinstance(result, Measurement) else result["measurements"] if isinstance(result, dict) else result
        found = {item.name: item for item in (Measurement(**item) if isinstance(item, dict) else item for item in listed)}
    except SluiceError as error:
        errors[measure] = str(error)
    [gate] = [gate for gate in RECIPE.gates if gate.measure == measure]
    return gates.judge(Variant(tag="Q4_K_S", kind=Kind.GGUF), [gate], found, errors)


@dataclass(frozen=True)
class Defect:
    name: str
    damage: Damage
    caught_by: str
    because: str  # a pattern in the verdict's reason


def both(*damages: Damage) -> Damage:
    def damage(it: Specimen) -> None:
        for one in damages:
            one(it)

    return damage


def end_of_document(it: Specimen) -> None:
    """Generation ends at the end of a document only, in every file that says where."""
    d.configured("generation_config.json", eos_token_id=5)(it)
    d.configured("tokenizer_config.json", eos_token="<|endoftext|>", pad_token="<unk>")(it)
    d.configured("special_tokens_map.json", eos_token="<|endoftext|>", pad_token="<unk>")(it)


ASKING = "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
INVENTED = "{%- if messages[0]['role'] != 'system' %}{{- '<|im_start|>system\\nYou are Tiny.<|im_end|>\\n' }}{%- endif %}"
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
Q, DOWN = "blk.1.attn_q.weight", "blk.2.ffn_down.weight"
TYPES = "tokenizer.ggml.token_type"

DEFECTS = (
    # texts
    Defect("leaked evaluation text", d.leaked("chat.jsonl", "chat.jsonl", slice(None)), "overlap.share", r"overlap\.share is 7\d\.\d+ %"),
    Defect("some leaked conversations", d.leaked("chat.jsonl", "chat.jsonl", slice(20, 28)), "overlap.share", "at most 1 % is allowed"),
    Defect("leaked questions", d.leaked("plain.txt", "plain.txt", slice(200, 300)), "overlap.share", "at most 1 % is allowed"),
    # the model
    Defect("NaN in the 16-bit model", d.weighted("model.layers.1.mlp.up_proj.weight", lambda w: w * torch.nan), "sanity.failures", "not finite"),
    Defect("a model that says one thing", d.weighted("model.norm.weight", torch.zeros_like), "sanity.failures", "repeats the same token"),
    Defect("missing generation prompt", d.templated(lambda t: t.replace(ASKING, "")), "sanity.failures", "the answer is empty"),
    # the header of the 16-bit file
    Defect("wrong eos", d.headed("gguf", {"tokenizer.ggml.eos_token_id": 5}), "metadata.failures", "eos_token_id is 5, and the model's eos token is 4"),
    Defect("wrong BOS id", d.headed("gguf", {"tokenizer.ggml.bos_token_id": 2}), "metadata.failures", "bos_token_id is 2, and the model's bos token is 1"),
    Defect("wrong pad", d.headed("gguf", {"tokenizer.ggml.padding_token_id": 4}), "metadata.failures", "padding_token_id is 4, and the model's pad token is 5"),
    Defect("wrong RoPE base", d.headed("gguf", {"llama.rope.freq_base": 1e6}), "metadata.failures", r"freq_base is 1000000\.0, and rope_theta"),
    Defect("lost RoPE base", d.configured("config.json", rope_parameters={"rope_theta": 5e5, "rope_type": "default"}), "metadata.failures", "is 10000"),
    Defect(
        "lost RoPE scaling",
        d.configured("config.json", rope_parameters={"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 512}),
        "metadata.failures",
        "rope.scaling.type is missing, and config.json says 'yarn'",
    ),
    Defect("wrong epsilon", d.headed("gguf", {"llama.attention.layer_norm_rms_epsilon": 1e-6}), "metadata.failures", "rms_epsilon is .*1e-05"),
    Defect("wrong context", d.headed("gguf", {"llama.context_length": 8192}), "metadata.failures", "context_length is 8192, and max_position_embeddings"),
    Defect("wrong head count", d.headed("gguf", {"llama.attention.head_count": 8}), "metadata.failures", "head_count is 8, and num_attention_heads"),
    Defect("wrong key-value heads", d.headed("gguf", {"llama.attention.head_count_kv": 4}), "metadata.failures", "head_count_kv is 4"),
    Defect("another template in the GGUF", d.templated(lambda t: t + " ", model=False), "metadata.failures", "chat template is not the model's"),
    Defect("no template in the GGUF", d.headed("gguf", removed=["tokenizer.chat_template"]), "metadata.failures", "chat template is not the .* missing"),
    Defect(
        "fewer tokens than rows", d.listed("gguf", "tokenizer.ggml.tokens", lambda tokens: tokens[:2000]), "metadata.failures", "2000 tokens, and .* 2048 rows"
    ),
    # conversion
    Defect("wrong RoPE base computes wrongly", d.headed("gguf", {"llama.rope.freq_base": 500.0}), "parity.kld", "parity.kld is"),
    Defect("swapped tensors in the 16-bit file", d.retensored("gguf", Q, d.exchanged("blk.2.attn_q.weight")), "parity.kld", "parity.kld is"),
    Defect("query heads in another order", d.retensored("gguf", Q, d.permuted), "parity.kld", "parity.kld is"),
    Defect("shuffled vocabulary", d.listed("gguf", "tokenizer.ggml.tokens", d.shuffled), "parity.token_mismatches", "in transformers, .* in llama.cpp"),
    Defect("lost scores", d.listed("gguf", "tokenizer.ggml.scores", lambda s: [0.0] * len(s)), "tokenizer.mismatches", "in transformers, .* in llama.cpp"),
    Defect(
        "a special token that is not single",
        d.listed("gguf", TYPES, lambda types: [1 if i == 1 else kind for i, kind in enumerate(types)]),
        "tokenizer.mismatches",
        r"<s>.*in transformers, .* in llama.cpp",
    ),
    # templates
    Defect("eos ends documents, not turns", end_of_document, "template.failures", "generation_config.json stops only at .*endoftext"),
    Defect("eos not in generation_config", d.configured("generation_config.json", eos_token_id=5), "template.failures", "stops only at .*endoftext"),
    Defect("pad = eos", d.configured("tokenizer_config.json", pad_token="<|im_end|>"), "template.failures", "pad_token and eos_token are both"),
    Defect("pad in every conversation", d.configured("tokenizer_config.json", pad_token="<|im_start|>"), "template.failures", "pad_token .*occurs in"),
    Defect("double BOS", d.templated(lambda t: "{{- bos_token }}" + t), "template.failures", "begins with 2 BOS tokens"),
    Defect("BOS not added", d.headed("gguf", {"tokenizer.ggml.add_bos_token": False}), "template.failures", "adds BOS by itself, and llama.cpp's does not"),
    Defect(
        "eos behind every prompt", d.headed("gguf", {"tokenizer.ggml.add_eos_token": True}), "template.failures", "llama.cpp the prompt .* ends in <.im_end"
    ),
    Defect("no generation prompt in the GGUF", d.templated(lambda t: t.replace(ASKING, ""), model=False), "template.failures", "renders other text"),
    Defect("invented system prompt", d.templated(lambda t: INVENTED + t), "template.system", "text that nobody wrote: .*You are Tiny"),
    Defect("turns that do not end", d.templated(lambda t: PLAIN), "template.failures", "does not end in a special token"),
    # the importance matrix
    Defect("imatrix of zeros", d.retensored("imatrix", f"{Q}.in_sum2", d.zeroed), "imatrix.failures", "attn_q.weight has an entry of zeros"),
    Defect("imatrix without tokens", d.retensored("imatrix", f"{Q}.counts", d.zeroed), "imatrix.failures", "attn_q.weight has an entry of zeros"),
    Defect("imatrix with a NaN", d.retensored("imatrix", f"{Q}.in_sum2", lambda data, _: data.__setitem__(7, torch.nan)), "imatrix.failures", "not finite"),
    Defect("missing imatrix entry", d.without(f"{DOWN}.in_sum2", f"{DOWN}.counts"), "imatrix.failures", "1 too many.*ffn_down.weight has no entry"),
    Defect("an expert that no text reached", d.mixture([100, 0, 50, 80]), "imatrix.unreached", "is 25 %, at most 1 % is allowed"),
    Defect("experts that no text reached", d.mixture([0, 0, 0, 0]), "imatrix.failures", "zeros: no calibration text reached it"),
    # variants
    Defect("zeroed tensor", d.retensored("variant", Q, d.zeroed), "weights.failures", "attn_q.weight holds only zeros"),
    Defect("swapped tensors", d.retensored("variant", Q, d.exchanged("blk.2.attn_q.weight")), "weights.failures", "2 too many.*it holds other weights"),
    Defect("another layer's weights", d.retensored("variant", DOWN, d.copied("blk.1.ffn_down.weight")), "weights.failures", "it holds other weights"),
    Defect("embedding rows permuted", d.retensored("variant", "token_embd.weight", d.permuted), "weights.failures", "it holds other weights"),
    Defect("two embedding rows exchanged", d.retensored("variant", "token_embd.weight", d.two_rows), "weights.failures", "in 2 of 2048 rows, first in row 700"),
    Defect("NaN block", d.retensored("variant", Q, d.scale_of_a_block(0x7E00)), "weights.failures", "attn_q.weight holds values that are not finite"),
    Defect("Inf scale", d.retensored("variant", Q, d.scale_of_a_block(0x7C00)), "weights.failures", "attn_q.weight holds values that are not finite"),
    Defect("norm scaled", d.retensored("variant", "blk.0.attn_norm.weight", d.scaled), "weights.failures", "attn_norm.weight differs"),
    Defect("truncated file", d.cut_short, "weights.failures", "its data end too early"),
    Defect("truncated file, in llama.cpp", d.cut_short, "file.failures", "cannot load"),
    Defect("NaN block, in llama.cpp", d.retensored("variant", Q, d.scale_of_a_block(0x7E00)), "file.failures", "cannot load"),
    Defect("a variant's eos", d.headed("variant", {"tokenizer.ggml.eos_token_id": 5}), "file.failures", "eos_token_id is '5' and in the 16-bit file '4'"),
    Defect("a variant's epsilon", d.headed("variant", {"llama.attention.layer_norm_rms_epsilon": 0.1}), "file.failures", "rms_epsilon"),
    Defect("a variant's template", d.headed("variant", {"tokenizer.chat_template": "{{ messages }}"}), "file.failures", "chat_template is '{{ messages }}'"),
    Defect("a variant's vocabulary", d.listed("variant", "tokenizer.ggml.tokens", d.shuffled), "file.failures", "vocabulary is not the 16-bit file's"),
    Defect("a variant that computes wrongly", d.headed("variant", {"llama.rope.freq_base": 500.0}), "kld.mean", "kld.mean is"),
    Defect("a variant with swapped layers", d.retensored("variant", DOWN, d.exchanged("blk.1.ffn_down.weight")), "same_top", "same_top is"),
    Defect("answers that do not end", d.retensored("variant", "output_norm.weight", d.zeroed), "generation.failures", "does not end by itself"),
)


@pytest.mark.parametrize("defect", DEFECTS, ids=[defect.name for defect in DEFECTS])
def test_a_planted_defect_is_caught_by_its_gate(defect: Defect, sound: Specimen, tmp_path: Path) -> None:
    specimen = sound.copy(tmp_path)
    defect.damage(specimen)
    verdict = judged(specimen, defect.caught_by, tmp_path)
    assert verdict.outcome is not Outcome.PASSED
    assert re.search(defect.because, " ".join(verdict.reasons), re.DOTALL), verdict.reasons


@pytest.mark.parametrize("measure", MEASURES)
def test_the_clean_model_passes(measure: str, sound: Specimen, tmp_path: Path) -> None:
    verdict = judged(sound.copy(tmp_path), measure, tmp_path)
    assert verdict.outcome is Outcome.PASSED, verdict.reasons


@pytest.mark.slow
@pytest.mark.parametrize("coarse", ["Q2_K", "IQ2_XXS", "IQ1_S"])
def test_coarse_types_are_no_damage(coarse: str, sound: Specimen, tmp_path: Path) -> None:
    tools.run("llama-quantize", "--imatrix", sound.imatrix, sound.gguf, tmp_path / "coarse.gguf", coarse, "1")
    assert file_checks.weights(tmp_path / "coarse.gguf", sound.gguf).details == ()
