"""Reads in what llama.cpp's programs print while they work how far they have come, and reports it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from config.progress import Progress, report

LONGEST = 4096  # characters of output that one statement may be spread over when it arrives in pieces

_POWERS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a program states its progress."""

    unit: str
    step: re.Pattern[str]  # groups `done` and `total`, the latter unless it is said once in `whole`
    whole: re.Pattern[str] | None = None  # group `total`


FORMS: Mapping[str, Form] = MappingProxyType(
    {
        # "computing over 210 chunks, n_ctx=256, …", then "[1]2.3988,[2]2.6300," as they are done
        "llama-imatrix": Form(unit="chunks", step=re.compile(r"\[(?P<done>\d+)\]-?[\d.na]+,"), whole=re.compile(r"computing over (?P<total>\d+) chunks")),
        # "[   4/  38] blk.0.attn_q.weight - [ … ], type = bf16, converting to q4_K .. size = …"; the size comes when the tensor is done
        "llama-quantize": Form(unit="tensors", step=re.compile(r"\[ *(?P<done>\d+)/ *(?P<total>\d+)\] [^\n]*size = ")),
    }
)
"""By the program's name."""

# tqdm's bar, in which bytes are rounded: "Writing:  56%|█████▌    | 4.13M/7.35M [00:00<00:00, 36.5Mbyte/s]"
CONVERTER = Form(unit="bytes", step=re.compile(r"Writing:[^\r\n]*\| *(?P<done>[\d.]+[kMGTP]?)/(?P<total>[\d.]+[kMGTP]?) \["))


def reader(form: Form) -> Callable[[str], None]:
    """A function that takes the output piece by piece, however it is cut, and reports what the last complete statement in it says."""
    rest, told = "", Progress(done=-1, total=None, unit=form.unit)

    def read(piece: str) -> None:
        nonlocal rest, told
        text = rest + piece
        rest = text[-LONGEST:]
        if form.whole is not None and told.total is None and (stated := form.whole.search(text)):
            told = Progress(done=0, total=_number(stated["total"]), unit=form.unit)
            report(0, told.total, form.unit)
        last = None
        for last in form.step.finditer(text):  # noqa: B007 (the last one is wanted)
            pass
        if last is None:
            return
        total = told.total if form.whole is not None else _number(last["total"])
        if (found := Progress(done=_number(last["done"]), total=total, unit=form.unit)) != told:
            if told.done < 0:
                report(0, total, form.unit)  # whoever hears of it for the first time sees where it began
            told = found
            report(found.done, found.total, found.unit)

    return read


def _number(text: str) -> int:
    """4130000 of "4.13M"."""
    digits = text.rstrip("kMGTP")
    return round(float(digits) * _POWERS[text[len(digits) :]])
