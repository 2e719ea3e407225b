"""Repairs a release: applies the fix rules to a snapshot, and records every change with its reason."""

import hashlib
import inspect
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from builders import beginning, float8, front_matter, packed, ties
from builders.fixes import (
    architecture,
    base_template,
    breaking_branches,
    copied_head,
    corrected_rope,
    default_system,
    distinct_pad,
    dtype_forms,
    embedded_tokens,
    end_of_turn_eos,
    listed_tokens,
    older_names,
    one_template,
    open_prompts,
    own_head,
    plain_weights,
    prompt_end,
    rope_forms,
    sampling_defaults,
    sampling_flags,
    shard_index,
    single_bos,
    stale_quantization,
    strip_remote_code,
    tied_head,
    token_ids,
    tokenizer_class,
    tokenizer_model,
    weight_shapes,
    yarn_context,
)
from builders.fixes.edits import Edit, Files, applied, dict_at, value_at
from builders.fixes.form import written
from builders.fixes.templates import templates
from builders.fixes.unrepaired import broken
from builders.names import CONFIGURATION, INDEX, NAMED, held_in, is_legal, is_named_template
from builders.snapshot import facts
from builders.ties import Spare
from builders.weights import Tensor, parameters, read_header, weight_files
from builders.writing import write_index
from config.errors import ConfigurationError, UpstreamError
from config.facts import vetted
from config.rules import FAMILIES, FIXES, Family, Rule, SystemPrompt, families_of, load_families, load_rules
from config.words import Hold, Patch

VERSION = 13  # raise when outputs change

REPAIRS: Mapping[str, Callable[..., list[Edit]]] = {
    "shard_index": shard_index.repair,
    "plain_weights": plain_weights.repair,
    "strip_remote_code": strip_remote_code.repair,
    "end_of_turn_eos": end_of_turn_eos.repair,
    "distinct_pad": distinct_pad.repair,
    "single_bos": single_bos.repair,
    "default_system": default_system.repair,
    "sampling_defaults": sampling_defaults.repair,
    "base_template": base_template.repair,
    "one_template": one_template.repair,
    "stale_quantization": stale_quantization.repair,
    "tied_head": tied_head.repair,
    "copied_head": copied_head.repair,
    "own_head": own_head.repair,
    "embedded_tokens": embedded_tokens.repair,
    "tokenizer_model": tokenizer_model.repair,
    "listed_tokens": listed_tokens.repair,
    "open_prompts": open_prompts.repair,
    "tokenizer_class": tokenizer_class.repair,
    "architecture": architecture.repair,
    "weight_shapes": weight_shapes.repair,
    "token_ids": token_ids.repair,
    "rope_forms": rope_forms.repair,
    "older_names": older_names.repair,
    "dtype_forms": dtype_forms.repair,
    "sampling_flags": sampling_flags.repair,
    "breaking_branches": breaking_branches.repair,
    "prompt_end": prompt_end.repair,
    "corrected_rope": corrected_rope.repair,
    "yarn_context": yarn_context.repair,
}
BY_HEADERS = frozenset({"strip_remote_code", "stale_quantization", "tied_head", "weight_shapes"})
"""Repairs of what config.json says of the weights, which ask for nothing but that file and headers."""
LARGEST_FILE = 200_000_000  # bytes of one configuration file; the largest real tokenizer.json has 35 MB
TEXTS = frozenset({"chat_template.jinja"})
BINARY = frozenset({"tokenizer.model"})
OPAQUE = frozenset({"merges.txt"})  # no repair reads it
MULTIPLIED = "plain_weights"  # the repair that is only true where weights are written anew


