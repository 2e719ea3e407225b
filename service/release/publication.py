"""From verdicts to repos: which files each repo of the release holds, with card and manifest, and nothing that did not pass."""

from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import PurePosixPath

from huggingface_hub import HfApi

from builders.snapshot import Upstream
from config.words import Kind, Outcome
from engines import toolchain
from publishers import card, hub, manifest, naming, ollama
from publishers.hub import PublishFile
from service.execution.kept import File, Output
from service.execution.process import now
from service.execution.workbench import Event
from service.release.built import Built, Checked, Yardstick, weights
from service.release.job import Job
from service.store import Published

LIBRARIES = ("torch", "transformers", "bitsandbytes", "huggingface_hub", "gguf", "sluice")
LICENSE_FILES = ("LICENSE*", "LICENCE*", "NOTICE*")


def publish(job: Job, api: HfApi, upstream: Upstream, checked: Checked, yardstick: Yardstick, built: Sequence[Built], page: Output) -> None:
    """Publish each repo of which a variant passed, with the run's report, and put them into one collection.

    Raises HubError, PublishConflict.
    """
    chat = job.apart(
        "chat",
        "builders.probes:render",
        {"model": checked.model.whole},
        threaded=False,
        conversations={name: asdict(probe) for name, probe in ollama.PROBES.items()},
    )
    private = job.run.private or upstream.private  # upstream may have been made private since the run was queued
    published = []
    for repo, items in repos(job, built).items():
        passed = [item for item in items if item.verdict.outcome is Outcome.PASSED]
        if not passed:
            continue
        started = now()
        files = content(items[0].variant.kind, checked, chat, passed)
        described = describe(job, repo, items, upstream, checked, yardstick, chat)
        files += [PublishFile.from_bytes(naming.CARD, card.render(described).encode()), *(from_stage(page, file) for file in page.files)]
        plan = hub.Plan(
            repo=repo,
            private=private,
            files=tuple(files),
            manifest=account(job, checked, passed, files),
            message=f"Publish {job.run.release.repo} at {job.run.release.sha[:12]} by recipe {job.recipe.name}",
        )
        before = job.store.last_publication(repo)
        result = hub.publish(api, plan, previously=before.revision if before else None)
        job.store.record_publication(job.run.id, Published(**asdict(result)))
        job.listener(
            Event(
                stage=f"publish {repo}",
                state="done" if result.changed else "reused",
                seconds=now() - started,
                message="" if result.changed else "already holds exactly this",
            )
        )
        published.append(repo)
    if published:
        hub.collection(api, job.run.release.name, job.run.namespace, private, published)


def repos(job: Job, built: Sequence[Built]) -> dict[str, list[Built]]:
    """The variants by the repo that is theirs, kind after kind. Raises ConfigurationError."""
    found: dict[str, list[Built]] = {}
    for item in sorted(built, key=lambda item: tuple(Kind).index(item.variant.kind)):
        found.setdefault(naming.repo_id(item.variant, job.run.namespace, job.run.release.name), []).append(item)
    return found


def content(kind: Kind, checked: Checked, chat: Output, passed: Sequence[Built]) -> list[PublishFile]:
    """The repo's files without card and manifest."""
    files = [from_stage(checked.fetched, file) for file in checked.fetched.files if any(PurePosixPath(file.path).match(form) for form in LICENSE_FILES)]
    if kind is not Kind.GGUF:
        return files + [from_stage(item.output, file) for item in passed for file in item.output.files if file.path not in {licence.path for licence in files}]
    files += [from_stage(item.output, file) for item in passed for file in item.output.files]
    files += [from_stage(checked.imatrix, file, naming.IMATRIX) for file in checked.imatrix.files if file.path == checked.imatrix.result["file"]]
    files += [PublishFile.from_bytes(naming.OLLAMA_PARAMS, ollama.params(chat.result["sampling"], chat.result["stops"]))]
    if template := ollama.template_from_probes(chat.result["renderings"]):
        files += [PublishFile.from_bytes(naming.OLLAMA_TEMPLATE, template)]
    return files


