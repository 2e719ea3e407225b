"""The costs of measuring variants, judging them, and of what is published."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from config.words import Variant
from engines.environments import TRANSFORMERS_4
from qa import mmlu
from qa.file_checks import CHUNK
from qa.group import BATCH, shares
from qa.readers import running
from service.machine.folders import existing
from service.machine.speed import Speed
from service.release.costs import sizes
from service.release.costs.engines import CACHE_COPY, PYTHON_MEMORY, TORCH_MEMORY, Engines
from service.release.costs.prepare import FINITE, QUESTION_CONTEXT, configuration, copied, engines, gguf_bytes, transferred
from service.release.costs.texts import Asked, asked, windows
from service.release.graph import Cost, Needs
from service.release.kinds import LLAMA_CPP, Engine, asked_older, kind_of
from service.release.measuring.groups import MOST, WORKING_BYTES, memory_for_models
from service.release.prospect import Prospect

UNDECIDED = 1 / 3  # of the variants, whose sample is doubled once where it may grow
COMPARED = 1.8e-8  # seconds for a value that is read from both files and compared, by gguf's own Python
ANSWERED = 2e-3  # seconds for a question, beside the model
PLOT, FIGURE = 2.0, 0.12  # seconds for a report, and for each variant in it
COMMIT = 0.5  # seconds for the calls that publish a repo
SCORES = 5 * 8  # bytes kept of a scored token

# ---- divergence -------------------------------------------------------------------------------------------------------------------------------


def divergence(prospect: Prospect, speed: Speed) -> Needs:
    """Every variant beside the 16-bit model: GGUF files in groups that memory holds, folders one by one; some of them on more text."""
    text, context = prospect.recipe.evaluation.divergence, prospect.recipe.evaluation.context
    first = windows(text, context)
    grown = min(2 * first, windows(text, context, text.most)) - first
    variants = (*prospect.recipe.variants.listed(), *prospect.recipe.variants.yardsticks)
    passes = [_diverged(prospect, speed, variants, first)]
    if grown * 2 >= first:
        some = variants[: round(UNDECIDED * len(variants))]
        passes.append(_diverged(prospect, speed, some, grown))
    return Needs(seconds=sum(part.seconds for part in passes), memory=max(part.memory for part in passes), disk=sum(part.disk for part in passes))


def _diverged(prospect: Prospect, speed: Speed, variants: Sequence[Variant], count: int) -> Needs:
    at, context = engines(prospect, speed), prospect.recipe.evaluation.context
    tokens, rows = count * context, count * (context // 2)
    seconds, memory, kept = 0.0, 0, 0
    for group in grouped(prospect, at, variants):
        kept += len(group)
        workers, each = shares(speed.threads, len(group))
        bits = [at.model.bits, *(sizes.bits(prospect, variant) for variant in group)]
        threads = at.model.threads(each)
        evaluating = sum(at.decode(tokens, rows, batch=BATCH, bits=one, threads=threads) for one in bits)
        weights = at.model.weights + sum(sizes.weight(prospect, variant) for variant in group)
        seconds += at.start + len(bits) * at.vocabulary + weights / 4e9 + (evaluating + at.compared(rows, len(group))) / workers
        logits = 2 * 3 * at.logits(context // 2)
        memory = max(memory, PYTHON_MEMORY + sum(at.opened(at.model.parameters * one / 8, context=context, batch=BATCH) for one in bits) + logits)
    for variant in variants:
        if (kind := kind_of(variant)).engine is not LLAMA_CPP:
            kept += 1
            own = Needs() if kind.original(prospect, variant) else Needs(seconds=at.load, memory=at.model.parameters)
            passes = (1 + kind.slower) * at.forward(tokens, rows, passes=count)
            together = max(1.0, min(2.0, speed.threads / at.threads))
            seconds += at.torch + at.load + own.seconds + passes / together + at.compared(rows, 1, difference=True) / min(2, speed.threads)
            memory = max(memory, at.whole + own.memory + 6 * at.logits(context // 2))
    return Needs(seconds=seconds, memory=memory, disk=kept * rows * SCORES)


def grouped(prospect: Prospect, at: Engines, variants: Sequence[Variant]) -> list[list[Variant]]:
    """The GGUF variants that are measured beside one pass of the 16-bit model, as `service.release.measuring.groups` puts them together."""
    groups: list[list[Variant]] = []
    whole = memory_for_models(prospect.settings) - at.model.weights - WORKING_BYTES
    free = 0
    for variant in variants:
        if kind_of(variant).engine is LLAMA_CPP:
            needed = sizes.weight(prospect, variant) + WORKING_BYTES
            if not groups or len(groups[-1]) == MOST or needed > free:
                groups.append([])
                free = whole
            groups[-1].append(variant)
            free -= needed
    return groups


# ---- questions --------------------------------------------------------------------------------------------------------------------------------


def answering(prospect: Prospect, speed: Speed, engine: Engine, *, bits: float | None = None, slower: float = 1.0, more: bool = False) -> Needs:
    """One model's answers to the first sample of questions, or to what doubling it adds: what the prompts of a subject share is evaluated once."""
    at, sample = engines(prospect, speed), asked(prospect.recipe.evaluation.mmlu)[more]
    if engine is not LLAMA_CPP:
        seconds = at.torch + at.load + slower * _in_transformers(at, sample) + at.python(ANSWERED * sample.questions)
        return Needs(seconds=seconds, memory=at.whole + 2 * 4 * at.model.keys * at.model.depth * 1024)
    bits = at.model.bits if bits is None else bits  # of the 16-bit model itself
    seconds = at.start + 2 * at.vocabulary + at.model.parameters * bits / 8 / 4e9 + at.python(ANSWERED / 4 * sample.questions)
    if prospect.recipe.evaluation.mmlu is not None and prospect.recipe.evaluation.mmlu.form != "hendrycks":
        seconds += at.server
    # suffixes go in together, as many as a batch holds; one row of logits each
    seconds += at.decode(sample.prefix + sample.suffix, sample.questions, batch=256, bits=bits)
    return Needs(seconds=seconds, memory=PYTHON_MEMORY + at.opened(at.model.parameters * bits / 8, context=QUESTION_CONTEXT, batch=512) + 40 * at.model.entries)


