"""The repairs: the bundled model becomes the clean one, a clean one stays, and hostile files do no harm."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builders import fixes
from builders.fixes import distinct_pad, end_of_turn_eos, sampling_defaults, single_bos, strip_remote_code
from builders.fixes.edits import Edit, applied, value_at
from builders.fixes.templates import renderings
from builders.fixes.vocabulary import adds_bos
from config.errors import ConfigurationError, UpstreamError
from config.rules import Family, Sampling
from tests import releases
from tests.builders.conftest import CLEAN, DEMO, demo_json

Upload = Callable[..., Path]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
ADDS = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]}
TOKENS = {"<s>": 1, "<|im_start|>": 3, "<|im_end|>": 4, "<|endoftext|>": 5}


def model(template: str = CHATML, *, config: dict[str, Any] | None = None, generation: dict[str, Any] | None = None, **tokenizer: Any) -> dict[str, Any]:
    """The configuration files of a model with the bundled model's special tokens."""
    decoder = {str(number): {"content": text, "special": True} for text, number in TOKENS.items()}
    files: dict[str, Any] = {
        "config.json": config if config is not None else {"eos_token_id": 4},
        "tokenizer_config.json": {"added_tokens_decoder": decoder, "bos_token": "<s>", "eos_token": "<|im_end|>", "chat_template": template} | tokenizer,
    }
    return files | ({"generation_config.json": generation} if generation is not None else {})


def after(files: dict[str, Any], edits: list[Edit]) -> dict[str, Any]:
    """What the edits set, by file and key; removed keys are None."""
    changed = applied(files, edits)
    return {f"{edit.file}:{edit.dotted}": value_at(changed, edit.file, edit.key) for edit in edits}


def test_the_bundled_model_becomes_the_clean_one(fixed: Path) -> None:
    for clean in CLEAN.iterdir():
        assert json.loads((fixed / clean.name).read_text()) == json.loads(clean.read_text()), clean.name


def test_the_fixed_folder_is_complete_and_holds_nothing_else(fixed: Path) -> None:
    assert {path.name for path in fixed.iterdir()} == {path.name for path in DEMO.iterdir()} - {"README.md", "training_args.bin"}
    for name in ("model.safetensors", "tokenizer.json", "tokenizer.model"):
        assert (fixed / name).read_bytes() == (DEMO / name).read_bytes()


def test_every_patch_says_what_was_there_what_is_there_and_why(tmp_path: Path) -> None:
    result = fixes.repair(tmp_path, snapshot=DEMO, repo="upstream/tiny-chat", fixes=True)
    patches = {(patch["fix"], patch["file"], patch["key"]): patch for patch in result["patches"]}
    eos = patches["end-of-turn-eos", "generation_config.json", "eos_token_id"]
    assert (eos["before"], eos["after"], eos["version"]) == (5, [4, 5], 2)
    assert "<|im_end|>" in eos["reason"]
    assert patches["strip-remote-code", "config.json", "auto_map"]["after"] is None
    assert patches["distinct-pad", "special_tokens_map.json", "pad_token"]["after"] == "<|endoftext|>"
    template = patches["single-bos", "tokenizer_config.json", "chat_template"]
    assert template["before"] == "{{- bos_token }}" + template["after"]
    assert patches["sampling-defaults", "generation_config.json", "temperature"]["before"] is None
    assert {patch["fix"] for patch in result["patches"]} == {"strip-remote-code", "end-of-turn-eos", "distinct-pad", "single-bos", "sampling-defaults"}
    assert all(patch["reason"].endswith(".") for patch in result["patches"])
    assert (result["family"], result["bytes"]) == ("tiny-chat", (DEMO / "model.safetensors").stat().st_size)
    assert result["bpw"] == pytest.approx(16, abs=0.01)
    json.dumps(result, allow_nan=False)


def test_without_fixes_only_code_is_removed(tmp_path: Path) -> None:
    result = fixes.repair(tmp_path, snapshot=DEMO, repo="upstream/tiny-chat", fixes=False)
    assert [(patch["fix"], patch["key"]) for patch in result["patches"]] == [("strip-remote-code", "auto_map")]
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == 5
    assert (tmp_path / "tokenizer_config.json").read_bytes() == (DEMO / "tokenizer_config.json").read_bytes()


def test_applying_twice_changes_nothing(fixed: Path, tmp_path: Path) -> None:
    result = fixes.repair(tmp_path, snapshot=fixed, repo="upstream/tiny-chat", fixes=True)
    assert result["patches"] == []
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {path.name: path.read_bytes() for path in fixed.iterdir()}


