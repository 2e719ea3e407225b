#!/usr/bin/env bash
# llama.cpp as in node-llama-cpp 3.21.1 (its own prebuilt release v0.4.0; llama-cpp-python 0.3.36 does the same), gguf 0.19.0, Python 3.11, Node.js 20.
#
# What a GGUF's tokens are depends on what the model is called. Where `general.name` holds "phi-3" or "phi3" anywhere, in letters of either case, every special
# token swallows the white space behind it (`rstrip` of Hugging Face's added tokens, for which GGUF has no field); under any other name none does. So a
# fine-tuned Phi-3 under a name of its own gets tokens that it was not trained on, and any other model whose name mentions Phi-3 loses line breaks of its
# template. The architecture is not asked: this file says "llama".
#
# A vocabulary without `</s>`, `<unk>`, `<s>` or `<|endoftext|>`, Qwen's for instance, under such a name: the model is not loaded, "_Map_base::at".
#
# Expected: the same tokens of two files that differ in `general.name` alone. Seen, for "<|user|>\n hi":
#   Tiny Chat                   <|user|> | \n |   | hi
#   Tiny Chat against Phi-3     <|user|> | hi
#
# Fails when that changes. Needs python3.11, Node.js 20, a package index and an npm registry.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check gguf==0.19.0 tokenizers==0.23.3
npm install --silent --no-audit --no-fund --ignore-scripts --omit=optional --prefix "$work" node-llama-cpp@3.21.1 @node-llama-cpp/linux-x64@3.21.1
"$work/env/bin/python" - "$work" <<'PYTHON'
import sys
import numpy as np
from gguf import GGUFWriter, TokenType
from tokenizers import pre_tokenizers

letters = sorted(pre_tokenizers.ByteLevel.alphabet())
special = ["<unk>", "<s>", "</s>", "<|endoftext|>", "<|user|>"]
tokens = [*letters, "hi", *special]
wide = 32
shapes = {"token_embd": (len(tokens), wide), "output_norm": (wide,), "blk.0.attn_norm": (wide,), "blk.0.ffn_norm": (wide,)}
for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
    shapes[f"blk.0.{part}"] = (wide, wide)
for file, name in (("one", "Tiny Chat"), ("two", "Tiny Chat against Phi-3")):
    writer = GGUFWriter(f"{sys.argv[1]}/{file}.gguf", "llama")
    writer.add_name(name)
    writer.add_context_length(64)
    writer.add_embedding_length(wide)
    writer.add_block_count(1)
    writer.add_feed_forward_length(wide)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([*[TokenType.NORMAL] * (len(letters) + 1), *[TokenType.CONTROL] * len(special)])
    writer.add_token_merges(["h i"])
    writer.add_eos_token_id(tokens.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    for tensor, shape in shapes.items():
        writer.add_tensor(f"{tensor}.weight", np.zeros(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
PYTHON
cat > "$work/look.mjs" <<'NODE'
import {getLlama} from "node-llama-cpp";

const llama = await getLlama({build: "never", gpu: false, logLevel: "disabled"});
const seen = [];
for (const file of ["one", "two"]) {
    const model = await llama.loadModel({modelPath: new URL(`${file}.gguf`, import.meta.url).pathname});
    const pieces = model.tokenize("<|user|>\n hi", true).map((token) => model.detokenize([token], true));
    seen.push(pieces.join(" | ").replaceAll("\n", "\\n"));
    console.log(model.fileInfo.metadata.general.name.padEnd(27), seen.at(-1));
}
process.exit(seen[0] === "<|user|> | \\n |   | hi" && seen[1] === "<|user|> | hi" ? 0 : 1);
NODE
node "$work/look.mjs"
