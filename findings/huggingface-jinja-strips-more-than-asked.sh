#!/usr/bin/env bash
# @huggingface/jinja 0.5.11, which the Hub and programs for the desktop render chat templates with, against Jinja2 3.1.6 as transformers sets it up.
# Python 3.11, Node.js 20.
#
# Both take the templates below, and neither says a word, yet the prompts differ. `lstrip`, `rstrip` and `strip` take no account of their argument there: where
# a template of Qwen's kind strips line breaks around an earlier answer, `.lstrip('\n')`, the indentation of its first line is lost as well. Lists and mappings
# equal nothing, not even themselves; what a message lacks equals none; the remainder of a negative number is negative; and a key of a mapping hides its
# methods: an array in a tool's JSON schema has a key `items`.
#
# Expected: one prompt. Seen:
#                                     Jinja2              @huggingface/jinja
#   answer.lstrip('\n')               "    return 1"      "return 1"
#   'xx-x-xx'.strip('x')              "-x-"               "xx-x-xx"
#   message.roles == ['a']            "True"              "false"
#   message.name == none              "False"             "true"
#   (1 - 2) % 2                       "1"                 "-1"
#   schema.items is mapping           "False"             "true"
#
# Fails when that changes. Needs python3.11, Node.js 20, a package index and an npm registry.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check jinja2==3.1.6
npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$work" @huggingface/jinja@0.5.11
cat > "$work/cases.json" <<'JSON'
{"expressions": ["answer.lstrip('\\n')", "'xx-x-xx'.strip('x')", "message.roles == ['a']", "message.name == none", "(1 - 2) % 2", "schema.items is mapping"],
 "given": {"answer": "\n\n    return 1", "message": {"roles": ["a"]}, "schema": {"type": "array", "items": {"type": "string"}}}}
JSON
"$work/env/bin/python" - "$work" <<'PYTHON'
import json, pathlib, sys
from jinja2.sandbox import ImmutableSandboxedEnvironment

work = pathlib.Path(sys.argv[1])
cases = json.loads((work / "cases.json").read_text())
environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
texts = [environment.from_string("{{ " + expression + " }}").render(cases["given"]) for expression in cases["expressions"]]
(work / "jinja2.json").write_text(json.dumps(texts))
PYTHON
cat > "$work/look.mjs" <<'NODE'
import {readFileSync} from "node:fs";
import {Template} from "@huggingface/jinja";

const read = (name) => JSON.parse(readFileSync(new URL(name, import.meta.url)));
const {expressions, given} = read("cases.json");
const expected = ["    return 1", "-x-", "True", "False", "1", "False"];
const other = ["return 1", "xx-x-xx", "false", "true", "-1", "true"];
const held = read("jinja2.json").map((text, i) => {
    const found = new Template(`{{ ${expressions[i]} }}`).render(given);
    console.log(expressions[i].padEnd(33), JSON.stringify(text).padEnd(19), JSON.stringify(found));
    return text === expected[i] && found === other[i];
});
process.exit(held.every(Boolean) ? 0 : 1);
NODE
node "$work/look.mjs"