def repair(
    out: Path,
    *,
    snapshot: Path,
    repo: str,
    fixes: bool,
    system_prompt: SystemPrompt = "keep",
    ask: bool = False,
    approved: Sequence[str] = (),
    headers: bool = False,
    matrices: bool = True,
    variant: bool = False,
    rules: Path = FIXES,
    families: Path = FAMILIES,
) -> dict[str, Any]:
    """Write the fixed model to `out`: everything of `snapshot` that a model needs, configuration repaired, weights hard-linked unless they are of 8 bits or
    MXFP4, which are multiplied out to bfloat16, or a rule leaves a tensor out.

    With `headers`, no weights are written, and those of the snapshot may be all header but for output matrix and embeddings where a model that has but one
    of them stores both; without `matrices`, for these too. What is said of 8 bits stays then, and of a tensor that is left out there is a patch alone. With
    `variant`, bitsandbytes' weights are let through as they are: a variant of a release, to be measured.
    `repo` helps to tell the family; without `fixes` only rules marked `always` apply, and that which `system_prompt: remove` asks for. With `ask`, what a rule
    derives and no family vouches for is not done but proposed, unless its digest is among `approved`. `rules` and `families` are folders of YAML files.
    Returns `held` (each a Hold: what a person has to decide, or decided), `patches` (each a Patch), `unrepaired` (sentences about what no rule can mend),
    `family` (its name or None) with its `notes`, `stop` strings, order of `samplers` and templates for `ollama`, the `facts` of the release's card (see
    `config.facts`), and for the weights `bytes`, `parameters` and `bpw` (bits per parameter).
    Raises UpstreamError when a configuration file cannot be read or the model is no beginning of a release, or a template's system prompt cannot be removed;
    ConfigurationError when a rule is wrong.
    """
    files = read_files(snapshot)
    tensors = _tensors(snapshot)
    config = dict_at(files, "config.json", ())
    if (refusal := beginning.refusal(config, tensors, variant=variant)) is not None:
        raise UpstreamError(f"{repo} {refusal}")
    alike = families_in(files, repo, load_families(families))
    family = alike[0] if len(alike) == 1 else None
    desk = Desk(asks=ask and family is None, approved=frozenset(approved))
    if len(alike) > 1 and templates(files):
        desk.lets(_unclear(alike))
    of = family.name if family else None
    chosen = [rule for rule in load_rules(rules) if rule.applies(fixes=fixes, system_prompt=system_prompt, family=of)]
    chosen = [rule for rule in chosen if not (headers and rule.repair == MULTIPLIED)]
    spare = ties.spare(snapshot, config, tensors) if matrices else None
    fixed, patches = apply_rules(files, chosen, family, desk, tensors=tensors, spare=spare, repo=repo)
    _write(out, snapshot, files, fixed)
    dropped = frozenset(patch.key for patch in patches if spare is not None and patch.file == spare.tensor.file)
    if headers and dropped and INDEX in files:
        write_index(out, {name: tensor for name, tensor in tensors.items() if name not in dropped})
    elif not headers:
        float8.write(out, snapshot, tensors=tensors, compact=packed.compacted(packed.settings(config), tensors), dropped=dropped)
    weights = weight_files(out)
    size, count = sum(file.stat().st_size for file in weights), parameters(weights)
    return {
        "held": [asdict(hold) for hold in desk.held],
        "patches": [asdict(patch) for patch in patches],
        "unrepaired": [*broken(fixed), *(() if matrices else ties.unread(config, tensors))],
        "family": of,
        # where a rule took the template away, a base model has none of what is known of its family's chat models
        "notes": list(family.notes) if family and (templates(fixed) or not templates(files)) else [],
        "stop": list(family.stop) if family else [],
        "samplers": list(family.samplers) if family else [],
        "ollama": [(families / "templates" / name).read_text(encoding="utf-8") for name in (family.ollama if family else ())],
        "facts": asdict(vetted(facts(front_matter.read(snapshot / front_matter.CARD), known="/" in repo))),
        "bytes": size,
        "parameters": count,
        "bpw": size * 8 / count if count else None,
    }


