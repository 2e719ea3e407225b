#!/usr/bin/env bash
# transformers 5.23.0 with jinja2 3.1.6 and tokenizers 0.23.3, Python 3.11.
#
# Who tunes or calibrates a model on its answers alone asks for `return_assistant_tokens_mask`, which marks what a chat template writes between
# `{% generation %}` and `{% endgeneration %}`. Where that begins is reckoned from what the template has put out so far. What a macro, a `set` block or a
# `filter` block has written is not put out before the block ends: the mark begins too early by as much, holds the opening of the turn, and lacks the end of the
# answer with the token that ends the turn. The prompt is the same, and nothing is said.
#
# Expected: the answer and its end. Seen, for four templates that write the same prompt:
#   in a loop      'It is four.<|end|>'
#   in a macro     '<|assistant|>It is'
#   in set         '<|assistant|>It is'
#   in filter      '<|assistant|>It is'
#
# Fails when that changes. Needs python3.11 and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1
python3.11 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check transformers==5.23.0 tokenizers==0.23.3 jinja2==3.1.6
cat > "$work/look.py" <<'PYTHON'
import sys
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
made = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[]))
made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
made.add_special_tokens([AddedToken(token, special=True) for token in ("<|user|>", "<|assistant|>", "<|end|>")])
tokenizer = PreTrainedTokenizerFast(tokenizer_object=made)

turn = ("{{ '<|' + message.role + '|>' }}{% if message.role == 'assistant' %}{% generation %}{{ message.content + '<|end|>' }}{% endgeneration %}"
        "{% else %}{{ message.content + '<|end|>' }}{% endif %}")
loop = "{% for message in messages %}"
templates = {
    "in a loop": loop + turn + "{% endfor %}",
    "in a macro": "{% macro turn(message) %}" + turn + "{% endmacro %}" + loop + "{{ turn(message) }}{% endfor %}",
    "in set": loop + "{% set text %}" + turn + "{% endset %}{{ text }}{% endfor %}",
    "in filter": loop + "{% filter trim %}" + turn + "{% endfilter %}{% endfor %}",
}
chat = [{"role": "user", "content": "What is two and two?"}, {"role": "assistant", "content": "It is four."}]
found, prompts = {}, set()
for name, template in templates.items():
    out = tokenizer.apply_chat_template(chat, chat_template=template, return_dict=True, return_assistant_tokens_mask=True)
    prompts.add(tokenizer.decode(out["input_ids"]))
    found[name] = tokenizer.decode([token for token, marked in zip(out["input_ids"], out["assistant_masks"], strict=True) if marked])
    print(f"{name:14} {found[name]!r}")
other = dict.fromkeys(("in a macro", "in set", "in filter"), "<|assistant|>It is")
sys.exit(len(prompts) != 1 or found != {"in a loop": "It is four.<|end|>", **other})
PYTHON
"$work/env/bin/python" -W ignore "$work/look.py" 2> "$work/log" || { cat "$work/log"; exit 1; }
