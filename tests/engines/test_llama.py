import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from config.errors import MeasurementError, ToolError
from engines import llama, tools
from engines.model import useful_threads

BOS, IM_START, IM_END = 1, 3, 4


@pytest.fixture(scope="module")
def model(gguf: Path):
    with llama.open_model(gguf, context=2048, threads=1, sequences=4) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def prompt(model) -> list[int]:
    return model.tokenize("<|im_start|>user\nWhat is the capital of Belgium?<|im_end|>\n<|im_start|>assistant\n", add_special=True)


def test_vocabulary_and_metadata(gguf: Path) -> None:
    with llama.open_vocabulary(gguf) as vocabulary:
        assert vocabulary.size == 2048
        assert (vocabulary.bos, vocabulary.eos, vocabulary.pad, vocabulary.adds_bos) == (BOS, 5, IM_END, True)
        assert vocabulary.end_of_generation == {2, 4, 5}
        assert vocabulary.trained_context == 2048
        assert vocabulary.metadata["general.architecture"] == "llama"
        assert vocabulary.chat_template is not None
        assert vocabulary.chat_template.startswith("{{- bos_token }}")
        assert (vocabulary.piece(BOS), vocabulary.piece(None)) == ("<s>", "")


def test_tokenizes_specials_only_when_told_to(model) -> None:
    assert model.tokenize("<s>", add_special=False) == [BOS]
    assert model.tokenize("", add_special=True) == [BOS]
    written_out = model.tokenize("<s>", add_special=False, parse_special=False)
    assert BOS not in written_out
    assert model.detokenize(written_out) == "<s>"


@pytest.mark.parametrize("text", ["Hello, world!", "  two  spaces\n\n\tand a tab", "né 日本 🚀", "a\x00b", "x" * 3000])
def test_detokenizing_gives_the_text_back(model, text: str) -> None:
    assert model.detokenize(model.tokenize(text, add_special=False)) == text


def test_logits_of_the_last_positions_are_the_end_of_all_logits(model, prompt: list[int]) -> None:
    tokens = prompt * 40  # more than one batch
    assert len(tokens) > llama.BATCH
    everything = model.logits(tokens, 0)
    assert everything.shape == (len(tokens), 2048)
    assert everything.dtype == np.float32
    np.testing.assert_array_equal(model.logits(tokens, 100), everything[100:])


def test_parts_are_the_whole_a_batch_at_a_time(gguf: Path, model, prompt: list[int]) -> None:
    tokens = (prompt * 20)[:256]
    with llama.open_model(gguf, context=256, threads=1, batch=64) as small:
        parts = [part.copy() for part in small.logits_in_parts(tokens, 96)]
        assert [len(part) for part in parts] == [32, 64, 64]
        np.testing.assert_array_equal(np.concatenate(parts), model.logits(tokens, 96))
        np.testing.assert_array_equal(small.logits(tokens, 96), np.concatenate(parts))


def test_each_sequence_is_evaluated_from_scratch(model, prompt: list[int]) -> None:
    before = model.logits(prompt, 0)
    model.logits(prompt[::-1], 0)
    np.testing.assert_array_equal(model.logits(prompt, 0), before)


def test_torch_in_the_same_thread_does_no_harm(gguf: Path, prompt: list[int], tmp_path: Path) -> None:
    """On processors with AMX both would configure its tiles, each once: in a process of its own, because the failure is an illegal instruction."""
    tools.run("llama-quantize", gguf, tmp_path / "Q8_0.gguf", "Q8_0", "1")
    program = f"""
import numpy, pathlib, torch
from engines import llama
torch.set_num_threads(1)
with llama.open_model(pathlib.Path({str(tmp_path / "Q8_0.gguf")!r}), context=256, threads=1) as model:
    before = model.logits({prompt * 5}, 0)
    torch.ones(512, 512, dtype=torch.bfloat16) @ torch.ones(512, 512, dtype=torch.bfloat16)
    numpy.testing.assert_array_equal(model.logits({prompt * 5}, 0), before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_continuations_share_a_prefix(model, prompt: list[int]) -> None:
    suffixes = [[10], [11, 12], list(range(20, 60)), *([100 + i, 30] for i in range(9))]  # more than sequences
    together = model.continuations(prompt, suffixes)
    for suffix, row in zip(suffixes, together, strict=True):
        alone = model.logits(prompt + list(suffix), len(prompt) + len(suffix) - 1)[0]
        # bfloat16 keeps 8 bits of an activation, and what is rounded depends on how tokens are batched
        np.testing.assert_allclose(row, alone, atol=0.15)
        assert row.argmax() == alone.argmax()


def test_continuations_of_nothing_and_none(model) -> None:
    assert model.continuations([], [[BOS, 10], [BOS, 11]]).shape == (2, 2048)
    assert model.continuations([BOS], []).shape == (0, 2048)


def test_generates_until_the_end_of_the_turn(model, prompt: list[int]) -> None:
    answer = model.generate(prompt, max_tokens=40, stop=model.vocabulary.end_of_generation)
    assert answer[-1] == IM_END
    assert "Brussels" in model.detokenize(answer)


def test_generates_at_most_what_was_asked_and_what_fits(model, prompt: list[int]) -> None:
    assert len(model.generate(prompt, max_tokens=3, stop=())) == 3
    long = (prompt * 200)[:2046]
    assert len(model.generate(long, max_tokens=40, stop=())) == 2


def test_too_many_tokens_are_an_error(model) -> None:
    with pytest.raises(MeasurementError, match="memory is full"):
        model.logits([BOS] * 2305, 2300)
    assert model.logits([BOS], 0).shape == (1, 2048)  # and it goes on working


def test_a_file_that_is_no_gguf_is_named_with_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"not a model")
    with pytest.raises(ToolError, match=r"cannot load .*model\.gguf: .*magic"), llama.open_vocabulary(file):
        pass
    with pytest.raises(ToolError, match="absent"), llama.open_vocabulary(tmp_path / "absent.gguf"):
        pass


def test_a_truncated_file_is_an_error(gguf: Path, tmp_path: Path) -> None:
    file = tmp_path / "cut.gguf"
    file.write_bytes(gguf.read_bytes()[:-100_000])
    with pytest.raises(ToolError, match=r"cut\.gguf"), llama.open_model(file, context=64, threads=1):
        pass


@pytest.mark.parametrize("from_end", [512, 500_000])  # a float32 tensor, a bfloat16 tensor
def test_checking_tensors_finds_a_nan(gguf: Path, tmp_path: Path, from_end: int) -> None:
    file = tmp_path / "nan.gguf"
    content = bytearray(gguf.read_bytes())
    content[-from_end : 4 - from_end] = b"\x00\x00\xc0\x7f"  # NaN in either type
    file.write_bytes(content)
    with llama.open_model(file, context=64, threads=1):
        pass
    with pytest.raises(ToolError, match=r"nan\.gguf"), llama.open_model(file, context=64, threads=1, check_tensors=True):
        pass


def test_a_small_model_gets_one_thread() -> None:
    assert useful_threads(3_672_320, 16) == 1
    assert useful_threads(8_000_000_000, 16) == 16
    assert useful_threads(8_000_000_000, 2) == 2