def test_a_clean_model_is_not_touched(tmp_path: Path) -> None:
    snapshot, out = tmp_path / "snapshot", tmp_path / "out"
    shutil.copytree(DEMO, snapshot)
    shutil.copytree(CLEAN, snapshot, dirs_exist_ok=True)
    out.mkdir()
    assert fixes.repair(out, snapshot=snapshot, repo="upstream/tiny-chat", fixes=True)["patches"] == []
    for clean in CLEAN.iterdir():
        assert (out / clean.name).read_bytes() == clean.read_bytes()


def test_weights_are_linked_and_terms_are_kept(upload: Upload, tmp_path: Path) -> None:
    snapshot, out = upload(), tmp_path / "out"
    out.mkdir()
    (snapshot / "LICENSE").write_text("terms")
    (snapshot / "modeling_tiny_chat.py").write_text("raise SystemExit")
    (snapshot / "pytorch_model.bin").write_bytes(b"\x80\x04")
    (snapshot / "notes.json").symlink_to("/etc/hostname")
    fixes.repair(out, snapshot=snapshot, repo="upstream/tiny-chat", fixes=True)
    assert (out / "model.safetensors").samefile(snapshot / "model.safetensors")
    assert (out / "LICENSE").read_text() == "terms"
    assert not {"modeling_tiny_chat.py", "pytorch_model.bin", "notes.json", "README.md", "training_args.bin"} & {path.name for path in out.iterdir()}


def test_weights_are_copied_where_links_are_impossible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    fixes.repair(tmp_path, snapshot=DEMO, repo="upstream/tiny-chat", fixes=True)
    assert (tmp_path / "model.safetensors").read_bytes() == (DEMO / "model.safetensors").read_bytes()
    assert (tmp_path / "model.safetensors").stat().st_nlink == 1


