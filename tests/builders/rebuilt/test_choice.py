"""Which GGUF file a repo without safetensors is rebuilt from, by the names that are there."""

import pytest

from builders.rebuilt import choice
from config.errors import UpstreamError


@pytest.mark.parametrize(
    ("listed", "taken", "over"),
    [
        (["m-BF16.gguf", "m-Q4_K_M.gguf", "README.md", "config.json"], ["m-BF16.gguf"], []),
        (["m.F16.gguf", "m.Q8_0.gguf"], ["m.F16.gguf"], []),
        (["m-F16.gguf", "m-BF16.gguf", "m-F32.gguf"], ["m-F32.gguf"], ["m-BF16.gguf", "m-F16.gguf"]),
        (["m-f16.gguf", "m-bf16.gguf"], ["m-bf16.gguf"], ["m-f16.gguf"]),
        (["model.gguf"], ["model.gguf"], []),
        (["model.gguf", "model-IQ2_XS.gguf", "imatrix.gguf", "pytorch_model.bin.index.json"], ["model.gguf"], []),
        (["m-BF16.gguf", "pytorch_model.bin"], ["m-BF16.gguf"], []),
        (
            ["BF16/m-BF16-00001-of-00002.gguf", "BF16/m-BF16-00002-of-00002.gguf", "m-Q4_0.gguf"],
            ["BF16/m-BF16-00001-of-00002.gguf", "BF16/m-BF16-00002-of-00002.gguf"],
            [],
        ),
        (["Qwen2.5-0.5B-fp16.gguf", "Qwen2.5-0.5B-q5_k_m.gguf", "m-UD-Q8_K_XL.gguf", "m-MXFP4_MOE.gguf"], ["Qwen2.5-0.5B-fp16.gguf"], []),
    ],
)
def test_the_widest_file_is_taken(listed: list[str], taken: list[str], over: list[str]) -> None:
    assert choice.is_rebuilt(listed)
    found = choice.chosen(listed, "makers/model")
    assert list(found) == taken
    assert list(choice.passed_over(listed, found)) == over


@pytest.mark.parametrize(
    "listed",
    [
        ["model.safetensors", "m-BF16.gguf"],
        ["model-00001-of-00002.safetensors", "m-F16.gguf"],
        ["adapter_config.json", "adapter_model.safetensors", "lora-f16.gguf"],
        ["config.json", "pytorch_model.bin", "m-Q4_0.gguf"],
        ["config.json"],
        [],
    ],
)
def test_what_has_other_weights_is_no_such_model(listed: list[str]) -> None:
    assert not choice.is_rebuilt(listed)


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        (["m-Q8_0.gguf", "m-Q4_K_M.gguf"], "of GGUF only quantized files: m-Q4_K_M.gguf and 1 more. What quantizing took away cannot be had back"),
        (["imatrix.gguf"], "only quantized files: imatrix.gguf, which is no model"),
        (["a-BF16.gguf", "b-BF16.gguf"], "several GGUF files that may be the model: a-BF16.gguf, b-BF16.gguf. Copy the one"),
        (["one.gguf", "other.gguf", "x-Q4_0.gguf"], "several GGUF files that may be the model: one.gguf, other.gguf"),
        (["m-BF16.gguf", "mmproj-m-F16.gguf"], "holds mmproj-m-F16.gguf and no safetensors: a model that reads images"),
        (["m-F16-00001-of-00003.gguf", "m-F16-00003-of-00003.gguf"], "lacks part 2 of 3 of m-F16.gguf"),
        (["m-F16-00001-of-00002.gguf", "m-F16-00002-of-00002.gguf", "m-F16.gguf"], "in two ways of dividing it"),
    ],
)
def test_what_is_not_there_or_not_clear_is_said(listed: list[str], said: str) -> None:
    assert choice.is_rebuilt(listed)
    with pytest.raises(UpstreamError, match=f"^makers/model .*{said}"):
        choice.chosen(listed, "makers/model")
