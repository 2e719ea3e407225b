"""What a card tells of variants that an older version of their engine was asked for."""

from config.words import Kind, Measurement, Outcome, Verdict, inapplicable
from publishers.card import Row
from service.release.remarks import older_version

REFUSES = "transformers 4.57.6 refuses this model: it does not know its kind"


def row(tag: str, *found: Measurement) -> Row:
    verdict = Verdict(tag=tag, outcome=Outcome.PASSED, reasons=(), results=())
    return Row(tag=tag, file=f"{tag}.safetensors", bytes=1, bpw=4.5, measurements={item.name: item for item in found}, verdict=verdict)


def test_what_it_refuses_is_told_once_and_of_how_many_variants() -> None:
    same = Measurement(name="older.failures", value=0, unit="count", n=1)
    refused = Measurement(name="older.failures", value=0, unit="count", n=1, details=(REFUSES,))
    assert list(older_version([row(Kind.SIXTEEN_BIT, refused), row(Kind.BNB_4BIT, refused)])) == [f"{REFUSES}."]
    assert list(older_version([row(Kind.SIXTEEN_BIT, same), row(Kind.BNB_4BIT, refused)])) == [f"{REFUSES} (1 of 2 variants)."]
    assert list(older_version([row(Kind.SIXTEEN_BIT, same), row("Q8_0"), row(Kind.BNB_4BIT, inapplicable("older.failures", "not installed"))])) == []
