"""From verdicts to repos: which files each repo of the release holds, with card and manifest, and nothing that did not pass."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from builders import modalities
from builders.snapshot import Upstream
from builders.trained import trained_for
from config import readers as misread
from config.prompt import Part
from config.words import Kind
from engines import kv_cache, text_part
from publishers import card, evaluations, hub, manifest, naming, ollama, quoting, readme
from publishers.hub import PublishFile
from publishers.order import Line
from service.execution.kept import Output
from service.release import functions, rollback, terms
from service.release.evaluated import results
from service.release.graph import Call
from service.release.kinds import VariantKind, kind_of, repo_of
from service.release.measuring.divergence import WINDOWS
from service.release.products import JUDGED, PARTS, Built, Judged, Projected, from_stage, weights
from service.release.remarks import older_version, remarks
from service.release.report import sources
from service.release.stages.examine import patches
from service.release.tools import tools
from service.release.work import Work
from service.runs.report import STAGE as REPORT

PLOTS = (naming.PLOT, naming.PLOT_SVG)
CACHED = 8192  # tokens of the conversation whose memory a card names


@dataclass(frozen=True, kw_only=True)
class Repo:
    """A repo to publish, with the variants that are its own: those that passed, and those that its card says were blocked."""

    name: str  # "namespace/name"
    variants: Sequence[Built]

    @property
    def passed(self) -> list[Built]:
        """What it will hold."""
        return [item for item in self.variants if item.passed]

    @property
    def kind(self) -> VariantKind:
        """The kind of all its variants."""
        return kind_of(self.variants[0].variant)


def parts(work: Work) -> dict[str, Output]:
    """The files in parts of each GGUF variant that passed and is larger than a Hub takes, by tag. Raises StageError, ToolError."""
    limit, found = work.job.settings.largest_file, {}
    for item in work.of(JUDGED, Judged).built:
        if item.passed and any(file.path.endswith(".gguf") and file.bytes > limit for file in weights(item.output)):
            tag = item.variant.tag
            call = Call(function="builders.split:split", inputs={"gguf": item.output.file()}, params={"tag": tag, "limit": limit}, threaded=False)
            found[tag] = work.call(f"split {tag}", call)
    return found


def repos(work: Work) -> list[Repo]:
    """The variants by the repo that is theirs, kind after kind, without what would be in the upstream itself. Raises ConfigurationError."""
    found: dict[str, list[Built]] = {}
    divided = work.of(PARTS, dict)
    for item in sorted(work.of(JUDGED, Judged).built, key=lambda item: kind_of(item.variant).place):
        repo = repo_of(item.variant, work.job.run.namespace, work.release.name)
        if work.job.run.target is not None or not naming.same_repo(repo, work.release.repo):
            found.setdefault(repo, []).append(replace(item, output=divided.get(item.variant.tag, item.output)))
    return [Repo(name=name, variants=variants) for name, variants in found.items()]


def plan(work: Work, repo: Repo, *, private: bool, line: Line) -> hub.Plan:
    """What the repo is to hold, whole."""
    page = work.output(REPORT)
    told = describe(work, repo)
    files = content(work, repo)
    files += [PublishFile.from_bytes(naming.CARD, readme.render(told).encode())]
    files += [from_stage(page, file) for file in page.files if told.plot or file.path not in PLOTS]
    files += [PublishFile.from_bytes(naming.EVALUATIONS, found) for found in [evaluations.render(results(work, told))] if found]
    return hub.Plan(
        repo=repo.name,
        private=private,
        files=tuple(files),
        manifest=account(work, repo, files, line),
        rollback=rollback.allowed(work),
        message=f"Publish {work.release.repo} at {work.release.sha[:12]} by recipe {work.recipe.label}",
    )


def content(work: Work, repo: Repo) -> list[PublishFile]:
    """The repo's files without card and manifest: the upstream's licences, what its kind of variants consists of, and a second template where there is one."""
    files = terms.files(work)
    licences = {licence.path for licence in files}
    second = work.output(functions.CHAT).result["unforced"]
    others = [PublishFile.from_bytes(naming.UNFORCED_TEMPLATE, second.encode())] if second is not None else []
    return [*files, *(file for file in repo.kind.content(work, repo.passed) if file.path not in licences), *others]


def account(work: Work, repo: Repo, files: Sequence[PublishFile], line: Line) -> manifest.Manifest:
    """The manifest: where each file came from and what was measured."""
    inventory = hub.inventory(files)
    return manifest.build(
        release=work.release,
        recipe_name=work.recipe.label,
        recipe_digest=work.job.run.recipe_digest,
        tools=tools(),
        patches=tuple(patches(work)),
        variants=tuple(
            manifest.variant_entry(
                item.verdict, dict(item.measured), files={file.path: inventory[file.path] for file in weights(item.output)}, waivers=waivers(item)
            )
            for item in repo.passed
        )
        + tuple(
            manifest.variant_entry(item.verdict, dict(item.measured), files={item.file.path: inventory[item.file.path]}, waivers=waivers(item))
            for item in projectors(work, repo)
            if item.passed
        ),
        files=inventory,
        data=tuple(manifest.data_entry(item) for item in sources(work)),
        approvals=approvals(work),
        base=None if (base := work.of("upstream", Upstream).base) is None else base.release,
        place=line.point(work.release.sha).place,
        gguf=rebuilt(work),
    )


def projectors(work: Work, repo: Repo) -> Sequence[Projected]:
    """The projectors that belong to the repo: to that of GGUF files."""
    return work.of(JUDGED, Judged).projectors if repo.kind.kind == Kind.GGUF else ()


def unread(work: Work, config: Mapping[str, Any]) -> tuple[str, ...]:
    """What the model reads beside text and GGUF files do not, in a sentence."""
    judged = work.of(JUDGED, Judged)
    said = modalities.remark(config, projected=any(item.passed for item in judged.projectors), why=judged.blind or "")
    return () if said is None else (f"{said}.",)


def approvals(work: Work) -> tuple[manifest.Approval, ...]:
    """What a person decided about the release."""
    found = work.job.store.holds(work.job.run.id)
    return tuple(
        manifest.Approval(subject=item.hold.subject, by=item.approval.by, comment=item.approval.comment) for item in found if item.approval is not None
    )


def describe(work: Work, repo: Repo) -> card.Card:
    """Everything that the card of a repo with these variants says."""
    settings, chat, request = work.job.settings, work.output(functions.CHAT), work.job.store.pull_request(work.job.run.id)
    config = functions.configuration(work.output("fix"))
    parts = projectors(work, repo)
    rows = [(item.passed, row(item)) for item in repo.variants]
    seen = [(item.passed, seeing(item)) for item in parts]
    context = kv_cache.context_length(config)
    cached = min(CACHED, context or CACHED)
    return card.Card(
        form=repo.kind.form,
        repo=repo.name,
        namespace=work.job.run.namespace,
        release=work.release,
        facts=terms.facts(work),
        rows=tuple(row for passed, row in rows if passed),
        blocked=tuple(row for passed, row in (*rows, *seen) if not passed),
        projectors=tuple(row for passed, row in seen if passed),
        patches=tuple(patches(work)),
        approvals=approvals(work),
        sampling=chat.result["sampling"],
        samplers=tuple(work.output("fix").result["samplers"]),
        method=method(work, repo),
        tools=tools(),
        recipe_name=work.recipe.label,
        recipe_digest=work.job.run.recipe_digest,
        offered=None if request is None else request.url,
        quick=work.recipe.quick,
        base=chat.result["base"],
        parts=chat.result["parts"],
        sees="images" in modalities.read(config),
        readers=readers(work, repo, [row for _, row in rows], config),
        remarks=(*remarks(work), *unread(work, config)),
        unforced=chat.result["unforced"] is not None,
        ollama_template=repo.kind.form.ollama and work.output(functions.OLLAMA).result["template"] is not None,
        ollama_proof=proof(work.output(functions.OLLAMA).result),
        hub=settings.lasting_hub,
        context=context,
        cached=cached,
        cache=kv_cache.cache_bytes(config, cached),
        prompt=ollama.prompt_format(chat.result["renderings"]),
        plot=repo.kind.form.quantized and any(file.path == naming.PLOT for file in work.output(REPORT).files),
        recommend=work.recipe.card.recommend,
        quotation=quotation(work),
        merged=merged(work),
        gguf=rebuilt(work),
        trained=trained(work),
        header=settings.card_header,
        footer=settings.card_footer,
    )


def readers(work: Work, repo: Repo, rows: Sequence[card.Row], config: Mapping[str, Any]) -> tuple[str, ...]:
    """What is known of programs that read such a repo otherwise than it was measured."""
    form: Literal["gguf", "safetensors"] = "gguf" if repo.kind.form.library == "gguf" else "safetensors"
    parts, template = any(row.files > 1 for row in rows), work.output(functions.CHAT).result["template"]
    known = (entry.line for entry in misread.known(misread.Repo(form=form, config=text_part.of(config), parts=parts, template=template)))
    return (*known, *older_version(rows))


def proof(chosen: Mapping[str, Any]) -> str:
    """How far the template for Ollama is proved, and what Ollama would have without it, in words."""
    made = (without := chosen["without"]) and "the Hub's ollama-utils {utils} makes one that renders {same} of {of} plain conversations so".format(**without)
    if without and without["stops"]:
        made += f", with stop strings that answers may hold: {', '.join(map(json.dumps, without['stops']))}"
    if chosen["go"] is None or chosen["template"] is None:
        return "; ".join(filter(None, (str(chosen["remark"]), made)))
    parts = (f"{part} {found['same']} of {found['of']}" for part, found in chosen["proved"].items() if found["of"])
    proved = f"rendered by Go's text/template ({chosen['go']}) as by the model's own template: {', '.join(parts)}"
    if ".Tools" not in chosen["template"]:
        proved += "; it offers no tools, so that Ollama refuses requests with them"
    return "; without that file ".join(filter(None, (proved, made)))


def merged(work: Work) -> card.Merged | None:
    """What became of an adapter."""
    base, made = work.of("upstream", Upstream).base, work.output("snapshot").result
    if base is None:
        return None
    return card.Merged(base=base.release, changed=made["changed"], unchanged=made["unchanged"], tensors=made["tensors"], rounded=made["rounded"])


def rebuilt(work: Work) -> dict[str, str]:
    """The sha256 of the GGUF files that the model was rebuilt from, by path; none where it was there in safetensors."""
    return {file["path"]: file["sha256"] for file in work.output("snapshot").result.get("gguf", ())}


def trained(work: Work) -> card.Trained | None:
    """What the upstream was trained for, as the recipe says, or else the upstream's own words."""
    if (type := work.recipe.variants.qat) is not None:
        return card.Trained(type=type, because="the recipe")
    found = trained_for(work.of("upstream", Upstream))
    return None if found is None else card.Trained(type=found.type, because=found.because)


