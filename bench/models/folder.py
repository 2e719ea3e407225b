"""Writes what belongs to a model folder beside the weights: the tokenizer in both forms, its configuration and the chat template."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

from bench.models.world import Message

CONTEXT = 2048

_CHATML = (
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}{%- if message.role != 'system' %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
_TURNS = (
    "{%- if messages[0]['role'] == 'system' %}{%- set first = messages[0]['content'] + '\\n\\n' %}{%- set rest = messages[1:] %}"
    "{%- else %}{%- set first = '' %}{%- set rest = messages %}{%- endif %}{%- for message in rest %}"
    "{%- set role = 'model' if message.role == 'assistant' else message.role %}"
    "{{- '<start_of_turn>' + role + '\\n' + (first if loop.first else '') + (message.content | trim) + '<end_of_turn>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}"
)


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a family of models writes conversations."""

    control: tuple[str, ...]
    end: str  # of a turn
    pad: str
    end_of_text: str | None  # written after a conversation in training
    thinking: tuple[str, ...]
    ids: dict[str, Any]  # of SentencePiece's own special tokens
    template: str

    def render(self, messages: Sequence[Message]) -> str:
        """A conversation as the template writes it."""
        if self.template == _CHATML:
            return "".join(f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in messages)
        text = system = ""
        for message in messages:
            if message["role"] == "system":
                system = message["content"] + "\n\n"
            elif message["role"] == "user":
                text += f"<start_of_turn>user\n{system}{message['content']}<end_of_turn>\n"
                system = ""
            else:
                text += f"<start_of_turn>model\n{message['content']}<end_of_turn>\n"
        return text


STYLES = {
    "chatml": Style(
        control=("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
        end="<|im_end|>",
        pad="<|endoftext|>",
        end_of_text="<|endoftext|>",
        thinking=("<think>", "</think>"),
        ids={"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1},
        template=_CHATML,
    ),
    "turns": Style(
        control=("<start_of_turn>", "<end_of_turn>"),
        end="<end_of_turn>",
        pad="<pad>",
        end_of_text=None,
        thinking=(),
        ids={"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "pad_piece": "<pad>", "bos_piece": "<bos>", "eos_piece": "<eos>"},
        template=_TURNS,
    ),
}


def train_tokenizer(out: Path, corpus: str, style: Style, *, vocabulary: int) -> None:
    """Write `tokenizer.model`: byte-pair encoding with byte fallback, digits apart, no blank put in front."""
    text = out / "corpus.txt"
    text.write_text(corpus, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(out / "tokenizer"),
        model_type="bpe",
        vocab_size=vocabulary,
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        split_digits=True,
        control_symbols=list(style.control),
        user_defined_symbols=["\n", *style.thinking],
        max_sentence_length=100_000,
        minloglevel=2,
        **style.ids,
    )
    text.unlink()
    (out / "tokenizer.vocab").unlink()


def write_tokenizer(out: Path, trained: sentencepiece.SentencePieceProcessor, style: Style) -> None:
    """Write `tokenizer.json`, the configuration files of tokenizer and generation, and the special tokens."""
    ids = {trained.id_to_piece(token): token for token in range(trained.vocab_size())}
    unknown, bos = trained.id_to_piece(trained.unk_id()), trained.id_to_piece(trained.bos_id())
    special = [piece for piece, token in ids.items() if trained.is_control(token)]
    tokenizer = Tokenizer(models.BPE(ids, merges(trained, ids), unk_token=unknown, fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False, special=True) for piece in special])
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in style.thinking])
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, ids[bos])])
    tokenizer.save(str(out / "tokenizer.json"))
    named = {"bos_token": bos, "eos_token": style.end, "pad_token": style.pad, "unk_token": unknown}
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    added = {str(ids[piece]): {"content": piece, **flags, "special": piece in special} for piece in (*special, *style.thinking)}
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": True,
        "add_eos_token": False,
        "add_prefix_space": False,
        **named,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
        "added_tokens_decoder": added,
        "chat_template": style.template,
    }
    sampling = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}
    generation = {"bos_token_id": ids[bos], "eos_token_id": [ids[style.end]], "pad_token_id": ids[style.pad], **sampling}
    for name, content in (("tokenizer_config", described), ("special_tokens_map", named), ("generation_config", generation)):
        (out / f"{name}.json").write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")


def merges(trained: sentencepiece.SentencePieceProcessor, ids: dict[str, int]) -> list[tuple[str, str]]:
    """The merges of a byte-pair encoding, best first: every way to split a piece into two pieces."""
    found = []
    for piece, token in ids.items():
        if not (trained.is_control(token) or trained.is_unknown(token) or trained.is_byte(token)):
            splits = [(piece[:at], piece[at:], token) for at in range(1, len(piece)) if piece[:at] in ids and piece[at:] in ids]
            found += sorted(splits, key=lambda split: (ids[split[0]], ids[split[1]]))
    return [(left, right) for left, right, _ in sorted(found, key=lambda split: -trained.get_score(split[2]))]
