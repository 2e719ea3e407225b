"""Results of benchmarks as the Hub's own client reads them."""

from dataclasses import replace

import yaml
from huggingface_hub import EvalResultEntry, parse_eval_result_entries

from config.words import Measurement
from publishers.evaluations import Result, render

RESULT = Result(
    dataset="cais/mmlu",
    revision="c" * 40,
    task="mmlu",
    file="tiny-chat-Q4_K_M.gguf",
    accuracy=Measurement(name="mmlu.accuracy", value=0.56789, unit="share", stderr=0.0042, n=14042),
    asked="5-shot, hendrycks prompt",
    source="https://huggingface.co/acme/tiny-chat-GGUF",
)


def read(content: bytes) -> list[EvalResultEntry]:
    return parse_eval_result_entries(yaml.safe_load(content))


def test_the_client_reads_what_was_measured() -> None:
    assert read(render([RESULT])) == [
        EvalResultEntry(
            dataset_id="cais/mmlu",
            task_id="mmlu",
            value=56.79,
            dataset_revision="c" * 40,
            source_url="https://huggingface.co/acme/tiny-chat-GGUF",
            source_name="Model card",
            notes="tiny-chat-Q4_K_M.gguf: 5-shot, hendrycks prompt, 14,042 questions, standard error 0.42",
        )
    ]


def test_each_variant_has_an_entry_and_equal_figures_give_equal_bytes() -> None:
    both = [RESULT, replace(RESULT, file="tiny-chat-Q8_0.gguf")]
    assert [entry.notes.partition(":")[0] for entry in read(render(both)) if entry.notes] == ["tiny-chat-Q4_K_M.gguf", "tiny-chat-Q8_0.gguf"]
    assert render(both) == render(list(both))
    assert b"date" not in render(both)


def test_without_a_lasting_address_or_an_error_both_are_left_out() -> None:
    (entry,) = read(render([replace(RESULT, source=None, accuracy=replace(RESULT.accuracy, stderr=None))]))
    assert (entry.source_url, entry.source_name) == (None, None)
    assert entry.notes == "tiny-chat-Q4_K_M.gguf: 5-shot, hendrycks prompt, 14,042 questions"


def test_nothing_measured_is_no_file() -> None:
    assert render([]) == b""
