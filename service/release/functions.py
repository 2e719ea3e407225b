"""The functions that make files of a model, with their inputs and parameters: stated once, for releases and for the stand-alone commands.

A change of inputs or parameters makes another key, so that what was made before is not found again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from builders.names import converses, loads, predicts, speaks, tokenizes
from builders.rounding import sizes
from config.plans import Budget, Profile, Rules
from config.prompt import OPENINGS, PROMPTS, Part
from config.rules import FAMILIES, FIXES, SystemPrompt
from config.texts import EvaluationText, Generation, Text
from engines import go_template
from engines.environments import OLLAMA_UTILS, TRANSFORMERS_4, Environment
from service.execution.kept import Output
from service.release.graph import Call, Data, FileOf, OfHub, OfRelease, Result, Source, Whole

IMPORTANCES = "importances.gguf"  # in the output of `sensitivity`: the importance matrix, completed
MIX = "mix.json"  # in that of a plan: each tensor's type

GENERATED = "generated text"  # the stage in which the model writes text itself
OLLAMA = "ollama template"  # the stage that proves a template for Ollama
CHAT = "chat"  # the stage that renders what Ollama's template is told by

GGUF = FileOf(stage="convert")
TABLE = Whole(stage="sensitivity", chosen=lambda path: not sizes.belongs(path))  # what plans are made from
HESSIANS = Whole(stage="sensitivity", chosen=sizes.belongs)  # what matrices are rounded anew with
MODEL = Whole(stage="fix", chosen=loads)
WITH_TERMS = Whole(stage="fix")  # for what passes them on itself


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Text to calibrate on, and how it is cut."""

    chat: Sequence[Source]
    plain: Sequence[Source]
    tokens: int
    context: int  # tokens of a window

    @property
    def files(self) -> Mapping[str, Sequence[Source]]:
        """The files, as inputs of a call."""
        return {"chat": self.chat, "plain": self.plain}

    @property
    def sizes(self) -> Mapping[str, int]:
        """The rest, as parameters of a call."""
        return {"tokens": self.tokens, "context": self.context}


def calibration(text: Text, context: int) -> Calibration:
    """The text of a recipe."""
    return Calibration(**texts(text, "calibration"), tokens=text.tokens, context=context)


def texts(text: Text, part: Part) -> dict[str, Sequence[Source]]:
    """A recipe's text files by what they hold: `chat`, `plain`. What the model wrote is in one of the two, as its template decides; the other is empty."""
    files: dict[str, Sequence[Source]] = {"chat": [Data(path=path) for path in text.chat], "plain": [Data(path=path) for path in text.plain]}
    if not text.generated:
        return files
    endings = {"chat": "jsonl", "plain": "txt"}
    return {form: [*given, FileOf(stage=GENERATED, path=f"{part}.{endings[form]}")] for form, given in files.items()}


def written(*texts: Text) -> tuple[str, ...]:
    """The stage in which the model writes, if it is to write any of these."""
    return (GENERATED,) if any(text.generated for text in texts) else ()


def generated(model: Source, gguf: Source, *, calibration: int, evaluation: int = 0) -> Call:
    """Text that the 16-bit model writes, so many tokens of each part; `model` has template and tokenizer: a folder, or the GGUF file itself."""
    inputs = {"model": model, "gguf": gguf, "prompts": Data(path=PROMPTS)}
    tokens = {part: count for part, count in (("calibration", calibration), ("evaluation", evaluation)) if count}
    return Call(function="builders.generated.stage:write", inputs=inputs, params={"tokens": tokens})


def compared(text: Text) -> Sequence[Source]:
    """The text on which both engines are compared, before the model is let write: the operator's, or else the openings, which any model can go on with."""
    return [Data(path=path) for path in text.plain or text.chat or OPENINGS.values()]


def fix(snapshot: Source, *, repo: str | OfRelease, fixes: bool, system_prompt: SystemPrompt = "keep", approved: Sequence[str] | None = None) -> Call:
    """The model with its faults patched; `repo` tells its family. Where `approved` is given, what needs a person's word is done only if it is among these."""
    # an edited rule must not be taken for a stage that is done
    inputs = {"snapshot": snapshot, "rules": Data(path=FIXES), "families": Data(path=FAMILIES)}
    asked: dict[str, Any] = {} if approved is None else {"ask": True, "approved": sorted(approved)}
    asked |= {} if system_prompt == "keep" else {"system_prompt": system_prompt}
    return Call(function="builders.fixes:repair", inputs=inputs, params={"repo": repo, "fixes": fixes, **asked}, threaded=False)


def convert(*, name: str | OfRelease, repo: str | OfRelease | None, mtp: bool = True) -> Call:
    """The model as a 16-bit GGUF file, with layers for multi-token prediction or without; `repo` is None for a folder."""
    params = {"name": name, "repo": repo, "hub": OfHub(), "facts": Result(stage="fix", name="facts"), **({} if mtp else {"mtp": False})}
    return Call(function="builders.convert:convert", inputs={"model": MODEL}, params=params, threaded=False)


def numbers(gguf: Source) -> Source:
    """A GGUF file for a stage that only computes with it: another template, licence or advice in its header is no reason to do that again."""
    return replace(gguf, numbers=True) if isinstance(gguf, FileOf) else gguf


def voice(model: Source, chat: Sequence[Source]) -> Source:
    """What of the model's folder decides how text, and conversations if there are any, become tokens; of a GGUF file all."""
    return replace(model, chosen=speaks if chat else tokenizes) if isinstance(model, Whole) else model


