"""Settles settings of generation_config.json with which transformers does not load or save a model: without an effect, or such as cannot be."""

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

CACHES = (
    "static", "offloaded_static", "sliding_window", "hybrid", "hybrid_chunked", "offloaded_hybrid", "offloaded_hybrid_chunked", "dynamic", "offloaded",
    "quantized", "paged",
)  # fmt: skip
CACHE = ("cache_implementation", "cache_config")
CALLS = (
    "logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "synced_gpus", "assistant_model", "streamer", "negative_prompt_ids",
    "negative_prompt_attention_mask", "compile_config",
)  # fmt: skip
"""What a program hands over when it lets a model write, and what no file can hold."""


def repair(files: Files, family: Family | None) -> list[Edit]:
    """Turn sampling on where figures for it are given, as engines that know no `do_sample` do; what cannot have an effect is taken away.

    A temperature of 0 is the likeliest token at each step, which is said by not sampling.
    """
    return list(_edits(files)) if FILE in files else []


def _edits(files: Files) -> Iterator[Edit]:
    content = files[FILE]
    figures, temperature = idle(content, SAMPLING), content.get("temperature")
    samples = bool(content.get(SAMPLE))
    if isinstance(temperature, int | float) and temperature <= 0:
        samples = False
        if content.get(SAMPLE) is True:
            yield Edit(file=FILE, key=(SAMPLE,), after=False, because=f"the temperature is {temperature}")
        yield from _removed(figures, "at such a temperature nothing is sampled")
    elif figures and content.get(SAMPLE) is not True:
        samples = True
        yield Edit(file=FILE, key=(SAMPLE,), after=True, because=f"{', '.join(figures)} would have no effect in transformers")
    impossible = dict(_impossible(content, samples=samples))
    for name, why in impossible.items():
        yield Edit(file=FILE, key=(name,), remove=True, because=f"{why}, and transformers would not load the model")
    if content.get("use_cache") is False:
        yield from _removed([name for name in CACHE if content.get(name) is not None and name not in impossible], "use_cache is off")
    if content.get("num_beams") in (None, 1):
        yield from _removed(idle(content, BEAMS), "there is one beam")
    if content.get("return_dict_in_generate") is not True:
        yield from _removed(idle(content, DETAILS), "return_dict_in_generate is not set")


def _impossible(content: Mapping[str, Any], *, samples: bool) -> Iterator[tuple[str, str]]:
    """Keys whose values end in an error in transformers, each with what is wrong."""
    longest, beams, answers = (content.get(name) for name in ("max_new_tokens", "num_beams", "num_return_sequences"))
    if isinstance(longest, int) and longest <= 0:
        yield "max_new_tokens", f"no answer has {longest} tokens"
    if isinstance(answers, int) and answers > 1:
        if beams in (None, 1) and not samples:
            yield "num_return_sequences", f"without sampling {answers} answers would be the same"
        elif isinstance(beams, int) and 1 < beams < answers:
            yield "num_return_sequences", f"{beams} beams find no {answers} answers"
    if isinstance(beams, int) and beams > 1 and content.get("early_stopping") not in (None, True, False, "never"):
        yield "early_stopping", "it is neither true nor false nor never"
    if content.get(CACHE[0]) is not None and content[CACHE[0]] not in CACHES:
        yield CACHE[0], f"there is no cache called {str(content[CACHE[0]])[:100]}"
    weight = content.get("assistant_ensemble_weight")
    if isinstance(weight, int | float) and not 0 < weight < 1:
        yield "assistant_ensemble_weight", f"{weight} is no share"
    yield from ((name, "it is no setting of a file") for name in CALLS if name in content and (name != "compile_config" or content[name] is not None))
    suppressed = content.get("suppress_tokens")
    for name in ("forced_bos_token_id", "forced_eos_token_id"):
        forced = content.get(name) if isinstance(content.get(name), list) else [content.get(name)]
        if isinstance(suppressed, list) and forced and all(token in suppressed for token in forced):
            yield name, "suppress_tokens forbids what it forces"


def idle(content: Mapping[str, Any], neutral: Mapping[str, Any]) -> list[str]:
    """Names of those settings whose values say something."""
    return [name for name, nothing in neutral.items() if content.get(name) not in (None, nothing)]


def _removed(names: list[str], why: str) -> Iterator[Edit]:
    yield from (Edit(file=FILE, key=(name,), remove=True, because=f"it has no effect: {why}") for name in names)