def quotation(work: Work) -> quoting.Quotation | None:
    """A part of the upstream's own card, where its licence lets it be passed on."""
    text = _upstream_card(work)
    return quoting.quote(text) if text and quoting.allowed(work.of("upstream", Upstream).license) else None


def _upstream_card(work: Work) -> str:
    """The beginning of the upstream's own card; empty where it has none."""
    fetched = work.output("snapshot")
    if not any(file.path == naming.CARD for file in fetched.files):
        return ""
    with fetched.file(naming.CARD).path.open(encoding="utf-8", errors="replace") as stream:
        return stream.read(quoting.READ + 1)


def method(work: Work, repo: Repo) -> card.Method:
    """What the variants were calibrated and measured on."""
    evaluation, imatrix = work.recipe.evaluation, repo.kind.form.imatrix
    calibrated = imatrix or any(item.mix for item in repo.variants)
    tokens, questions = (_observations(repo.variants, name) for name in ("kld.mean", "mmlu.accuracy"))
    return card.Method(
        texts=_named(work, evaluation.divergence.generated, "evaluation"),
        tokens=tokens[0],
        most_tokens=tokens[-1],
        windows=work.output(WINDOWS).result["looks"][0],
        context=evaluation.context,
        questions=questions[0],
        most_questions=questions[-1],
        shots=evaluation.mmlu.shots if evaluation.mmlu is not None else 0,
        form="" if evaluation.mmlu is None else "hendrycks" if work.output(functions.CHAT).result["base"] else evaluation.mmlu.form,
        prompts=len(evaluation.generation.prompts),
        calibration=_named(work, work.recipe.calibration.generated, "calibration") if calibrated else (),
        calibration_tokens=_calibrated(work) if imatrix else 0,
        reference=work.output("convert").result["type"],
        data=tuple(
            entry for entry in map(manifest.data_entry, sources(work)) if entry.repo is not None and (calibrated or not entry.use.startswith("calibration"))
        ),
    )


