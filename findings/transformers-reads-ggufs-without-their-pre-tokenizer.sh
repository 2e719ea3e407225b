#!/usr/bin/env bash
# transformers 5.23.0 with gguf 0.19.0, tokenizers 0.23.3 and torch 2.13.0, Python 3.11; llama.cpp as in node-llama-cpp 3.21.1, Node.js 20.
#
# `AutoTokenizer.from_pretrained(..., gguf_file=...)` takes vocabulary and merges of a byte-level BPE from the file, and never reads `tokenizer.ggml.pre`, which
# says how text is split before it is merged. All get GPT-2's splitting. SmolLM's, Llama 3's, DeepSeek's and others' numbers, for instance, become tokens that
# the model was never trained on; llama.cpp reads the same file right. Evaluations with `gguf_file` compare two tokenizers, not two files.
#
# Expected: the same tokens. Seen, for "12 hi" and a file whose pre-tokenizer, smollm, takes digits one by one:
#   llama.cpp      1 | 2 | Ġ | hi
#   transformers   12 | Ġ | hi
#
# Fails when that changes. Needs python3.11, Node.js 20, a package index and an npm registry.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1
python3.11 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 gguf==0.19.0 tokenizers==0.23.3
npm install --silent --no-audit --no-fund --ignore-scripts --omit=optional --prefix "$work" node-llama-cpp@3.21.1 @node-llama-cpp/linux-x64@3.21.1
cat > "$work/look.py" <<'PYTHON'
import pathlib, sys
import numpy as np
from gguf import GGUFWriter, TokenType
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

work = pathlib.Path(sys.argv[1])
tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "12", "hi", "<|im_end|>"]
wide = 32
shapes = {"token_embd": (len(tokens), wide), "output_norm": (wide,), "blk.0.attn_norm": (wide,), "blk.0.ffn_norm": (wide,)}
for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
    shapes[f"blk.0.{part}"] = (wide, wide)
writer = GGUFWriter(work / "model.gguf", "llama")
writer.add_context_length(64)
writer.add_embedding_length(wide)
writer.add_block_count(1)
writer.add_feed_forward_length(wide)
writer.add_head_count(1)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("smollm")
writer.add_token_list(tokens)
writer.add_token_types([*[TokenType.NORMAL] * (len(tokens) - 1), TokenType.CONTROL])
writer.add_token_merges(["1 2", "h i"])
writer.add_bos_token_id(len(tokens) - 1)
writer.add_eos_token_id(len(tokens) - 1)
writer.add_add_bos_token(False)
for tensor, shape in shapes.items():
    writer.add_tensor(f"{tensor}.weight", np.zeros(shape, dtype=np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
read = AutoTokenizer.from_pretrained(work, gguf_file="model.gguf")
(work / "transformers").write_text(" | ".join(read.convert_ids_to_tokens(read("12 hi", add_special_tokens=False)["input_ids"])))
PYTHON
"$work/env/bin/python" -W ignore "$work/look.py" "$work" 2>/dev/null
cat > "$work/look.mjs" <<'NODE'
import {readFileSync} from "node:fs";
import {getLlama} from "node-llama-cpp";

const llama = await getLlama({build: "never", gpu: false, logLevel: "disabled"});
const model = await llama.loadModel({modelPath: new URL("model.gguf", import.meta.url).pathname});
const names = model.fileInfo.metadata.tokenizer.ggml.tokens;
const one = model.tokenize("12 hi", false).map((token) => names[token]).join(" | ");
const other = readFileSync(new URL("transformers", import.meta.url), "utf8");
console.log(`llama.cpp      ${one}\ntransformers   ${other}`);
process.exit(one === "1 | 2 | Ġ | hi" && other === "12 | Ġ | hi" ? 0 : 1);
NODE
node "$work/look.mjs"
