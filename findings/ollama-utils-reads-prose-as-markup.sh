#!/usr/bin/env bash
# @huggingface/ollama-utils 0.0.18, which the Hub makes Ollama's Go template and stop strings of a GGUF's chat template with (`ollama run hf.co/...`). Node.js 20.
#
# A template that it does not know is searched for words. "Human:" anywhere, in a sentence of the default system prompt for instance, makes the model one of
# "Human: ... Assistant:", whatever its turns are; "###" anywhere, such as a heading in the instructions for tools, becomes a stop string, so that every answer
# ends at its first heading. And one that it believes to know is compared by its first 128 characters, which are the whole loop of a ChatML template: what
# follows them, here the opening of the reasoning, is another model's.
#
# Expected: Go templates of the turns that each template writes, and no stop string that answers may hold. Seen:
#   plain    auto-conversion    "{{ if .System }}<|turn|>system\n{{ .System }}<|do  stop: <|turn|>, <|done|>, <|turn|>user
#   human    custom-matching    "{{ .System }}\nHuman: {{ .Prompt }}\n\nAssistant:  stop: Human:
#   heading  auto-conversion    "{{ if .System }}<|turn|>system\n{{ .System }}<|do  stop: <|turn|>, <|done|>, ###
#   think    library/llava:34b  "<|im_start|>system\n{{ .System }}<|im_end|>\n<|im  stop: <|im_start|>, <|im_end|>
#
# Fails when that changes. Needs Node.js 20 and an npm registry.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$work" @huggingface/ollama-utils@0.0.18
cat > "$work/look.mjs" <<'NODE'
import {convertGGUFTemplateToOllama} from "@huggingface/ollama-utils";

const turns = "{% for message in messages %}<|turn|>{{ message['role'] }}\n{{ message['content'] }}<|done|>\n{% endfor %}";
const opening = (text) => `{% if messages[0]['role'] != 'system' %}<|turn|>system\n${text}<|done|>\n{% endif %}${turns}`;
const chatml = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}";
const read = (chat_template) => convertGGUFTemplateToOllama({chat_template, bos_token: "", eos_token: "<|done|>"});
const seen = {
    plain: read(turns),
    human: read(opening("Never go on with what the Human: might say.")),
    heading: read(opening("### Rules\nAnswer briefly.")),
    think: read(chatml),
};
for (const [name, {model, ollama}] of Object.entries(seen)) {
    console.log(name.padEnd(8), model.padEnd(18), JSON.stringify(ollama.template).slice(0, 50).padEnd(50), " stop:", (ollama.params?.stop ?? []).join(", "));
}
const stops = (name) => seen[name].ollama.params?.stop ?? [];
process.exit(
    seen.plain.ollama.template.includes("<|turn|>user") && !stops("plain").includes("###")
    && seen.human.ollama.template.includes("Human: {{ .Prompt }}") && !seen.human.ollama.template.includes("<|turn|>")
    && stops("heading").includes("###")
    && !["auto-conversion", "custom-matching"].includes(seen.think.model) && !seen.think.ollama.template.includes("<think>") ? 0 : 1
);
NODE
node "$work/look.mjs"
