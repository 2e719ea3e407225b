"""The tokenizer of a model from the vocabulary in its GGUF file: tokenizer.json and its settings, and of a SentencePiece vocabulary tokenizer.model as well.

Tokens, merges, scores and kinds are the file's own. What a vocabulary of bytes is cut at beforehand stands in it as a name, and here as what that name means.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from builders.convert import NEVER_STRIPS, STRIPPING
from builders.fixes.tokenizer_model import ADDED_SCORE, BPE, BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED
from builders.rebuilt.architectures import special_ids
from config.errors import UpstreamError
from engines.gguf_header import Header
from engines.sentencepiece import SPACE

_PROTOCOL: Any = sentencepiece_model_pb2  # its classes are made when it is imported, so that nobody knows their types
UNUSED = 5
BYTE_LEVEL, SENTENCEPIECE = "gpt2", "llama"  # what GGUF calls the two kinds

_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LLAMA_3 = rf"{_SHORT}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}"
_QWEN_2 = rf"{_SHORT}|{_WORDS}|\p{{N}}|{_REST}"
_TEKKEN = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PATTERNS: Mapping[str, str] = {
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "smaug-bpe"), _LLAMA_3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), _QWEN_2),
    "tekken": _TEKKEN,
}
_DIGITS, _WHOLE = ("smollm", "refact", "starcoder"), "gpt-2"  # GPT-2's own pattern, with each digit by itself, and alone
_CUTS = (_WHOLE, *_DIGITS, *_PATTERNS)
_COMPOSED = {"qwen2", "deepseek-r1-qwen"}  # characters are composed first (NFC), which llama.cpp does not do and GGUF has no field for
_WHOLE_WORDS = {"llama-bpe", "llama3", "llama-v3", "tekken"}  # a word that is a token is not merged from its parts; and BOS comes first unless stated otherwise


def write(out: Path, header: Header, file: str) -> None:
    """Write tokenizer.json, tokenizer_config.json and the template; `file` is what the model is called in errors. Raises UpstreamError."""
    kind = require_known(header, file)
    tokens = header.fields.get("tokenizer.ggml.tokens") or []
    kinds = header.fields.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
    if not tokens or len(kinds) != len(tokens) or not all(isinstance(token, str) for token in tokens):
        raise _refused(file, f"has a vocabulary of {len(tokens)} tokens, and the kinds of {len(kinds)}")
    left_out = {number for number, text in enumerate(tokens) if kinds[number] == UNUSED and text == f"[PAD{number}]"}  # rows without a token
    listed = [(number, text) for number, text in enumerate(tokens) if number not in left_out]
    ids = {text: number for number, text in listed}
    if len(ids) < len(listed) or "" in ids:
        raise _refused(file, "holds a token twice, or an empty one, which tokenizer.json cannot")
    if kind == BYTE_LEVEL:
        tokenizer = _byte_level(header, ids, file)
    else:
        scores = header.fields.get("tokenizer.ggml.scores") or []
        if len(scores) != len(tokens):
            raise _refused(file, f"has a vocabulary of {len(tokens)} tokens, and the scores of {len(scores)}")
        normal = {text: scores[number] for number, text in listed if kinds[number] == NORMAL}
        tokenizer = _sentencepiece(header, ids, normal)
        (out / "tokenizer.model").write_bytes(_model(header, [(text, scores[number], kinds[number]) for number, text in listed], file))
    added = [(AddedToken(text, normalized=False, rstrip=_strips(header, text)), kinds[number]) for number, text in listed if _is_added(kinds[number], header)]
    tokenizer.add_special_tokens([token for token, token_kind in added if token_kind != USER_DEFINED])
    tokenizer.add_tokens([token for token, token_kind in added if token_kind == USER_DEFINED])
    tokenizer.post_processor = _around(header)
    tokenizer.save(str(out / "tokenizer.json"))
    _settings(out, header, [(number, text, kinds[number]) for number, text in listed])
    _template(out, header)


def require_known(header: Header, file: str) -> str:
    """What GGUF calls the kind of the vocabulary. Raises UpstreamError when no tokenizer can be rebuilt from it."""
    kind, name = header.fields.get("tokenizer.ggml.model"), header.fields.get("tokenizer.ggml.pre", "")
    if kind not in {BYTE_LEVEL, SENTENCEPIECE}:
        raise _refused(file, f"has a vocabulary of the kind {kind!r}; of {BYTE_LEVEL!r} and {SENTENCEPIECE!r} Sluice can rebuild a tokenizer")
    if kind == BYTE_LEVEL and name not in _CUTS:
        raise _refused(file, f"cuts its text by {name!r} (tokenizer.ggml.pre) before it is tokenized; of {', '.join(_CUTS)} Sluice knows what they mean")
    return str(kind)


def _strips(header: Header, text: str) -> bool:
    """Whether an added token swallows what white space follows it, for which GGUF has no field."""
    return STRIPPING.search(str(header.fields.get("general.name", ""))) is not None and text not in NEVER_STRIPS


def _is_added(kind: int, header: Header) -> bool:
    """Whether tokenizer.json lists a token of that kind as added; of a Phi-3 those alone that the converter made control tokens for standing there."""
    sentences = header.fields.get("tokenizer.ggml.model") == SENTENCEPIECE
    return kind in {CONTROL, USER_DEFINED} or (kind == UNKNOWN and sentences and header.architecture != "phi3")


def _byte_level(header: Header, ids: Mapping[str, int], file: str) -> Tokenizer:
    """Byte-pair encoding of bytes, cut as the file's name for that says."""
    name = header.fields["tokenizer.ggml.pre"]
    merges = [tuple(merge.split(" ", 1)) for merge in header.fields.get("tokenizer.ggml.merges") or []]
    if not merges or any(len(merge) != 2 or "".join(merge) not in ids or not {*merge} <= ids.keys() for merge in merges):
        raise _refused(file, "has merges (tokenizer.ggml.merges) that its vocabulary does not bear out")
    tokenizer = Tokenizer(models.BPE(dict(ids), merges, ignore_merges=name in _WHOLE_WORDS))
    if name in _COMPOSED:
        tokenizer.normalizer = normalizers.NFC()
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=name not in _PATTERNS)
    if name in _PATTERNS:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_PATTERNS[name]), "isolated"), bytes_])
    elif name in _DIGITS:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytes_])
    else:
        tokenizer.pre_tokenizer = bytes_
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(header: Header, ids: Mapping[str, int], normal: Mapping[str, float]) -> Tokenizer:
    """Pieces joined in the order of their scores, as SentencePiece and llama.cpp do."""
    from transformers.convert_slow_tokenizer import generate_merges

    merges = generate_merges({text: ids[text] for text in normal}, normal)
    unknown = special_ids(header).get("unk")
    texts = {number: text for text, number in ids.items()}
    tokenizer = Tokenizer(models.BPE(dict(ids), merges, unk_token=None if unknown is None else texts.get(unknown), fuse_unk=True, byte_fallback=True))
    prefix = [normalizers.Prepend(SPACE)] if _prefixed(header) else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return tokenizer


