"""How a Gemma 3 in miniature is shown images: by its template, and by llama.cpp with a projector; and what a template is told by that writes something else."""

import base64
import io
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from builders import mmproj
from config.errors import MeasurementError
from engines import eyes, hf, llama_server
from qa import batteries, image_prompts, renderings, templates
from qa.batteries import Conversation
from tests import architectures, releases
from tests.seeing import with_tokens

TOKENS = {"<start_of_image>": 2048, "<end_of_image>": 2049, "<image_soft_token>": 2050}
ROLES = dict(zip(("boi_token", "eoi_token", "image_token"), TOKENS, strict=True))
ROWS = 2056
TEMPLATE = (  # turns as the bundled model has them, contents as Gemma 3's template reads them
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content | trim }}{% else %}{% for part in m.content %}"
    "{% if part.type == 'image' %}<start_of_image>{% elif part.type == 'text' %}{{ part.text | trim }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN = re.sub(r"{% if m.content is string %}.*{% endfor %}{% endif %}<", "{{ m.content }}<", TEMPLATE)


@dataclass(frozen=True, kw_only=True)
class Seeing:
    """The model, its GGUF file and its projector."""

    model: Path
    gguf: Path
    projector: Path


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Seeing:
    out = tmp_path_factory.mktemp("seeing")
    model, gguf = architectures.converted(gemma, out)
    built = mmproj.build(out, model=model, name="miniature", types=["F16"])
    return Seeing(model=model, gguf=gguf, projector=out / built["files"]["mmproj-F16"]["file"])


