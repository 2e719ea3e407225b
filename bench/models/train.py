"""Trains a small chat model on the closed world of world.py and writes a complete model folder; README.md beside it says how the models here were made.

On two CPU cores 25 minutes or more give a model that answers most questions of the bank: it has seen them, so its score measures damage to its weights, not
knowledge. Matrices are trained by Muon (Jordan et al., 2024), the rest by AdamW.
"""

import argparse
import random
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from safetensors.torch import load_file
from torch.nn import functional

from bench.models import folder, world

MUON, ADAM = 0.015, 3e-3  # learning rates
MOMENTUM, DECAY = 0.95, 0.05
WARM_UP = 30  # steps
STEADY = 0.6  # of the time, before rates fall
ROOM, BATCH = 320, 14  # tokens and rows of a step
QUESTIONS, CONVERSATIONS = 0.6, 0.28  # shares of the pieces of text; the rest is prose
EMPHASIS = 5.0  # added weight of the letters A to D
WIDTHS = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 2048}
_SPACED = ((" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", "."), (" , ", ", "), (" . ", ". "), (" 's", "'s"), ("<unk>", "thing"))


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Where training text comes from."""

    style: folder.Style
    rng: random.Random
    bank: dict[str, list[list[str]]]
    prose: str

    def questions(self, count: int) -> str:
        """Few-shot text of so many questions of one subject."""
        subject = self.rng.choice(world.SUBJECTS)
        return world.block(self.rng.sample(self.bank[subject], count), subject)

    def conversation(self) -> str:
        """A conversation in the model's template."""
        return self.style.render(world.conversation(self.rng))


class Tokens:
    """Token ids of text that holds control tokens."""

    def __init__(self, pieces: sentencepiece.SentencePieceProcessor, style: folder.Style) -> None:
        self.pieces, self.control = pieces, style.control
        self._split = re.compile("(" + "|".join(map(re.escape, style.control)) + ")")

    def encode(self, text: str) -> list[int]:
        """Without BOS."""
        parts = (part for part in self._split.split(text) if part)
        return [token for part in parts for token in ([self.pieces.piece_to_id(part)] if part in self.control else self.pieces.encode(part))]


def main() -> None:
    given = _parser().parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(given.seed)
    style = folder.STYLES["turns" if given.arch == "gemma3" else "chatml"]
    prose = "".join(path.read_text(encoding="utf-8") for path in given.prose)
    for spaced, plain in _SPACED:
        prose = prose.replace(spaced, plain)
    texts = Texts(style=style, rng=random.Random(given.seed), bank=world.bank(given.bank), prose=prose)  # noqa: S311
    if not (given.out / "tokenizer.model").exists():
        corpus = "".join(texts.questions(2) + texts.conversation() for _ in range(6000)) + prose[:3_000_000]
        folder.train_tokenizer(given.out, corpus, style, vocabulary=given.vocab)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(given.out / "tokenizer.model"))
    model = build(given.arch, pieces, style, wide=given.ffn).to(given.device)
    if given.init:
        model.load_state_dict(load_file(given.init), strict=False)
    tokens = Tokens(pieces, style)
    steps = train(model, tokens, texts, minutes=given.minutes)
    print(f"steps {steps}, multiple choice {score(model, tokens, texts):.3f}")
    model.config.architectures = [type(model).__name__]
    model.to(torch.bfloat16).save_pretrained(given.out)  # under the names that releases have, experts one by one
    folder.write_tokenizer(given.out, pieces, style)


def build(arch: str, pieces: sentencepiece.SentencePieceProcessor, style: folder.Style, *, wide: int) -> Any:
    """A model with random weights."""
    import transformers

    common: dict[str, Any] = WIDTHS | {
        "vocab_size": pieces.vocab_size(),
        "intermediate_size": wide,
        "tie_word_embeddings": True,
        "bos_token_id": pieces.bos_id(),
        "eos_token_id": pieces.piece_to_id(style.end),
        "pad_token_id": pieces.piece_to_id(style.pad),
    }
    if arch == "llama":
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**common, rms_norm_eps=1e-5))
    if arch == "gemma3":
        return transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**common, sliding_window=256, query_pre_attn_scalar=64))
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**common, num_local_experts=4, num_experts_per_tok=2))


