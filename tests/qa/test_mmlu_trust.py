"""Our chosen letters against two others' on the same model and questions: a plain implementation of a few lines, and lm-evaluation-harness.

Both others score the one token ` A` … ` D` after the whole prompt. So ours by that token alone must agree everywhere, and ours by both tokens nearly
everywhere: the second token is the only explanation of a difference.
The model is the bundled one with noise on its weights, since one that knows every answer would agree with any implementation.
"""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engines import hf
from qa import mmlu
from tests.qa.conftest import DATA, Release

TINY = DATA / "tiny_mmlu"
SHOTS, PER_SUBJECT = 5, 25
NOISE = 0.45  # of each matrix's own standard deviation: about half of the answers become wrong
Chosen = dict[tuple[str, int], str]


@pytest.fixture(scope="module")
def unsure(clean: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that answers some questions rightly and others wrongly."""
    folder = shutil.copytree(clean.model, tmp_path_factory.mktemp("unsure") / "model")
    torch.manual_seed(3407)
    tensors = load_file(folder / "model.safetensors")
    noisy = {name: tensor + NOISE * tensor.float().std() * torch.randn(tensor.shape) if tensor.ndim == 2 else tensor for name, tensor in tensors.items()}
    save_file({name: noisy[name].to(tensors[name].dtype) for name in tensors}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def ours(unsure: Path) -> list[mmlu.Answer]:
    with hf.open_model(unsure, threads=1) as model:
        return mmlu.ask(model, mmlu.load(TINY, shots=SHOTS, questions_per_subject=PER_SUBJECT))[0]


def rows(subject: str, split: str, count: int) -> list[list[str]]:
    with (TINY / split / f"{subject}_{split}.csv").open(newline="") as file:
        return list(csv.reader(file))[:count]


def plainly(folder: Path, _: Path) -> Chosen:
    """Each prompt written out and evaluated whole, with nothing of `qa` or `engines`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    chosen = {}
    for subject in sorted(file.stem.removesuffix("_test") for file in (TINY / "test").iterdir()):
        shown = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
        for text, a, b, c, d, right in rows(subject, "dev", SHOTS):
            shown += f"{text}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nAnswer: {right}\n\n"
        for number, (text, a, b, c, d, _right) in enumerate(rows(subject, "test", PER_SUBJECT)):
            prompt = f"{shown}{text}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nAnswer:"
            likelihoods = {}
            whole = [tokenizer(f"{prompt} {letter}", return_tensors="pt")["input_ids"] for letter in "ABCD"]
            with torch.inference_mode():
                row = model(whole[0][:, :-1]).logits[0, -1].log_softmax(-1)
            for letter, ids in zip("ABCD", whole, strict=True):
                assert torch.equal(ids[:, :-1], whole[0][:, :-1])
                likelihoods[letter] = float(row[ids[0, -1]])
            chosen[subject, number] = max(likelihoods, key=likelihoods.__getitem__)
    return chosen


def by_the_harness(folder: Path, work: Path) -> Chosen:
    """lm-evaluation-harness with the strings of its own task `mmlu`; it writes the prompts and picks the examples by itself."""
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    tasks = []
    for subject in sorted(file.stem.removesuffix("_test") for file in (TINY / "test").iterdir()):
        files = {}
        for split, count in (("dev", SHOTS), ("test", PER_SUBJECT)):
            lines = ({"question": text, "choices": choices, "answer": "ABCD".index(right)} for text, *choices, right in rows(subject, split, count))
            files[split] = work / f"{subject}_{split}.jsonl"
            files[split].write_text("".join(json.dumps(line) + "\n" for line in lines))
        config: dict[str, Any] = {
            "task": subject,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {split: str(file) for split, file in files.items()}, "cache_dir": str(work)},
            "test_split": "test",
            "fewshot_split": "dev",
            "fewshot_config": {"sampler": "first_n"},
            "num_fewshot": SHOTS,
            "output_type": "multiple_choice",
            "description": f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n",
            "doc_to_text": "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:",
            "doc_to_choice": ["A", "B", "C", "D"],
            "doc_to_target": "answer",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }
        tasks.append(ConfigurableTask(config=config))
    model = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=1, add_bos_token=True)
    found = simple_evaluate(model=model, tasks=tasks, log_samples=True, bootstrap_iters=0)
    chosen = {}
    for subject, samples in found["samples"].items():
        for sample in samples:
            likelihoods = [float(likelihood) for ((likelihood, _),) in sample["resps"]]
            chosen[subject, sample["doc_id"]] = "ABCD"[likelihoods.index(max(likelihoods))]
    return chosen


@pytest.mark.slow
@pytest.mark.parametrize("judge", [plainly, by_the_harness])
def test_chosen_letters_agree(judge: Callable[[Path, Path], Chosen], unsure: Path, ours: list[mmlu.Answer], tmp_path: Path) -> None:
    assert 0.3 < mmlu.accuracy(ours).value < 0.9  # neither certain nor at random
    theirs = judge(unsure, tmp_path)
    assert theirs.keys() == {(answer.subject, answer.question) for answer in ours}
    assert [answer for answer in ours if answer.single != theirs[answer.subject, answer.question]] == []
    agreed = sum(answer.chosen == theirs[answer.subject, answer.question] for answer in ours)
    assert agreed >= 0.995 * len(ours)