def gemma(out: Path) -> Path:
    """Gemma 3 with tokens for images, as its makers name them, and a template that writes one."""
    made = architectures.MODELS["Gemma 3 with vision"](out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        with_tokens(made / name, TOKENS)
    releases.edit(made / "tokenizer_config.json", chat_template=TEMPLATE, extra_special_tokens=ROLES, **ROLES)
    ids = {f"{role}_index": TOKENS[token] for role, token in ROLES.items()}
    releases.edit(made / "config.json", text_config=releases.read(made / "config.json")["text_config"] | {"vocab_size": ROWS}, **ids)
    return releases.change_weights(made, _widened)


def _widened(weights: dict[str, torch.Tensor]) -> None:
    (name,) = (name for name in weights if name.endswith("embed_tokens.weight"))
    weights[name] = torch.cat([weights[name], weights[name][: ROWS - len(weights[name])]])


def renderer(model: Path) -> tuple[Any, Callable[[Conversation, bool], str]]:
    """The tokenizer, and how transformers renders conversations with it."""
    tokenizer = hf.load_tokenizer(model)
    return tokenizer, lambda conversation, prompting: hf.render_chat(
        tokenizer, conversation.messages, add_generation_prompt=prompting, variables=renderings.told(conversation)
    )


def found(seeing: Seeing, folder: Path, template: str, in_llama: str | None = None, **config: int) -> image_prompts.Found:
    """What is found of the model with this template, another one in llama.cpp maybe, and other keys of its configuration."""
    model = Path(shutil.copytree(seeing.model, folder / "model", ignore=shutil.ignore_patterns("*.safetensors")))
    releases.edit(model / "tokenizer_config.json", chat_template=template)
    releases.edit(model / "config.json", **config)
    (folder / "template.jinja").write_text(in_llama or template, encoding="utf-8")
    tokenizer, render = renderer(model)
    with llama_server.serve(seeing.gguf, threads=1, template=folder / "template.jinja") as server:
        return image_prompts.look(render, server, model=model, tokenizer=tokenizer, template=template, bos="<s>")


def test_a_template_that_writes_the_model_s_image_token_passes(seeing: Seeing, tmp_path: Path) -> None:
    measured = {item["name"]: item for item in templates.check(tmp_path, model=seeing.model, gguf=seeing.gguf, threads=1)["measurements"]}
    assert measured["template.failures"]["details"] == ()
    assert not [said for said in measured["template.remarks"]["details"] if "image" in said]
    tokenizer, render = renderer(seeing.model)
    assert eyes.image_tokens(seeing.model, tokenizer) == {"<start_of_image>"}
    ids = hf.encode(tokenizer, render(batteries.IMAGES["two images"], True), add_special=True)
    assert ids.count(TOKENS["<start_of_image>"]) == 2


def test_llama_cpp_itself_makes_one_text_of_a_message_with_an_image(seeing: Seeing) -> None:
    """With a projector, a server makes of a picture what is compared here without one; and it knows no parts of the type that templates know."""
    file = io.BytesIO()
    Image.new("RGB", (56, 56), "navy").save(file, "PNG")
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"}}
    with llama_server.serve(seeing.gguf, threads=1, projector=seeing.projector) as server:
        for title, conversation in batteries.IMAGES.items():
            asked = [
                {**message, "content": [picture if part == batteries.IMAGE else part for part in message["content"]]}
                if isinstance(message["content"], list)
                else message
                for message in conversation.messages
            ]
            made = server.apply_template(asked, add_generation_prompt=True)
            marked = batteries.with_markers(conversation, image_prompts.MARKER)
            expected = server.apply_template(marked.messages, add_generation_prompt=True)
            assert re.sub(r"<__media\w*__>", image_prompts.MARKER, made) == expected, title
            assert expected.count(image_prompts.MARKER) == sum(str(message["content"]).count("'image'") for message in conversation.messages)
        with pytest.raises(MeasurementError, match="unsupported content"):
            server.apply_template(batteries.IMAGES["image and question"].messages)


@pytest.mark.parametrize("written", ["<image_soft_token>", "<image>", "<start_of_image><start_of_image>"])
def test_another_token_than_the_model_s_is_a_failure(written: str, seeing: Seeing, tmp_path: Path) -> None:
    [said] = found(seeing, tmp_path, TEMPLATE.replace("<start_of_image>", written)).failures
    assert said.startswith(f"for an image the template writes {written!r}, where the model's image token is '<start_of_image>', in 6 of 6 conversations: ")


@pytest.mark.parametrize("number", [TOKENS["<end_of_image>"] - 1000, ROWS + 1], ids=["another token", "no token"])
def test_a_model_that_looks_for_another_token_than_the_processor_puts_there_is_a_failure(number: int, seeing: Seeing, tmp_path: Path) -> None:
    [said] = found(seeing, tmp_path, TEMPLATE, image_token_index=number).failures
    assert said.startswith(f"image_token_index of config.json is {number}, and transformers' processor puts no such token into a prompt with an image, ")


def test_other_text_around_an_image_is_a_failure_where_the_engines_are_given_the_same(seeing: Seeing, tmp_path: Path) -> None:
    [said] = found(seeing, tmp_path, TEMPLATE, in_llama=TEMPLATE.replace("{{ m.content | trim }}", "[{{ m.content | trim }}]")).failures
    assert said.startswith("llama.cpp renders other text than transformers in 12 of 12 conversations: ")


@pytest.mark.parametrize(
    ("template", "how"),
    [
        (TEMPLATE.replace("<start_of_image>", ""), "it writes nothing for them"),
        (PLAIN, "it writes the list of a message's parts as it stands"),
        (TEMPLATE.replace("<start_of_image>", "{{ raise_exception('no') }}"), "The chat template cannot render a conversation of 1 messages: no. "),
    ],
    ids=["left out", "as a list", "refused"],
)
def test_a_template_that_takes_no_images_is_a_remark(template: str, how: str, seeing: Seeing, tmp_path: Path) -> None:
    it = found(seeing, tmp_path, template)
    assert it.failures == ()
    [said] = it.remarks
    assert said.startswith(f"the template takes no images, which the model reads: {how}")


def test_what_llama_cpp_makes_of_a_message_before_the_template_sees_it_is_a_remark(seeing: Seeing, tmp_path: Path) -> None:
    """As in SmolVLM's template, which writes a space before a text and none before an image."""
    spaced = TEMPLATE.replace("{{ m.role }}\n", "{{ m.role }}:{% if m.content is string or m.content[0].type == 'text' %} {% endif %}")
    it = found(seeing, tmp_path, spaced)
    assert it.failures == ()
    [said] = it.remarks
    assert "what then stands around the image is other than in transformers in 4 of 6 conversations: '<start_of_image>What is this?" in said


def test_without_a_processor_the_tokens_that_the_files_name_are_known(seeing: Seeing, tmp_path: Path) -> None:
    model = Path(shutil.copytree(seeing.model, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors", "*processor*")))
    releases.edit(model / "tokenizer_config.json", extra_special_tokens=releases.GONE, **dict.fromkeys(ROLES, releases.GONE))
    assert eyes.image_tokens(model, hf.load_tokenizer(model)) == {"<start_of_image>", "<image_soft_token>"}


def test_of_a_model_that_reads_text_alone_nothing_is_asked(tmp_path: Path) -> None:
    tokenizer, render = renderer(releases.clean(tmp_path / "model"))
    asked: Any = {"server": None, "model": tmp_path / "model", "tokenizer": tokenizer, "template": "", "bos": "<s>"}
    assert image_prompts.look(render, **asked) == image_prompts.Found()
