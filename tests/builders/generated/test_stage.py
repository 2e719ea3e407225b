"""The bundled model writes text of its own, in the form in which text is given; and a model that is broken is found by what it writes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader

from builders import calibrate
from builders.generated import speaker, stage
from config.prompt import PROMPTS, openings, prompts
from engines import hf, llama
from qa import preflight, texts
from tests.heard import hearing

TOKENS: dict[Any, int] = {"calibration": 3000, "evaluation": 1500}


@pytest.fixture(scope="module")
def written(fixed: Path, gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("written")
    with hearing() as heard:
        result = stage.write(out, model=fixed, gguf=gguf, prompts=PROMPTS, tokens=TOKENS, threads=1)
    assert [progress.done for progress in heard if progress.unit == "tokens"] == sorted(progress.done for progress in heard if progress.unit == "tokens")
    assert heard[-1].total == 4500
    return out, result


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_part_has_the_tokens_that_were_wanted_and_comes_from_its_own_prompts(written: tuple[Path, dict[str, Any]], fixed: Path) -> None:
    out, result = written
    assert result["failures"] == []
    assert result["form"] == "chat"
    for part, wanted in TOKENS.items():
        summary = result["parts"][part]
        assert summary["tokens"] >= wanted
        assert summary["answers"] >= summary["texts"] > 10
        asked = {turn for prompt in prompts(PROMPTS, part) for turn in prompt.turns}
        found = lines(out / f"{part}.jsonl")
        assert len(found) == summary["texts"]
        said = {message["content"] for line in found for message in line["messages"] if message["role"] == "user"}
        assert said <= asked
        assert all(line["messages"][-1]["role"] == "assistant" and line["messages"][-1]["content"].strip() for line in found)
        assert (out / f"{part}.txt").read_text() == ""
        # the stages that take it find as many tokens in it
        by = hf.speaking(hf.load_tokenizer(fixed))
        there = sum(len(by.encode(text)) for text in calibrate.conversations(out / f"{part}.jsonl", by))
        assert 0.85 * summary["tokens"] < there < 1.15 * summary["tokens"]


def test_both_parts_can_be_used_as_they_are(written: tuple[Path, dict[str, Any]], fixed: Path, tmp_path: Path) -> None:
    out, _ = written
    files = {form: [out / f"evaluation.{ending}"] for form, ending in (("chat", "jsonl"), ("plain", "txt"))}
    cut = texts.prepare(tmp_path, model=fixed, tokens=1024, context=128, **files)
    assert cut["windows"] == 8
    calibration = {"chat": [out / "calibration.jsonl"], "plain": [out / "calibration.txt"]}
    found = preflight.overlap(tmp_path, **calibration, evaluated_chat=files["chat"], evaluated_plain=files["plain"])
    assert found["measurements"][0]["value"] < 0.01


def test_the_same_seed_writes_the_same_text(written: tuple[Path, dict[str, Any]], fixed: Path, gguf: Path, tmp_path: Path) -> None:
    out, result = written
    again = stage.write(tmp_path, model=fixed, gguf=gguf, prompts=PROMPTS, tokens=TOKENS, threads=1)
    assert again == result
    assert (tmp_path / "calibration.jsonl").read_text() == (out / "calibration.jsonl").read_text()
    assert (tmp_path / "evaluation.jsonl").read_text() == (out / "evaluation.jsonl").read_text()


def test_a_conversation_goes_on_turn_by_turn_and_names_its_tools(fixed: Path, gguf: Path, tmp_path: Path) -> None:
    folder = tmp_path / "prompts"
    folder.mkdir()
    tool = {"type": "function", "function": {"name": "clock", "description": "The time", "parameters": {"type": "object", "properties": {}}}}
    asked = [{"turns": ["What is 7 plus 5?", "List 5 garments."]}, {"turns": ["What is the capital of France?"], "tools": [tool], "system": "Be brief."}]
    (folder / "calibration.jsonl").write_text("".join(json.dumps(line) + "\n" for line in asked))
    (tmp_path / "out").mkdir()
    result = stage.write(tmp_path / "out", model=fixed, gguf=gguf, prompts=folder, tokens={"calibration": 200}, threads=1)
    found = lines(tmp_path / "out" / "calibration.jsonl")
    talks = [line for line in found if len([message for message in line["messages"] if message["role"] == "user"]) == 2]
    assert talks
    assert [message["role"] for message in talks[0]["messages"]] == ["user", "assistant", "user", "assistant"]
    with_tools = [line for line in found if "tools" in line]
    assert with_tools
    assert with_tools[0]["tools"] == [tool]
    assert with_tools[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert result["parts"]["calibration"]["answers"] > len(found)


def test_it_stops_when_the_model_says_nothing_new(fixed: Path, gguf: Path, tmp_path: Path) -> None:
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "calibration.jsonl").write_text(json.dumps({"turns": ["What is the capital of France?"]}) + "\n")
    result = stage.write(tmp_path, model=fixed, gguf=gguf, prompts=folder, tokens={"calibration": 10**6}, threads=1)
    found = [line["messages"][-1]["content"] for line in lines(tmp_path / "calibration.jsonl")]
    assert len(found) == len(set(found)) < 10
    assert result["parts"]["calibration"]["tokens"] < 1000


def test_a_base_model_goes_on_with_openings(fixed: Path, gguf: Path, tmp_path: Path) -> None:
    base = shutil.copytree(fixed, tmp_path / "base", symlinks=True)
    configured = json.loads((base / "tokenizer_config.json").read_text())
    configured.pop("chat_template", None)
    (base / "tokenizer_config.json").unlink()
    (base / "tokenizer_config.json").write_text(json.dumps(configured))
    (base / "chat_template.jinja").unlink(missing_ok=True)
    result = stage.write(tmp_path, model=base, gguf=gguf, prompts=PROMPTS, tokens={"calibration": 2000}, threads=1)
    assert result["form"] == "plain"
    assert (tmp_path / "calibration.jsonl").read_text() == ""
    whole = (tmp_path / "calibration.txt").read_text()
    begun = [opening for opening in openings(PROMPTS, "calibration") if opening in whole]
    assert len(begun) >= 5
    by = hf.speaking(hf.load_tokenizer(base))
    assert sum(count for _, count in calibrate.chosen([calibrate.paragraphs(tmp_path / "calibration.txt"), []], by, 10**6)) > 1700


def test_a_gguf_file_alone_is_asked_through_the_template_that_it_holds(written: tuple[Path, dict[str, Any]], gguf: Path, tmp_path: Path) -> None:
    result = stage.write(tmp_path, model=gguf, gguf=gguf, prompts=PROMPTS, tokens={"calibration": 1500}, threads=1)
    assert result["form"] == "chat"
    assert result["failures"] == []
    assert result["parts"]["calibration"]["tokens"] >= 1500


def stuck(file: Path) -> None:
    """Its layers add nothing: what it says next depends on the last token alone, which it says again."""
    for tensor in GGUFReader(file, "r+").tensors:
        if tensor.name.endswith(("attn_output.weight", "ffn_down.weight")):
            tensor.data[:] = 0


def test_a_model_that_is_stuck_does_not_calibrate_itself(fixed: Path, gguf: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copy(gguf, tmp_path / "stuck.gguf"))
    stuck(broken)
    result = stage.write(tmp_path, model=fixed, gguf=broken, prompts=PROMPTS, tokens={"calibration": 20_000}, threads=1)
    assert result["measurements"][0]["value"] >= 1
    assert "calibration: Of" in result["failures"][0]
    assert "had to be dropped" in result["failures"][0]
    assert result["parts"]["calibration"]["answers"] < 100  # it was given up early


@pytest.mark.parametrize(
    ("advice", "expected"),
    [
        ({}, (speaker.USUAL, False)),
        ({"do_sample": False, "temperature": 0.5}, (speaker.USUAL, False)),
        ({"temperature": 0}, (speaker.USUAL, False)),
        ({"temperature": "hot", "top_p": True, "top_k": -3}, (speaker.USUAL, False)),
        ({"temperature": 0.6, "top_p": 0.9}, (speaker.Sampling(temperature=0.6, top_p=0.9), True)),
        ({"do_sample": True, "top_k": 64, "top_p": 0.95}, (speaker.Sampling(top_k=64, top_p=0.95), True)),
        ({"temperature": 1e9, "min_p": 0.1, "repetition_penalty": 1.1}, (speaker.Sampling(min_p=0.1, repetition_penalty=1.1), True)),
    ],
)
def test_the_release_says_how_to_draw(advice: dict[str, Any], expected: object, gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps(advice))
    with llama.open_vocabulary(gguf) as vocabulary:
        assert speaker.advised(tmp_path, vocabulary) == expected
