"""Releases as real ones are: each oddity is repaired by its rule and no other, told on the card, and gone in the model and in its GGUF."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader
from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from tokenizers import Tokenizer
from tokenizers.models import Unigram

from builders import convert, fixes
from builders.fixes import listed_tokens, open_prompts, tokenizer_class, tokenizer_model
from builders.fixes.edits import applied
from config.digests import file_sha256
from config.errors import ToolError, UpstreamError
from config.rules import FIXES, load_rules
from config.words import Measurement
from engines import hf, llama, tools
from engines.battery import TEXTS
from qa import templates
from tests import releases
from tests.builders.conftest import DEMO
from tests.releases import edit, read


def repaired(made: Path, out: Path) -> list[dict[str, Any]]:
    out.mkdir()
    patches: list[dict[str, Any]] = fixes.repair(out, snapshot=made, repo="upstream/tiny-chat", fixes=True)["patches"]
    json.dumps(patches, allow_nan=False)
    return patches


@pytest.mark.parametrize("rule", releases.REPAIRED)
def test_an_oddity_is_repaired_by_its_rule_once(rule: str, tmp_path: Path) -> None:
    patches = repaired(releases.REPAIRED[rule](tmp_path / "made"), tmp_path / "out")
    also = {"listed-tokens"} if rule == "tokenizer-model" else set()
    assert {patch["fix"] for patch in patches} == {rule} | also
    assert repaired(tmp_path / "out", tmp_path / "again") == []


@pytest.mark.parametrize(("rule", "key", "value"), [("tied-head", "tie_word_embeddings", True), ("stale-quantization", "quantization_config", None)])
def test_what_config_json_says_of_the_weights_is_true_of_them_then(rule: str, key: str, value: object, tmp_path: Path) -> None:
    """And what is made of the model is what is made of one in which nothing is wrong."""
    repaired(releases.REPAIRED[rule](tmp_path / "made"), tmp_path / "out")
    assert read(tmp_path / "out" / "config.json").get(key) is value
    (tmp_path / "sound").mkdir()
    ours = convert.convert(tmp_path, model=tmp_path / "out", name="model")
    theirs = convert.convert(tmp_path / "sound", model=releases.clean(tmp_path / "clean"), name="model")
    assert file_sha256(tmp_path / str(ours["file"])) == file_sha256(tmp_path / "sound" / str(theirs["file"]))


def test_a_vocabulary_without_its_model_is_rebuilt_to_the_same_pieces(tmp_path: Path) -> None:
    """The scores of the original are minus the place of each piece, so nothing but the lost file's own bytes can differ."""
    repaired(releases.without_tokenizer_model(tmp_path / "made"), tmp_path / "out")
    made = convert.convert(tmp_path, model=tmp_path / "out", name="rebuilt")
    (tmp_path / "whole").mkdir()
    whole = convert.convert(tmp_path / "whole", model=releases.clean(tmp_path / "clean"), name="rebuilt")
    ours, theirs = (GGUFReader(folder / str(found["file"])).fields for folder, found in ((tmp_path, made), (tmp_path / "whole", whole)))
    for key in ("model", "pre", "tokens", "token_type", "add_space_prefix", "add_bos_token", "bos_token_id", "eos_token_id"):
        assert ours[f"tokenizer.ggml.{key}"].contents() == theirs[f"tokenizer.ggml.{key}"].contents(), key
    tokenizer = hf.load_tokenizer(tmp_path / "out")
    with llama.open_vocabulary(tmp_path / str(made["file"])) as vocabulary:
        for text in TEXTS:
            assert vocabulary.tokenize(text, add_special=False) == hf.encode(tokenizer, text, add_special=False), text


def test_a_gemma_3_without_its_vocabulary_s_own_file_is_converted(tmp_path: Path) -> None:
    """As transformers 5 saves it; the converter takes tokenizer.json of a Gemma 3 for a vocabulary of bytes that it does not know."""
    shutil.copytree(releases.ROOT / "bench" / "models" / "gemma3", tmp_path / "made")
    (tmp_path / "made" / "tokenizer.model").unlink()
    assert "tokenizer-model" in {patch["fix"] for patch in repaired(tmp_path / "made", tmp_path / "out")}
    made = convert.convert(tmp_path, model=tmp_path / "out", name="gemma")
    tokenizer = hf.load_tokenizer(tmp_path / "out")
    with llama.open_vocabulary(tmp_path / str(made["file"])) as vocabulary:
        for text in TEXTS:
            assert vocabulary.tokenize(text, add_special=False) == hf.encode(tokenizer, text, add_special=False), text


