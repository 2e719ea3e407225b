"""What models were trained for, by their makers' words."""

import pytest

from builders.snapshot import Upstream
from builders.trained import Trained, trained_for
from config.words import Release


def upstream(name: str, **said: tuple[str, ...]) -> Upstream:
    return Upstream(release=Release(repo=f"upstream/{name}", sha="1" * 40), private=False, gated=False, **said)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "trained"),
    [
        (upstream("gemma-3-27b-it-qat-q4_0-unquantized"), Trained(type="Q4_0", because="its name")),
        (
            upstream("gemma-3-1b-it-qat-q4_0-unquantized", base_models=("google/gemma-3-1b-it-qat-q4_0-unquantized",)),
            Trained(type="Q4_0", because="its name and the name of its base model"),
        ),
        (upstream("mine", base_models=("google/gemma-3-1b-it-qat-q4_0-unquantized",)), Trained(type="Q4_0", because="the name of its base model")),
        (upstream("mine", tags=("quantization-aware-training", "q4_k_m")), Trained(type="Q4_K_M", because="the tags of its card")),
        (upstream("m-QAT"), Trained(type=None, because="its name")),
        (upstream("aquatic-qatar-q4_0"), None),
    ],
)
def test_words_of_name_tags_and_base_model(found: Upstream, trained: Trained | None) -> None:
    assert trained_for(found) == trained
