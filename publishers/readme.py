"""Write a repo's model card, its README.md, from what `publishers.card` says.

Deterministic: equal cards give equal text. Every string of the upstream is a stranger's: it reaches the front matter through a
whitelist and YAML's own writer, and the body through `publishers.markdown`.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from config.cards import Recommendation
from config.facts import vetted
from config.settings import REPO_ID
from config.words import Measurement, Patch, Release
from publishers import grades, markdown, ollama, shown
from publishers.card import PUBLIC, Card, Change, Kept, Row
from publishers.markdown import Markdown
from publishers.naming import IMATRIX, NOBODY, PLOT, PLOT_SVG, UNFORCED_TEMPLATE, checked_argument
from publishers.sections import MARKER, section
from publishers.tags import fetched, projectors

_ADDRESS = re.compile(r"https?://[A-Za-z0-9.:/_-]{1,300}")

# llama.cpp's flag for each of Ollama's parameters
_FLAGS = {"temperature": "--temp", "top_k": "--top-k", "top_p": "--top-p", "min_p": "--min-p", "repeat_penalty": "--repeat-penalty"}
_PREFERRED = ("UD-Q4_K_XL", "Q4_K_M", "Q8_0")  # the best of its size, then what llama.cpp and Ollama take when asked for no tag
_HUB = re.compile(r"https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?(?:/[A-Za-z0-9._-]+)*")
ABOUT = 0.75  # bits per weight by which variants may differ that are compared with what a model was trained for
RESHAPED, NOISE = 5, 0.01  # times the error on images that are not scaled, of at least so much, and llama.cpp is said to scale otherwise
_LONGEST_PROMPT = 2_000  # characters
SECTIONS = ("about", "files", "use", "figures", "upstream", "source")  # templates of the same names, in the card's order
NOTE = (
    "<!-- Sluice writes what stands between its markers anew at each publication, and its own keys of the front matter (licence, tags and the like). What you "
    "write outside of the markers stays, and so do other keys. -->"
)


def render(card: Card) -> str:
    """The README.md of `card.repo`: front matter, and sections of which Sluice owns each. Raises ConfigurationError when a file's name cannot be published."""
    environment = _environment()
    for row in (*card.rows, *card.projectors, *card.blocked):
        checked_argument(row.file)
    context = _context(card)
    head = f"---\n{yaml.safe_dump(front_matter(card), sort_keys=False, allow_unicode=True, width=10**6)}---\n"
    bodies = {name: environment.get_template(f"{name}.md.j2").render(context) for name in SECTIONS}
    return "\n".join([head, *(section(name, _tidied(body)) for name, body in bodies.items() if body.strip())])


def _context(card: Card) -> dict[str, Any]:
    """What the templates read."""
    parameters = ollama.sampling(card.sampling)
    rows = sorted(card.rows, key=lambda row: (row.bytes, row.tag))
    tags = {row.tag: row for row in rows}
    recommended = tags.get(grades.recommended(rows, card.recommend) or "")
    pick = recommended or next((tags[tag] for tag in _PREFERRED if tag in tags), rows[0] if rows else None)
    beside = _beside(card)
    ways = fetched(card.repo, {row.tag: row.file for row in rows}, beside)
    baseline = None if card.trained is None else tags.get(card.trained.type or "")
    scale, unit = shown.unit_of(max((row.bytes for row in rows), default=1))
    return {
        "card": card,
        "note": Markdown(NOTE),
        "readers": [Markdown(line) for line in card.readers],  # of our own table
        "header": Markdown(card.header.strip()),
        "footer": Markdown(card.footer.strip()),
        "upstream": _linked(card.release, card),
        "into": Markdown("" if card.merged is None else f" (an adapter, merged into its base model {_linked(card.merged.base, card)})"),
        "base": None if card.merged is None else _linked(card.merged.base, card),
        "parameters": parameters,
        "flags": _flags(parameters, card.samplers),
        "repairs": repairs(card.patches),
        "offered": Markdown(card.offered) if card.offered and _ADDRESS.fullmatch(card.offered) else None,
        "rows": rows,
        "recommended": recommended,
        "outdone": grades.outdone(rows) if card.form.quantized else [],
        "pick": pick,
        "way": None if pick is None else ways[pick.tag],
        "nearest": [] if pick is None else projectors(beside, pick.file),
        "unclear": [row.tag for row in rows if not ways[row.tag].by_tag],
        "unknown": [row.tag for row in rows if ways[row.tag].ollama not in {row.tag, None} and row.files == 1],
        "unit": unit,
        "scale": scale,
        "fallbacks": [row for row in rows if row.fallbacks],
        "baseline": baseline,
        "compared": [] if baseline is None else [row for row in rows if row.mix is not None and _as_many_bits(row, baseline)],
        "unpublished": [row.tag for row in card.blocked],
        "planned": [row for row in rows if row.mix is not None],
        "waived": [(row, waiver) for row in (*rows, *card.projectors) for waiver in row.waivers],
        "reshaped": any(_otherwise(row) for row in card.projectors),
        "second_template": UNFORCED_TEMPLATE if card.unforced else None,
        "sixteen_bit": not card.form.quantized,
        "stored": _stored(card),
        "own_bits": "MXFP4" in tags,
        "copied": any(patch.fix == "copied-head" for patch in card.patches),
        "words": {"BF16": "bfloat16", "F16": "float16", "F32": "float32"},
        "keeps": card.form.keeps,
        "other_hub": Markdown(card.hub) if card.hub not in {None, PUBLIC} and _HUB.fullmatch(card.hub or "") else None,
        "rule": _rule(card.recommend),
        "divergences": grades.DIVERGENCE,
        "same_tops": grades.SAME_TOP,
        "worst": grades.WORST,
        "prompt": _fenced(card.prompt),
        "derived": card.form.ollama and not card.ollama_template and card.hub in {None, PUBLIC},  # Ollama is spoken of, and writes prompts by rules of the Hub
        "plot": PLOT,
        "plot_svg": PLOT_SVG,
    }


