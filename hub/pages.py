"""A few pages for people: what is on this Hub, and what is in a repo."""

from typing import Final
from urllib.parse import quote

from jinja2 import DictLoader, Environment, StrictUndefined
from starlette.responses import HTMLResponse

from hub import cards, commits, wire
from hub.call import Call
from hub.errors import NotFound
from hub.names import KINDS, RESERVED
from hub.repos import MAIN
from hub.routes import Address

MAX_README: Final = 256 * 1024  # bytes shown
POLICY: Final = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}

TEMPLATES: Final = {
    "page": """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --line: #8884; --soft: #888; --link: #2a6fbb; }
@media (prefers-color-scheme: dark) { :root { --link: #7db8f5; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2.5rem auto; padding: 0 1.25rem; }
a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; } p { margin: .25rem 0; }
.soft { color: var(--soft); } .tag { border: 1px solid var(--line); border-radius: 1rem; padding: .05rem .6rem; font-size: .8rem; white-space: nowrap; }
table { border-collapse: collapse; width: 100%; }
td { border-bottom: 1px solid var(--line); padding: .35rem .5rem .35rem 0; text-align: left; vertical-align: top; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; } td:first-child { overflow-wrap: anywhere; }
pre { border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; overflow-x: auto; white-space: pre-wrap; font-size: .85rem; }
</style></head><body>{% block body %}{% endblock %}</body></html>""",
    "index": """{% extends "page" %}{% block body %}<h1>Embedded Hub</h1>
<p class="soft">Point any Hugging Face client here: <code>HF_ENDPOINT={{ base }} HF_HUB_DISABLE_XET=1</code></p>
{% for kind, repos in shelves if repos %}<h2>{{ kind|capitalize }}</h2><table>
{% for repo in repos %}<tr><td><a href="{{ repo.address }}">{{ repo.id }}</a>{% if repo.private %} <span class="tag">private</span>{% endif %}</td>
<td class="number">{{ repo.files }} file{{ "" if repo.files == 1 else "s" }}</td>
<td class="number">{{ repo.size }}</td><td class="number soft">{{ repo.modified }}</td></tr>
{% endfor %}</table>
{% else %}<p>Nothing here yet.</p>{% endfor %}{% endblock %}""",
    "repo": """{% extends "page" %}{% block body %}<p class="soft"><a href="/">Embedded Hub</a> / {{ kind }}</p><h1>{{ title }}</h1>
<p>{% if private %}<span class="tag">private</span> {% endif %}{% for tag in tags %}<span class="tag">{{ tag }}</span> {% endfor %}</p>
<p class="soft">{{ branches|join(", ") }} · commit <code>{{ commit.id[:12] }}</code> “{{ commit.title }}”
by {{ commit.author }}, {{ modified }} · {{ total }}</p>
<h2>Files</h2><table>
{% for file in files %}<tr><td><a href="{{ file.address }}">{{ file.path }}</a>{% if file.lfs %} <span class="tag">LFS</span>{% endif %}</td>
<td class="number">{{ file.size }}</td></tr>{% endfor %}</table>
<h2>Download</h2><pre>HF_ENDPOINT={{ base }} hf download {{ title }}{{ option }}</pre>
{% if readme %}<h2>README.md</h2><pre>{{ readme }}</pre>{% endif %}{% endblock %}""",
}

_environment = Environment(loader=DictLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)


def index(call: Call) -> HTMLResponse:
    """GET /: the repos that the caller may see."""
    shelves: dict[str, list[dict[str, object]]] = {kind: [] for kind in KINDS}
    for repo in sorted((repo for repo in call.hub.repos.all() if call.can_read(repo)), key=lambda repo: repo.id.lower()):
        tree = call.hub.repos.head(repo, MAIN).tree
        shelves[f"{repo.type}s"].append(
            {
                "id": repo.id,
                "address": f"/{'' if repo.type == 'model' else repo.type + 's/'}{repo.id}",
                "private": repo.private,
                "files": len(tree),
                "size": _size(sum(entry.size for entry in tree.values())),
                "modified": _day(wire.modified(call.hub, repo)),
            }
        )
    return _render("index", title="Embedded Hub", base=call.base, shelves=list(shelves.items()))


def show(call: Call) -> HTMLResponse:
    """GET /{ns}/{name}: a repo's files and its README."""
    if call.part("ns").lower() in RESERVED:
        raise NotFound("This embedded Hub has nothing at this address.")
    repo = call.repo()
    commit = call.hub.repos.head(repo, MAIN)
    prefix = f"/{'' if repo.type == 'model' else repo.type + 's/'}{repo.id}"
    files = [
        {"path": path, "size": _size(entry.size), "lfs": entry.lfs, "address": f"{prefix}/resolve/main/{quote(path)}"} for path, entry in commit.tree.items()
    ]
    return _render(
        "repo",
        title=repo.id,
        kind=f"{repo.type}s",
        private=repo.private,
        tags=cards.tags(wire.card_data(call.hub, commit)),
        branches=[ref.removeprefix("refs/heads/") for ref in repo.refs if ref.startswith("refs/heads/")],
        commit=commit,
        modified=_day(commit.date),
        total=_size(sum(entry.size for entry in commit.tree.values())),
        files=files,
        base=call.base,
        option="" if repo.type == "model" else f" --repo-type {repo.type}",
        readme=_readme(call, commit.tree),
    )


def _readme(call: Call, tree: commits.Tree) -> str:
    entry = tree.get("README.md")
    if entry is None:
        return ""
    with call.hub.objects.path(entry.sha256).open("rb") as file:
        return file.read(MAX_README).decode(errors="replace")


def _render(template: str, **values: object) -> HTMLResponse:
    return HTMLResponse(_environment.get_template(template).render(values), headers=POLICY)


def _size(count: int) -> str:
    """Bytes in the unit that keeps the number short (powers of ten)."""
    if count < 1000:
        return f"{count} B"
    value, units = count / 1000, iter(("kB", "MB", "GB", "TB"))
    unit = next(units)
    while value >= 999.95 and unit != "TB":
        value, unit = value / 1000, next(units)
    return f"{value:.1f} {unit}"


def _day(date: str) -> str:
    return date[:16].replace("T", " ")


ROUTES: Final = (
    Address("GET", "/", index),
    Address("GET", "/{ns}/{name}", show),
    Address("GET", "/{kind:kind}/{ns}/{name}", show),
)
