#!/usr/bin/env bash
# transformers 5.23.0 and 4.57.6, Python 3.11.
#
# A config.json that transformers 5 saves names the base of the rotary embedding in `rope_parameters` only. transformers 4.57 does not read that key and takes
# its class's default, 10000, without a word: the model loads, and computes something else. So does any repo that transformers 5 saved, a quantized one for
# instance, for whoever still has 4.57.
#
# Expected: the theta that was saved, or a refusal. Seen:
#   saved by transformers 5       500000.0
#   read by transformers 4.57     10000.0
#
# Fails when that changes. Needs python3.11 and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1
for version in 5.23.0 4.57.6; do
    python3.11 -m venv "$work/$version"
    "$work/$version/bin/python" -m pip install --quiet --disable-pip-version-check "transformers==$version"
done
"$work/5.23.0/bin/python" -W ignore - "$work/model" 2>/dev/null <<'PYTHON'
import sys
from transformers import AutoConfig, LlamaConfig

LlamaConfig(rope_parameters={"rope_type": "default", "rope_theta": 500000.0}).save_pretrained(sys.argv[1])
print(f"{'saved by transformers 5':29} {AutoConfig.from_pretrained(sys.argv[1]).rope_parameters['rope_theta']}")
PYTHON
"$work/4.57.6/bin/python" -W ignore - "$work/model" 2>/dev/null <<'PYTHON'
import sys
from transformers import AutoConfig

theta = AutoConfig.from_pretrained(sys.argv[1]).rope_theta
print(f"{'read by transformers 4.57':29} {theta}")
sys.exit(theta != 10000.0)
PYTHON
