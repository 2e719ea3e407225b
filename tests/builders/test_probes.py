import json
import shutil
from pathlib import Path

from builders import probes
from publishers import ollama

CONVERSATIONS = {
    "user": {"messages": [{"role": "user", "content": "Hello?"}], "tools": None},
    "broken": {"messages": [], "tools": None},
}


def test_conversations_stops_and_sampling_of_the_fixed_model(fixed: Path, tmp_path: Path) -> None:
    found = probes.render(tmp_path, model=fixed, conversations=CONVERSATIONS)
    assert found["renderings"] == {"user": "<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n"}, "what the template refuses is left out"
    assert found["stops"] == ["<|im_end|>", "<|endoftext|>"]
    assert found["sampling"] == {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.0, "repetition_penalty": 1.0}


def test_a_release_without_generation_config_stops_at_the_model_s_own_eos(fixed: Path, tmp_path: Path) -> None:
    model = shutil.copytree(fixed, tmp_path / "model")
    (model / "generation_config.json").unlink()
    found = probes.render(tmp_path, model=model, conversations={})
    assert "<|im_start|>" in found.pop("template")
    assert found == {"renderings": {}, "unforced": None, "base": False, "parts": False, "stops": ["<|im_end|>"], "sampling": {}}


def test_the_probes_of_the_bundled_model_give_an_ollama_template(fixed: Path, tmp_path: Path) -> None:
    conversations = {name: {"messages": list(probe.messages), "tools": list(probe.tools) if probe.tools else None} for name, probe in ollama.PROBES.items()}
    found = probes.render(tmp_path, model=fixed, conversations=json.loads(json.dumps(conversations)))
    template = ollama.template_from_probes(found["renderings"])
    assert template is not None
    assert template.endswith(b"<|im_start|>assistant\n")