def _in_transformers(at: Engines, sample: Asked) -> float:
    """Each question by itself, on a copy of what was computed for its subject."""
    beginnings = at.forward(sample.prefix, sample.subjects, passes=sample.subjects)
    return beginnings + at.forward(sample.suffix, sample.questions, passes=sample.questions, call=CACHE_COPY)


def questions(prospect: Prospect, speed: Speed) -> Needs:
    """Every variant's answers; what is the 16-bit model itself has answered before. Where the sample may grow, some variants and that model are asked more."""
    variants = [*prospect.recipe.variants.listed(), *(prospect.recipe.variants.yardsticks if _with_yardsticks(prospect) else ())]
    parts = _answers(prospect, speed, variants)
    if asked(prospect.recipe.evaluation.mmlu)[1].questions:
        some = variants[: round(UNDECIDED * len(variants))]
        parts += [answering(prospect, speed, engine, more=True) for engine in dict.fromkeys(kind_of(item).engine for item in some)]
        parts += _answers(prospect, speed, some, more=True)
    disk = 130 * asked(prospect.recipe.evaluation.mmlu)[0].questions * len(parts)
    return Needs(seconds=sum(part.seconds for part in parts), memory=max((part.memory for part in parts), default=0), disk=disk)


def _answers(prospect: Prospect, speed: Speed, variants: Sequence[Variant], *, more: bool = False) -> list[Needs]:
    """Those of each variant that is not the 16-bit model itself."""
    asked = [(item, kind) for item in variants if not (kind := kind_of(item)).original(prospect, item)]
    return [answering(prospect, speed, kind.engine, bits=sizes.bits(prospect, item), slower=kind.slower, more=more) for item, kind in asked]


def _with_yardsticks(prospect: Prospect) -> bool:
    """Whether a gate compares answers with those of stock mixes, which are asked only then."""
    return any(gate.relative_to == "stock" and gate.measure.partition(".")[0] in mmlu.NAMES for gate in prospect.recipe.gates)


# ---- a variant by itself, and what is published ------------------------------------------------------------------------------------------------


def measure(variant: Variant) -> Cost:
    """Greedy answers, and the file against the 16-bit one."""

    def cost(prospect: Prospect, speed: Speed) -> Needs:
        at, asks = engines(prospect, speed), prospect.recipe.evaluation.generation
        prompts, most, parameters = len(asks.prompts) * prospect.template, asks.max_tokens, at.model.parameters
        again = not (kind := kind_of(variant)).original(prospect, variant)  # the 16-bit model itself has answered
        if kind.engine is not LLAMA_CPP:
            seconds = at.torch + again * (at.load + kind.slower * at.talk(prompts, most)) + FINITE * parameters + at.python(5e-6 * at.model.entries)
            if asked_older(prospect.recipe, variant) and TRANSFORMERS_4.missing() is None:
                seconds += 2 * (at.torch + at.load + kind.slower * at.talk(1, running.MOST))
            return Needs(seconds=seconds, memory=at.whole)
        generated = again * (at.server + 2 * at.vocabulary + at.talk(prompts, most, sizes.bits(prospect, variant)))
        checked = 2 * at.header + at.python(COMPARED * parameters) / speed.threads + 3 * at.vocabulary + sizes.weight(prospect, variant) / 1e9
        values = min(CHUNK, at.model.shape.largest)
        memory = PYTHON_MEMORY + sizes.weight(prospect, variant) + 30 * values * speed.threads
        return Needs(seconds=at.start + generated + checked, memory=memory)

    return cost


