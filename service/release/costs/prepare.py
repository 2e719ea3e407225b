"""The costs of getting a release, looking it over, and making what its variants are measured with."""

from config.prompt import OPENINGS
from engines import kv_cache
from engines.model import writers
from qa import reach
from qa.sanity import MOST
from service.machine.speed import Speed
from service.release.costs.engines import PYTHON_MEMORY, TORCH_MEMORY, Engines
from service.release.costs.outline import Outline, outline
from service.release.costs.texts import CONVERSATION, asked, read, size, tokens, windows
from service.release.graph import Cost, Needs
from service.release.kinds import TRANSFORMERS, Engine
from service.release.prospect import Prospect

NETWORK = 5e7  # bytes a second from a Hub that is not on this machine
LOCAL = ("http://127.", "http://localhost", "http://[::1]")
PARITY_WINDOWS, PARITY_CONTEXT = 8, 512  # of `qa.parity`; `qa.activations` reads as many of each file
QUESTION_CONTEXT = 4096  # of `qa.measure`
SEQUENCES, LENGTH = 16, 2048  # of `builders.generated`: texts at a time, and tokens of each
IMATRIX = 1.2  # times a pass: the squares of all inputs are summed up on the way
WORDS = 5e-7  # seconds for a byte of text that is split into words and looked up in a table
RENDERED = 1.5e-4  # seconds of a conversation in the template
TURNS = 6  # renderings of a conversation of which every answer is found
ENCODED = 6e-7  # seconds for a byte in transformers' tokenizer
FEW = 3.0  # times as long as many tokens take so few at a time
DRAWN = 3e-9  # seconds for a token's probability when one is drawn
FINITE = 3e-9  # seconds for a value that is looked at once
MERGED = 2e-8  # seconds for a value that a product is added to, and that is compared with the base's
REBUILT = 8e-5  # seconds for a token whose merges are found, and that is read from tokenizer.json several times
REBUILT_MEMORY = 4000  # bytes of such a token, in several forms
MULTIPLIED = 6e-9  # seconds for a value that is multiplied with its scale and rounded


def engines(prospect: Prospect, speed: Speed) -> Engines:
    """The release's model on this machine."""
    return Engines(model=outline(prospect), speed=speed)


def copied(speed: Speed, size: float) -> float:
    """Seconds that so many bytes take from one folder to another, with their sha256, and once more to compare it."""
    return size / min(speed.disk, 2e8) + 2 * size / 1.2e9


def transferred(prospect: Prospect, speed: Speed, size: float) -> float:
    """Seconds that so many bytes take between the Hub and this disk."""
    rate = min(speed.disk, 2e8) if prospect.settings.hub_endpoint.startswith(LOCAL) else NETWORK
    return size / rate + size / 1.2e9  # and their sha256


def gguf_bytes(model: Outline, bits: float) -> int:
    """Of a GGUF file of so many bits per weight, with its vocabulary."""
    return round(model.parameters * bits / 8) + 16 * model.entries


def configuration(prospect: Prospect) -> int:
    """Bytes of everything but the weights: what each folder has a copy of."""
    return sum(size for path, size in prospect.sizes.items() if not path.endswith((".safetensors", ".gguf", ".bin", ".md")))


# ---- the release ------------------------------------------------------------------------------------------------------------------------------


def snapshot(prospect: Prospect, speed: Speed) -> Needs:
    """Download, or copy; merge an adapter into its base, and compare both; rebuild a model from GGUF, convert it back, and compare both."""
    size = sum(prospect.sizes.values())
    seconds = transferred(prospect, speed, size) if prospect.folder is None else copied(speed, size)
    if prospect.upstream.base is None and not prospect.upstream.gguf:
        return Needs(seconds=0.3 + seconds, memory=PYTHON_MEMORY, disk=size)
    at = engines(prospect, speed)
    if prospect.upstream.gguf:
        again = convert(prospect, speed)
        seconds += 2 * at.torch + at.python(REBUILT * at.model.entries) + 2 * prospect.weights / speed.disk + again.seconds
        return Needs(seconds=0.3 + seconds, memory=max(TORCH_MEMORY + REBUILT_MEMORY * at.model.entries, again.memory), disk=size + 2 * prospect.weights)
    seconds += at.torch + MERGED * at.model.parameters + 2 * prospect.weights / speed.disk
    return Needs(seconds=0.3 + seconds, memory=TORCH_MEMORY + 20 * at.model.shape.largest, disk=size + prospect.weights)