def _beside(card: Card) -> list[str]:
    """The repo's GGUF files that are no variant: readers that look for a tag see these too."""
    later = [row.file.replace("-00001-of-", f"-{number:05}-of-") for row in card.rows for number in range(2, row.files + 1)]
    return [*(row.file for row in card.projectors), *later, *([IMATRIX] if card.form.imatrix else [])]


def _otherwise(row: Row) -> bool:
    """Whether llama.cpp scales images otherwise than transformers: far more comes of one that has to be scaled than of others."""
    found, exact = row.measurements.get("mmproj.reshaped"), row.measurements.get("mmproj.error")
    return found is not None and exact is not None and (found.inapplicable is not None or found.value > RESHAPED * max(exact.value, NOISE))


def _stored(card: Card) -> str | None:
    """What the upstream stores weights in that were multiplied out, as the patches' reasons say; None where there are none."""
    reasons = [patch.reason for patch in card.patches if patch.fix == "plain-weights"]
    kinds = {"8 bits with scales": " in F8_", "MXFP4": " in MXFP4,"}
    return " and ".join(kind for kind, said in kinds.items() if any(said in reason for reason in reasons)) or ("8 bits" if reasons else None)


def _as_many_bits(row: Row, baseline: Row) -> bool:
    """Whether two variants are of about the same number of bits."""
    return row.bpw is not None and baseline.bpw is not None and abs(row.bpw - baseline.bpw) <= ABOUT


def _flags(parameters: Mapping[str, int | float], samplers: Sequence[str]) -> Markdown:
    """The sampling as llama.cpp's flags, on lines of their own: cards are read on telephones."""
    figures = " ".join(f"{_FLAGS[name]} {value:g}" for name, value in parameters.items())
    order = f'--samplers "{";".join(samplers)}"' if samplers else ""
    return Markdown("".join(f" \\\n  {line}" for line in (figures, order) if line))


def _linked(release: Release, card: Card) -> Markdown:
    """An upstream's name, linked where it can be. A Hub without a lasting address is linked to from its root."""
    repo = release.repo
    if release.local or not re.fullmatch(REPO_ID, repo) or not _HUB.fullmatch(card.hub or PUBLIC):
        return markdown.code(repo)
    return Markdown(f"[{repo}]({'' if card.hub is None else card.hub}/{repo})")


_MEASURES = {
    "kld.mean": "mean KL divergence", "kld.p99": "KL divergence at the 99 % quantile", "kld.p999": "KL divergence at the 99.9 % quantile",
    "same_top": "share of same top tokens", "mmlu.accuracy": "MMLU", "mmlu.difference": "MMLU less the 16-bit model's",
}  # fmt: skip


def _rule(rule: Recommendation | str | None) -> str:
    """A bound of the recipe in words."""
    if not isinstance(rule, Recommendation):
        return ""
    bound = f"at most {rule.at_most:g}" if rule.at_most is not None else f"at least {rule.at_least:g}"
    return f"the smallest file whose {_MEASURES[rule.measure]} is {bound} with 95 % confidence"


def _tidied(body: str) -> str:
    """At most one empty line together."""
    return re.sub(r"\n{3,}", "\n\n", body)


