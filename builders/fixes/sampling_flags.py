"""Settles settings of generation_config.json that have no effect beside one another: transformers warns of them, and refuses to save a model that has them."""

from collections.abc import Iterator, Mapping
from typing import Any

from builders.fixes.edits import Edit, Files
from config.rules import Family

FILE, SAMPLE = "generation_config.json", "do_sample"
SAMPLING: Mapping[str, Any] = {
    "temperature": 1.0, "top_p": 1.0, "min_p": None, "top_h": None, "typical_p": 1.0, "top_k": 50, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0
}  # fmt: skip
"""What only sampling heeds, and the values that say nothing."""
BEAMS: Mapping[str, Any] = {"early_stopping": False, "length_penalty": 1.0}
"""What only a search with several beams heeds."""
DETAILS: Mapping[str, Any] = dict.fromkeys(("output_scores", "output_attentions", "output_hidden_states", "output_logits"), False)
"""What only `return_dict_in_generate` shows."""


def repair(files: Files, family: Family | None) -> list[Edit]:
    """Turn sampling on where figures for it are given, as engines that know no `do_sample` do; what cannot have an effect is taken away.

    A temperature of 0 is the likeliest token at each step, which is said by not sampling.
    """
    return list(_edits(files)) if FILE in files else []


def _edits(files: Files) -> Iterator[Edit]:
    content = files[FILE]
    figures, temperature = _idle(content, SAMPLING), content.get("temperature")
    if isinstance(temperature, int | float) and temperature <= 0:
        if content.get(SAMPLE) is True:
            yield Edit(file=FILE, key=(SAMPLE,), after=False, because=f"the temperature is {temperature}")
        yield from _removed(figures, "at such a temperature nothing is sampled")
    elif figures and content.get(SAMPLE) is not True:
        yield Edit(file=FILE, key=(SAMPLE,), after=True, because=f"{', '.join(figures)} would have no effect in transformers")
    longest = content.get("max_new_tokens")
    if isinstance(longest, int) and longest <= 0:
        yield Edit(file=FILE, key=("max_new_tokens",), remove=True, because=f"no answer has {longest} tokens, and transformers would not load the model")
    if content.get("num_beams") in (None, 1):
        yield from _removed(_idle(content, BEAMS), "there is one beam")
    if content.get("return_dict_in_generate") is not True:
        yield from _removed(_idle(content, DETAILS), "return_dict_in_generate is not set")


def _idle(content: Mapping[str, Any], neutral: Mapping[str, Any]) -> list[str]:
    return [name for name, nothing in neutral.items() if content.get(name) not in (None, nothing)]


def _removed(names: list[str], why: str) -> Iterator[Edit]:
    yield from (Edit(file=FILE, key=(name,), remove=True, because=f"it has no effect: {why}") for name in names)