def _tensors(snapshot: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for tensor in (tensor for file in weight_files(snapshot) for tensor in read_header(file)):
        if tensor.name in found:
            raise UpstreamError(
                f"{found[tensor.name].file} and {tensor.file} of the release both hold {tensor.name}: it has two sets of weights. Remove the one that is not "
                "meant."
            )
        found[tensor.name] = tensor
    return found


@dataclass(kw_only=True)
class Desk:
    """Where a person's decisions lie, and what has to be asked is left."""

    asks: bool = False
    approved: frozenset[str] = frozenset()  # digests of holds
    held: list[Hold] = field(default_factory=list)  # what a person has to decide, or decided

    def lets(self, hold: Hold) -> bool:
        """Whether what it is about may be done."""
        if not self.asks:
            return True
        self.held.append(hold)
        return hold.digest in self.approved


def families_in(files: Files, repo: str, families: Sequence[Family]) -> tuple[Family, ...]:
    """The families that a model's files, and as far as one asks for that the repo's name, may belong to: one where it is clear."""
    model_type = value_at(files, "config.json", ("model_type",))
    template = next((found.text for found in templates(files)), None)
    return families_of(repo, model_type if isinstance(model_type, str) else None, template, families)


def _unclear(alike: Sequence[Family]) -> Hold:
    names = ", ".join(family.name for family in alike)
    return Hold(
        subject="family",
        reason=f"It may belong to several families: {names}. Approved, it is treated as a model of none of them; what their files say of `template` in "
        "config/families may also be narrowed, so that one of them is meant.",
    )


def read_files(folder: Path) -> dict[str, Any]:
    """The configuration files of a model folder by name, and the index of its shards, parsed; the binary one as bytes.

    Raises UpstreamError when one is not what its name says.
    """
    files: dict[str, Any] = {}
    named = {path.relative_to(folder).as_posix() for path in folder.glob(f"{NAMED}/*")}
    for name in sorted((CONFIGURATION - OPAQUE) | {INDEX} | {*filter(is_named_template, named)}):
        path = folder / name
        if not path.is_file():
            continue
        if path.stat().st_size > LARGEST_FILE:
            raise UpstreamError(f"{name} has {path.stat().st_size} bytes, more than any model needs. Do not use this repo.")
        if name in BINARY:
            files[name] = path.read_bytes()
            continue
        try:
            text = path.read_text(encoding="utf-8")
            files[name] = text if _is_text(name) else json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UpstreamError(
                f"{name} of the release is not {'UTF-8' if _is_text(name) else 'JSON'}: {error}. The upload may be damaged; ask its owner."
            ) from error
        if not _is_text(name) and not isinstance(files[name], dict):
            raise UpstreamError(f"{name} of the release holds no JSON object. The upload may be damaged; ask its owner.")
    if "config.json" not in files:
        raise UpstreamError("The release has no config.json, so its architecture is not known. Name a repo that holds a transformers model.")
    return files


def _is_text(name: str) -> bool:
    return name in TEXTS or is_named_template(name)


def apply_rules(
    files: Files,
    rules: Sequence[Rule],
    family: Family | None,
    desk: Desk | None = None,
    *,
    tensors: Mapping[str, Tensor] = MappingProxyType({}),
    spare: Spare | None = None,
    repo: str = "",
) -> tuple[dict[str, Any], list[Patch]]:
    """The files after all rules, each seeing what the one before left, and a record of every change; `tensors` and `spare` for repairs that ask about weights,
    `repo` for one that asks about names.

    What a rule derives is done if the `desk` lets it, which without one is always so.
    """
    current, patches = dict(files), []
    desk, known = desk or Desk(), {"tensors": tensors, "spare": spare, "repo": repo}
    for rule in rules:
        if rule.repair not in REPAIRS:
            raise ConfigurationError(f"Rule {rule.id} asks for the repair {rule.repair!r}, which does not exist. Known repairs: {', '.join(REPAIRS)}.")
        try:
            form = inspect.signature(REPAIRS[rule.repair])
            given = {name: value for name, value in known.items() if name in form.parameters}
            call = form.bind(current, family, **rule.params, **given)
        except TypeError as error:
            raise ConfigurationError(f"Rule {rule.id} gives the repair {rule.repair!r} parameters that it does not take: {error}. Correct `params`.") from error
        edits = REPAIRS[rule.repair](*call.args, **call.kwargs)
        made = [_patch(rule, edit, current) for edit in edits]
        if made and rule.derived and not desk.lets(_proposal(rule, made)):
            continue
        patches += made
        current = applied(current, edits)
    return current, patches


def by_headers(config: Mapping[str, Any], tensors: Mapping[str, Tensor], *, fixes: bool) -> dict[str, Any]:
    """config.json as a release will leave what it says of the weights, told before anything else of it is at hand; `fixes` as in `repair`."""
    rules = [rule for rule in load_rules(FIXES) if rule.repair in BY_HEADERS and (rule.always or fixes) and not rule.families]
    files, _ = apply_rules({"config.json": dict(config)}, rules, None, tensors=tensors)
    return dict(files["config.json"])


def _proposal(rule: Rule, patches: Sequence[Patch]) -> Hold:
    """What a rule would do, for a person to decide."""
    reasons = " ".join(dict.fromkeys(patch.reason for patch in patches))
    reason = f"{reasons} The model is of no family that config/families knows, so this is derived from the release alone. Approved, its files are changed so."
    return Hold(subject=rule.id, reason=reason, patches=tuple(patches))


def _patch(rule: Rule, edit: Edit, files: Files) -> Patch:
    return Patch(
        fix=rule.id,
        version=rule.version,
        file=edit.file,
        key=edit.dotted,
        reason=f"{rule.reason.rstrip('.')} ({edit.because})." if edit.because else rule.reason,
        before=_recorded(value_at(files, edit.file, edit.key)) if edit.before is None else edit.before,
        after=_recorded(edit.after),
    )


def _recorded(value: Any) -> Any:
    """The value, or words for it when JSON proper cannot say it: Python's reader lets NaN and Infinity in, and a binary file has its digest."""
    if isinstance(value, bytes):
        return f"{len(value)} bytes, sha256 {hashlib.sha256(value).hexdigest()}"
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return repr(value)
    return value


def _write(out: Path, snapshot: Path, before: Files, after: Files) -> None:
    """The complete folder but for its weights. Files that no repair changed keep their bytes; the rest of the snapshot (README.md, say) is left behind."""
    for name, path in held_in(snapshot):
        if is_legal(name) or ((name in CONFIGURATION | {INDEX} or is_named_template(name)) and after.get(name) == before.get(name)):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, out / name)
    for name, content in after.items():
        if content == before.get(name):
            continue
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            (out / name).write_bytes(content)
        else:
            like = (snapshot / name).read_text(encoding="utf-8") if name in before else ""
            (out / name).write_text(content if isinstance(content, str) else written(content, like), encoding="utf-8")
