"""What is measured of base models, of templates that refuse some conversations, of known differences of llama.cpp's tokenizers, and of padded embeddings."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, normalizers

from builders import calibrate, convert, fixes
from builders.fixes import tokenizer_class
from builders.fixes.edits import applied
from config.recipe import Gate
from config.words import BASE_MODEL, Kind, Measurement, Outcome, Variant, inapplicable
from engines import hf, llama, llama_server, tools
from qa import (
    conversations,
    embedded,
    gates,
    generation,
    greedy,
    measure,
    parity,
    preflight,
    prompt_checks,
    read_back,
    sanity,
    templates,
    texts,
    tokenizer_remarks,
)
from qa.generation import Answer
from tests import ggufs, releases
from tests.qa.conftest import DATA, Release

CHAT = [DATA / "evaluation.jsonl"]
ASKED = ["What is the capital of France?"]


def named(result: dict[str, Any]) -> dict[str, Measurement]:
    json.dumps(result, allow_nan=False)
    return {item["name"]: Measurement(**item | {"details": tuple(item["details"])}) for item in result["measurements"]}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return _release(releases.base_model, tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return _release(releases.refused_system_role, tmp_path_factory.mktemp("refusing"))


def _release(oddity: releases.Oddity, folder: Path) -> Release:
    model = oddity(folder / "model")
    return Release(model=model, gguf=folder / str(convert.convert(folder, model=model, name="odd")["file"]))


def test_of_a_base_model_everything_but_chats_is_looked_at(base: Release, tmp_path: Path) -> None:
    found = named(templates.check(tmp_path, model=base.model, gguf=base.gguf, threads=1))
    assert (found["template.failures"].value, found["template.failures"].n) == (0, 2), "its special tokens are looked at"
    assert found["template.system"].inapplicable == BASE_MODEL
    assert found["template.remarks"].details == (BASE_MODEL,)
    assert (found["tokenizer.mismatches"].n or 0) > 100
    assert {item.value for item in named(sanity.check(tmp_path, model=base.model, prompts=["Once upon a time"], max_tokens=16, threads=1)).values()} == {0}
    compared = named(parity.compare(tmp_path, model=base.model, gguf=base.gguf, texts=CHAT, threads=1))
    assert compared["parity.token_mismatches"].value == 0
    assert compared["parity.kld"].value < 0.01
    answered = named(greedy.check(tmp_path, reference=base.gguf, variant=base.gguf, prompts=["Hello"], max_tokens=8, threads=1))
    assert answered["generation.failures"].inapplicable == BASE_MODEL
    assert answered["file.failures"].inapplicable is None
    windows = texts.prepare(tmp_path, model=base.model, chat=CHAT, plain=[], tokens=4096, context=256)
    assert windows["windows"] == 16
    asked: dict[str, Any] = {"mmlu": DATA / "tiny_mmlu", "form": "chat", "shots": 1, "start": 0, "end": 1, "threads": 1}
    assert "asked in plain text" in measure.ask(tmp_path, model=base.gguf, **asked)["remarks"][-1]
    made = calibrate.imatrix(tmp_path, model=base.model, gguf=base.gguf, chat=CHAT, plain=[], tokens=2048, context=256, threads=1)
    assert made["chunks"] == 8


def test_a_variant_that_lost_its_template_is_no_base_model(clean: Release, base: Release, tmp_path: Path) -> None:
    found = named(greedy.check(tmp_path, reference=clean.gguf, variant=base.gguf, prompts=["Hello"], max_tokens=8, threads=1))
    assert found["file.failures"].value == 1
    assert "chat_template" in found["file.failures"].details[0]


def test_conversations_are_adapted_or_left_out_and_counted(refusing: Release, clean: Release, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    lines = CHAT[0].read_text(encoding="utf-8").splitlines()
    lines[1] = json.dumps({"messages": [{"role": "user", "content": "One\u2028two?"}, {"role": "assistant", "content": "Three."}]}, ensure_ascii=False)
    system = sum('"system"' in line for line in lines)
    assert 0 < system < len(lines)
    data.write_text("\n".join([*lines, json.dumps({"messages": [{"role": "assistant", "content": "First."}]})]) + "\n", encoding="utf-8")
    found = named(conversations.check(tmp_path, model=refusing.model, chat=[data]))
    assert found["conversations.adapted"].value == system
    assert found["conversations.skipped"].details == (
        f"1 conversations of data.jsonl were left out, because the template takes no form of them: line {len(lines) + 1}",
    )
    assert {item.value for item in named(conversations.check(tmp_path, model=clean.model, chat=[data])).values()} == {0}
    compared = named(parity.compare(tmp_path, model=refusing.model, gguf=refusing.gguf, texts=[data], threads=1))
    assert (compared["parity.token_mismatches"].value, compared["parity.token_mismatches"].n) == (0, len(lines))
    assert texts.prepare(tmp_path, model=refusing.model, chat=[data], plain=[], tokens=4096, context=256)["windows"] == 16
    voice = hf.speaking(hf.load_tokenizer(refusing.model))
    assert len(list(calibrate.conversations(data, voice))) == len(lines)


def test_conversations_on_which_a_template_breaks_are_left_out_and_named(clean: Release, tmp_path: Path) -> None:
    """Templates that join strings know no empty content beside a tool call; the rest of the data is calibrated and measured on all the same."""
    model = tmp_path / "model"
    shutil.copytree(clean.model, model)
    releases.edit(
        model / "tokenizer_config.json",
        chat_template="{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}",
    )
    lines = CHAT[0].read_text(encoding="utf-8").splitlines()
    asked = [{"role": "user", "content": "Is it wet?"}, {"role": "assistant", "content": None, "tool_calls": [{"name": "look", "arguments": {}}]}]
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join([lines[0], json.dumps({"messages": asked}), *lines[1:], json.dumps({"messages": asked})]) + "\n", encoding="utf-8")
    found = named(conversations.check(tmp_path, model=model, chat=[data]))
    assert found["conversations.adapted"].value == 0
    assert (found["conversations.skipped"].value, found["conversations.skipped"].n) == (2, len(lines) + 2)
    (words,) = found["conversations.skipped"].details
    assert words.startswith(f"2 conversations of data.jsonl were left out, because the template breaks on them: lines 2, {len(lines) + 2}. Of line 2: The ")
    assert "can only concatenate" in words or "has no attribute 'content'" in words
    assert texts.prepare(tmp_path, model=model, chat=[data], plain=[], tokens=4096, context=256)["windows"] == 16
    tokenizer = hf.load_tokenizer(model)
    assert len(list(calibrate.conversations(data, hf.speaking(tokenizer)))) == len(lines)
    assert len(list(texts.pieces(tokenizer, [data]))) == len(lines)


def test_the_16_bit_model_itself_is_not_asked_twice(clean: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {"prompts": ["What is the capital of France?"], "max_tokens": 32, "threads": 1}
    file = tmp_path / greedy.original(tmp_path, model=clean.gguf, **asked)["file"]
    before = named(greedy.check(tmp_path, reference=clean.gguf, variant=clean.gguf, **asked))
    monkeypatch.setattr(greedy, "answers", lambda *_, **__: pytest.fail("it was asked again"))
    again = tmp_path / "same.gguf"
    again.hardlink_to(clean.gguf)
    assert named(greedy.check(tmp_path, reference=clean.gguf, variant=again, original=file, **asked)) == before


CLOSED = r"in {} the prompt for an answer ends in <\|im_end\|> \(4\) in (\d+) of \1 conversations: the answer begins after the end"


def test_an_end_behind_every_prompt_is_told_of_both_engines_and_gone_after_the_repair(tmp_path: Path) -> None:
    """The two do the same wrong thing, so that no comparison of theirs tells: the last token of a prompt for an answer is looked at by itself."""
    for folder in ("closed", "open"):
        (tmp_path / folder).mkdir()
    closed = _release(releases.eos_behind_every_text, tmp_path / "closed")

    def repaired(out: Path) -> Path:
        out.mkdir()
        assert {patch["fix"] for patch in fixes.repair(out, snapshot=closed.model, repo="upstream/odd", fixes=True)["patches"]} == {"open-prompts"}
        return out

    opened = _release(repaired, tmp_path / "open")
    wrong, right = (named(templates.check(tmp_path, model=it.model, gguf=it.gguf, threads=1))["template.failures"] for it in (closed, opened))
    assert len(wrong.details) == 2, wrong.details
    assert all(re.fullmatch(CLOSED.format(engine), said) for engine, said in zip(("transformers", "llama.cpp"), wrong.details, strict=True)), wrong.details
    assert right.details == ()
    prompt = hf.render_chat(hf.load_tokenizer(opened.model), [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True)
    ids = {}
    for it in (closed, opened):
        with llama_server.serve(it.gguf, threads=1) as server:
            ids[it.model] = server.tokenize(prompt, add_special=True)
        assert hf.encode(hf.load_tokenizer(it.model), prompt, add_special=True) == ids[it.model]
    assert ids[closed.model] == [*ids[opened.model], 4]
    assert "Paris" in str(read_back.answer(tmp_path, model=opened.gguf, question="What is the capital of France?", max_tokens=16, threads=1)["answer"])


def answered(*wrong: bool) -> list[Answer]:
    return [Answer(question=f"Question {i}?", text="x", wrong=("is empty",) if is_wrong else (), repetition=0.0) for i, is_wrong in enumerate(wrong)]


def test_a_variant_is_not_blamed_for_prompts_at_which_the_16_bit_model_fails() -> None:
    original, variant = answered(True, False, False, False), answered(True, True, False, False)
    failures, _, excused = generation.measurements(variant, generation.excusable(original))
    assert (failures.value, excused.value) == (1, 1)
    assert "Question 1" in failures.details[0]
    assert "the 16-bit model fails here too" in excused.details[0]


def test_a_16_bit_model_that_fails_at_most_prompts_excuses_nothing() -> None:
    original = answered(True, True, True, False)
    assert generation.excusable(original) == []
    assert generation.measurements(answered(True, False, False, False), generation.excusable(original))[0].value == 1


def test_a_gate_on_what_a_model_cannot_have_passes_and_says_why() -> None:
    variant = Variant(tag="Q4_0", kind=Kind.GGUF)
    gate = Gate(name="generation", measure="generation.failures", at_most=0)
    verdict = gates.judge(variant, [gate], {"generation.failures": inapplicable("generation.failures", BASE_MODEL)}, {})
    assert verdict.outcome is Outcome.PASSED
    assert verdict.results[0].reason == f"generation.failures does not apply. {BASE_MODEL}."
    broken = gates.judge(variant, [gate], {"generation.failures": inapplicable("generation.failures", BASE_MODEL)}, {"generation.failures": "It raised."})
    assert broken.outcome is Outcome.ERROR
    counted = Measurement(name="generation.failures", value=1, unit="count", n=0, details=("something is wrong",))
    assert gates.judge(variant, [gate], {"generation.failures": counted}, {}).outcome is Outcome.FAILED


OPENS: dict[str, Any] = {"written": "<|im_start|>", "writes": True, "opens": True}


@pytest.mark.parametrize(("ids", "adds", "found"), [([3, 7, 3, 8], False, 0), ([3, 3, 7, 3, 8], True, 1), ([3, 7, 3, 3, 8], False, 1), ([7, 3, 8], False, 1)])
def test_a_bos_that_opens_turns_stands_at_each_of_them_once(ids: list[int], adds: bool, found: int) -> None:
    assert len(list(prompt_checks.one_bos("here", [ids], 3, adds=adds, **OPENS))) == found


@pytest.fixture(scope="module")
def composing(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The clean model with a tokenizer that composes characters first, as Qwen's does; its GGUF cannot say so."""

    def oddity(out: Path) -> Path:
        file = releases.clean(out) / "tokenizer.json"
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), tokenizer.normalizer])
        tokenizer.save(str(file))
        return out

    return _release(oddity, tmp_path_factory.mktemp("composing"))