def network(model: Source, chat: Sequence[Source]) -> Source:
    """What of the model's folder decides what it predicts for these; of a GGUF file all."""
    return replace(model, chosen=converses if chat else predicts) if isinstance(model, Whole) else model


def windows(text: EvaluationText, *, context: int) -> Call:
    """The evaluation text, cut into windows of so many tokens."""
    files = texts(text, "evaluation")
    sizes = {"context": context, "tokens": text.tokens, "most_tokens": text.most}
    return Call(function="qa.texts:prepare", inputs={"model": voice(MODEL, files["chat"]), **files}, params=sizes, threaded=False)


def imatrix(model: Source, gguf: Source, text: Calibration) -> Call:
    """The importance matrix of the 16-bit GGUF file; `model` has template and tokenizer."""
    inputs = {"model": voice(model, text.chat), "gguf": numbers(gguf), **text.files}
    return Call(function="builders.calibrate:imatrix", inputs=inputs, params=text.sizes)


def sensitivity(model: Source, gguf: Source, text: Calibration, *, probed: bool = False, rounding: bool = False) -> Call:
    """The table from which every mix of the model is planned, with the completed importances: once for all budgets.

    `rounding`: with how errors of columns count together, once for all mixes that are rounded anew; the result's `rounding` says whether that was found.
    `model` is the folder in the transformers form; the GGUF file where there is none, and then only probes can tell.
    """
    inputs = {"model": network(model, text.chat), "gguf": numbers(gguf), "imatrix": FileOf(stage="imatrix"), **text.files}
    return Call(function="builders.sensitivity.measure:measure", inputs=inputs, params={**text.sizes, "probed": probed, "rounding": rounding})


def activations(model: Source, files: Mapping[str, Sequence[Source]]) -> Call:
    """What float16 cannot hold of the model: of what it computes on these texts, and of its weights."""
    inputs = {"model": network(model, files["chat"]), "texts": [*files["chat"], *files["plain"]]}
    return Call(function="qa.activations:check", inputs=inputs)


def halves(gguf: Source) -> Call:
    """The same of the weights of a GGUF file alone."""
    return Call(function="qa.activations:weights", inputs={"gguf": numbers(gguf)})


def plan(gguf: Source, budget: Budget, profile: Profile, rules: Rules) -> Call:
    """The best mix within a budget; `MIX` holds each tensor's type."""
    inputs = {"sensitivity": TABLE, "gguf": numbers(gguf), "imatrix": FileOf(stage="sensitivity", path=IMPORTANCES)}
    params = {"budget": budget.model_dump(mode="json", exclude_none=True), "profile": profile, "rules": rules.model_dump(mode="json")}
    return Call(function="builders.plan.stage:plan", inputs=inputs, params=params)


def stock(gguf: Source, *, name: str | OfRelease, tag: str) -> Call:
    """The file NAME-TAG.gguf: one of llama.cpp's stock mixes."""
    return Call(function="builders.quantize:quantize", inputs={"gguf": gguf, "imatrix": FileOf(stage="imatrix")}, params={"type": tag, "name": name})


def configuration(fixed: Output) -> dict[str, Any]:
    """The fixed model's config.json."""
    content = json.loads(fixed.file("config.json").path.read_bytes())
    return content if isinstance(content, dict) else {}


def stored(gguf: Source, *, name: str | OfRelease) -> Call:
    """The file NAME-MXFP4.gguf: what the release stores in MXFP4, in its own bits."""
    inputs = {"gguf": gguf, "model": MODEL, "snapshot": Whole(stage="snapshot")}
    return Call(function="builders.mxfp4:build", inputs=inputs, params={"name": name}, threaded=False)


def mixed(gguf: Source, planned: str, *, name: str | OfRelease, tag: str) -> Call:
    """The file NAME-TAG.gguf in which every tensor has the type that the stage `planned` found."""
    inputs = {"gguf": gguf, "imatrix": FileOf(stage="sensitivity", path=IMPORTANCES), "mix": FileOf(stage=planned, path=MIX)}
    return Call(function="builders.quantize:mixed", inputs=inputs, params={"name": name, "tag": tag})


def rounded(gguf: Source, built: str) -> Call:
    """The file that the stage `built` made, its matrices rounded anew so that their errors cancel."""
    return Call(function="builders.rounding.improve:improve", inputs={"quantized": FileOf(stage=built), "gguf": gguf, "statistics": HESSIANS})


def greedy(generation: Generation) -> dict[str, Any]:
    """What greedy answers are asked for, of the 16-bit model and of every variant alike."""
    return {"prompts": list(generation.prompts), "max_tokens": generation.max_tokens}


def older(folder: Source, form: str) -> Call:
    """What an older transformers reads in a folder of safetensors."""
    params = {"form": form, "older": _there(TRANSFORMERS_4)}
    return Call(function="qa.older:compare", inputs={"variant": folder}, params=params, threaded=False)


def _there(environment: Environment) -> str | None:
    """Its version, where it was fetched: what it says is then made anew."""
    return environment.version if environment.missing() is None else None


def chat(conversations: Mapping[str, object]) -> Call:
    """How the model's template writes these conversations, with its sampling and stop strings."""
    return Call(function="builders.probes:render", inputs={"model": MODEL}, params={"conversations": conversations}, threaded=False)


def ollama(derived: str | None, family: Sequence[str]) -> Call:
    """Which of these templates for Ollama, derived from the model's own or its family's, renders as the model's own does."""
    params = {"derived": derived, "family": list(family), "go": go_template.version(), "utils": _there(OLLAMA_UTILS)}
    return Call(function="qa.ollama:choose", inputs={"model": MODEL}, params=params, threaded=False)
