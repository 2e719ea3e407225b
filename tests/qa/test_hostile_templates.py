"""Templates that attack whoever renders them, through the process that a release's template is checked in."""

import json
import os
import shutil
import time
from pathlib import Path

import psutil
import pytest

from config.errors import MeasurementError
from engines import chat
from service.execution.kept import Input, StageStore
from service.execution.process import Limits, run_apart
from tests.qa.conftest import Release

ROOT = Path(__file__).parents[2]
ESCAPES = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__init__.__globals__ }}",
    "{{ raise_exception.__globals__['os'].system('touch escaped') }}",
    "{{ (''|attr('__class__')).__mro__ }}",
    "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "{{ messages.clear() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
)


def render(template: str) -> str:
    return chat.render(template, [{"role": "user", "content": "Hello!"}], special_tokens={})


@pytest.mark.parametrize("template", ESCAPES)
def test_attributes_lead_nowhere(template: str) -> None:
    with pytest.raises(MeasurementError, match="unsafe|undefined|has no attribute"):
        render(template)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "maximum recursion depth"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "maximum recursion depth|too many nested"),
        ("{% for i in range(10**12) %}x{% endfor %}", "Range too big"),
        ("{{ 'x' * 10**11 }}", "more than 1 GiB of memory"),
        ("{% set n = 10**11 + messages|length %}{{ 'x' * n }}", "more than 1 GiB of memory"),
        ("{{ 'x' * (2**25 + messages|length) }}", "33554433 characters"),
        ("{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}", "more than 1 GiB of memory"),
    ],
)
def test_what_it_asks_for_too_much_of_is_said(template: str, said: str) -> None:
    with pytest.raises(MeasurementError, match=said):
        render(template)


def test_a_loop_is_stopped_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "CPU_SECONDS", 1.0)
    with pytest.raises(MeasurementError, match="more than 1 seconds of CPU time"):
        render("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}")
    assert render("{{ messages[0].content }}") == "Hello!"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "seconds", "error", "said"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", 120, MeasurementError, "more than 5 seconds of CPU time"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{{ 'x' * 999999 }}{% endfor %}{% endfor %}", 120, MeasurementError, "more than"),
        ("{{ 9 ** (9 ** (9 ** messages|length)) }}", 120, MeasurementError, "more than 5 seconds of CPU time"),
    ],
    ids=["endless loop", "gigabytes of output", "a huge power"],
)
def test_the_stage_ends_with_a_reason_and_leaves_nothing(
    template: str, seconds: float, error: type[Exception], said: str, clean: Release, tmp_path: Path
) -> None:
    model = shutil.copytree(clean.model, tmp_path / "model")
    settings = model / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"chat_template": template}))
    store = StageStore(tmp_path / "home")
    inputs = {"model": Input(path=model, digest=""), "gguf": Input(path=clean.gguf, digest="")}
    limits = Limits(seconds=seconds, memory_bytes=32 * 2**30, threads=1)
    started = time.monotonic()
    with pytest.raises(error, match=said), store.workspace("0" * 64) as workspace:
        run_apart("qa.templates:check", workspace, inputs, {"threads": 1}, limits=limits, log=store.logs / "stage.log")
    assert time.monotonic() - started < seconds + 10
    assert list(store.working.iterdir()) == []
    assert [child for server in psutil.Process().children() if "service.execution.forkserver" in server.cmdline() for child in server.children()] == []
    assert not (ROOT / "escaped").exists()
    assert os.environ.get("PYTHONPATH") != str(ROOT)
