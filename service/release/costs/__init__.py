"""What each stage of the way will take, from counted operations and bytes and the rates of this machine: one function for each, named like its stage."""

from service.release.costs.build import bnb, hessians, mix, mixed, nf4, nf4_mix, nf4_sensitivity, rounded, sensitivity, stock
from service.release.costs.measuring import chat, contents, divergence, judge, measure, publish, questions, report
from service.release.costs.prepare import (
    activations,
    convert,
    evaluation_text,
    fix,
    imatrix,
    imatrix_check,
    listed,
    metadata,
    overlap,
    parity,
    reference,
    sanity,
    snapshot,
    templates,
)

windows = evaluation_text

__all__ = [
    "activations",
    "bnb",
    "chat",
    "contents",
    "convert",
    "divergence",
    "evaluation_text",
    "fix",
    "hessians",
    "imatrix",
    "imatrix_check",
    "judge",
    "listed",
    "measure",
    "metadata",
    "mix",
    "mixed",
    "nf4",
    "nf4_mix",
    "nf4_sensitivity",
    "overlap",
    "parity",
    "publish",
    "questions",
    "reference",
    "report",
    "rounded",
    "sanity",
    "sensitivity",
    "snapshot",
    "stock",
    "templates",
    "windows",
]