def test_unknown_keys_and_key_order_survive(upload: Upload, tmp_path: Path) -> None:
    config = {"zeta": {"deep": [1, None]}} | demo_json("config.json") | {"alpha": "ü"}
    out = tmp_path / "out"
    out.mkdir()
    fixes.repair(out, snapshot=upload(config=config), repo="upstream/tiny-chat", fixes=True)
    written = json.loads((out / "config.json").read_text())
    assert list(written) == [key for key in config if key != "auto_map"]
    assert (written["zeta"], written["alpha"]) == ({"deep": [1, None]}, "ü")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config", "{", "config.json of the release is not JSON"),
        ("generation_config", "[]", "holds no JSON object"),
        ("tokenizer_config", "[" * 100_000, "tokenizer_config.json of the release is not JSON"),
        ("config", None, "no config.json"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(upload: Upload, tmp_path: Path, name: str, content: str | None, said: str) -> None:
    with pytest.raises(UpstreamError, match=said):
        fixes.repair(tmp_path, snapshot=upload(**{name: content}), repo="upstream/tiny-chat", fixes=True)


@pytest.mark.parametrize(("line", "said"), [("repair: paint", "'paint', which does not exist"), ("repair: single_bos\nparams: {colour: red}", "colour")])
def test_a_rule_that_asks_for_what_is_not_there(tmp_path: Path, line: str, said: str) -> None:
    rules, out = tmp_path / "rules", tmp_path / "out"
    rules.mkdir()
    out.mkdir()
    (rules / "1.yaml").write_text(f"id: x\nversion: 1\nreason: r.\n{line}\n")
    with pytest.raises(ConfigurationError, match=said):
        fixes.repair(out, snapshot=DEMO, repo="upstream/tiny-chat", fixes=True, rules=rules)


def test_a_rule_for_other_families_does_not_apply(tmp_path: Path) -> None:
    rules, out = tmp_path / "rules", tmp_path / "out"
    rules.mkdir()
    out.mkdir()
    (rules / "1.yaml").write_text("id: x\nversion: 1\nreason: r.\nrepair: single_bos\nfamilies: [gemma3]\n")
    assert fixes.repair(out, snapshot=DEMO, repo="upstream/tiny-chat", fixes=True, rules=rules)["patches"] == []


def test_code_and_private_keys_go_at_any_depth() -> None:
    files = {
        "config.json": {
            "auto_map": {"AutoConfig": "x.Y"},
            "_attn_implementation_internal": "evil/kernels",
            "text_config": {"auto_map": {}, "experts_implementation": "evil/kernels", "hidden_size": 4},
            "layers": [{"trust_remote_code": True, "size": 1}],
        },
        "tokenizer_config.json": {"tokenizer_file": "/etc/passwd", "bos_token": {"__type": "AddedToken", "content": "<s>"}, "auto_map": {}},
        "tokenizer.json": {"model": {"vocab": {"_underscore": 1, "auto_map": 2}}},
    }
    stripped = applied(files, strip_remote_code.repair(files, None))
    assert stripped["config.json"] == {"text_config": {"hidden_size": 4}, "layers": [{"size": 1}]}
    assert stripped["tokenizer_config.json"] == {"bos_token": {"__type": "AddedToken", "content": "<s>"}}
    assert stripped["tokenizer.json"] == files["tokenizer.json"]
    assert "auto_map" in files["config.json"], "the given files are not changed"


@pytest.mark.parametrize(
    ("stated", "wanted"),
    [(5, [4, 5]), ([5], [4, 5]), (None, [4]), ("junk", [4]), (4, None), ([4, 5], None), ([5, 4], None)],
)
def test_eos_of_generation_config(stated: Any, wanted: Any) -> None:
    files = model(generation={"eos_token_id": stated})
    assert after(files, end_of_turn_eos.repair(files, None)) == ({} if wanted is None else {"generation_config.json:eos_token_id": wanted})


def test_eos_keeps_the_form_of_a_token_object() -> None:
    files = model(eos_token={"content": "<|endoftext|>", "lstrip": False})
    assert applied(files, end_of_turn_eos.repair(files, None))["tokenizer_config.json"]["eos_token"] == {"content": "<|im_end|>", "lstrip": False}


@pytest.mark.parametrize(
    "template",
    [
        "{% for message in messages %}{{ message.content }}\n{% endfor %}",  # no special token after an answer
        "{% for message in messages %}{{ message.content }}<|unknown|>{% endfor %}",
        "{% if %}",
        "{{ raise_exception('no') }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append({}) }}",
    ],
)
def test_a_template_that_does_not_tell_or_misbehaves_changes_no_eos(template: str) -> None:
    files = model(template, eos_token="<|endoftext|>")
    assert end_of_turn_eos.repair(files, None) == []


def test_a_template_that_wants_a_system_message_still_tells() -> None:
    files = model("{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}" + CHATML, eos_token="<|endoftext|>")
    assert after(files, end_of_turn_eos.repair(files, None)) == {"tokenizer_config.json:eos_token": "<|im_end|>"}


def test_a_template_file_goes_before_the_one_in_the_tokenizer_config() -> None:
    files = model(CHATML.replace("<|im_end|>", "<s>")) | {"chat_template.jinja": CHATML}
    assert end_of_turn_eos.repair(files, None) == []


def test_pad_prefers_what_the_files_already_name() -> None:
    files = model(config={"pad_token_id": 5}, pad_token="<|im_end|>")
    assert after(files, distinct_pad.repair(files, None, candidates=["<s>"])) == {"tokenizer_config.json:pad_token": "<|endoftext|>"}


@pytest.mark.parametrize("unsound", ["<|im_end|>", "<|im_start|>"])
def test_pad_must_not_occur_in_a_chat(unsound: str) -> None:
    files = model(pad_token=unsound)
    assert after(files, distinct_pad.repair(files, None, candidates=["<pad>", "<|im_start|>", "<|endoftext|>"])) == {
        "tokenizer_config.json:pad_token": "<|endoftext|>"
    }


def test_pad_must_not_be_the_bos_that_the_tokenizer_adds() -> None:
    assert distinct_pad.repair(model(pad_token="<s>", add_bos_token=False), None, candidates=["<|endoftext|>"]) == []
    assert distinct_pad.repair(model(pad_token="<s>", add_bos_token=True), None, candidates=["<|endoftext|>"]) != []


def test_no_pad_is_left_as_no_pad_and_nothing_is_made_up() -> None:
    assert distinct_pad.repair(model(), None, candidates=["<|endoftext|>"]) == []
    assert distinct_pad.repair(model(pad_token="<|im_end|>"), None, candidates=["<pad>"]) == []


@pytest.mark.parametrize(
    "opening",
    [
        "{{ bos_token }}",
        "{{- bos_token -}}",
        "{{-bos_token}}",
        "{{ bos_token }}\n",
        "  {{- bos_token }}",
        "{# a comment #}{{ bos_token }}",
        "{{ '<s>' }}",
        '{{- "<s>" -}}',
        "<s>",
        "{% if messages[0].role == 'system' %}{{ bos_token }}{% else %}{{ bos_token }}{% endif %}",
        "{% set x = 1 %}\n{{- bos_token }}",
        "{{ bos_token + '' }}",
        "{{- bos_token ~ '' }}",
        "{% set begin = bos_token %}{{ begin }}",
    ],
)
def test_one_bos_of_two_goes_and_nothing_else(opening: str) -> None:
    files = model(opening + CHATML, add_bos_token=True)
    (edit,) = single_bos.repair(files, None)
    assert renderings(files, edit.after) == [text and text.removeprefix("<s>") for text in renderings(files, opening + CHATML)]
    assert single_bos.repair(applied(files, [edit]), None) == []


def test_the_plain_case_leaves_no_trace() -> None:
    (edit,) = single_bos.repair(model("{{- bos_token }}" + CHATML, add_bos_token=True), None)
    assert edit.after == CHATML


def test_a_bos_before_every_turn_loses_only_the_first() -> None:
    template = "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% else %}{{ bos_token }}{% endif %}{{ message.content }}<|im_end|>{% endfor %}"
    files = model(template, add_bos_token=True)
    (edit,) = single_bos.repair(files, None)
    assert edit.after.count("bos_token") == 1
    inseparable = "{% for message in messages %}{{ bos_token }}{{ message.content }}<|im_end|>{% endfor %}"
    assert single_bos.repair(model(inseparable, add_bos_token=True), None) == []
    of_llama_2 = "{% for message in messages %}{{ bos_token + '[INST] ' + message.content + '<|im_end|>' }}{% endfor %}"
    (edit,) = single_bos.repair(model(of_llama_2, add_bos_token=True), None)
    assert edit.after == of_llama_2.replace("bos_token", "('' if loop.first else bos_token)")


def test_bos_stays_where_the_tokenizer_adds_none() -> None:
    assert single_bos.repair(model("{{ bos_token }}" + CHATML, add_bos_token=False), None) == []
    assert single_bos.repair(model("{{ bos_token }}" + CHATML, add_bos_token=True, bos_token=None), None) == []


def test_every_place_of_a_template_is_repaired() -> None:
    files = model(add_bos_token=True) | {"chat_template.json": {"chat_template": "{{ bos_token }}" + CHATML}, "chat_template.jinja": "{{ bos_token }}" + CHATML}
    files["tokenizer_config.json"]["chat_template"] = [{"name": "default", "template": CHATML}, {"name": "tool_use", "template": "{{ bos_token }}" + CHATML}, 7]
    edits = {(edit.file, edit.dotted) for edit in single_bos.repair(files, None)}
    assert edits == {("chat_template.jinja", ""), ("chat_template.json", "chat_template"), ("tokenizer_config.json", "chat_template.1.template")}


def test_a_template_of_its_own_file_is_written_as_text(upload: Upload, tmp_path: Path) -> None:
    snapshot, out = upload(), tmp_path / "out"
    out.mkdir()
    (snapshot / "chat_template.jinja").write_text("{{ bos_token }}" + CHATML)
    fixes.repair(out, snapshot=snapshot, repo="upstream/tiny-chat", fixes=True)
    assert (out / "chat_template.jinja").read_text() == CHATML


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"tokenizer_config.json": {"add_bos_token": False, "tokenizer_class": "LlamaTokenizer"}}, False),
        ({"tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer"}}, True),
        ({"tokenizer_config.json": {"bos_token": "<s>"}, "tokenizer.json": {"post_processor": ADDS}}, True),
        ({"tokenizer_config.json": {"bos_token": "<s>"}, "tokenizer.json": {"post_processor": {"processors": [{}, ADDS]}}}, True),
        ({"tokenizer_config.json": {"bos_token": "<s>"}, "tokenizer.json": {"post_processor": {"single": [{"Sequence": {}}]}}}, False),
        ({}, False),
    ],
)
def test_whether_the_tokenizer_adds_bos(files: dict[str, Any], wanted: bool) -> None:
    assert adds_bos(files) is wanted


