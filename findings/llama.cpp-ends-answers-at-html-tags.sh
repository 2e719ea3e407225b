#!/usr/bin/env bash
# llama.cpp as in node-llama-cpp 3.21.1 (its own prebuilt release v0.4.0; llama-cpp-python 0.3.36 does the same), gguf 0.19.0, Python 3.11, Node.js 20.
#
# Which tokens end an answer is decided by how they are written, whatever the file says of them. `</s>` is Llama 2's end of text, so it ends answers in every
# vocabulary that has it, also where it is the HTML tag that closes struck-through text, of the type NORMAL, as in the vocabularies of Qwen 2 and 3.5 (128247), or
# USER_DEFINED, as in Gemma 3's (212). The token becomes a control token besides. Such a model writes `<s>old price</s>` and falls silent; transformers goes
# on. `<REPO>`, `<PAD>`, `<EOT>` and more are read likewise.
#
# Expected: the file's eos_token_id ends an answer. Seen, where that is <|im_end|>:
#   <|im_end|>  CONTROL in the file  ends an answer: true   written out: ""
#   </s>        NORMAL in the file   ends an answer: true   written out: ""
#   </b>        NORMAL in the file   ends an answer: false  written out: "</b>"
#
# Fails when that changes. Needs python3.11, Node.js 20, a package index and an npm registry.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check gguf==0.19.0 tokenizers==0.23.3
npm install --silent --no-audit --no-fund --ignore-scripts --omit=optional --prefix "$work" node-llama-cpp@3.21.1 @node-llama-cpp/linux-x64@3.21.1
"$work/env/bin/python" - "$work/model.gguf" <<'PYTHON'
import sys
import numpy as np
from gguf import GGUFWriter, TokenType
from tokenizers import pre_tokenizers

letters = sorted(pre_tokenizers.ByteLevel.alphabet())
merges = ["< /", "</ s", "</ b", "</s >", "</b >"]
tokens = [*letters, *(merge.replace(" ", "") for merge in merges), "<|im_end|>"]
wide = 32
shapes = {"token_embd": (len(tokens), wide), "output_norm": (wide,), "blk.0.attn_norm": (wide,), "blk.0.ffn_norm": (wide,)}
for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
    shapes[f"blk.0.{part}"] = (wide, wide)
writer = GGUFWriter(sys.argv[1], "llama")
writer.add_context_length(64)
writer.add_embedding_length(wide)
writer.add_block_count(1)
writer.add_feed_forward_length(wide)
writer.add_head_count(1)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("qwen2")
writer.add_token_list(tokens)
writer.add_token_types([*[TokenType.NORMAL] * (len(tokens) - 1), TokenType.CONTROL])
writer.add_token_merges(merges)
writer.add_eos_token_id(tokens.index("<|im_end|>"))
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
const model = await llama.loadModel({modelPath: new URL("model.gguf", import.meta.url).pathname});
const tokens = model.fileInfo.metadata.tokenizer.ggml.tokens;
const seen = [["<|im_end|>", "CONTROL"], ["</s>", "NORMAL"], ["</b>", "NORMAL"]].map(([text, type]) => {
    const token = tokens.indexOf(text);
    const ends = model.isEogToken(token);
    console.log(text.padEnd(11), `${type} in the file`.padEnd(20), `ends an answer: ${ends}`.padEnd(22), `written out: ${JSON.stringify(model.detokenize([token]))}`);
    return ends;
});
process.exit(seen.join() === "true,true,false" ? 0 : 1);
NODE
node "$work/look.mjs"