def _prefixed(header: Header) -> bool:
    """Whether a blank is put before every text."""
    return header.fields.get("tokenizer.ggml.model") == SENTENCEPIECE and bool(header.fields.get("tokenizer.ggml.add_space_prefix", True))


def _model(header: Header, pieces: Sequence[tuple[str, float, int]], file: str) -> bytes:
    """tokenizer.model."""
    roles = special_ids(header)
    # where the upstream listed this token among the added ones, the converter calls it a control token, and SentencePiece wants it all the same
    named = {number for role, number in roles.items() if role == "unk" and number < len(pieces)}
    unknown = {number for number, (_, _, kind) in enumerate(pieces) if kind == UNKNOWN} or named
    if len(unknown) != 1:
        raise _refused(file, "has a SentencePiece vocabulary without a piece for what is unknown, or with several")
    built = _PROTOCOL.ModelProto()
    for number, (text, score, kind) in enumerate(pieces):
        built.pieces.add(piece=text, score=score, type=UNKNOWN if number in unknown else kind)
    trainer, normalizer = built.trainer_spec, built.normalizer_spec
    trainer.model_type, trainer.vocab_size = BPE, len(pieces)
    trainer.byte_fallback = any(kind == BYTE for _, _, kind in pieces)
    for role in ("unk", "bos", "eos", "pad"):
        number = roles.get(role, -1)
        setattr(trainer, f"{role}_id", number)
        if 0 <= number < len(pieces):
            setattr(trainer, f"{role}_piece", pieces[number][0])
    normalizer.name, normalizer.add_dummy_prefix = "identity", _prefixed(header)
    normalizer.remove_extra_whitespaces, normalizer.escape_whitespaces = False, True
    return bytes(built.SerializeToString(deterministic=True))