def from_stage(output: Output, file: File, path: str | None = None) -> PublishFile:
    """A stage's output file, published under its own name or as `path`."""
    return PublishFile.from_path(path or file.path, output.folder / "files" / file.path, sha256=file.sha256)


def account(job: Job, checked: Checked, passed: Sequence[Built], files: Sequence[PublishFile]) -> manifest.Manifest:
    """The manifest: where each file came from and what was measured."""
    inventory = hub.inventory(files)
    return manifest.build(
        release=job.run.release,
        recipe_name=job.recipe.name,
        recipe_digest=job.run.recipe_digest,
        tools=tools(),
        patches=tuple(checked.patches),
        variants=tuple(
            manifest.variant_entry(
                item.verdict, dict(item.measured), files={file.path: inventory[file.path] for file in weights(item.output)}, waivers=waivers(item)
            )
            for item in passed
        ),
        files=inventory,
    )


def describe(job: Job, repo: str, items: Sequence[Built], upstream: Upstream, checked: Checked, yardstick: Yardstick, chat: Output) -> card.Card:
    """Everything that the card of a repo with these variants says."""
    kind, rows = items[0].variant.kind, [row(item) for item in items]
    evaluation, calibration = job.recipe.evaluation, job.recipe.calibration
    tokens, questions = (_observations(items, name) for name in ("kld.mean", "mmlu.accuracy"))
    gguf = kind is Kind.GGUF
    return card.Card(
        kind=kind,
        repo=repo,
        name=job.run.release.name,
        namespace=job.run.namespace,
        release=job.run.release,
        facts=card.Facts(
            license=upstream.license,
            license_name=upstream.license_name,
            license_link=upstream.license_link,
            languages=tuple(upstream.languages),
            pipeline_tag=upstream.pipeline_tag,
        ),
        rows=tuple(item for item in rows if item.verdict.outcome is Outcome.PASSED),
        blocked=tuple(item for item in rows if item.verdict.outcome is not Outcome.PASSED),
        patches=tuple(checked.patches),
        sampling=chat.result["sampling"],
        method=card.Method(
            texts=tuple(path.name for path in (*evaluation.divergence.chat, *evaluation.divergence.plain)),
            tokens=tokens[0],
            most_tokens=tokens[-1],
            windows=yardstick.windows.result["looks"][0],
            context=evaluation.context,
            questions=questions[0],
            most_questions=questions[-1],
            shots=evaluation.mmlu.shots,
            form=evaluation.mmlu.form,
            prompts=len(evaluation.generation.prompts),
            calibration=tuple(path.name for path in (*calibration.chat, *calibration.plain)) if gguf or any(item.mix for item in items) else (),
            calibration_tokens=checked.imatrix.result["tokens"] if gguf else 0,
        ),
        tools=tools(),
        recipe_name=job.recipe.name,
        recipe_digest=job.run.recipe_digest,
        ollama_template=gguf and ollama.template_from_probes(chat.result["renderings"]) is not None,
    )


def _observations(built: Sequence[Built], name: str) -> list[int]:
    """How many tokens or questions the measurement rests on, fewest first: more where the first sample was extended."""
    found = (item.measured[name].n for item in built if name in item.measured)
    return sorted(n for n in found if n is not None) or [0]


def row(item: Built) -> card.Row:
    """One variant on the card."""
    return card.Row(
        tag=item.variant.tag,
        file=weights(item.output)[0].path,
        bytes=item.bytes,
        bpw=item.bpw,
        measurements=item.measured,
        verdict=item.verdict,
        waivers=waivers(item),
        mix=item.mix,
    )


def waivers(item: Built) -> tuple[manifest.Waiver, ...]:
    """The waivers that the variant is published under."""
    return tuple(manifest.Waiver(gate=waiver.gate, by=waiver.by, comment=waiver.comment) for waiver in item.verdict.waivers)


def tools() -> dict[str, str]:
    """Name and version of everything that had a hand in the files."""
    name, _, number = toolchain.version().partition(" ")
    return {name: number, **{library: version(library) for library in LIBRARIES}}
