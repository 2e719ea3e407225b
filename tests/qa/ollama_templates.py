"""Looks at what of Ollama's would be written for the chat templates that @huggingface/ollama-utils knows, and keeps the table of what came out.

python -m tests.qa.ollama_templates    write the table anew; what none is written for without a reason in it is put under `nobody knows yet`
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from config.errors import MeasurementError
from config.rules import FAMILIES, load_families
from engines import chat, ollama_library
from publishers import ollama as publishing
from qa import interleaved, ollama
from qa.batteries import Conversation
from qa.ollama import PLAIN, Proof
from qa.readers import ollama_utils

TABLE = Path(__file__).parent / "data" / "ollama_templates.yaml"
HEADING = """\
# What Sluice writes as `template` for the chat templates that @huggingface/ollama-utils knows, each proved by Go over the battery's plain conversations:
# by a file of config/families/templates, by what is derived from the template (publishers/ollama.py), or learnt from it (qa/interleaved.py); and why none.
# hub: those of which the Go template that the package itself makes is right as well. Written by `python -m tests.qa.ollama_templates`, reasons by hand.
"""
DERIVED, LEARNT, NONE = "derived", "learnt", "none"
UNEXPLAINED = "nobody knows yet"
BOS = "<s>"


def survey() -> tuple[dict[str, str], set[str]]:
    """By what each template is proved, or NONE, by name; and those that the package's own renders right."""
    with ThreadPoolExecutor(2) as pool:
        rows = list(pool.map(lambda item: (item[0], *_of(*item)), ollama_library.templates().items()))
    return {name: by for name, by, _ in rows}, {name for name, _, right in rows if right}


def derivations() -> dict[str, Proof]:
    """How what is derived from a template does on plain conversations, by name, of those of which anything is."""
    found = {}
    for name, template in ollama_library.templates().items():
        own = _own(name, template)
        derived = publishing.template_from_probes(dict(_probed(own)))
        if derived is not None:
            found[name] = ollama.prove(derived.decode(), own)[PLAIN]
    return found


def _special(name: str, template: str) -> dict[str, str]:
    return {"bos_token": BOS, "eos_token": "<｜end▁of▁sentence｜>" if "deepseek" in name or "｜" in template else "</s>"}


def _own(name: str, template: str) -> ollama.Render:
    special = _special(name, template)

    def own(conversation: Conversation) -> str:
        variables = {"enable_thinking": conversation.thinking}
        given = ollama.with_tools(conversation, template)
        messages, tools = given.messages, given.tools
        return chat.render(template, messages, special_tokens=special, tools=tools, add_generation_prompt=True, variables=variables).removeprefix(BOS)

    return own


def _of(name: str, template: str) -> tuple[str, bool]:
    own = _own(name, template)
    candidates = dict(_candidates(template, own))
    found = ollama.proved(candidates.values(), own)
    right = found and found[0][1][PLAIN].whole
    by = next(by for by, candidate in candidates.items() if candidate == found[0][0]) if right else NONE
    made = ollama_utils.made(template, _special(name, template)).template
    return by, made is not None and ollama.prove(made, own)[PLAIN].whole


def _candidates(template: str, own: ollama.Render) -> Iterator[tuple[str, str]]:
    """As `qa.ollama.choose` has them, by name; of every family whose chat templates look like this one, since of what architecture it is nobody says here."""
    families = [family for family in load_families() if family.template is not None and family.template.fit(template)]
    for name in dict.fromkeys(file for family in families for file in family.ollama):
        filled = ollama.with_default((FAMILIES / "templates" / name).read_text(encoding="utf-8"), own, template)
        if filled is not None:
            yield name, filled
    derived = publishing.template_from_probes(dict(_probed(own)))
    if derived is not None:
        yield DERIVED, derived.decode()
    learnt = interleaved.derived(own, lambda text: ollama.fixed(text, template))
    if learnt is not None:
        yield LEARNT, learnt


def _probed(own: ollama.Render) -> Iterator[tuple[str, str]]:
    for name, probe in publishing.PROBES.items():
        try:
            yield name, own(Conversation(messages=probe.messages, tools=probe.tools))
        except MeasurementError:
            continue


def read() -> tuple[dict[str, str], set[str], dict[str, str]]:
    """The table: by what each template is proved; which the package renders right; and why none is written for those that have none, by name."""
    table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    proved = {name: by for by, names in table["proved"].items() for name in names}
    reasons: dict[str, str] = {name: reason for reason, names in table[NONE].items() for name in names}
    return proved | dict.fromkeys(reasons, NONE), set(table["hub"]), reasons


def write(found: Mapping[str, str], hub: set[str]) -> None:
    """Write the table, with the reasons that it has already."""
    known = read()[2] if TABLE.exists() else {}
    proved: dict[str, list[str]] = {}
    reasons: dict[str, list[str]] = {}
    for name, by in sorted(found.items()):
        if by == NONE:
            reasons.setdefault(known.get(name, UNEXPLAINED), []).append(name)
        else:
            proved.setdefault(by, []).append(name)
    table = {"proved": dict(sorted(proved.items())), NONE: reasons, "hub": sorted(hub)}
    TABLE.write_text(HEADING + yaml.safe_dump(table, sort_keys=False, allow_unicode=True, width=160, default_flow_style=None), encoding="utf-8")


if __name__ == "__main__":
    write(*survey())