def test_a_converter_that_misses_the_file_says_which(tmp_path: Path) -> None:
    """Its words for Gemma 3, whose other ways of reading a vocabulary do not end in a wrong one."""
    said = ToolError("convert_hf_to_gguf.py ended with exit code 1.\nNotImplementedError: BPE pre-tokenizer was not recognized - update get_vocab_base_pre()")
    sentence = str(convert._in_words(said, "gemma", tmp_path))
    assert sentence.startswith("gemma has no tokenizer.model")
    assert "fix `tokenizer-model` rebuilds the file" in " ".join(sentence.split())
    (tmp_path / "tokenizer.model").touch()
    assert "cannot be converted" in str(convert._in_words(said, "gemma", tmp_path))


def test_a_converter_that_does_not_know_a_vocabulary_of_bytes_is_too_old(tmp_path: Path) -> None:
    """The usual failure of a release's first week: there never was a tokenizer.model, and no rule can make one."""
    made = {"model": {"type": "BPE", "vocab": {}, "merges": []}, "pre_tokenizer": {"type": "ByteLevel"}, "normalizer": None}
    (tmp_path / "tokenizer.json").write_text(json.dumps(made), encoding="utf-8")
    said = ToolError("convert_hf_to_gguf.py ended with exit code 1.\nNotImplementedError: BPE pre-tokenizer was not recognized - update get_vocab_base_pre()")
    sentence = str(convert._in_words(said, "newest", tmp_path))
    assert sentence.startswith("The tokenizer.json of newest cuts text in a way that llama.cpp (")
    assert "raise the pinned one" in sentence
    assert "tokenizer.model" not in sentence


def test_no_file_helps_a_unigram_vocabulary(tmp_path: Path) -> None:
    """With tokenizer.model llama.cpp reads it, and takes the scores of pieces for the order in which they are joined."""
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("▁", -1.0), ("a", -2.0), ("b", -2.0), ("c", -2.0), ("ab", -1.0), ("bc", -1.5), ("abc", -9.0)]
    made = releases.clean(tmp_path / "made")
    (made / "tokenizer.json").write_text(Tokenizer(Unigram(pieces, unk_id=0)).to_str(), encoding="utf-8")
    edit(made / "config.json", vocab_size=len(pieces))
    built = ModelProto()
    built.trainer_spec.model_type = 1
    built.trainer_spec.unk_id, built.trainer_spec.bos_id, built.trainer_spec.eos_id = 0, 1, 2
    built.normalizer_spec.name, built.normalizer_spec.add_dummy_prefix = "identity", False
    for text, score in pieces:
        built.pieces.add(piece=text, score=score, type={"<unk>": 2, "<s>": 3, "</s>": 3}.get(text, 1))
    (made / "tokenizer.model").write_bytes(built.SerializeToString())
    special = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "add_prefix_space": False}
    (made / "tokenizer_config.json").write_text(json.dumps(special), encoding="utf-8")
    (made / "special_tokens_map.json").unlink()
    tools.convert(made, "--vocab-only", "--outfile", tmp_path / "with.gguf", cwd=tmp_path)
    right = SentencePieceProcessor(model_proto=built.SerializeToString()).encode("abc")
    assert right == Tokenizer.from_file(str(made / "tokenizer.json")).encode("abc").ids
    with llama.open_vocabulary(tmp_path / "with.gguf") as vocabulary:
        assert vocabulary.tokenize("abc", add_special=False) != right
    (said,) = templates.unconverted(made, Measurement(name="template.mismatches", value=1, unit="prompts"))
    assert "Unigram models, and llama.cpp joins its pieces by their scores" in said

    (made / "tokenizer.model").unlink()
    with pytest.raises(ToolError) as caught:
        tools.convert(made, "--vocab-only", "--outfile", tmp_path / "without.gguf", cwd=tmp_path)
    sentence = str(convert._in_words(caught.value, "mine", made))
    assert sentence.startswith("The vocabulary of mine is one of SentencePiece's Unigram models, which llama.cpp (")
    assert "with a tokenizer.model beside it neither" in sentence