def test_a_known_difference_of_llama_cpp_s_tokenizer_is_a_remark(composing: Release) -> None:
    with llama.open_vocabulary(composing.gguf) as vocabulary:
        mismatches, known, _ = templates.tokenizer_mismatches(hf.load_tokenizer(composing.model), vocabulary)
    assert mismatches.details == ()
    assert known.value > 0
    assert "no Unicode normalization" in known.details[0]


def test_known_differences_that_touch_much_of_the_text_block(composing: Release, tmp_path: Path) -> None:
    plain = DATA / "evaluation_questions.txt"
    lines = plain.read_text(encoding="utf-8").splitlines(keepends=True)[:600]
    rare, frequent = tmp_path / "rare.txt", tmp_path / "frequent.txt"
    rare.write_text("".join([*lines, "A cafe\u0301.\n"]), encoding="utf-8")
    frequent.write_text("".join(f"{line.rstrip()} cafe\u0301\n" for line in lines), encoding="utf-8")
    few, many = (named(parity.compare(tmp_path, model=composing.model, gguf=composing.gguf, texts=[text], threads=1)) for text in (rare, frequent))
    assert few["parity.token_mismatches"].value == 0
    assert 0 < few["parity.known"].value < tokenizer_remarks.BOUND < many["parity.known"].value
    assert many["parity.token_mismatches"].value == len(lines)
    assert "too often" in many["parity.token_mismatches"].details[0]