def train(model: Any, tokens: Tokens, texts: Texts, *, minutes: float) -> int:
    """Train for so many minutes; the number of steps."""
    named = dict(model.named_parameters())
    matrices = [weight for name, weight in named.items() if weight.ndim >= 2 and not any(part in name for part in ("embed", ".gate.weight", "router"))]
    chosen = {id(weight) for weight in matrices}
    others = [weight for weight in named.values() if id(weight) not in chosen]
    adam = torch.optim.AdamW(others, lr=ADAM, betas=(0.9, 0.95), weight_decay=0.0)
    momentum = [torch.zeros_like(weight) for weight in matrices]
    prose = torch.tensor(tokens.encode(texts.prose[:8_000_000]))
    letters = torch.tensor([tokens.pieces.piece_to_id("▁" + letter) for letter in "ABCD"], device=model.device)
    started, step = time.monotonic(), 0
    while (done := (time.monotonic() - started) / (minutes * 60)) < 1:
        scale = min(1, step / WARM_UP) * (1 if done < STEADY else max(0.02, (1 - done) / (1 - STEADY)))
        ids = batch(tokens, texts, prose).to(model.device)
        following = ids[:, 1:]
        logits = model(ids[:, :-1]).logits.float()
        loss = functional.cross_entropy(logits.flatten(0, 1), following.reshape(-1), reduction="none").view_as(following)
        weight = 1 + EMPHASIS * torch.isin(following, letters)
        model.zero_grad()
        ((loss * weight).sum() / weight.sum()).backward()  # type: ignore[no-untyped-call] # torch annotates nothing here
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        adam.param_groups[0]["lr"] = ADAM * scale
        adam.step()
        muon(matrices, momentum, MUON * scale)
        step += 1
        if step % 50 == 0:
            print(f"{done:6.1%} step {step} loss {loss.mean():.3f}", flush=True)
    return step


def batch(tokens: Tokens, texts: Texts, prose: torch.Tensor) -> torch.Tensor:
    """Ids (BATCH, ROOM + 1): pieces of text one after another, each after a BOS."""
    rows, rng = [], texts.rng
    end = texts.style.end_of_text
    for _ in range(BATCH):
        ids: list[int] = []
        while len(ids) <= ROOM:
            kind = rng.random()
            ids.append(tokens.pieces.bos_id())
            if kind < QUESTIONS:
                ids += tokens.encode(texts.questions(rng.randint(4, 7)))
            elif kind < QUESTIONS + CONVERSATIONS:
                ids += tokens.encode(texts.conversation() + (end or ""))
            else:
                start = rng.randrange(len(prose) - ROOM)
                ids += prose[start : start + rng.randint(64, ROOM)].tolist()
        rows.append(ids[: ROOM + 1])
    return torch.tensor(rows)


@torch.no_grad()
def muon(matrices: list[torch.Tensor], momentum: list[torch.Tensor], rate: float) -> None:
    """One step: momentum, made orthogonal, with weight decay. Fused experts (experts, rows, columns) are matrices each for itself."""
    for weight, kept in zip(matrices, momentum, strict=True):
        assert weight.grad is not None
        kept.mul_(MOMENTUM).add_(weight.grad)
        step = orthogonalized(weight.grad + MOMENTUM * kept)
        weight.mul_(1 - DECAY * rate).add_(step, alpha=-rate * max(1, weight.size(-2) / weight.size(-1)) ** 0.5)


def orthogonalized(gradient: torch.Tensor) -> torch.Tensor:
    """The Newton-Schulz iteration of Muon, with its published coefficients."""
    found: torch.Tensor = gradient / (gradient.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    wide = found.size(-2) <= found.size(-1)
    found = found if wide else found.mT
    for _ in range(5):
        square = found @ found.mT
        found = 3.4445 * found + (-4.7750 * square + 2.0315 * square @ square) @ found
    return found if wide else found.mT


@torch.no_grad()
def score(model: Any, tokens: Tokens, texts: Texts, count: int = 400) -> float:
    """Share of questions with five before them that are answered with the right letter."""
    letters, right = [tokens.pieces.piece_to_id("▁" + letter) for letter in "ABCD"], 0
    texts.rng.seed(99)
    model.eval()
    for _ in range(count):
        text = texts.questions(6).rstrip()
        ids = [tokens.pieces.bos_id(), *tokens.encode(text[:-2])]
        logits = model(torch.tensor([ids], device=model.device)).logits[0, -1]
        right += "ABCD"[int(logits[letters].argmax())] == text[-1]
    return right / count


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.models.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="llama", choices=["llama", "gemma3", "mixtral"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bank", type=Path, required=True, help="a question bank in hendrycks' form, such as demo/data/tiny_mmlu")
    parser.add_argument("--prose", type=Path, nargs="+", required=True, help="plain English text, some megabytes")
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--ffn", type=int, default=768)
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--init", type=Path, help="safetensors to start from, with transformers' own names of parameters")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    return parser


if __name__ == "__main__":
    main()