def adds(header: Header, role: str) -> bool:
    """Whether the token of a role, bos or eos, is put around every text."""
    stated = header.fields.get(f"tokenizer.ggml.add_{role}_token")
    if isinstance(stated, bool):
        return stated
    usual = header.fields.get("tokenizer.ggml.model") == SENTENCEPIECE or header.fields.get("tokenizer.ggml.pre") in _WHOLE_WORDS
    return role == "bos" and usual and role in special_ids(header)


def _around(header: Header) -> Any:
    """The post-processor: BOS and EOS where they are put around a text."""
    tokens, roles = header.fields["tokenizer.ggml.tokens"], special_ids(header)
    texts = {role: tokens[roles[role]] for role in ("bos", "eos") if role in roles and adds(header, role)}
    if not texts:
        return processors.ByteLevel(trim_offsets=False) if header.fields["tokenizer.ggml.model"] == BYTE_LEVEL else None
    before, after = texts.get("bos"), texts.get("eos")
    parts = [*([before] if before else []), "$A", *([after] if after else [])]
    second = [*([f"{before}:1"] if before else []), "$B:1", *([f"{after}:1"] if after else [])]
    return processors.TemplateProcessing(single=parts, pair=[*parts, *second], special_tokens=[(text, roles[role]) for role, text in texts.items()])


def _settings(out: Path, header: Header, listed: Sequence[tuple[int, str, int]]) -> None:
    """tokenizer_config.json: a class that takes tokenizer.json as it is, in every transformers."""
    kind, fields = header.fields["tokenizer.ggml.model"], header.fields
    tokens = fields["tokenizer.ggml.tokens"]
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": header.of("context_length"),
        **{f"{role}_token": tokens[number] for role, number in special_ids(header).items()},
        **{key: fields[f"tokenizer.ggml.{key}"] for key in ("add_bos_token", "add_eos_token") if isinstance(fields.get(f"tokenizer.ggml.{key}"), bool)},
    }
    if kind == SENTENCEPIECE:
        settings["add_prefix_space"] = _prefixed(header)
        scores = fields["tokenizer.ggml.scores"]
        flags = {"lstrip": False, "normalized": False, "single_word": False}
        # the converter gives every token that stands here the same score, and takes others from tokenizer.model
        settings["added_tokens_decoder"] = {
            str(number): {"content": text, **flags, "rstrip": _strips(header, text), "special": token == CONTROL}
            for number, text, token in listed
            if token in {CONTROL, USER_DEFINED} and scores[number] == ADDED_SCORE
        }
    if named := _named(header):
        settings["chat_template"] = named
    _json(out / "tokenizer_config.json", settings)


def _named(header: Header) -> list[dict[str, str]]:
    """The templates where there are several, each with its name."""
    names = header.fields.get("tokenizer.chat_templates") or []
    main = header.fields.get("tokenizer.chat_template")
    found = {"default": main, **{str(name): header.fields.get(f"tokenizer.chat_template.{name}") for name in names}}
    return [{"name": name, "template": text} for name, text in found.items() if isinstance(text, str)] if names else []


def _template(out: Path, header: Header) -> None:
    template = header.fields.get("tokenizer.chat_template")
    if isinstance(template, str) and not _named(header):
        (out / "chat_template.jinja").write_text(template, encoding="utf-8", newline="")


def _json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _refused(file: str, what: str) -> UpstreamError:
    return UpstreamError(f"{file} {what}, so no release can be made of it. Release the repo that it was made from, which its card should name.")