def overlap(prospect: Prospect, speed: Speed) -> Needs:
    """Compare calibration and evaluation text."""
    at = engines(prospect, speed)
    calibration, evaluation = prospect.recipe.calibration, prospect.recipe.evaluation.divergence
    there = read(calibration) + read(evaluation)
    return Needs(seconds=at.start + at.python(WORDS * there), memory=PYTHON_MEMORY + 12 * there)


def fix(prospect: Prospect, speed: Speed) -> Needs:
    """Repair the configuration, for which the tokenizer is tried several times; weights are linked, and those of 8 bits multiplied out.

    One of the first stages, it waits for the program that starts them all.
    """
    at, copied = engines(prospect, speed), configuration(prospect)
    seconds, memory = at.imports + at.start + at.python(0.5 + 4e-7 * copied), PYTHON_MEMORY + 10 * copied
    if not prospect.compact:
        return Needs(seconds=seconds, memory=memory, disk=copied)
    seconds += at.torch + MULTIPLIED * at.model.parameters + prospect.weights / speed.disk
    return Needs(seconds=seconds, memory=memory + TORCH_MEMORY + 12 * at.model.shape.largest, disk=copied + prospect.weights)


def convert(prospect: Prospect, speed: Speed) -> Needs:
    """Look at every weight, and write the 16-bit GGUF, by a converter in a Python of its own that imports torch."""
    at = engines(prospect, speed)
    written = gguf_bytes(at.model, at.model.bits)
    seconds = at.torch + at.imports + at.python(8e-6 * at.model.entries) + (6e-9 + FINITE) * at.model.parameters + written / speed.disk + at.header
    largest = at.model.bits / 8 * at.model.shape.largest
    return Needs(seconds=seconds, memory=2 * TORCH_MEMORY + at.reader + round(3 * largest), disk=written)


# ---- looks ------------------------------------------------------------------------------------------------------------------------------------


def conversations(prospect: Prospect, speed: Speed) -> Needs:
    """Render every conversation of the data once."""
    at, recipe = engines(prospect, speed), prospect.recipe
    return Needs(
        seconds=at.torch + at.python(RENDERED * size((*recipe.calibration.chat, *recipe.evaluation.divergence.chat)) / CONVERSATION), memory=TORCH_MEMORY
    )


def sanity(prospect: Prospect, speed: Speed) -> Needs:
    """Let the 16-bit model answer in transformers; one without a chat template goes on until it is stopped."""
    at, asks = engines(prospect, speed), prospect.recipe.evaluation.generation
    most = min(asks.max_tokens, MOST)
    answers = at.talk(len(asks.prompts), most) if prospect.template else at.forward(passes := len(asks.prompts) * most, passes, passes=passes)
    seconds = at.torch + at.load + answers
    return Needs(seconds=seconds, memory=at.whole)


def metadata(prospect: Prospect, speed: Speed) -> Needs:
    """Compare the header with the configuration."""
    at = engines(prospect, speed)
    return Needs(seconds=at.torch + at.whole_header, memory=TORCH_MEMORY + at.reader)


