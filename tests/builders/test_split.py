"""Files in parts: as llama.cpp names and reads them, nothing lost, and refused where a limit cannot be kept."""

from pathlib import Path

import numpy as np
import pytest

from builders import quantize
from builders.split import PART, split
from config.digests import file_sha256
from config.errors import StageError, ToolError
from engines import llama, tools

LIMIT = 1_500_000


@pytest.fixture(scope="module")
def whole(gguf: Path, imatrix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    return out / str(quantize.quantize(out, gguf=gguf, imatrix=imatrix, type="Q8_0", name="tiny-chat", threads=2)["file"])


def test_parts_hold_the_file_and_none_is_larger_than_the_limit(whole: Path, tmp_path: Path) -> None:
    found = split(tmp_path, gguf=whole, tag="Q8_0", limit=LIMIT)
    parts = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert found["parts"] == len(parts) > 2
    assert found["bytes"] == sum(part.stat().st_size for part in parts) >= whole.stat().st_size
    assert tmp_path / found["file"] == parts[0] == tmp_path / "Q8_0" / f"tiny-chat-Q8_0-00001-of-{len(parts):05}.gguf"
    assert all(part.stat().st_size <= LIMIT and PART.search(part.name) for part in parts)
    joined = tmp_path / "joined.gguf"
    tools.run("llama-gguf-split", "--merge", parts[0], joined)
    with llama.open_model(whole, context=64, threads=1) as one, llama.open_model(parts[0], context=64, threads=1) as other:
        tokens = one.tokenize("What is 5 minus 2?", add_special=True)
        np.testing.assert_array_equal(one.logits(tokens, 0), other.logits(tokens, 0))
    with llama.open_model(joined, context=64, threads=1) as again:
        np.testing.assert_array_equal(again.logits(tokens, 0).argmax(-1), _best(whole, tokens))


def _best(path: Path, tokens: list[int]) -> np.ndarray:
    with llama.open_model(path, context=64, threads=1) as model:
        return model.logits(tokens, 0).argmax(-1)


def test_the_same_again_gives_the_same_parts(whole: Path, tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        split(tmp_path / name, gguf=whole, tag="Q8_0", limit=LIMIT)
        digests.append([file_sha256(path) for path in sorted((tmp_path / name / "Q8_0").iterdir())])
    assert digests[0] == digests[1]


@pytest.mark.parametrize("limit", [1_000_000, 1_050_000])
def test_a_limit_below_a_tensor_or_the_header_says_which_setting_to_raise(gguf: Path, tmp_path: Path, limit: int) -> None:
    with pytest.raises(StageError, match=r"token_embd\.weight alone has 1,048,576, .* Raise `largest_file`"):
        split(tmp_path, gguf=gguf, tag="BF16", limit=limit)
    assert list(tmp_path.iterdir()) == []


def test_parts_that_are_not_the_file_are_refused(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tools.run

    def damaged(name: str, *arguments: str | Path) -> str:
        said = run(name, *arguments)
        [*_, last] = sorted(Path(str(arguments[-1])).parent.iterdir())
        content = bytearray(last.read_bytes())
        content[-40] ^= 1
        last.write_bytes(content)
        return said

    monkeypatch.setattr(tools, "run", damaged)  # a disk that lies cannot be provoked
    with pytest.raises(ToolError, match=r"tiny-chat-Q8_0-0000\d-of-0000\d\.gguf that tiny-chat-Q8_0\.gguf does not hold so"):
        split(tmp_path, gguf=whole, tag="Q8_0", limit=LIMIT)
