"""Times what the stages of a release do most, on parts as they use them, for `service.machine.speed`: `python -m service.machine.probe FOLDER SECONDS THREADS`.

A process of its own, because the service does without torch, whose import is one of the things that are timed. Processor time is taken, not wall time: other
programs must not count. Covers one thread; what several do together is reckoned from it, but for reading memory, which they share.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from config.errors import SluiceError

LAYERS, POSITIONS, VOCABULARY = 2, 128, 256  # of the made-up models
WIDTHS = {"narrow": 256, "wide": 1024}  # hidden units
WIDER = 3  # feed-forward units for each hidden one
HEAD = 64  # units
ROWS, COLUMNS = 128, 1024
ENTRIES = 4000  # of a vocabulary
WRITTEN = 2**25  # bytes
READ = 6  # times

Found = dict[str, Any]


def main() -> None:
    """Print one JSON object."""
    folder, seconds, threads = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    found = starts()
    each = seconds / 30
    try:
        with tempfile.TemporaryDirectory(prefix="sluice-probe-", dir=folder) as work:
            found |= transformers(each) | shared(threads) | llama(Path(work), each) | quantizers() | header(Path(work)) | disk(Path(work))
    except SluiceError as error:
        raise SystemExit(str(error)) from error
    sys.stdout.write(json.dumps(found) + "\n")


def shortest(work: Callable[[], object], seconds: float) -> float:
    """Processor seconds of the quickest of several runs after a first one, which is not counted, for about so long."""
    work()
    best, until = float("inf"), time.process_time() + seconds
    while time.process_time() < until or best == float("inf"):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best


def starts() -> Found:
    """`python`: seconds until a stage that runs llama.cpp begins to work; `torch`: until one that runs transformers does, on top of that."""
    import engines.ggml
    import engines.llama

    ready = time.process_time()
    from transformers import LlamaForCausalLM  # noqa: F401 (a model's own code is imported when it is loaded)

    import engines.hf  # noqa: F401

    return {"python": ready, "torch": time.process_time() - ready}


def transformers(seconds: float) -> Found:
    """`narrow`, `wide`: operations a second of a forward pass in float32; `call`: seconds of a layer beyond its products; `memory`: bytes a second."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    found: Found = {}
    calls = {}
    for name, hidden in WIDTHS.items():
        layers = LAYERS if name == "narrow" else 1
        described = LlamaConfig(
            hidden_size=hidden,
            intermediate_size=WIDER * hidden,
            num_hidden_layers=layers,
            num_attention_heads=hidden // HEAD,
            num_key_value_heads=hidden // HEAD,
            vocab_size=VOCABULARY,
            tie_word_embeddings=True,
        )
        with torch.device("meta"):
            outline = LlamaForCausalLM(described)
        network = outline.to_empty(device="cpu")  # random weights of this size would take longer to make than to use
        for parameter in network.parameters():
            torch.nn.init.constant_(parameter, 0.01)
        network.eval()  # type: ignore[no-untyped-call]
        values = sum(parameter.numel() for parameter in network.parameters())
        with torch.inference_mode():
            single, whole = (torch.zeros((1, size), dtype=torch.long) for size in (1, 4 * POSITIONS))
            calls[name] = (shortest(lambda net=network, ids=single: net(input_ids=ids, use_cache=False), seconds), layers, values)  # type: ignore[misc]
            taken = shortest(lambda net=network, ids=whole: net(input_ids=ids, use_cache=False), seconds)  # type: ignore[misc]
        found[name] = 2 * values * 4 * POSITIONS / max(taken - calls[name][0], 1e-6)
    narrow, wide = calls["narrow"], calls["wide"]
    found["call"] = narrow[0] / narrow[1]
    found["memory"] = 4 * wide[2] / max(wide[0] - found["call"] * wide[1], 1e-6)
    return found | gpu(seconds)


def shared(threads: int) -> Found:
    """`shared`: bytes a second of weights that so many threads read together, more than any cache holds."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    weights, vector = torch.ones((2**16, 1024)), torch.ones(1024)
    best = float("inf")
    for _ in range(READ):
        started = time.perf_counter()
        torch.mv(weights, vector)
        best = min(best, time.perf_counter() - started)
    torch.set_num_threads(before)
    return {"shared": 4 * weights.numel() / best}


def gpu(seconds: float) -> Found:
    """`gpu`: memory, operations a second in TF32 and bytes a second from the host of the card that stages would use; None without one."""
    import torch

    if not torch.cuda.is_available():
        return {"gpu": None}
    torch.set_float32_matmul_precision("high")
    matrix = torch.ones((4096, 4096), device="cuda")
    host = torch.ones(2**26)

    def wall(work: Callable[[], object]) -> float:
        best = float("inf")
        for _ in range(5):
            torch.cuda.synchronize()
            started = time.perf_counter()
            work()
            torch.cuda.synchronize()
            best = min(best, time.perf_counter() - started)
        return best

    product, copy, moved = wall(lambda: matrix @ matrix), wall(matrix.clone), wall(lambda: host.to("cuda"))
    free = int(torch.cuda.mem_get_info()[0])
    rates = {"operations": 2 * 4096**3 / product, "bandwidth": 8 * 4096**2 / copy, "bus": 4 * 2**26 / moved}
    return {"gpu": {"memory": free, **rates}}


def llama(folder: Path, seconds: float) -> Found:
    """`llama_narrow`, `llama_wide`: operations a second of llama.cpp in bfloat16; `quantized`: times these in 4 bits; `decode`: seconds of a token's layer."""
    from engines import llama as engine

    def opened(name: str, hidden: int, type: str) -> tuple[float, float, int]:
        path = folder / f"{name}-{type}.gguf"
        values = write_model(path, hidden, type)
        with engine.open_model(path, context=POSITIONS, threads=1, batch=POSITIONS) as model:
            last = POSITIONS - 1
            many = shortest(lambda: model.logits([1] * POSITIONS, last), seconds / 2)
            return many, shortest(lambda: model.logits([1], 0), seconds / 4), values

    many, one, values = opened("narrow", WIDTHS["narrow"], "BF16")
    found = {"llama_narrow": 2 * values * POSITIONS / many, "decode": one / LAYERS}
    many, _, values = opened("wide", WIDTHS["wide"], "BF16")
    four, _, _ = opened("wide", WIDTHS["wide"], "Q4_K")
    return found | {"llama_wide": 2 * values * POSITIONS / many, "quantized": many / four}


