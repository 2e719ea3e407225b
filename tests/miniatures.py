"""Sound releases in miniature, one for each template that proves a family: config, tokenizer and template as its makers publish them, hardly any weights."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from builders import families
from config.errors import ToolError
from config.rules import FAMILIES, Family, load_families
from engines import environments

_TOKEN = re.compile(r"<[|｜][^<>\s'\"]{1,40}[|｜]>|<(?:start|end)_of_turn>|\[/?[A-Z_]{2,40}\]")  # in a template's source
PAD, BOS = "<pad>", "<bos>"
PROOFS: Mapping[str, tuple[Family, str]] = {f"{family.name} {name}": (family, name) for family in load_families() for name in family.templates}


def template_of(family: Family, name: str) -> str:
    """A template that the family's file names. Skips the test where it is of a package that cannot be fetched."""
    if ":" in name:
        try:
            environments.install(environments.OLLAMA_UTILS)
        except ToolError as error:
            pytest.skip(str(error))
    found = families.find(name, FAMILIES / f"{family.name}.yaml")
    assert found is not None
    return found


def sound(proof: str, out: Path) -> Path:
    """A release of that family with that template, in a new folder. Neighbours differ in how files are written, as those of different makers do."""
    family, name = PROOFS[proof]
    template, place = template_of(family, name), [*PROOFS].index(proof)
    out.mkdir()
    specials = list(dict.fromkeys([PAD, BOS, *_TOKEN.findall(template), *family.stop, *([family.end_of_turn] if family.end_of_turn else [])]))
    ids = _tokenizer(out, specials)
    eos = family.end_of_turn or family.stop[-1]
    ends = [ids[eos]] if family.end_of_turn else [ids[stop] for stop in family.stop]
    own = place % 2 == 0  # the template in a file of its own
    _json(out / "config.json", _config(family, ids, eos), place)
    sampling = {} if family.sampling is None else {"do_sample": True, **family.sampling.stated}
    _json(out / "generation_config.json", {"bos_token_id": ids[BOS], "eos_token_id": ends, "pad_token_id": ids[PAD], **sampling}, place)
    roles: dict[str, Any] = {"bos_token": BOS, "eos_token": eos, "pad_token": PAD}
    if place % 3 == 0:
        roles = {role: {"content": text, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False} for role, text in roles.items()}
    settings = {"add_bos_token": False, "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 2048, **roles}
    _json(out / "tokenizer_config.json", settings if own else settings | {"chat_template": template}, place)
    _json(out / "special_tokens_map.json", roles, place)
    if own:
        (out / "chat_template.jinja").write_text(template, encoding="utf-8")
    (out / "README.md").write_text("---\nlicense: mit\n---\n# A miniature\n", encoding="utf-8")
    return out


def _config(family: Family, ids: Mapping[str, int], eos: str) -> dict[str, Any]:
    numbers = {"bos_token_id": ids[BOS], "eos_token_id": ids[eos], "pad_token_id": ids[PAD]}
    kind = family.model_types[0]
    return {
        "architectures": [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]],
        "model_type": kind,
        "rms_norm_eps": 1e-06,
        "tie_word_embeddings": True,
        "vocab_size": len(ids),
        **numbers,
    }


def _tokenizer(out: Path, specials: list[str]) -> dict[str, int]:
    """Bytes and special tokens, with a matrix that has a row for each; the ids by text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: number for number, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in specials])
    tokenizer.save(str(out / "tokenizer.json"))
    ids: dict[str, int] = tokenizer.get_vocab()
    save_file({"model.embed_tokens.weight": torch.zeros(len(ids), 4, dtype=torch.bfloat16)}, out / "model.safetensors", metadata={"format": "pt"})
    return ids


def _json(path: Path, content: Mapping[str, Any], place: int) -> None:
    """In one of the forms that JSON is found in."""
    forms: tuple[dict[str, Any], ...] = ({"indent": 2}, {"indent": 4, "ensure_ascii": False}, {"separators": (",", ":")}, {"indent": 2, "sort_keys": True})
    path.write_text(json.dumps(content, **forms[place % len(forms)]) + ("\n" if place % 2 else ""), encoding="utf-8")
