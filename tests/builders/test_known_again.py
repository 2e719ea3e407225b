"""A release that rules have repaired is taken for the same family when it is released again, and one of no family for none."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builders import fixes
from builders.fixes import default_system
from builders.fixes.edits import applied
from config.errors import UpstreamError
from config.rules import load_families
from engines import environments, ollama_library
from tests import miniatures, releases
from tests.miniatures import BOS, PROOFS
from tests.qa import real_templates

SETTINGS = "tokenizer_config.json"
FAMILIES = load_families()
KINDS = sorted({kind for family in FAMILIES for kind in family.model_types})
WRITTEN = {  # proofs whose template writes a system prompt of its own that can be taken out
    "mistral Mistral-Small-3.2-24B-Instruct-2506.jinja",
    "mistral devstral:latest",
    "mistral mistralai-Ministral-3-14B-Reasoning-2512.jinja",
    "mistral unsloth-mistral-Devstral-Small-2507.jinja",
    "qwen2 qwen2.5vl:latest",
    "qwen2 qwen2:0.5b",
    "qwen2.5 Qwen-Qwen2.5-7B-Instruct.jinja",
    "smollm2 smollm2:135m",
}


def spoil(folder: Path, template: str) -> None:
    """Plant in a sound release with this template what rules rewrite templates for, all at once."""
    # the tokenizer adds what the template begins with, `[gMASK]` of GLM's for one
    releases.edit(folder / SETTINGS, add_bos_token=True, bos_token="[gMASK]" if template.startswith("[gMASK]") else BOS)
    (folder / "special_tokens_map.json").unlink()
    releases.edit(folder / SETTINGS, chat_template="{{ messages }}")
    (folder / "chat_template.jinja").write_text(template + "{% if tools %}{{ tools | map(attribute='function') | tojson }}{% endif %}\n\n\n", encoding="utf-8")


def _made_to_think(template: str) -> str:
    """As its makers have it, where llama.cpp's collection adds a way not to."""
    return re.sub(r"\s*\{%-? if not enable_thinking -?%\}.*?\{%-? endif -?%\}", "", template)


OPENED: dict[str, Callable[[str], str]] = {
    "within a tag": lambda template: template.replace(r"<think>\n'", "<think>'"),
    "outside of tags": lambda template: re.sub(r"'([^']*<think>)\\n'(\s*-?\}\})", lambda it: f"''{it[2]}" + it[1].replace(r"\n", "\n"), template),
}


def known_again(proof: str, made: Path, **asked: Any) -> set[str]:
    """The rules by which a release is repaired, after which it is its family's still, and nothing is left to repair."""
    family, _ = PROOFS[proof]
    repo, first, second = "upstream/tiny-chat" if family.repo else "someone/renamed", made.parent / "first", made.parent / "second"
    found = {}
    for out, snapshot in ((first, made), (second, first)):
        out.mkdir()
        found[out] = fixes.repair(out, snapshot=snapshot, repo=repo, fixes=True, **asked)
    assert (found[first]["family"], found[second]["family"], found[second]["patches"]) == (family.name, family.name, [])
    return {patch["fix"] for patch in found[first]["patches"]}


@pytest.mark.parametrize("proof", PROOFS)
def test_a_family_is_known_by_a_repaired_template(proof: str, tmp_path: Path) -> None:
    made, template = miniatures.sound(proof, tmp_path / "made"), miniatures.template_of(*PROOFS[proof])
    spoil(made, template)
    by = known_again(proof, made)
    assert "one-template" in by
    assert "single-bos" in by or not (template.startswith("[gMASK]") or "bos_token" in template)


@pytest.mark.parametrize("place", OPENED)
@pytest.mark.parametrize("proof", [proof for proof, (family, _) in PROOFS.items() if family.opens])
def test_a_family_that_is_made_to_think_is_known_when_its_line_break_is_back(proof: str, place: str, tmp_path: Path) -> None:
    made, template = miniatures.sound(proof, tmp_path / "made"), miniatures.template_of(*PROOFS[proof])
    releases.edit(made / SETTINGS, chat_template=releases.GONE)
    (made / "chat_template.jinja").write_text(OPENED[place](_made_to_think(template)), encoding="utf-8")
    assert known_again(proof, made) == {"prompt-end"}


