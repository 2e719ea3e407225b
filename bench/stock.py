"""Stock files of a model in the repos of a release, made without measuring anything: for looking at what reads them, not at how good they are."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from builders import bnb, fixes, probes
from config.words import MANIFEST
from engines import go_template, tools
from publishers.ollama import PROBES, template_from_probes
from qa import ollama

TYPES = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_NL", "Q3_K_M", "Q2_K")
"""Of which none needs an importance matrix; BF16 is there as well."""


def make(model: Path, out: Path, name: str, types: Sequence[str] = TYPES) -> None:
    """Write the repos NAME, NAME-GGUF and NAME-bnb-4bit of a model's folder into `out`. Raises ToolError or UpstreamError."""
    whole, ggufs, nf4 = (out / f"{name}{end}" for end in ("", "-GGUF", "-bnb-4bit"))
    for repo in (whole, ggufs, nf4):
        repo.mkdir(parents=True)
    fixed = fixes.repair(whole, snapshot=model, repo=f"someone/{name}", fixes=True)
    files = {type: f"{name}-{type}.gguf" for type in ("BF16", *types)}
    tools.convert(whole, "--outtype", "bf16", "--outfile", ggufs / files["BF16"])
    for type in types:
        tools.run("llama-quantize", ggufs / files["BF16"], ggufs / files[type], type, "1")
    chat = probes.render(out, model=whole, conversations={probe: asdict(conversation) for probe, conversation in PROBES.items()})
    derived = template_from_probes(chat["renderings"])
    chosen = ollama.choose(out, model=whole, derived=None if derived is None else derived.decode(), family=fixed["ollama"], go=go_template.version())
    if chosen["template"] is not None:
        (ggufs / "template").write_text(chosen["template"], encoding="utf-8")
    bnb.quantize(nf4, model=whole, threads=1)
    _manifest(ggufs, files)
    _manifest(whole, {"16bit": "model.safetensors"})
    _manifest(nf4, {"bnb-4bit": "model.safetensors"})


def _manifest(repo: Path, files: Mapping[str, str]) -> None:
    """The part of a manifest that says which files are whose."""
    variants = [{"tag": tag, "files": [file]} for tag, file in files.items()]
    (repo / MANIFEST).write_text(json.dumps({"variants": variants}), encoding="utf-8")
