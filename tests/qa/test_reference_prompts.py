"""Two prompts that are published word for word, by the real templates of their models: QwQ's for the generation test, and a conversation of Gemma 3's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tokenizers import Tokenizer, processors

from builders import fixes
from config.rules import FAMILIES
from engines import chat, go_template, hf
from engines.model import Message
from qa import ollama
from qa.batteries import Conversation
from tests import miniatures, releases


@dataclass(frozen=True, kw_only=True)
class Reference:
    messages: Sequence[Message]
    prompt: str
    bos: str = ""  # with which the tokenizer begins every text


def said(*texts: str) -> list[Message]:
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


REFERENCES: Mapping[str, Reference] = {
    "qwq Qwen-QwQ-32B.jinja": Reference(
        messages=said("Create a Flappy Bird game in Python."),
        prompt="<|im_start|>user\nCreate a Flappy Bird game in Python.<|im_end|>\n<|im_start|>assistant\n<think>\n",
    ),
    **dict.fromkeys(
        ("gemma3 gemma3:1b", "gemma3 gemma3:270m"),
        Reference(
            messages=said("Hello!", "Hey there!", "What is 1+1?"),
            prompt=(
                "<bos><start_of_turn>user\nHello!<end_of_turn>\n<start_of_turn>model\nHey there!<end_of_turn>\n"
                "<start_of_turn>user\nWhat is 1+1?<end_of_turn>\n<start_of_turn>model\n"
            ),
            bos="<bos>",
        ),
    ),
}
THINKING = {"enable_thinking": True}  # without which llama.cpp's copy of QwQ's template, not its makers' own, ends the reasoning at once


def upstream(proof: str, out: Path) -> Path:
    """A miniature with the family's template and, where its makers' tokenizer begins every text with BOS, one that does."""
    model, bos = miniatures.sound(proof, out), REFERENCES[proof].bos
    if bos:
        tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        tokenizer.post_processor = processors.TemplateProcessing(single=[bos, "$A"], pair=None, special_tokens=[(bos, tokenizer.token_to_id(bos))])
        tokenizer.save(str(model / "tokenizer.json"))
        releases.edit(model / "tokenizer_config.json", add_bos_token=True)
    return model


@pytest.fixture(scope="module")
def repaired(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    found = {}
    for proof in REFERENCES:
        found[proof] = tmp_path_factory.mktemp("repaired") / "model"
        found[proof].mkdir()
        fixes.repair(found[proof], snapshot=upstream(proof, found[proof].parent / "snapshot"), repo="makers/miniature", fixes=True)
    return found


@pytest.mark.parametrize("proof", REFERENCES)
def test_the_real_template_renders_it(proof: str) -> None:
    reference, text = REFERENCES[proof], miniatures.template_of(*miniatures.PROOFS[proof])
    assert chat.render(text, reference.messages, special_tokens={"bos_token": "<bos>"}, add_generation_prompt=True, variables=THINKING) == reference.prompt


def test_the_template_of_qwq_s_makers_renders_it_by_itself() -> None:
    reference, (family, _) = REFERENCES["qwq Qwen-QwQ-32B.jinja"], miniatures.PROOFS["qwq Qwen-QwQ-32B.jinja"]
    text = miniatures.template_of(family, "qwq:32b (2)")
    assert chat.render(text, reference.messages, special_tokens={}, add_generation_prompt=True) == reference.prompt


@pytest.mark.parametrize("proof", REFERENCES)
def test_the_repaired_model_is_asked_by_it_with_one_bos_at_most(proof: str, repaired: Mapping[str, Path]) -> None:
    reference, tokenizer = REFERENCES[proof], hf.load_tokenizer(repaired[proof])
    text = hf.render_chat(tokenizer, reference.messages, add_generation_prompt=True, variables=THINKING)
    ids = hf.encode(tokenizer, text, add_special=True)
    assert tokenizer.decode(ids) == reference.prompt
    assert ids.count(tokenizer.bos_token_id) == (1 if reference.bos else 0)


@pytest.mark.parametrize("proof", [proof for proof, reference in REFERENCES.items() if reference.bos])
def test_unrepaired_it_has_two(proof: str, tmp_path: Path) -> None:
    reference, tokenizer = REFERENCES[proof], hf.load_tokenizer(upstream(proof, tmp_path / "model"))
    ids = hf.encode(tokenizer, hf.render_chat(tokenizer, reference.messages, add_generation_prompt=True), add_special=True)
    assert ids[:3].count(tokenizer.bos_token_id) == 2


@pytest.mark.parametrize("proof", REFERENCES)
def test_text_to_calibrate_with_goes_on_from_it(proof: str, repaired: Mapping[str, Path]) -> None:
    """As it stands in conversations, where no answer is forced to think."""
    reference, voice = REFERENCES[proof], hf.speaking(hf.load_tokenizer(repaired[proof]))
    before = reference.prompt.removeprefix(reference.bos).removesuffix("<think>\n")
    end = miniatures.PROOFS[proof][0].end_of_turn
    assert voice.render([*reference.messages, {"role": "assistant", "content": "Here."}]) == f"{before}Here.{end}\n"
    assert (voice.bos is not None) == bool(reference.bos)


@pytest.mark.usefixtures("go")
@pytest.mark.parametrize("proof", REFERENCES)
def test_the_template_that_is_published_for_ollama_renders_it(proof: str, repaired: Mapping[str, Path], tmp_path: Path) -> None:
    """But for BOS, which Ollama puts there by what the GGUF says."""
    reference, (family, _) = REFERENCES[proof], miniatures.PROOFS[proof]
    files = [(FAMILIES / "templates" / file).read_text(encoding="utf-8") for file in family.ollama]
    chosen = ollama.choose(tmp_path, model=repaired[proof], derived=None, family=files, go=go_template.version())
    assert chosen["template"] in files
    rendered = go_template.render(chosen["template"], [ollama.for_ollama(Conversation(messages=reference.messages))])
    assert rendered == [reference.prompt.removeprefix(reference.bos)]