def judge(prospect: Prospect, speed: Speed) -> Needs:
    """Compare figures with bounds."""
    return Needs(seconds=0.02 * len(prospect.recipe.variants.listed()), memory=PYTHON_MEMORY)


def contents(prospect: Prospect, speed: Speed) -> Needs:
    """Describe what the GGUF files are made of."""
    at = engines(prospect, speed)
    files = sum(kind_of(variant).engine is LLAMA_CPP for variant in prospect.recipe.variants.listed())
    return Needs(seconds=at.start if files else 0.0, memory=PYTHON_MEMORY, disk=8000 * files * at.model.depth // 4)


def report(prospect: Prospect, speed: Speed) -> Needs:
    """Describe the files and make the page with its plots."""
    at, files = engines(prospect, speed), contents(prospect, speed)
    plots = at.start + at.python(PLOT + FIGURE * len(prospect.recipe.variants.listed()))
    return Needs(seconds=files.seconds + plots, memory=max(files.memory, 4 * PYTHON_MEMORY), disk=files.disk + 500_000)


def chat(prospect: Prospect, speed: Speed) -> Needs:
    """Render a few conversations, for the card."""
    at = engines(prospect, speed)
    return Needs(seconds=at.torch, memory=TORCH_MEMORY)


def parts(prospect: Prospect, speed: Speed) -> Needs:
    """Divide what is larger than a Hub takes: a copy, which is read again beside the file."""
    at, limit = engines(prospect, speed), prospect.settings.largest_file
    sizes_of = [gguf_bytes(at.model, sizes.bits(prospect, item)) for item in prospect.recipe.variants.listed() if kind_of(item).engine is LLAMA_CPP]
    large = [size for size in sizes_of if size > limit]
    seconds = len(large) * (at.start + 2 * at.vocabulary) + sum(copied(speed, size) for size in large)
    return Needs(seconds=seconds, memory=PYTHON_MEMORY, disk=sum(large))


def publish(prospect: Prospect, speed: Speed) -> Needs:
    """Upload what passes: at most everything, but what would be in the upstream. Files are uploaded from where they lie; in a folder there are copies."""
    at = engines(prospect, speed)
    listed = [item for item in prospect.recipe.variants.listed() if not prospect.own or kind_of(item).form.quantized]
    files = [
        gguf_bytes(at.model, sizes.bits(prospect, item)) if kind_of(item).engine is LLAMA_CPP else sizes.weight(prospect, item) + configuration(prospect)
        for item in listed
    ]
    repos = len({kind_of(item).repo(item) for item in listed})
    if prospect.target is not None:
        # in whichever file system the folder lies: on the same disk nothing else is left for them
        together = existing(Path(prospect.target)).stat().st_dev == existing(prospect.settings.folder).stat().st_dev
        return Needs(seconds=copied(speed, sum(files)), memory=PYTHON_MEMORY, disk=sum(files) if together else 0)
    used = list(_read_back(prospect, dict(zip(listed, files, strict=True))))
    seconds = COMMIT * repos + transferred(prospect, speed, sum(files) + sum(size for _, size in used))
    for variant, _ in used:
        seconds += 2 * (at.torch + at.load if kind_of(variant).engine is not LLAMA_CPP else at.start + at.server + 2 * at.vocabulary)
    return Needs(seconds=seconds, memory=PYTHON_MEMORY, disk=max((size for _, size in used), default=0))


def _read_back(prospect: Prospect, files: Mapping[Variant, int]) -> Iterator[tuple[Variant, int]]:
    """The variants that are used before they are published, with their bytes: of each repo those that the recipe wants."""
    repos: dict[str, list[tuple[int, Variant]]] = {}
    for variant, size in files.items():
        repos.setdefault(kind_of(variant).repo(variant), []).append((size, variant))
    for held in repos.values():
        wanted = sorted(held, key=lambda item: item[0])
        yield from ((variant, size) for size, variant in {"smallest": wanted[:1], "all": wanted, "none": []}[prospect.recipe.read_back])