FAMILY = Family(name="f", model_types=("llama",), sampling=Sampling(temperature=0.5, top_k=3, top_p=0.9, min_p=0.0, repetition_penalty=1.0))


@pytest.mark.parametrize("sampling", [{}, {"do_sample": True}, {"do_sample": False}])
def test_sampling_fills_gaps_and_changes_no_figure_of_upstream(sampling: dict[str, Any]) -> None:
    """Figures beside `do_sample: false` would have no effect in transformers and have one in all other engines: they are meant."""
    files = model(generation={"temperature": 0.9, "top_p": 0.8} | sampling)
    changed = applied(files, sampling_defaults.repair(files, FAMILY))["generation_config.json"]
    assert changed == {"temperature": 0.9, "top_p": 0.8, "do_sample": True, "top_k": 3, "min_p": 0.0, "repetition_penalty": 1.0}


@pytest.mark.parametrize("beside", [{}, {"max_new_tokens": 2048}, {"repetition_penalty": 1.05}, {"temperature": 1.0, "top_k": 50}, {"temperature": 0.0}])
def test_the_advice_to_take_the_likeliest_token_stays(beside: dict[str, Any]) -> None:
    assert sampling_defaults.repair(model(generation={"do_sample": False, "top_p": None} | beside), FAMILY) == []