def _fenced(text: str | None) -> Markdown | None:
    """A stranger's text as a block of code that it cannot end; None where it is too long to help, or holds one of the markers of sections."""
    if not text or len(text) > _LONGEST_PROMPT or MARKER in text:
        return None
    lines = ["".join(character for character in line if character.isprintable() or character == "\t") for line in text.split("\n")]
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return Markdown("\n".join([f"{fence}text", *lines, fence]))


def front_matter(card: Card) -> dict[str, Any]:
    """The metadata that the Hub reads, in the order in which it is written.

    `base_model_relation` knows adapter, merge, quantized and finetune. The repaired 16-bit repo is none of these, for its weights
    are the upstream's own: it names its base model and leaves the relation out; that of an adapter is merged from both.
    """
    facts = vetted(card.facts)
    origins = [card.release] if card.merged is None or card.form.quantized else [card.merged.base, card.release]
    named = [origin.repo for origin in origins if not origin.local]  # nobody could follow the name of a folder
    data: dict[str, Any] = {"base_model": named[0] if len(named) == 1 else named} if named else {}
    if card.merged is not None and not card.form.quantized and named:
        data["base_model_relation"] = "merge" if len(named) > 1 else "finetune"
    if card.form.quantized:
        data |= {"base_model_relation": "quantized"} if named else {}
        data |= {} if card.namespace == NOBODY else {"quantized_by": card.namespace}
    if facts.license:
        data["license"] = facts.license
        if facts.license == "other":
            data["license_name"] = facts.license_name or "unknown"
            data |= {"license_link": facts.license_link} if facts.license_link else {}
    if facts.languages:
        data["language"] = list(facts.languages)
    data["pipeline_tag"] = facts.pipeline_tag or "text-generation"
    data["library_name"] = card.form.library
    ours = ["sluice", *([] if card.base else ["conversational"]), *card.form.tags]
    data["tags"] = ours + [tag for tag in facts.tags if tag not in {*ours, "conversational"}]
    if facts.datasets:
        data["datasets"] = list(facts.datasets)
    return data


OWNED = frozenset(
    {
        "base_model", "base_model_relation", "quantized_by", "license", "license_name", "license_link", "language", "pipeline_tag", "library_name", "tags",
        "datasets",
    }
)  # fmt: skip
"""The keys of the front matter that are written anew at each publication; others are people's."""


def repairs(patches: Sequence[Patch]) -> list[tuple[Patch, list[tuple[Patch, Markdown, Markdown]]]]:
    """The patches of one fix and reason together, each with what was there before and after; the first of them names the fix."""
    groups: dict[tuple[str, int, str], list[Patch]] = {}
    for patch in patches:
        groups.setdefault((patch.fix, patch.version, patch.reason), []).append(patch)
    return [(group[0], [(patch, *markdown.excerpts(patch.before, patch.after)) for patch in group]) for group in groups.values()]


def _amount(count: int, scale: int) -> str:
    """Bytes in a unit that a table's head names."""
    return f"{count / scale:,.2f}" if count < 100 * scale else f"{count / scale:,.1f}"


def _roles(found: Mapping[str, Sequence[int]]) -> Markdown:
    return Markdown(", ".join(map(markdown.code, shown.tensors(found))))


def _number(value: float) -> str:
    return f"{value:,}"


def _changes(changes: Sequence[Change]) -> Markdown:
    return Markdown(", ".join(f"{markdown.code(change.tensors)} ({change.bits:.2f} instead of {change.stock_bits:.2f})" for change in changes))


def _kept(modules: Sequence[Kept]) -> Markdown:
    """Each kind of module with the layers in which it is: `mlp.down_proj` (layers 1, 7)."""
    told = {item.module: f" (layer{'s' if len(item.layers) > 1 else ''} {', '.join(map(str, item.layers))})" if item.layers else "" for item in modules}
    return Markdown("; ".join(markdown.code(module) + layers for module, layers in told.items()))


def _flips(found: Measurement | None) -> str:
    if found is None:
        return "—"
    return f"{found.value:.0f}" + (f" of {found.n:,}" if found.n is not None else "")


@cache
def _environment() -> Environment:
    """The templates, compiled once."""
    environment = Environment(  # noqa: S701 - this is Markdown, and `finalize` escapes all that is not marked as such
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        finalize=markdown.text,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": markdown.code, "word": markdown.word, "size": shown.size, "share": shown.share, "nats": shown.nats}
    environment.filters |= {"amount": _amount, "grade": grades.divergence, "alike": grades.same_top}
    environment.filters |= {"flips": _flips, "number": _number, "changes": _changes, "kept": _kept, "listed": shown.listed, "roles": _roles}
    return environment