def _named(work: Work, generated: int, part: Part) -> tuple[str, ...]:
    """The texts of a part by what a card calls them."""
    files = tuple(item["name"] for item in sources(work) if item["use"] in {f"{part}.chat", f"{part}.plain"})
    if not generated:
        return files
    tokens: int = work.output(functions.GENERATED).result["parts"][part]["tokens"]
    return (*files, f"text that the model wrote itself, {tokens:,} tokens")


def _calibrated(work: Work) -> int:
    tokens: int = work.output("imatrix").result["tokens"]
    return tokens


def _observations(built: Sequence[Built], name: str) -> list[int]:
    """How many tokens or questions the measurement rests on, fewest first: more where the first sample was extended."""
    found = (item.measured[name].n for item in built if name in item.measured)
    return sorted(n for n in found if n is not None) or [0]


def row(item: Built) -> card.Row:
    """One variant on the card."""
    return card.Row(
        tag=item.variant.tag,
        file=weights(item.output)[0].path,
        files=len(weights(item.output)),
        bytes=item.bytes,
        bpw=item.bpw,
        measurements=item.measured,
        verdict=item.verdict,
        waivers=waivers(item),
        mix=item.mix,
        fallbacks=item.output.result.get("fallbacks", {}),
    )


def seeing(item: Projected) -> card.Row:
    """A projector on the card."""
    return card.Row(
        tag=item.variant.tag,
        file=item.file.path,
        bytes=item.file.bytes,
        bpw=item.bpw,
        measurements=item.measured,
        verdict=item.verdict,
        waivers=waivers(item),
    )


def waivers(item: Built | Projected) -> tuple[manifest.Waiver, ...]:
    """The waivers that the variant is published under."""
    return tuple(manifest.Waiver(gate=waiver.gate, by=waiver.by, comment=waiver.comment) for waiver in item.verdict.waivers)