def test_it_is_none_for_a_tune_that_has_the_file_of_a_base_model() -> None:
    """As Qwen2.5's tunes have: their makers ship base models with a chat template, and `do_sample: false` alone."""
    files = model(generation={"do_sample": False, "max_new_tokens": 2048})
    changed = applied(files, sampling_defaults.repair(files, FAMILY.model_copy(update={"base": "Makers/.+-Base"})))["generation_config.json"]
    assert changed == {"do_sample": True, "max_new_tokens": 2048} | FAMILY.sampling.stated  # type: ignore[union-attr]


def test_a_model_without_a_template_gets_no_advice() -> None:
    """A base model, of which its architecture alone tells the family: SmolLM3-3B-Base."""
    files = model(generation={"eos_token_id": 4})
    del files["tokenizer_config.json"]["chat_template"]
    assert sampling_defaults.repair(files, FAMILY) == []
    assert sampling_defaults.repair(files | {"chat_template.jinja": CHATML}, FAMILY) != []


def test_sampling_makes_a_missing_file_with_its_tokens() -> None:
    files = model(config={"eos_token_id": 4, "bos_token_id": 1})
    made = applied(files, sampling_defaults.repair(files, FAMILY))["generation_config.json"]
    assert made == {"bos_token_id": 1, "eos_token_id": 4, "do_sample": True} | FAMILY.sampling.stated  # type: ignore[union-attr]


def test_no_figures_no_advice() -> None:
    assert sampling_defaults.repair(model(), None) == []
    assert sampling_defaults.repair(model(), Family(name="f", model_types=("llama",))) == []


def test_values_that_json_cannot_say_are_recorded_as_text(upload: Upload, tmp_path: Path) -> None:
    config = demo_json("config.json") | {"_limits": [0.0, float("inf")], "time_step_limit": [0.0, float("inf")]}
    out = tmp_path / "out"
    out.mkdir()
    result = fixes.repair(out, snapshot=upload(config=config), repo="upstream/tiny-chat", fixes=False)
    json.dumps(result, allow_nan=False)
    assert json.loads((out / "config.json").read_text())["time_step_limit"] == [0.0, float("inf")]


@pytest.mark.parametrize("junk", [None, 7, "text", [], {}, [[]], {"content": 3}, [{"content": "x", "id": "y"}]])
def test_junk_in_tokenizer_files_breaks_nothing(junk: Any) -> None:
    for key in ("added_tokens_decoder", "bos_token", "eos_token", "pad_token", "chat_template", "add_bos_token", "tokenizer_class"):
        files = model(**{key: junk}) | {"tokenizer.json": {"added_tokens": junk, "post_processor": junk, "model": junk}, "special_tokens_map.json": {key: junk}}
        for repair in (strip_remote_code.repair, end_of_turn_eos.repair, distinct_pad.repair, single_bos.repair):
            applied(files, repair(files, None))


def test_terms_in_a_folder_are_kept(tmp_path: Path) -> None:
    made = releases.clean(tmp_path / "made")
    for name in ("legal/Notice.txt", "LICENSES/MIT.txt", "notes/other.txt"):
        (made / name).parent.mkdir()
        (made / name).write_text(name, encoding="utf-8")
    (tmp_path / "out").mkdir()
    assert fixes.repair(tmp_path / "out", snapshot=made, repo="upstream/tiny-chat", fixes=True)["patches"] == []
    assert {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").glob("*/*")} == {"legal/Notice.txt", "LICENSES/MIT.txt"}