def test_another_version_of_llama_cpp_is_to_be_looked_at_again(composing: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.toolchain.VERSION", "9.9.9")
    with llama.open_vocabulary(composing.gguf) as vocabulary:
        mismatches, known, _ = templates.tokenizer_mismatches(hf.load_tokenizer(composing.model), vocabulary)
    assert known.value == 0
    assert mismatches.value > 0
    assert mismatches.details[0].endswith("llama.cpp departs from tokenizer.json")


@pytest.mark.parametrize(("cut", "wrong"), [("smollm", []), ("gpt-2", ["llama.cpp"])])
def test_digits_that_stand_alone_are_read_by_the_file_s_own_word(cut: str, wrong: list[str], tmp_path: Path) -> None:
    """SmolLM's case: transformers 5 forgets under the class that the release names what tokenizer.json says of digits. A GGUF file that heeds it is right, and
    one that forgets it too is wrong, though both engines agree.
    """
    files = releases.tokenizer_of_bytes(digits=True)
    mended = applied(files, tokenizer_class.repair(files, None))
    with llama.open_vocabulary(ggufs.of_tokenizer(files["tokenizer.json"], tmp_path / "vocabulary.gguf", cut=cut)) as vocabulary:
        before, after = (_read_three_ways(tmp_path / name, said, vocabulary) for name, said in (("before", files), ("after", mended)))
    mismatches, departures = before
    told = [detail for detail in mismatches.details if detail.startswith("'½ ² ₂ Ⅷ': ")]
    assert [detail.rpartition("; ")[2] for detail in told] == ["transformers and llama.cpp depart from tokenizer.json" for _ in wrong]
    assert any("½" in detail for detail in departures.details) == (not wrong)
    if wrong:
        assert all(f"in {reader}" in told[0] for reader in ("transformers, ", "llama.cpp, ", "tokenizer.json; "))
    else:
        assert mismatches.details == ()
        began, _, said = departures.details[0].partition(" texts otherwise than tokenizer.json: ")
        assert re.fullmatch(rf"transformers \S+ reads {departures.value} of {departures.n}", began)
        assert re.fullmatch(
            r"'½ ² ₂ Ⅷ': from position \d+ \[.+\] in transformers, \[.+\] in llama\.cpp, \[.+\] in tokenizer\.json; transformers departs from tokenizer\.json",
            said,
        )
    mismatches, departures = after
    assert departures.details == ()
    assert {detail.rpartition("; ")[2] for detail in mismatches.details} == {f"{engine} departs from tokenizer.json" for engine in wrong}


def _read_three_ways(folder: Path, files: dict[str, Any], vocabulary: llama.Vocabulary) -> tuple[Measurement, Measurement]:
    """Mismatches and transformers' own departures, of the tokenizer of these files."""
    folder.mkdir()
    for file, content in files.items():
        (folder / file).write_text(json.dumps(content), encoding="utf-8")
    mismatches, known, departures = templates.tokenizer_mismatches(hf.load_tokenizer(folder), vocabulary)
    assert known.value == 0
    return mismatches, departures


def test_a_tokenizer_json_that_its_config_takes_back_is_no_judge(tmp_path: Path) -> None:
    """`add_prefix_space` of tokenizer_config.json, which both engines heed and transformers 4 does: they are compared with each other, as without the file."""
    files = releases.tokenizer_of_bytes(digits=False)
    spaced = json.loads(json.dumps(files["tokenizer.json"]))
    spaced["pre_tokenizer"]["add_prefix_space"] = True
    silent = {"tokenizer_class": "GPT2Tokenizer"}  # which puts no blank either
    stated = {**silent, "add_prefix_space": False}
    found = []
    with llama.open_vocabulary(ggufs.of_tokenizer(files["tokenizer.json"], tmp_path / "vocabulary.gguf", cut="gpt-2")) as vocabulary:
        for name, config in (("stated", stated), ("silent", silent)):
            said = {**files, "tokenizer.json": spaced, "tokenizer_config.json": config}
            mismatches, _ = _read_three_ways(tmp_path / name, said, vocabulary)
            found.append([detail.rpartition("; ")[2] for detail in mismatches.details if detail.startswith("'Hello': ")])
    assert found == [[], ["transformers and llama.cpp depart from tokenizer.json"]]


def test_a_tokenizer_json_that_cuts_texts_off_or_fills_them_up_says_the_same(tmp_path: Path) -> None:
    """Both are for training in batches, and whoever loads the file afterwards drops them."""
    files = releases.tokenizer_of_bytes(digits=False)
    tokenizer = Tokenizer.from_str(json.dumps(files["tokenizer.json"]))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    with llama.open_vocabulary(ggufs.of_tokenizer(files["tokenizer.json"], tmp_path / "vocabulary.gguf", cut="gpt-2")) as vocabulary:
        config = {"tokenizer_class": "PreTrainedTokenizerFast"}
        mismatches, _ = _read_three_ways(
            tmp_path / "model", {**files, "tokenizer.json": json.loads(tokenizer.to_str()), "tokenizer_config.json": config}, vocabulary
        )
    assert mismatches.details == ()


# ---- rows of the embeddings that no token has ----------------------------------------------------------------------------------------------------

ROWS = 2048 + 64


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return _release(releases.padded, tmp_path_factory.mktemp("padded"))


def test_rows_that_only_pad_the_embeddings_are_no_fault(padded: Release, tmp_path: Path) -> None:
    """As Qwen and Phi have them, in multiples of 64 or 128."""
    (tmp_path / "fixed").mkdir()
    repaired = fixes.repair(tmp_path / "fixed", snapshot=padded.model, repo="upstream/tiny-chat", fixes=True)
    assert (repaired["patches"], repaired["unrepaired"]) == ([], [])
    with llama.open_vocabulary(padded.gguf) as vocabulary:
        assert vocabulary.size == ROWS
        assert vocabulary.unused == frozenset(range(2048, ROWS))
        assert vocabulary.detokenize([2048, ROWS - 1]) == ""
    both: dict[str, Any] = {"model": padded.model, "gguf": padded.gguf}
    found = named(preflight.metadata(tmp_path, **both)) | named(parity.compare(tmp_path, **both, texts=CHAT, threads=1))
    found |= named(templates.check(tmp_path, **both, threads=1)) | named(sanity.check(tmp_path, model=padded.model, prompts=ASKED, max_tokens=32, threads=1))
    wanted = ("metadata.failures", "parity.token_mismatches", "template.failures", "tokenizer.mismatches", "sanity.failures")
    assert {name: found[name].details for name in wanted} == dict.fromkeys(wanted, ())
    assert found["parity.kld"].value < 1e-4
    assert named(embedded.check(tmp_path, gguf=padded.gguf, threads=1))["template.failures"].details == ()


def test_a_variant_with_such_rows_is_looked_at_like_others(padded: Release, tmp_path: Path) -> None:
    tools.run("llama-quantize", padded.gguf, tmp_path / "Q8_0.gguf", "Q8_0", "1")
    found = named(greedy.check(tmp_path, reference=padded.gguf, variant=tmp_path / "Q8_0.gguf", prompts=ASKED, max_tokens=32, threads=1))
    assert {name: item.details for name, item in found.items()} == dict.fromkeys(found, ())
    assert {item.inapplicable for item in found.values()} == {None}


def test_an_answer_of_ids_that_are_no_tokens_fails_in_both_engines(tmp_path: Path) -> None:
    """Its text would not show them: nothing is written for them."""
    loud = _release(lambda out: releases.padded(out, loud=True), tmp_path)
    for model in (loud.model, loud.gguf):
        [answer] = greedy.answers(model, ASKED, max_tokens=4, threads=1) or []
        assert answer.text == ""
        [told] = [wrong for wrong in answer.wrong if "no tokens" in wrong]
        assert told.startswith("holds ids that are no tokens, 4 of 4, ")