def write_model(path: Path, hidden: int, type: str) -> int:
    """Write a model of one shape and type in which every tensor repeats a few rows; its parameters without the vocabulary's."""
    import gguf
    import numpy as np

    from engines import ggml

    wide, heads = WIDER * hidden, hidden // HEAD
    rows = np.random.default_rng(0).standard_normal((32, wide), dtype=np.float32) / hidden
    parts = {
        columns: ggml.quantize(np.ascontiguousarray(rows[:, :columns]), type, importances=np.ones(columns, dtype=np.float32)) for columns in (hidden, wide)
    }
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(hidden)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(wide)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("no_vocab")
    count = 0
    matrices = [(f"blk.{layer}.{part}.weight", hidden, hidden) for layer in range(LAYERS) for part in ("attn_q", "attn_k", "attn_v", "attn_output")]
    matrices += [(f"blk.{layer}.{part}.weight", wide, hidden) for layer in range(LAYERS) for part in ("ffn_gate", "ffn_up")]
    matrices += [(f"blk.{layer}.ffn_down.weight", hidden, wide) for layer in range(LAYERS)]
    for name, outputs, inputs in [("token_embd.weight", VOCABULARY, hidden), *matrices]:
        writer.add_tensor(name, np.tile(parts[inputs], (outputs // len(rows), 1)), raw_dtype=gguf.GGMLQuantizationType[type])
        count += outputs * inputs
    for name in ("output_norm.weight", *(f"blk.{layer}.{part}.weight" for layer in range(LAYERS) for part in ("attn_norm", "ffn_norm"))):
        writer.add_tensor(name, np.ones(hidden, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return count - VOCABULARY * hidden


def quantizers() -> Found:
    """`quantizing`: values a second to each type and back; `tables`: seconds of the slowest type's tables; `rounding`: values a second that get new codes.

    Each part of a matrix takes as long as if it had BEGUN rows more.
    """
    import numpy as np

    from builders import matrices
    from builders.rounding.compensate import Metric, compensate
    from builders.rounding.sizes import BEGUN, MOST_ROWS
    from builders.sensitivity.table import TYPES
    from engines import ggml

    values = np.random.default_rng(0).standard_normal((ROWS, COLUMNS), dtype=np.float32)
    weights = np.ones(COLUMNS, dtype=np.float32)
    rates, tables = {}, 0.0
    for type in TYPES:
        if type == "BF16":
            continue
        started = time.process_time()
        ggml.quantize(values[:1], type, importances=weights)
        tables = max(tables, time.process_time() - started)
        few = values[: 16 if type.startswith("IQ") else ROWS]
        started = time.process_time()
        ggml.dequantize(ggml.quantize(few, type, importances=weights), type, COLUMNS)
        rates[type] = few.size / (time.process_time() - started)
    tall = np.resize(values, (MOST_ROWS, 256))
    metric = Metric.of(np.eye(256, dtype=np.float32))
    plain = matrices.quantized(tall, "Q4_K", experts=1, importances=weights[:256])
    taken = shortest(lambda: compensate(tall, "Q4_K", metric=metric, plain=plain), 0.2)
    return {"quantizing": rates, "tables": tables, "rounding": (len(tall) + BEGUN) * tall.shape[1] / taken}


def header(folder: Path) -> Found:
    """`entry`: seconds that gguf's reader takes for one entry of a vocabulary, a text and a number."""
    import gguf

    path = folder / "vocabulary.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("tokens", [f"token {number}" for number in range(ENTRIES)])
    writer.add_array("kinds", list(range(ENTRIES)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {"entry": shortest(lambda: gguf.GGUFReader(path), 0.2) / ENTRIES}


def disk(folder: Path) -> Found:
    """`disk`: bytes a second that reach the disk."""
    content, best = os.urandom(2**20), float("inf")
    for _ in range(2):
        started = time.perf_counter()
        with (folder / "written").open("wb") as file:
            for _ in range(WRITTEN // len(content)):
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        best = min(best, time.perf_counter() - started)
    return {"disk": WRITTEN / best}


if __name__ == "__main__":
    main()
