"""What models were trained for, by their makers' words."""

import pytest

from builders.snapshot import Upstream
from builders.trained import Trained, trained_for
from config.words import Release

GOOGLE = (
    "This repository corresponds to the 27B instruction-tuned version of the Gemma 3 model using Quantization Aware Training (QAT). The checkpoint in this "
    "repository is unquantized, please make sure to quantize with Q4_0 with your favorite tool."
)


def upstream(name: str, **said: tuple[str, ...]) -> Upstream:
    return Upstream(release=Release(repo=f"upstream/{name}", sha="1" * 40), private=False, gated=False, **said)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "text", "trained"),
    [
        (upstream("gemma-3-27b-it-qat-q4_0-unquantized"), "", Trained(type="Q4_0", because="its name")),
        (upstream("gemma-3-27b-it-qat-q4_0-unquantized"), GOOGLE, Trained(type="Q4_0", because="its name and its card")),
        (upstream("mine"), GOOGLE, Trained(type="Q4_0", because="its card")),
        (upstream("mine", base_models=("google/gemma-3-1b-it-qat-q4_0-unquantized",)), "", Trained(type="Q4_0", because="the name of its base model")),
        (upstream("mine", tags=("quantization-aware-training", "q4_k_m")), "", Trained(type="Q4_K_M", because="the tags of its card")),
        (upstream("m-QAT"), "", Trained(type=None, because="its name")),
        (upstream("aquatic-qatar-q4_0"), "", None),
        (upstream("mine"), "Other than QAT models, ours is an ordinary one.", None),
        (upstream("mine"), f"QAT is another matter.{' ' * 700}Files in Q4_0 are elsewhere.", None),
    ],
)
def test_words_of_name_and_card(found: Upstream, text: str, trained: Trained | None) -> None:
    assert trained_for(found, text) == trained