@pytest.mark.parametrize("proof", PROOFS)
def test_a_family_is_known_without_its_system_prompt(proof: str, tmp_path: Path) -> None:
    made = miniatures.sound(proof, tmp_path / "made")
    try:
        by = known_again(proof, made, system_prompt="remove")
    except UpstreamError:  # it cannot be taken out, and nothing is released
        by = set()
    assert ("default-system-prompt" in by) == (proof in WRITTEN)


def without_prompts(names: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """Those of these templates that lose a system prompt of their own: name, and source before and after."""
    for name, text in names.items():
        files = {SETTINGS: {"chat_template": text, "bos_token": "<s>", "eos_token": "</s>"}}
        try:
            edits = default_system.repair(files, None)
        except UpstreamError:
            continue
        yield from ((name, text, applied(files, [edit])[SETTINGS]["chat_template"]) for edit in edits)


def unlike(before: str, after: str) -> list[tuple[str, list[str], list[str]]]:
    """Architectures that make another family of the two."""
    pairs = ((kind, *(_of(kind, text) for text in (before, after))) for kind in KINDS)
    return [(kind, one, other) for kind, one, other in pairs if one != other]


def _of(kind: str, template: str) -> list[str]:
    files = {"config.json": {"model_type": kind}, SETTINGS: {"chat_template": template}}
    return [family.name for family in fixes.families_in(files, "someone/renamed", FAMILIES)]


def test_no_template_gets_another_family_by_losing_its_system_prompt() -> None:
    """Nor one at all, which a template that thinks and says no more that it is Qwen's would."""
    found = {name: unlike(before, after) for name, before, after in without_prompts({path.name: path.read_text() for path in real_templates.templates()})}
    assert "Qwen-Qwen2.5-7B-Instruct.jinja" in found
    assert {name: kinds for name, kinds in found.items() if kinds} == {}
    thinking = (
        next(path for path in real_templates.templates() if path.name == "Qwen-Qwen2.5-7B-Instruct.jinja")
        .read_text()
        .replace(r"assistant\n' }}", r"assistant\n<think>\n' }}")
    )
    ((_, before, after),) = without_prompts({"a tune of Qwen 2.5 that thinks": thinking})
    assert _of("qwen2", before) == _of("qwen2", after) == []


def test_so_it_is_of_the_templates_that_ollama_s_library_knows(fetched: Callable[[environments.Environment], None]) -> None:
    fetched(environments.OLLAMA_UTILS)
    found = {name: unlike(before, after) for name, before, after in without_prompts(dict(ollama_library.templates()))}
    assert {"qwen2:0.5b", "smollm2:135m", "marco-o1:7b"} <= {*found}
    assert {name: kinds for name, kinds in found.items() if kinds} == {}


def test_the_day_that_a_prompt_holds_is_not_written_down() -> None:
    """What is published does not depend on when it was made."""
    template = (
        "{% set rules = 'You are a model made by nobody. Today is ' + strftime_now('%d %B %Y') + ', as you may know by now.' %}"
        "{% if messages[0].role == 'system' %}{% set rules = messages[0].content %}{% set messages = messages[1:] %}{% endif %}"
        "{{ '<|system|>' + rules + '<|end|>' }}"
        "{% for m in messages %}{{ '<|' + m.role + '|>' + (m.content or '') + '<|end|>' }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    ((_, _, after),) = without_prompts({"with a day": template})
    said = "You are a model made by nobody. Today is … , as you may know by now."
    assert after.startswith(f"{{# Written no more where a conversation has no system message: {said} #}}")


def test_what_the_comment_holds_does_not_end_it() -> None:
    template = (
        "{% if messages[0].role != 'system' %}{{ '<|system|>Mind #} and {{ braces }}, please.<|end|>' }}{% endif %}"
        "{% for m in messages %}{{ '<|' + m.role + '|>' + (m.content or '') + '<|end|>' }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    ((_, _, after),) = without_prompts({"odd": template})
    assert after.startswith("{# Written no more where a conversation has no system message: Mind # } and {{ braces }}, please. #}{% if")
