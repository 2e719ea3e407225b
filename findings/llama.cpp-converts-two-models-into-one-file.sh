#!/usr/bin/env bash
# convert_hf_to_gguf.py of llama.cpp as in llama-cpp-python 0.3.36, transformers 5.23.0, torch 2.13.0, sentencepiece 0.2.3, Python 3.11.
#
# The converter reads the keys of config.json that most models of an architecture differ in. Others are built into llama.cpp's graphs, and are neither read
# nor checked: two models with the same weights and different answers become the same file, byte for byte, and one of them is wrong. Llamas with ReLU for
# instance are published, and long-context Gemmas that scale their positions.
#
# Expected: two files, or a refusal. Seen, for the same random weights, with the largest difference between the two models' logits in transformers:
#   llama        hidden_act               silu | relu                    one GGUF, logits differ by more than 0.1
#   smollm3      no_rope_layers           every 4th | every 2nd          one GGUF, logits differ by more than 0.1
#   gemma2       rope_parameters          default | linear, factor 4     one GGUF, logits differ by more than 0.1
#   gemma3_text  query_pre_attn_scalar    256 | 512                      one GGUF, logits differ by more than 0.1
#
# Fails when that changes. Needs python3.11 and a package index; compiles nothing.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 sentencepiece==0.2.3 protobuf==7.36.2 \
    scikit-build-core==1.1.2 pyproject-metadata==0.12.1 cmake==4.4.4
"$work/env/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --no-build-isolation --dest "$work" \
    llama-cpp-python==0.3.36
tar -xzf "$work"/llama_cpp_python-0.3.36.tar.gz -C "$work"
cat > "$work/look.py" <<'PYTHON'
import hashlib, io, pathlib, subprocess, sys
import sentencepiece
import torch
from transformers import AutoConfig, AutoModelForCausalLM

work = pathlib.Path(sys.argv[1])
converter = work / "llama_cpp_python-0.3.36/vendor/llama.cpp/convert_hf_to_gguf.py"
size, words = 300, [f"word{number} of the text that makes a vocabulary" for number in range(400)]
vocabulary = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(words), model_writer=vocabulary, vocab_size=size, model_type="bpe", byte_fallback=True, minloglevel=2, hard_vocab_limit=False
)
size = sentencepiece.SentencePieceProcessor(model_proto=vocabulary.getvalue()).vocab_size()
shape = dict(vocab_size=size, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
             initializer_range=0.3, pad_token_id=0, bos_token_id=1, eos_token_id=2, tie_word_embeddings=True)
plain = {"rope_type": "default", "rope_theta": 10000.0}


def model(kind, changed):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape, **changed)).eval()


def converted(kind, network, number):
    folder = work / kind / str(number) / "model"
    network.save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(vocabulary.getvalue())
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {}}, "added_tokens": []}')  # of which only the length is read
    command = [sys.executable, converter, folder, "--outtype", "f32", "--outfile", folder.parent / "model.gguf"]
    subprocess.run(command, check=True, capture_output=True)
    return hashlib.sha256((folder.parent / "model.gguf").read_bytes()).hexdigest()


cases = {
    "llama": ("hidden_act", "silu | relu", "silu", "relu"),
    "smollm3": ("no_rope_layers", "every 4th | every 2nd", [1, 1, 1, 0], [1, 0, 1, 0]),
    "gemma2": ("rope_parameters", "default | linear, factor 4", plain, plain | {"rope_type": "linear", "factor": 4.0}),
    "gemma3_text": ("query_pre_attn_scalar", "256 | 512", 256, 512),
}
held = True
for kind, (key, said, *values) in cases.items():
    networks = [model(kind, {key: value}) for value in values]
    networks[1].load_state_dict(networks[0].state_dict())
    with torch.no_grad():
        one, other = (network(torch.arange(3, 67)[None]).logits for network in networks)
    differ = bool((one - other).abs().max() > 0.1)
    same = len({converted(kind, network, number) for number, network in enumerate(networks)}) == 1
    print(f"{kind:12} {key:24} {said:30} {'one GGUF' if same else 'two GGUFs'}, logits {'differ by more than 0.1' if differ else 'alike'}")
    held = held and same and differ
sys.exit(not held)
PYTHON
HF_HUB_OFFLINE=1 "$work/env/bin/python" -W ignore "$work/look.py" "$work" 2>/dev/null
