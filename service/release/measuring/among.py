"""What is found of a GGUF file beside the others of its release that may be published: its very tensors under another name, or a file that outdoes it."""

from collections.abc import Sequence

from builders.ggufs import Stored, stored
from config.words import Kind, Measurement, inapplicable
from publishers import grades, shown
from service.release.graph import Call
from service.release.products import Built, Found
from service.release.work import Work

TWINS = "file.twins"  # 1 where a file before this one, in the recipe's order, has the same tensors
OUTDONE = "file.outdone"  # 1 where a file is as small or smaller, and closer to the 16-bit model as surely as gates want it
AMONG = (TWINS, OUTDONE)


def among(work: Work, built: Sequence[Built]) -> dict[str, Found]:
    """The measurements of each variant, by its tag; `built` has all of them in the recipe's order, with verdicts on everything else. Raises StageError."""
    files = [item for item in built if item.variant.kind == Kind.GGUF]
    tables = {item.variant.tag: _table(item) for item in files}
    twins: dict[str, str] = {}
    kept: list[Built] = []
    for item in files:
        alike = (other for other in kept if tables[item.variant.tag] and tables[other.variant.tag] == tables[item.variant.tag])
        if (twin := next((other for other in alike if _same(work, other, item)), None)) is not None:
            twins[item.variant.tag] = twin.variant.tag
        elif item.passed:
            kept.append(item)
    standing = [grades.Standing(tag=item.variant.tag, bytes=item.bytes, measurements=item.measured, waivers=item.verdict.waivers) for item in kept]
    better = {tag: closer for closer, tags in grades.outdone(standing) for tag in tags}
    known = {item.variant.tag: item for item in kept}
    found = {item.variant.tag: _nothing() for item in built if item.variant.kind != Kind.GGUF}
    for item in files:
        tag = item.variant.tag
        twin_of, closer = twins.get(tag), known.get(better.get(tag, ""))
        found[tag] = _found(
            None if twin_of is None else f"{tag} holds the tensors of {twin_of} byte for byte: take {twin_of}",
            None if closer is None else f"{closer.variant.tag} is {_how(closer, item)}: take {closer.variant.tag}",
        )
    return found


def _table(item: Built) -> dict[str, Stored]:
    """The tensors as the file lists them; none of a damaged file, which other gates are for."""
    try:
        return stored(item.output.file().path)
    except ValueError:
        return {}


def _nothing() -> Found:
    return Found(measured={name: inapplicable(name, "It is no GGUF file") for name in AMONG}, errors={})


def _found(*details: str | None) -> Found:
    counted = (
        Measurement(name=name, value=float(detail is not None), unit="count", details=() if detail is None else (detail,))
        for name, detail in zip(AMONG, details, strict=True)
    )
    return Found(measured={item.name: item for item in counted}, errors={})


def _how(better: Built, item: Built) -> str:
    """Of a file that outdoes another: "smaller (90.90 MB instead of 93.50 MB) and closer (0.16 instead of 0.20 nats per token)"."""
    closeness = [found["kld.mean"] for found in (better.measured, item.measured)]
    size = f"smaller ({shown.size(better.bytes)} instead of {shown.size(item.bytes)})" if better.bytes < item.bytes else "as small"
    return f"{size} and closer (mean KLD {shown.nats(closeness[0])} instead of {shown.nats(closeness[1])})"


def _same(work: Work, one: Built, other: Built) -> bool:
    """Whether two files whose tables are alike hold the same tensors."""
    first, second = one.output.file(), other.output.file()
    if first.digest == second.digest:
        return True
    call = Call(function="builders.twins:compare", inputs={"one": first, "other": second}, threaded=False)
    return bool(work.call(f"compare {one.variant.tag} with {other.variant.tag}", call).result["same"])
