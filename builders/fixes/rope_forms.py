"""Says the same of rotary embeddings in both forms: `rope_parameters`, which transformers 5 and llama.cpp read, and `rope_theta` with `rope_scaling`.

transformers 4 reads the second form only, and takes its own defaults without a word where a config has the first. Where a config has both, transformers 5 reads
`rope_scaling` first, and llama.cpp's converter `rope_parameters`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from builders.fixes.edits import Edit, Files, Key, value_at
from builders.fixes.transformers_4 import LOCAL, NAMES, PARTIAL, SCALINGS, SECTIONS, THETAS, THREE_FIELDS, VERSION
from config.errors import UpstreamError
from config.rules import Family

FILE, NEW, OLD = "config.json", "rope_parameters", "rope_scaling"
THETA, SHARE, LENGTH = "rope_theta", "partial_rotary_factor", "original_max_position_embeddings"
FULL, SLIDING, LOCAL_THETA = "full_attention", "sliding_attention", "rope_local_base_freq"
FACTORS = ("short_factor", "long_factor")
UNSCALED = {"rope_type": "default"}


def repair(files: Files, family: Family | None) -> list[Edit]:
    """Add or correct what a reader would take otherwise; what every reader takes already is not written again.

    A `rope_scaling` that says something goes before `rope_parameters`, as in transformers; of two bases, the one in the newer form holds, as there.
    Raises UpstreamError when the base is no positive number.
    """
    sections: tuple[Key, ...] = ((), ("text_config",))
    found = {key: section for key in sections if isinstance(section := value_at(files, FILE, key), dict)}
    return [replace(edit, key=(*key, *edit.key)) for key, section in found.items() for edit in _edits(section)]


def _edits(section: Mapping[str, Any]) -> Iterator[Edit]:
    """For a config or its text_config, with keys as they are there."""
    stated, kind = section.get(NEW), str(section.get("model_type"))
    scaling = section[OLD] if isinstance(section.get(OLD), dict) and section[OLD] else None
    if not isinstance(stated, dict) or not stated:
        _check(section.get(_name(kind, THETA)))
        if NEW in section and scaling:
            yield Edit(file=FILE, key=(NEW,), remove=True, because=f"it is empty, and llama.cpp's converter would look there and not in {OLD}")
        return
    nested = isinstance(stated.get(FULL), dict) or isinstance(stated.get(SLIDING), dict)
    full = _read(stated.get(FULL) if nested else stated)
    if kind in SECTIONS:
        full = {"mrope_section": list(SECTIONS[kind]), **full}
    true = _true(full, scaling)
    true.setdefault(THETA, section.get(_name(kind, THETA), THETAS.get(kind)))
    _check(true[THETA])
    if scaling and true != {THETA: true[THETA], **full}:
        because = f"{OLD} says otherwise, which transformers reads first and llama.cpp's converter last"
        yield Edit(file=FILE, key=(NEW, FULL) if nested else (NEW,), after=true, because=because)
    if not nested or kind in THETAS:
        yield from _older(section, kind, true)
    local = _read(stated.get(SLIDING)).get(THETA) if nested else None
    if kind in LOCAL and local is not None and section.get(LOCAL_THETA, LOCAL[kind]) != local:
        yield Edit(file=FILE, key=(LOCAL_THETA,), after=local, because=_unread(local, LOCAL[kind]))


def _true(full: Mapping[str, Any], scaling: Mapping[str, Any] | None) -> dict[str, Any]:
    """The parameters that hold, of those in the newer form and in the older one."""
    if scaling is None:
        return dict(full)
    older = _read(scaling)
    kept = full if older["rope_type"] == full["rope_type"] else {name: full[name] for name in (THETA, SHARE) if name in full}
    return {**kept, **older}


def _older(section: Mapping[str, Any], kind: str, true: Mapping[str, Any]) -> Iterator[Edit]:
    """What transformers 4 reads otherwise, in its own words."""
    known = kind in THETAS
    scaling, length = _scaling(true, kind)
    there, _ = _scaling(_read(section.get(OLD, SCALINGS.get(kind))), kind)
    rewritten = there != scaling and (known or OLD in section)
    stands = scaling != UNSCALED and (rewritten or bool(section.get(OLD)))
    if rewritten:
        yield Edit(file=FILE, key=(OLD,), after=_in_older_words(scaling, kind), because=_unread(scaling["rope_type"], there["rope_type"]))
    values = {THETA: true[THETA], SHARE: true.get(SHARE), LENGTH: length}
    defaults = {THETA: THETAS.get(kind), SHARE: PARTIAL.get(kind, 1.0), LENGTH: None}
    for name, value in values.items():
        key = _name(kind, name)
        # beside a rope_scaling, transformers 5 looks for the base outside of it as well, and its default may be another
        missed = (value != defaults[name] and (known or stands)) or (name == THETA and stands)
        if value is not None and (section[key] != value if key in section else missed):
            yield Edit(file=FILE, key=(key,), after=value, because=_unread(value, section.get(key, defaults[name])))


def _scaling(parameters: Mapping[str, Any], kind: str) -> tuple[dict[str, Any], Any]:
    """Of such parameters what `rope_scaling` holds, and the original length, which transformers 4 reads outside of it where the scaling is longrope."""
    found = {name: value for name, value in parameters.items() if name not in (THETA, SHARE)}
    length = found.pop(LENGTH, None) if found["rope_type"] == "longrope" else None
    return {name: value for name, value in found.items() if kind not in THREE_FIELDS or name in ("rope_type", *FACTORS)}, length


def _in_older_words(scaling: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    if scaling == UNSCALED:
        return None
    if kind in THREE_FIELDS:
        return {"type": scaling["rope_type"], **{name: scaling[name] for name in FACTORS if name in scaling}}
    return dict(scaling)


def _read(stated: Any) -> dict[str, Any]:
    """Parameters under the newer names, without what says nothing."""
    found = {name: value for name, value in stated.items() if value is not None} if isinstance(stated, dict) else {}
    kind = str(found.pop("rope_type", found.pop("type", "default")))
    found.pop("type", None)
    return {"rope_type": {"mrope": "default", "su": "longrope"}.get(kind, kind), **found}


def _name(kind: str, key: str) -> str:
    return NAMES.get(kind, {}).get(key, key)


def _unread(value: Any, otherwise: Any) -> str:
    return f"{NEW} says {value}, and transformers {VERSION}, which does not read that, would take {otherwise}"


def _check(theta: Any) -> None:
    """Raise UpstreamError unless it is a base, or nothing that anybody stated."""
    if theta is not None and (isinstance(theta, bool) or not isinstance(theta, int | float) or not theta > 0):
        raise UpstreamError(
            f"config.json of the release says that {THETA} is {repr(theta)[:100]}, which is no positive number: no engine can compute positions with it. "
            "Ask its owner for the base that the model was trained with, and write it there."
        )
