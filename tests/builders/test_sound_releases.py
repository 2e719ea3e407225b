"""Releases in which nothing is wrong: no rule finds anything, nothing is said to be broken, and every file keeps its bytes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from builders import fixes
from builders.fixes import form
from builders.fixes.templates import ANSWER, TURN
from engines import chat
from tests import miniatures
from tests.miniatures import PROOFS


def test_there_are_enough_of_them() -> None:
    assert len(PROOFS) >= 20
    assert len({family.name for family, _ in PROOFS.values()}) == 20


@pytest.mark.parametrize("proof", PROOFS)
def test_a_sound_release_is_not_touched(proof: str, tmp_path: Path) -> None:
    made, out = miniatures.sound(proof, tmp_path / "made"), tmp_path / "out"
    out.mkdir()
    family = PROOFS[proof][0]
    result = fixes.repair(out, snapshot=made, repo="upstream/tiny-chat" if family.repo else "someone/miniature", fixes=True)
    assert (result["patches"], result["unrepaired"], result["family"]) == ([], [], family.name)
    kept = {path.name: path.read_bytes() for path in out.iterdir()}
    assert kept == {path.name: path.read_bytes() for path in made.iterdir() if path.name != "README.md"}


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
            assert json.loads((out / name).read_text())[key] == _plain(content[key]), name
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
