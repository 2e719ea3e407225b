"""Runs llama.cpp's collection of real chat templates through the battery, and keeps the table of what came out differently.

python -m tests.qa.real_templates GGUF    write the table anew; what it does not explain yet is put under `blame: nobody yet`
"""

import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from engines import chat, llama_server, toolchain
from qa import renderings
from qa.batteries import Conversation
from qa.renderings import Agreement

TABLE = Path(__file__).parent / "data" / "real_templates.yaml"
HEADING = """\
# What the real chat templates of llama.cpp's sources (models/templates) do differently in transformers and in llama.cpp, conversation by conversation.
# blame: `template` is at fault, or it is a limit or liberty of the `engine` llama.cpp. found: see qa/renderings.py.
# Written by `python -m tests.qa.real_templates GGUF`, reasons by hand; tests/qa/test_real_templates.py compares it with reality.
"""
AGREED = frozenset({Agreement.SAME, Agreement.BOTH_REFUSE, Agreement.LEFT_OUT})
PROMPTED = ", with a prompt for the answer"
UNEXPLAINED = "nobody yet"
BOS, EOS = "<s>", "<|im_end|>"  # of the bundled model, whose tokenizer adds BOS

Found = tuple[str, str, str]
"""Template, conversation, and how it came out, a name of Agreement."""


def templates() -> list[Path]:
    """The collection's files."""
    return sorted((toolchain.sources() / "models" / "templates").glob("*.jinja"))


def survey(gguf: Path) -> set[Found]:
    """Each conversation of the battery on which the engines do not agree, with the tokens of the model `gguf`."""
    with ThreadPoolExecutor(2) as pool:
        return {found for results in pool.map(lambda template: list(_differences(template, gguf)), templates()) for found in results}


def _differences(template: Path, gguf: Path) -> Iterator[Found]:
    source = template.read_text(encoding="utf-8")

    def render(conversation: Conversation, prompting: bool) -> str:
        return chat.render(
            source,
            conversation.messages,
            special_tokens={"bos_token": BOS, "eos_token": EOS},
            add_generation_prompt=prompting,
            continue_final_message=conversation.continued,
            tools=conversation.tools,
            variables=renderings.told(conversation),
        )

    with llama_server.serve(gguf, threads=1, template=template) as server:
        for rendering in renderings.all_of(render, server, template=source, bos=BOS):
            if rendering.agreement not in AGREED:
                yield template.name, rendering.title.removesuffix(PROMPTED), rendering.agreement.name


def read() -> list[dict[str, Any]]:
    """The table's rows, each with blame, reason, found and templates."""
    rows: list[dict[str, Any]] = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return rows


def explained(rows: list[dict[str, Any]]) -> Mapping[Found, tuple[str, str]]:
    """Blame and reason of everything in the table."""
    return {(template, title, row["found"]): (row["blame"], row["reason"]) for row in rows for template, titles in row["templates"].items() for title in titles}


def write(found: set[Found]) -> None:
    """Write the table, with the reasons that it has already."""
    known = explained(read()) if TABLE.exists() else {}
    rows: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for template, title, agreement in sorted(found):
        blame, reason = known.get((template, title, agreement), (UNEXPLAINED, ""))
        rows.setdefault((blame, reason, agreement), {}).setdefault(template, []).append(title)
    table = [{"blame": blame, "reason": reason, "found": agreement, "templates": by} for (blame, reason, agreement), by in sorted(rows.items())]
    TABLE.write_text(HEADING + yaml.safe_dump(table, sort_keys=False, allow_unicode=True, width=160, default_flow_style=None), encoding="utf-8")


if __name__ == "__main__":
    write(survey(Path(sys.argv[1])))
