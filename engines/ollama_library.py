"""Chat templates of real models: those by which @huggingface/ollama-utils, in its pinned version, knows the models of Ollama's library."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache

from config.errors import ToolError
from engines.environments import OLLAMA_UTILS

READING = 60.0  # seconds that Node.js may take to read the package's list
_LIST = """
const source = require("fs").readFileSync(process.argv[1], "utf-8");
const list = source.match(/OLLAMA_CHAT_TEMPLATE_MAPPING = (\\[[\\s\\S]*?\\n\\]);\\n/)[1];
console.log(JSON.stringify(require("vm").runInNewContext(list).map(({model, gguf}) => [model, gguf])));
"""  # which the package does not export


@cache
def templates() -> Mapping[str, str]:
    """By the model's name in that library, as `gemma3:1b`; a model's further ones by `MODEL (2)` and so on. Raises ToolError when the package is not there."""
    if (missing := OLLAMA_UTILS.missing()) is not None:
        raise ToolError(f"{missing}.")
    source = OLLAMA_UTILS.folder / "node_modules" / "@huggingface" / "ollama-utils" / "dist" / "index.mjs"
    command = [shutil.which("node") or "node", "-e", _LIST, str(source)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=READING, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError) as error:
        raise ToolError(f"The list of templates in {source} cannot be read: {error}. Remove {OLLAMA_UTILS.folder} and run `make readers`.") from error
    found: dict[str, str] = {}
    for model, template in json.loads(done.stdout):
        name = model.removeprefix("library/")
        again = sum(other == name or other.startswith(f"{name} (") for other in found)
        found[f"{name} ({again + 1})" if again else name] = template
    return found
