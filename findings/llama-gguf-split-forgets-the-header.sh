#!/usr/bin/env bash
# llama-gguf-split of llama.cpp as in llama-cpp-python 0.3.36, gguf 0.19.0, Python 3.11.
#
# `--split-max-size` bounds the tensors of a part, not the file: the first part holds the whole header beside its share of tensors, vocabulary and merges
# included, of which no account is taken. With a real vocabulary that is some megabytes, so parts that are made as large as a Hub takes are larger than it takes.
#
# Expected: no part larger than asked. Seen, for eight tensors of 500,000 bytes, a vocabulary of 60,000 tokens, and --split-max-size 2M:
#   part 1   3560448 bytes
#   part 2   2000352 bytes
# (The second has a small header of its own, and is a little too large as well.)
#
# Fails when that changes. Needs python3.11, a C++ compiler and a package index; compiles for some minutes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check cmake==4.4.4 gguf==0.19.0 scikit-build-core==1.1.2 pyproject-metadata==0.12.1
"$work/env/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --no-build-isolation --dest "$work" \
    llama-cpp-python==0.3.36
tar -xzf "$work"/llama_cpp_python-0.3.36.tar.gz -C "$work"
"$work/env/bin/cmake" -S "$work/llama_cpp_python-0.3.36/vendor/llama.cpp" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=OFF -DLLAMA_CURL=OFF \
    -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TOOLS=ON >"$work/log" 2>&1
"$work/env/bin/cmake" --build "$work/build" --target llama-gguf-split -j "$(nproc)" >>"$work/log" 2>&1
"$work/env/bin/python" - "$work/whole.gguf" <<'PYTHON'
import sys
import numpy as np
from gguf import GGUFWriter

writer = GGUFWriter(sys.argv[1], "llama")
writer.add_token_list([f"token-{number:012}" for number in range(60_000)])
for number in range(8):
    writer.add_tensor(f"blk.{number}.ffn_up.weight", np.zeros((125, 1000), dtype=np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
PYTHON
"$work/build/bin/llama-gguf-split" --split --split-max-size 2M "$work/whole.gguf" "$work/part" >>"$work/log" 2>&1
for number in 1 2; do
    printf "part %d   %d bytes\n" "$number" "$(stat -c %s "$work/part-0000$number-of-00002.gguf")"
done
test "$(stat -c %s "$work/part-00001-of-00002.gguf")" -gt 3000000