def test_a_model_that_contradicts_the_vocabulary_is_rebuilt(tmp_path: Path) -> None:
    """As a piece of spaces, where tokenizer.json has it as ▁▁: no text is ever read as that."""
    made = releases.clean(tmp_path / "made")
    model = ModelProto()
    model.ParseFromString((made / "tokenizer.model").read_bytes())
    usual = next(piece for piece in model.pieces if piece.piece == "▁the")
    usual.piece = " the"
    (made / "tokenizer.model").write_bytes(model.SerializeToString())
    (patch,) = repaired(made, tmp_path / "out")
    assert (patch["fix"], patch["file"]) == ("tokenizer-model", "tokenizer.model")
    assert "sha256" in patch["before"]
    sentences = SentencePieceProcessor(model_file=str(tmp_path / "out" / "tokenizer.model"))
    assert sentences.encode("on the way") == Tokenizer.from_file(str(DEMO / "tokenizer.json")).encode("on the way").ids[1:]


def test_what_is_no_such_vocabulary_is_left_alone(tmp_path: Path) -> None:
    files = fixes.read_files(releases.without_tokenizer_model(tmp_path / "made"))
    content = files["tokenizer.json"]
    bytes_only = {**content, "model": {**content["model"], "byte_fallback": False}}
    assert tokenizer_model.repair(files | {"tokenizer.json": bytes_only}, None) == []
    holes = {**content, "model": {**content["model"], "vocab": {text: 2 * number for text, number in content["model"]["vocab"].items()}}}
    assert tokenizer_model.repair(files | {"tokenizer.json": holes}, None) == []
    for merge in ("ab", ["a"], ["a", 7], 7, None):
        odd = {**content, "model": {**content["model"], "merges": [merge]}}
        assert tokenizer_model.repair(files | {"tokenizer.json": odd}, None) == [], merge
    prefixed = {**content, "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, content["normalizer"]]}}
    edits = {edit.dotted or edit.file: edit.after for edit in tokenizer_model.repair(files | {"tokenizer.json": prefixed}, None)}
    assert edits.get("add_prefix_space", True) is True


def test_a_tokenizer_that_transformers_would_rebuild_otherwise_is_used_as_it_is(tmp_path: Path) -> None:
    """SmolLM's case: a class whose own rules know nothing of digits that stand alone."""
    files = releases.tokenizer_of_bytes(digits=True)
    (edit,) = tokenizer_class.repair(files, None)
    assert (edit.file, edit.dotted, edit.after) == ("tokenizer_config.json", "tokenizer_class", "PreTrainedTokenizerFast")
    assert "GPT2Tokenizer" in edit.because
    for name, content in files.items():
        after = content | {"tokenizer_class": edit.after} if name == edit.file else content
        (tmp_path / name).write_text(json.dumps(after))
    ids = hf.encode(hf.load_tokenizer(tmp_path), "½ ²", add_special=False)
    assert ids == Tokenizer.from_str(json.dumps(files["tokenizer.json"])).encode("½ ²", add_special_tokens=False).ids
    assert tokenizer_class.repair(releases.tokenizer_of_bytes(digits=False), None) == [], "here the class reads as the file does"


def _added(*listed: str) -> dict[str, Any]:
    """The same vocabulary with two added tokens, of which tokenizer_config.json lists those."""
    files = releases.tokenizer_of_bytes(digits=False)
    first = 1 + max(files["tokenizer.json"]["model"]["vocab"].values())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    entries = [{"id": first + place, "content": text, "special": text == "<|end|>", **flags} for place, text in enumerate(("<|end|>", "<custom>"))]
    files["tokenizer.json"]["added_tokens"] = entries
    decoder = {str(entry["id"]): {key: value for key, value in entry.items() if key != "id"} for entry in entries if entry["content"] in listed}
    files["tokenizer_config.json"] |= {"eos_token": "<|end|>", "added_tokens_decoder": decoder}
    return files


def test_an_added_token_that_the_list_lacks_is_not_lost(tmp_path: Path) -> None:
    """It would be read as ordinary text by transformers 5, and be called [PAD258] in the GGUF file, without a difference between the two."""
    files = _added("<|end|>")
    expected = Tokenizer.from_str(json.dumps(files["tokenizer.json"])).encode("a<custom>b", add_special_tokens=False).ids
    assert len(expected) == 3
    for place, content in (("before", files), ("after", applied(files, listed_tokens.repair(files, None)))):
        (tmp_path / place).mkdir()
        for name, said in content.items():
            (tmp_path / place / name).write_text(json.dumps(said))
    read = {place: hf.encode(hf.load_tokenizer(tmp_path / place), "a<custom>b", add_special=False) for place in ("before", "after")}
    assert (read["before"] == expected, read["after"] == expected) == (False, True)
    (edit,) = listed_tokens.repair(files, None)
    assert (edit.dotted, edit.after["content"]) == ("added_tokens_decoder.258", "<custom>")
    assert edit.because == "of 2 that tokenizer.json has, 1 were not listed"
    assert listed_tokens.repair(_added("<|end|>", "<custom>"), None) == []
    (other,) = tokenizer_class.repair(files, None)
    assert "reads '<custom>' otherwise than tokenizer.json says" in other.because, "where the list is not completed, another class is named"


def test_the_padding_token_without_a_row_gives_way_to_one_with_a_row(tmp_path: Path) -> None:
    repaired(releases.token_beyond_embeddings(tmp_path / "made"), tmp_path / "out")
    tokenizer = hf.load_tokenizer(tmp_path / "out")
    assert len(tokenizer) <= 2048
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<|endoftext|>", 5)
    assert read(tmp_path / "out" / "config.json")["pad_token_id"] == read(tmp_path / "out" / "generation_config.json")["pad_token_id"] == 5


def test_an_end_of_turns_without_a_row_is_refused_in_one_sentence(tmp_path: Path) -> None:
    made = releases.end_of_turn_beyond_embeddings(tmp_path / "made")
    with pytest.raises(UpstreamError, match=r"^<\|turn_end\|> \(2048\) ends turns and has no row in the embeddings \(2048 rows\).*Ask its owner"):
        repaired(made, tmp_path / "out")
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        releases.edit(made / file, eos_token="</s>")
    with pytest.raises(UpstreamError, match="ends turns and has no row.*the chat template"):
        repaired(made, tmp_path / "of the template alone")
    releases.edit(made / "tokenizer_config.json", bos_token="<|turn_end|>", chat_template=releases.GONE)
    with pytest.raises(UpstreamError, match="begins texts and has no row.*bos_token of tokenizer_config.json"):
        repaired(made, tmp_path / "of a beginning")


def test_no_rule_makes_a_token_without_a_row_the_end_and_twice_changes_nothing(tmp_path: Path) -> None:
    """Also where nothing looks at the embeddings' rows before."""
    files = fixes.read_files(releases.end_of_turn_beyond_embeddings(tmp_path / "made"))
    tensors = fixes._tensors(tmp_path / "made")
    rules = [rule for rule in load_rules(FIXES) if rule.repair != "embedded_tokens"]
    once, patches = fixes.apply_rules(files, rules, None, tensors=tensors)
    assert (once["config.json"]["eos_token_id"], once["generation_config.json"]["eos_token_id"]) == (2, 2)
    assert "end-of-turn-eos" not in {patch.fix for patch in patches}
    assert fixes.apply_rules(once, rules, None, tensors=tensors) == (once, [])


def test_prompts_are_open_again_in_both_engines(tmp_path: Path) -> None:
    made = releases.eos_behind_every_text(tmp_path / "made")
    assert hf.encode(hf.load_tokenizer(made), "Hi", add_special=True)[-1] == 4
    repaired(made, tmp_path / "out")
    assert hf.encode(hf.load_tokenizer(tmp_path / "out"), "Hi", add_special=True)[0] == 1
    assert hf.encode(hf.load_tokenizer(tmp_path / "out"), "Hi", add_special=True)[-1] != 4
    found = convert.convert(tmp_path, model=tmp_path / "out", name="open")
    fields = GGUFReader(tmp_path / str(found["file"])).fields
    assert "tokenizer.ggml.add_eos_token" not in fields or not fields["tokenizer.ggml.add_eos_token"].contents()


BEGIN, TEXT = {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
SPECIAL = {text: {"id": text, "ids": [number], "tokens": [text]} for text, number in (("<s>", 1), ("</s>", 2), ("<|endoftext|>", 5))}


def closing(token: str) -> dict[str, Any]:
    template = {"type": "TemplateProcessing", "pair": [TEXT, {"Sequence": {"id": "B", "type_id": 0}}], "special_tokens": SPECIAL}
    return {**template, "single": [BEGIN, TEXT, {"SpecialToken": {"id": token, "type_id": 0}}]}


@pytest.mark.parametrize(
    "processor",
    [
        closing("<|endoftext|>"),  # the end of documents, which generation_config.json names beside that of turns
        {"type": "Sequence", "processors": [BYTES, closing("<|endoftext|>")]},
        {"type": "RobertaProcessing", "sep": ["<|endoftext|>", 5], "cls": ["<s>", 1], "trim_offsets": True, "add_prefix_space": False},
    ],
    ids=["another end", "one of several", "no template"],
)
def test_prompts_are_open_whatever_end_was_put_behind_them_and_by_what(processor: dict[str, Any], tmp_path: Path) -> None:
    made = releases.clean(tmp_path / "made")
    for file, changes in {"tokenizer.json": {"post_processor": processor}, "generation_config.json": {"eos_token_id": [4, 5]}}.items():
        releases.edit(made / file, **changes)
    (before, after) = (Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (made, repaired_to(tmp_path / "out", made)))
    for text in ("Hi", "What is the capital of France?"):
        expected = [1, *after.encode(text, add_special_tokens=False).ids]
        assert (before.encode(text).ids, after.encode(text).ids) == ([*expected, 5], expected)
    assert [patch["fix"] for patch in repaired(tmp_path / "out", tmp_path / "again")] == []


def repaired_to(out: Path, made: Path) -> Path:
    assert {patch["fix"] for patch in repaired(made, out)} == {"open-prompts"}
    return out


def test_what_stands_before_a_text_or_ends_none_is_left_there() -> None:
    files = _added("<|end|>", "<custom>")
    for parts in ([{"SpecialToken": {"id": "<|end|>"}}, TEXT], [TEXT, {"SpecialToken": {"id": "<custom>"}}], [TEXT, {"SpecialToken": {"id": ["<|end|>"]}}]):
        files["tokenizer.json"]["post_processor"] = {"type": "TemplateProcessing", "single": parts, "pair": parts, "special_tokens": {}}
        assert open_prompts.repair(files, None) == []
    files["tokenizer.json"]["post_processor"] = {"type": "RobertaProcessing", "sep": ["<custom>", 7], "cls": ["<|end|>", 6]}
    assert open_prompts.repair(files, None) == []


def test_the_template_in_force_is_the_one_that_the_gguf_holds(tmp_path: Path) -> None:
    repaired(releases.two_templates(tmp_path / "made"), tmp_path / "out")
    found = convert.convert(tmp_path, model=tmp_path / "out", name="one")
    with llama.open_vocabulary(tmp_path / str(found["file"])) as vocabulary:
        assert vocabulary.chat_template == (tmp_path / "out" / "chat_template.jinja").read_text()


def test_quantized_weights_keep_what_describes_them(tmp_path: Path) -> None:
    from builders.fixes import stale_quantization
    from builders.weights import Tensor

    files = {"config.json": {"quantization_config": {"quant_method": "fp8"}}}
    plain = Tensor(name="a", dtype="BF16", shape=(2, 2), bytes=8)
    packed = Tensor(name="b", dtype="F8_E4M3", shape=(2, 2), bytes=4)
    assert stale_quantization.repair(files, None, tensors={"a": plain, "b": packed}) == []
    assert len(stale_quantization.repair(files, None, tensors={"a": plain})) == 1
    assert stale_quantization.repair(files, None, tensors={}) == []
