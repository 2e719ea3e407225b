"""Releases in which nothing is wrong: no rule finds anything, nothing is said to be broken, and every file keeps its bytes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from builders import fixes
from builders.fixes import form
from builders.fixes.templates import ANSWER, TURN, end_of_turn, templates
from config.rules import load_families
from config.words import Hold
from engines import chat
from tests import miniatures
from tests.miniatures import PROOFS

UNSOUND = {"gemma3 gemma3:1b": {"breaking-branches"}}  # a text in a system message breaks the template of its first days


def test_there_are_enough_of_them() -> None:
    assert len(PROOFS) >= 20
    assert {family.name for family, _ in PROOFS.values()} == {family.name for family in load_families()}


@pytest.mark.parametrize("proof", [proof for proof in PROOFS if proof not in UNSOUND])
def test_a_sound_release_is_not_touched(proof: str, tmp_path: Path) -> None:
    made, out = miniatures.sound(proof, tmp_path / "made"), tmp_path / "out"
    out.mkdir()
    family = PROOFS[proof][0]
    result = fixes.repair(out, snapshot=made, repo="upstream/tiny-chat" if family.repo else "someone/miniature", fixes=True)
    assert (result["patches"], result["unrepaired"], result["family"]) == ([], [], family.name)
    kept = {path.name: path.read_bytes() for path in out.iterdir()}
    assert kept == {path.name: path.read_bytes() for path in made.iterdir() if path.name != "README.md"}


@pytest.mark.parametrize("proof", UNSOUND)
def test_what_is_wrong_in_a_real_template_is_put_right(proof: str, tmp_path: Path) -> None:
    result = repaired(miniatures.sound(proof, tmp_path / "made"), tmp_path / "out", repo="someone/miniature")
    assert ({patch["fix"] for patch in result["patches"]}, result["unrepaired"], result["family"]) == (UNSOUND[proof], [], PROOFS[proof][0].name)


def test_what_a_family_advises_comes_with_the_repaired_model(tmp_path: Path) -> None:
    made, out = miniatures.sound("qwq Qwen-QwQ-32B.jinja", tmp_path / "made"), tmp_path / "out"
    (made / "generation_config.json").unlink()
    out.mkdir()
    result = fixes.repair(out, snapshot=made, repo="someone/renamed", fixes=True)
    assert (result["stop"], result["samplers"]) == (["<|endoftext|>"], ["top_k", "top_p", "min_p", "temperature", "dry", "typ_p", "xtc"])
    assert any("YaRN" in note for note in result["notes"])
    assert {patch["fix"] for patch in result["patches"]} == {"sampling-defaults"}
    assert json.loads((out / "generation_config.json").read_text())["min_p"] == 0.1


@pytest.mark.parametrize("proof", PROOFS)
def test_a_wrong_end_of_turn_is_found_in_every_family_and_put_right_once(proof: str, tmp_path: Path) -> None:
    """As of any release whose template nobody knows: the token is derived by rendering."""
    family = PROOFS[proof][0]
    made, out, again = miniatures.sound(proof, tmp_path / "made"), tmp_path / "out", tmp_path / "again"
    good = {name: json.loads((made / name).read_text()) for name in ("tokenizer_config.json", "config.json", "generation_config.json")}
    for name, key, wrong in (
        ("tokenizer_config.json", "eos_token", "<bos>"),
        ("config.json", "eos_token_id", good["config.json"]["bos_token_id"]),
        ("generation_config.json", "eos_token_id", good["config.json"]["bos_token_id"]),
    ):
        _spoil(made / name, key, wrong)
    (made / "special_tokens_map.json").unlink()
    out.mkdir()
    patches = fixes.repair(out, snapshot=made, repo="someone/unknown", fixes=True)["patches"]
    rendered = chat.render(_template(made), TURN, special_tokens={"bos_token": "<bos>", "eos_token": "<another>"})
    written = family.end_of_turn is not None and rendered.rpartition(ANSWER)[2].lstrip().startswith(family.end_of_turn)
    eos = [patch for patch in patches if patch["fix"] == "end-of-turn-eos"]
    assert {patch["file"] for patch in eos} == ({*good} if written else set()), "a template that writes eos_token is right with any"
    if written:
        for name, content in good.items():
            key = "eos_token" if name == "tokenizer_config.json" else "eos_token_id"
            beside = [content["bos_token_id"]] if name == "generation_config.json" else []  # at what upstream named, answers end as well
            assert json.loads((out / name).read_text())[key] == (_plain(content[key]) + beside if beside else _plain(content[key])), name
    again.mkdir()
    assert fixes.repair(again, snapshot=out, repo="someone/unknown", fixes=True)["patches"] == []
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {path.name: path.read_bytes() for path in out.iterdir()}


def _spoil(path: Path, key: str, value: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))


def _plain(value: Any) -> Any:
    return value["content"] if isinstance(value, dict) else value


def _template(folder: Path) -> str:
    own = folder / "chat_template.jinja"
    return own.read_text() if own.exists() else str(json.loads((folder / "tokenizer_config.json").read_text())["chat_template"])


@pytest.mark.parametrize(
    "text",
    [
        '{\n  "a": [\n    1\n  ],\n  "b": "\\u00fc"\n}\n',
        '{\n    "a": [\n        1\n    ],\n    "b": "ü"\n}',
        '{"a":[1],"b":"ü"}',
        '{"a": [1], "b": "\\u00fc"}\n',
        '{\n\t"a": [\n\t\t1\n\t],\n\t"b": ""\n}\n',
    ],
)
def test_what_is_changed_keeps_the_form_of_its_file(text: str) -> None:
    content = json.loads(text)
    assert form.written(content, text) == text
    assert form.written(content | {"a": [2]}, text) == text.replace("1", "2")


def test_a_new_file_is_written_in_lines() -> None:
    assert form.written({"a": "ü"}, "") == '{\n  "a": "ü"\n}\n'


BREAKING = {
    "simplest": ("{{ messages[0].content.nothing.at_all }}", "a question"),
    "later turns": ("{{ messages[0].content }}{% if messages|length > 1 %}{{ messages[9].content }}{% endif %}", "questions and answers"),
    "tools": ("{{ messages[0].content }}{% if tools %}{{ tools[0].functions.name }}{% endif %}", "a question with a tool offered"),
    "calls": (
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}{{ c.function.arguments.colour.of.what }}{% endfor %}{% endfor %}",
        "calls of a tool",
    ),
}


@pytest.mark.parametrize("name", BREAKING)
def test_what_breaks_and_cannot_be_repaired_is_said(name: str, tmp_path: Path) -> None:
    template, said = BREAKING[name]
    made, out = miniatures.sound("gemma2 google-gemma-2-2b-it.jinja", tmp_path / "made"), tmp_path / "out"
    (made / "chat_template.jinja").write_text(template)
    out.mkdir()
    found = fixes.repair(out, snapshot=made, repo="someone/broken", fixes=True)["unrepaired"]
    assert any(f"breaks at {said}" in sentence for sentence in found), found
    shutil.rmtree(out)


def test_refusing_is_no_fault(tmp_path: Path) -> None:
    made, out = miniatures.sound("gemma2 google-gemma-2-2b-it.jinja", tmp_path / "made"), tmp_path / "out"
    (made / "chat_template.jinja").write_text("{{ raise_exception('no') }}")
    out.mkdir()
    assert fixes.repair(out, snapshot=made, repo="someone/refusing", fixes=True)["unrepaired"] == []


def spoilt(proof: str, out: Path) -> Path:
    """A sound release whose end of sequence is another token than the one that ends its turns."""
    made = miniatures.sound(proof, out)
    _spoil(made / "tokenizer_config.json", "eos_token", "<bos>")
    return made


def repaired(made: Path, out: Path, repo: str = "someone/unknown", **given: Any) -> dict[str, Any]:
    out.mkdir()
    return fixes.repair(out, snapshot=made, repo=repo, fixes=True, **given)


def test_what_no_family_vouches_for_is_proposed_and_done_once_it_is_approved(tmp_path: Path) -> None:
    """A fine-tune that its maker's architecture alone tells: the demo's template, under a name that its family does not ask for."""
    made = spoilt("tiny-chat tiny-chat.jinja", tmp_path / "made")
    result = repaired(made, tmp_path / "held", ask=True)
    assert (result["family"], result["patches"]) == (None, [])
    (hold,) = result["held"]
    assert hold["subject"] == "end-of-turn-eos"
    assert [(patch["file"], patch["key"], patch["before"], patch["after"]) for patch in hold["patches"]] == [
        ("tokenizer_config.json", "eos_token", "<bos>", "<|im_end|>")
    ]
    for words in ("ends the turn with <|im_end|>", "no family", "Approved, its files are changed so."):
        assert words in hold["reason"]
    assert (tmp_path / "held" / "tokenizer_config.json").read_bytes() == (made / "tokenizer_config.json").read_bytes()

    digest = TypeAdapter(Hold).validate_python(hold).digest
    approved = repaired(made, tmp_path / "approved", ask=True, approved=[digest])
    assert (approved["held"], approved["patches"]) == ([hold], list(hold["patches"]))
    assert repaired(made, tmp_path / "auto")["patches"] == approved["patches"], "nobody is asked where nobody is to be"

    _spoil(made / "tokenizer_config.json", "eos_token", "<pad>")
    other = repaired(made, tmp_path / "other", ask=True, approved=[digest])
    assert [hold["subject"] for hold in other["held"]] == ["end-of-turn-eos"], "another proposal is asked about anew"


def test_what_a_family_vouches_for_is_not_asked_about(tmp_path: Path) -> None:
    made = spoilt("qwen3 Qwen-Qwen3-0.6B.jinja", tmp_path / "made")
    result = repaired(made, tmp_path / "out", ask=True)
    assert (result["family"], result["held"]) == ("qwen3", [])
    assert {patch["fix"] for patch in result["patches"]} == {"end-of-turn-eos"}


BASES = {
    "qwen3 Qwen-Qwen3-0.6B.jinja": "Qwen/Qwen3-0.6B-Base",
    "qwen3-instruct Qwen3-Coder.jinja": "Qwen/Qwen3-Coder-Next-Base",
    "qwen2.5 Qwen-Qwen2.5-7B-Instruct.jinja": "Qwen/Qwen2.5-Coder-7B",
}


@pytest.mark.parametrize("proof", BASES)
def test_a_base_model_that_its_makers_ship_with_a_template_stays_a_base_model(proof: str, tmp_path: Path) -> None:
    """And so does no tune of it, which is often saved with the very same files: there, the end of a turn is what is wrong."""
    made, repo = miniatures.sound(proof, tmp_path / "made"), BASES[proof]
    number = json.loads((made / "config.json").read_text())["pad_token_id"]
    for name, said in (
        ("tokenizer_config.json", {"eos_token": "<pad>"}), ("special_tokens_map.json", {"eos_token": "<pad>"}), ("config.json", {"eos_token_id": number})
    ):  # fmt: skip
        (made / name).write_text(json.dumps(json.loads((made / name).read_text()) | said))
    (made / "generation_config.json").write_text(json.dumps({"do_sample": False, "eos_token_id": number, "max_new_tokens": 2048}))
    result = repaired(made, tmp_path / "out", repo=repo, ask=True)
    assert (result["family"], result["held"]) == (PROOFS[proof][0].name, [])
    assert {patch["fix"] for patch in result["patches"]} == {"base-template", "distinct-pad"}, "one token pads and ends texts"
    assert templates(fixes.read_files(tmp_path / "out")) == ()
    for name in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / "out" / name).read_text())["eos_token_id"] == number
    for place, other in enumerate((f"someone/{repo.rpartition('/')[2]}", f"local/{repo.rpartition('/')[2]}", f"{repo}-Instruct", f"{repo}-SFT")):
        assert "end-of-turn-eos" in {patch["fix"] for patch in repaired(made, tmp_path / f"tune-{place}", repo=other)["patches"]}, other


def test_a_release_that_several_families_take_alike_is_held(tmp_path: Path) -> None:
    families = tmp_path / "families"
    families.mkdir()
    for name, piece in (("one", "<|im_start|>"), ("two", "<|im_end|>")):
        (families / f"{name}.yaml").write_text(f"name: {name}\nmodel_types: [llama]\ntemplate: {{holds: ['{piece}']}}\n")
    made = miniatures.sound("tiny-chat tiny-chat.jinja", tmp_path / "made")
    (hold,) = repaired(made, tmp_path / "held", ask=True, families=families)["held"]
    assert hold["subject"] == "family"
    assert "several families: one, two." in hold["reason"]
    result = repaired(made, tmp_path / "asked", families=families)
    assert (result["family"], result["held"], result["patches"]) == (None, [], [])


@pytest.mark.parametrize(
    ("template", "token"),
    [
        ("{% for m in messages %}<{{ m.role }}>{{ m.content }}<|end|>\n{% endfor %}", "<|end|>"),
        ("{% for m in messages %}{{ m.content }}{{ '<|end|>' if not loop.last else '<|stop|>' }}{% endfor %}", "<|stop|>"),
        ("{% for m in messages %}{{ m.content }}{{ '<|end|>' if messages[0].role == 'system' else '<|stop|>' }}{% endfor %}", None),
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}", None),
        ("{% if messages[0].role == 'system' %}{{ raise_exception('none') }}{% endif %}{% for m in messages %}{{ m.content }}<|end|>{% endfor %}", "<|end|>"),
    ],
)
def test_the_end_of_turn_is_what_follows_the_answer_in_every_conversation(template: str, token: str | None) -> None:
    specials = [{"content": text, "id": number, "special": True} for number, text in enumerate(("<|end|>", "<|stop|>"))]
    assert end_of_turn({"chat_template.jinja": template, "tokenizer.json": {"added_tokens": specials}}) == token


@pytest.mark.parametrize(
    ("template", "eos", "token"),
    [
        pytest.param("<|open|>{{ m.role }}<|sep|>{{ m.content }}<|close|>{{ m.role }}<|sep|><|end|>", "<|end|>", "<|end|>", id="an element, closed first"),
        pytest.param("<|open|>{{ m.content }}<|end|>\n{{ '<|stop|>' if loop.last else '' }}", "<|stop|>", "<|end|>", id="one after the last turn alone"),
        pytest.param("<|open|>{{ m.content }}<|end|>\n", "<|stop|>", "<|end|>", id="none that the template writes"),
    ],
)
def test_what_is_eos_ends_a_turn_also_after_others_if_it_follows_every_answer(template: str, eos: str, token: str) -> None:
    specials = [{"content": text, "id": number, "special": True} for number, text in enumerate(("<|end|>", "<|stop|>", "<|open|>", "<|sep|>", "<|close|>"))]
    whole = f"{{% for m in messages %}}{template}{{% endfor %}}"
    assert end_of_turn({"chat_template.jinja": whole, "tokenizer.json": {"added_tokens": specials}, "tokenizer_config.json": {"eos_token": eos}}) == token