def parity(prospect: Prospect, speed: Speed) -> Needs:
    """Run a few windows in both engines, at the same time."""
    at, text = engines(prospect, speed), prospect.recipe.evaluation.divergence
    count = min(PARITY_WINDOWS, tokens(text) // PARITY_CONTEXT)
    all_, rows = count * PARITY_CONTEXT, count * PARITY_CONTEXT // 2
    sides = at.forward(all_, rows, passes=count), at.decode(all_, rows, batch=512, bits=at.model.bits)
    together = max(1.0, min(2.0, speed.threads / at.threads))  # the threads of both share the processors
    seconds = at.torch + at.load + at.vocabulary + max(*sides, sum(sides) / together) + at.compared(rows, 1, difference=True) / min(2, speed.threads)
    seconds += at.python(2 * ENCODED * min(size(text.plain or text.chat or tuple(OPENINGS.values())), 2000 * CONVERSATION))
    held = at.whole + at.opened(at.model.weights, context=PARITY_CONTEXT, batch=512) + 4 * at.logits(PARITY_CONTEXT // 2)
    return Needs(seconds=seconds, memory=held)


def long_text(prospect: Prospect, speed: Speed) -> Needs:
    """One long text in both engines, at the same time; twice, where llama.cpp does without a window of attention, for what that accounts for. Beyond farther
    edges of positions a short one, for which llama.cpp's cache is as long as if all before it were there.
    """
    at, config = engines(prospect, speed), prospect.config
    edges = reach.edges(config)
    size = reach.length(edges, kv_cache.context_length(config) or reach.SHORTEST)
    if size <= PARITY_CONTEXT:
        return Needs(seconds=at.torch, memory=TORCH_MEMORY)
    looked_back = 4 * size**2 * at.model.hidden * at.model.depth  # operations: each token meets all, under a mask
    in_torch = at.forward(size, reach.SCORED) + looked_back / (at.rate(speed.narrow, speed.wide) * at.threads)
    in_llama = at.decode(size, reach.SCORED, batch=512, bits=16.0) + looked_back / (at.rate(speed.llama_narrow, speed.llama_wide) * at.threads)
    together = max(1.0, min(2.0, speed.threads / at.threads))  # the threads of both share the processors
    passes = max(in_torch, in_llama, (in_torch + in_llama) / together) + at.load + at.vocabulary + at.compared(reach.SCORED, 1, difference=True)
    window = reach.window(config)
    times = 2 if window is not None and window < size and not kv_cache.windowed(config) else 1
    start = reach.far(edges, config, size)
    placed = 0.0 if start is None else at.forward(reach.PLACED, reach.SCORED) + at.decode(reach.PLACED, reach.SCORED, batch=512, bits=16.0) + at.load
    context = size if start is None else max(size, start + reach.PLACED)
    held = at.whole + at.opened(at.model.weights, context=context, batch=512) + 6 * size**2 + 4 * at.logits(reach.SCORED)
    return Needs(seconds=at.torch + times * passes + placed + at.python(1e-5 * size), memory=held)


def activations(prospect: Prospect, speed: Speed) -> Needs:
    """Watch every module on a few windows of each file, and look at every weight."""
    at, text = engines(prospect, speed), prospect.recipe.evaluation.divergence
    count = PARITY_WINDOWS * (len((*text.chat, *text.plain)) + bool(text.generated))
    watched = 2 * 4e-9 * count * PARITY_CONTEXT * at.model.inputs
    seconds = at.torch + at.load + at.forward(count * PARITY_CONTEXT, count, passes=count) + watched + 4 * FINITE * at.model.parameters
    return Needs(seconds=seconds, memory=at.whole)


def templates(prospect: Prospect, speed: Speed) -> Needs:
    """Render and tokenize a fixed battery in both engines."""
    at = engines(prospect, speed)
    memory = TORCH_MEMORY + PYTHON_MEMORY + at.opened(at.model.weights, context=256, batch=256)
    return Needs(seconds=at.torch + at.server + at.vocabulary + at.python(0.8 + 1e-5 * at.model.entries), memory=memory)


def generated(prospect: Prospect, speed: Speed) -> Needs:
    """Let the model write, in many sequences at a time; prompts, which go in at once, are about as many tokens as answers that are dropped.

    The larger part takes longest where a small model writes both at once.
    """
    at, recipe = engines(prospect, speed), prospect.recipe
    parts = [tokens for tokens in (recipe.calibration.generated, recipe.evaluation.divergence.generated) if tokens]
    together, threads = writers(at.model.weights, len(parts), speed.threads)
    one_by_one = max(parts) if together > 1 else sum(parts)
    writing = (
        FEW * at.decode(one_by_one, one_by_one, batch=SEQUENCES, bits=at.model.bits, threads=threads, together=together)
        + DRAWN * one_by_one * at.model.vocabulary
    )
    held = TORCH_MEMORY + at.opened(at.model.weights, context=together * SEQUENCES * LENGTH, batch=512)
    return Needs(seconds=at.torch + at.vocabulary + writing, memory=held, disk=5 * sum(parts))


# ---- what variants are built and measured with -------------------------------------------------------------------------------------------------


def imatrix(prospect: Prospect, speed: Speed) -> Needs:
    """Tokenize all calibration text, to choose what is used of it, and run llama-imatrix, which has logits everywhere."""
    at, text = engines(prospect, speed), prospect.recipe.calibration
    used = windows(text, prospect.recipe.evaluation.context) * prospect.recipe.evaluation.context
    there = read(text)
    rendering = at.python(ENCODED * there + RENDERED * (there - size(text.plain)) / CONVERSATION)
    running = IMATRIX * at.decode(used, used, batch=512, bits=at.model.bits, threads=speed.threads) + at.compared(used / 2, 1) / speed.threads
    seconds = at.torch + rendering + at.vocabulary + 0.2 + running + 3e-9 * used * at.model.inputs
    held = TORCH_MEMORY + 3 * there + at.opened(at.model.weights, context=512, batch=512) + 2 * at.logits(prospect.recipe.evaluation.context)
    return Needs(seconds=seconds, memory=held, disk=4 * at.model.inputs)


def imatrix_check(prospect: Prospect, speed: Speed) -> Needs:
    """Look at every entry; where matrices are never multiplied by, ask llama.cpp's graph for them, which takes the model."""
    at = engines(prospect, speed)
    seconds, memory = at.start + at.whole_header, PYTHON_MEMORY + at.reader
    if at.model.predicting and prospect.recipe.variants.multi_token_prediction:
        seconds += at.vocabulary + at.decode(2, 1, batch=2, bits=16.0, threads=1)
        memory += at.opened(at.model.weights, context=512, batch=512)
    return Needs(seconds=seconds, memory=memory)


def evaluation_text(prospect: Prospect, speed: Speed) -> Needs:
    """Cut the text into windows; each answer's place is found by rendering its conversation with and without it."""
    at, text = engines(prospect, speed), prospect.recipe.evaluation.divergence
    used = tokens(text, text.most)
    rendering = at.python(used * 4 * (TURNS * ENCODED + TURNS * RENDERED / CONVERSATION))
    return Needs(seconds=at.torch + rendering, memory=TORCH_MEMORY, disk=5 * used)


def listed(prospect: Prospect, speed: Speed) -> Needs:
    """Read the questions."""
    at = engines(prospect, speed)
    first, more = asked(prospect.recipe.evaluation.mmlu)
    return Needs(seconds=at.start + at.python(0.1 + 2e-5 * (first.questions + more.questions)), memory=PYTHON_MEMORY)


def greedy(engine: Engine) -> Cost:
    """The 16-bit model's greedy answers in an engine."""

    def cost(prospect: Prospect, speed: Speed) -> Needs:
        at, asks = engines(prospect, speed), prospect.recipe.evaluation.generation
        prompts = len(asks.prompts) * prospect.template
        if engine is TRANSFORMERS:
            return Needs(seconds=at.torch + at.load + at.talk(prompts, asks.max_tokens), memory=at.whole)
        seconds = at.start + at.server + 3 * at.vocabulary + at.talk(prompts, asks.max_tokens, at.model.bits)
        return Needs(seconds=seconds, memory=PYTHON_MEMORY + at.opened(at.model.weights, context=asks.max_tokens, batch=512))

    return cost


def reference(engine: Engine) -> Cost:
    """The 16-bit model's answers to the first questions in an engine."""

    def cost(prospect: Prospect, speed: Speed) -> Needs:
        from service.release.costs.measuring import answering

        return answering(prospect, speed, engine)

    return cost
