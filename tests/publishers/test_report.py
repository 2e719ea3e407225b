"""The page of a run: what it says and draws, and that strangers' strings stay text in it."""

import io
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure
from PIL import Image

from config.words import GateResult, Kind, Measurement, Outcome, Patch, Release, Verdict, Waiver
from publishers.naming import REPORT
from publishers.report import page, plots, svg, tensors
from publishers.report.figures import Block, Position, Report, ReportedVariant, read

EVIL = "x\"'><script>alert(1)</script><img src=https://evil.example/a.png onerror=alert(1)>{{ 7 * 7 }} $\\frac{1}{2}$ </svg></style>"

Make = Callable[..., Report]


def measured(mean: float, **more: Measurement) -> tuple[Measurement, ...]:
    return (
        Measurement(name="kld.mean", value=mean, unit="nats", stderr=mean / 10, n=1000),
        Measurement(name="kld.p999", value=20 * mean, unit="nats", n=1000),
        Measurement(name="same_top", value=0.981, unit="share", stderr=0.001, n=1000),
        Measurement(name="mmlu.accuracy", value=0.9975, unit="share", stderr=0.0018, n=800),
        Measurement(name="flips", value=2, unit="count", n=800),
        *more.values(),
    )


def verdict(tag: str, value: float, text: str = "said so", waiver: Waiver | None = None) -> Verdict:
    outcome = Outcome.PASSED if value <= 0.15 else Outcome.FAILED
    result = GateResult(
        gate="divergence", measure="kld.mean", value=value, stderr=value / 10, condition="at most 0.15", outcome=outcome, reason=text, limit=0.15, waiver=waiver
    )
    blocked = outcome is Outcome.FAILED and waiver is None
    return Verdict(tag=tag, outcome=outcome if blocked else Outcome.PASSED, reasons=(text,) if blocked else (), results=(result,))


def variant(tag: str, size: int, mean: float, kind: Kind = Kind.GGUF, **changes: Any) -> ReportedVariant:
    fields: dict[str, Any] = {
        "tag": tag, "kind": kind, "file": f"tiny-chat-{tag}.gguf", "bytes": size, "bpw": size / 1e6, "measurements": measured(mean),
        "verdict": verdict(tag, mean),
        "positions": tuple(Position(first=first, last=first + 7, mean=mean * (1 + first / 256), stderr=mean / 9, n=80) for first in range(128, 255, 8)),
        "blocks": blocks(4) if kind is Kind.GGUF else (),
    }  # fmt: skip
    return ReportedVariant(**(fields | changes))


def blocks(layers: int, roles: int = 2) -> tuple[Block, ...]:
    """Roles whose type changes with every layer, and an embedding."""
    inner = [
        Block(layer=layer, role=f"role_{role}", type=("Q6_K", "Q4_K")[(layer + role) % 2], bytes=(820, 562)[(layer + role) % 2], weights=1000)
        for layer in range(layers)
        for role in range(roles)
    ]
    return (Block(layer=None, role="token_embd", type="Q8_0", bytes=1062, weights=1000), *inner)


def report(**changes: Any) -> Report:
    fields: dict[str, Any] = {
        "release": Release(repo="upstream/tiny-chat", sha="a" * 40), "recipe_name": "demo", "recipe_digest": "b" * 64, "tools": {"llama.cpp": "b8200"},
        "patches": (Patch(fix="eos", version=1, file="config.json", key="eos_token_id", reason="Answers must end.", before=5, after=None),),
        "variants": (
            variant("16bit", 7_350_000, 0.0, Kind.SIXTEEN_BIT), variant("Q4_K_M", 2_380_000, 0.009),
            variant("IQ1_S", 1_070_000, 0.6), variant("bnb-4bit", 2_730_000, 0.0185, Kind.BNB_4BIT),
        ),
    }  # fmt: skip
    return Report(**(fields | changes))


@pytest.fixture
def make() -> Make:
    return report


@pytest.fixture(scope="module")
def shown() -> str:
    """The page of the report without changes, drawn once."""
    return page.render(report())


class Outline(HTMLParser):
    """Elements with their attributes' names, and what links point to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.targets: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.targets += [value or "" for name, value in attrs if name in {"href", "src", "xlink:href"}]


def plain(text: str) -> str:
    """The text that a reader sees outside of plots."""
    without = re.sub(r"<(svg|style).*?</\1>", "", text, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", without).split())


def test_says_which_files_others_outdo() -> None:
    text = plain(page.render(report(variants=(variant("IQ4_XS", 90, 0.05), variant("Q3_K_M", 93, 0.12), variant("Q2_K", 95, 0.4)))))
    assert "As small or smaller, and closer: IQ4_XS than Q3_K_M. How fast" in text, "and of what is not published nothing is said"


def test_says_every_figure_and_every_gate(shown: str) -> None:
    text = plain(shown)
    assert "upstream/tiny-chat 3 passed , 1 blocked Commit " + "a" * 40 in text
    assert "Q4_K_M passed 2.38 MB 2.38 0.00900 ± 0.00090 — — — 0.1800 — 98.10 ± 0.10 % 99.75 ± 0.18 % 2" in text
    assert "divergence kld.mean 0.6 nats ± 0.06 nats at most 0.15 0.15 nats failed said so" in text
    assert "eos (version 1) config.json eos_token_id 5 absent Answers must end." in text
    assert "Not drawn, for they have no divergence above 0: 16bit." in text
    assert "Predicted and measured" not in text
    assert "Waivers" not in text


def test_names_the_tensors_whose_types_stand_in(make: Make) -> None:
    standing_in = {"Q4_0": {"attn_q": [0, 1, 2, 3, 5], "attn_v": [2]}, "Q8_0": {"token_embd": []}}
    text = page.render(make(variants=(variant("Q3_K_M", 10**6, 0.02, fallbacks=standing_in), variant("Q8_0", 2 * 10**6, 0.001))))
    assert "Stand in for them: Q4_0 for blk.{0-3,5}.attn_q , blk.2.attn_v ; Q8_0 for token_embd ." in plain(text)
    assert text.count("Stand in for them") == 1


def test_says_how_far_a_sample_was_extended(make: Make) -> None:
    decided = verdict("Q4_K_M", 0.01)
    looked = replace(decided, results=(replace(decided.results[0], look=2, looks=3),))
    text = page.render(make(variants=(variant("Q4_K_M", 10**6, 0.01, verdict=looked), variant("Q2_K", 10**6, 0.02))))
    assert text.count("look 2 of 3, n = 1,000") == text.count("<br>look") == 1


def test_draws_size_positions_types_and_tensors(make: Make, shown: str) -> None:
    found = make()
    drawn = re.findall(r'<svg [^>]*aria-label="([^"]*)"', shown)
    assert drawn == [
        "Mean KL divergence against size, one point for each variant",
        "Mean KL divergence by the token&#39;s position in the window, one line for each variant",
        "Bytes of each GGUF variant by type",
        "Types of the tensors of Q4_K_M by role and layer",
        "Types of the tensors of IQ1_S by role and layer",
    ]
    size = plots.size_plot(found.variants)
    assert size is not None
    assert {tag for tag in ("16bit", "Q4_K_M", "IQ1_S", "bnb-4bit") if f">{tag}</text>" in size} == {"Q4_K_M", "IQ1_S", "bnb-4bit"}
    assert size.count(", blocked</text>") == 1
    assert "var(--bad)" in size
    assert "var(--planned)" not in size
    (tensor_plot,) = [tensors.tensor_plot(item, "t", tensors.type_colors([item])) for item in found.variants if item.tag == "Q4_K_M"]
    assert tensor_plot is not None
    assert {kind for kind in ("Q8_0", "Q6_K", "Q4_K") if f">{kind}</text>" in tensor_plot} == {"Q8_0", "Q6_K", "Q4_K"}


def test_the_plot_of_a_card_stands_alone_as_svg_and_png(make: Make) -> None:
    found = make()
    yardstick = replace(variant("IQ3_XXS", 1_500_000, 0.05), verdict=None)
    made = plots.size_pictures(found.variants, (yardstick,))
    assert made is not None
    drawn, pixels = made
    root = ET.fromstring(drawn)  # noqa: S314 - our own drawing
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"Q4_K_M", "IQ1_S", "IQ3_XXS", "stock GGUF, not offered", "stock GGUF, blocked"} <= texts
    assert b"var(--" not in drawn, "no page gives it its colours"
    assert b"<script" not in drawn
    with Image.open(io.BytesIO(pixels)) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.width == 3 * 72 * plots.CARD[0]
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255), "white, also on a dark page"
        assert len(picture.convert("L").getcolors(256) or ()) > 20, "something is drawn"
    assert plots.size_pictures(found.variants, (yardstick,)) == made, "equal figures, equal bytes"
    assert plots.size_pictures([variant("16bit", 10, 0.0)], (yardstick,)) is None


def test_the_legend_covers_no_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gemma 3 270M's NF4 files, large and far from the model, lay beneath it."""
    small = [variant(f"Q{number}", 230_000_000 + 10_000_000 * number, 0.02 / number) for number in range(1, 6)]
    worst = [variant("bnb-4bit", 388_000_000, 0.48, Kind.BNB_4BIT), variant("IQ1_S", 540_000_000, 0.6), variant("IQ1_M", 520_000_000, 0.3)]
    seen: dict[str, Any] = {}

    def kept(name: str, paint: Any) -> tuple[bytes, bytes]:
        paint(figure := Figure())
        figure.draw_without_rendering()
        seen["axes"] = figure.axes[0]
        return b"", b""

    monkeypatch.setattr(plots, "pictures", kept)
    assert plots.size_pictures([*small, *worst]) is not None
    axes = seen["axes"]
    box = axes.get_legend().get_window_extent()
    drawn = [point for line in axes.lines for point in axes.transData.transform(line.get_xydata())]
    assert len(drawn) >= len(small) + len(worst)
    assert not [point for point in drawn if box.contains(*point)]
    written = [note.get_window_extent() for note in axes.texts]
    assert not [note for note in written if note.overlaps(box)]


def test_the_stage_leaves_the_plot_beside_the_page(make: Make, tmp_path: Path) -> None:
    assert page.write(tmp_path, contents=[], figures=make().as_json()) == {"file": "sluice-report.html"}
    assert {path.name for path in tmp_path.iterdir()} == {"sluice-report.html", "sluice-kld.png", "sluice-kld.svg"}
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    page.write(nothing, contents=[], figures=make(variants=()).as_json())
    assert [path.name for path in nothing.iterdir()] == ["sluice-report.html"]


def test_a_planned_variant_is_told_apart_and_its_prediction_stands_beside_the_measurement(make: Make) -> None:
    prediction = {
        "predicted": Measurement(name="plan.predicted", value=0.005, unit="nats", stderr=0.0001, details=("By probes & more.",)),
        "error": Measurement(name="plan.error", value=0.2, unit="ratio"),
    }
    planned = variant("UD-Q4_K_XL", 2_370_000, 0.006, measurements=measured(0.006, **prediction))
    assert replace(planned, tag="small").planned, "a recipe may give a planned mix any tag"
    found = make(variants=(*make().variants, replace(planned, remarks=("It is far off.", EVIL))))
    text = page.render(found)
    assert "UD-Q4_K_XL 0.00500 ± 0.00010 0.00600 ± 0.00060 1.20 0.2" in plain(text)
    assert "UD-Q4_K_XL : It is far off." in plain(text)
    assert "<script" not in text
    drawn = plots.size_plot(found.variants)
    assert drawn is not None
    assert "var(--planned)" in drawn
    assert ">planned mix</text>" in drawn


def test_a_patch_that_lengthens_a_long_value_shows_what_it_added(make: Make) -> None:
    patch = Patch(fix="template", version=1, file="chat_template.jinja", key="template", reason="It was cut off.", before=10**999, after=10**1009)
    text = plain(page.render(make(patches=(patch,))))
    assert f"… {'0' * 75} … {'0' * 85} It was cut off." in text


def test_a_waiver_is_shown_with_its_name(make: Make) -> None:
    waiver = Waiver(tag="IQ1_S", gate="divergence", by="Ada", comment="a museum", outcome=Outcome.FAILED)
    waived = variant("IQ1_S", 1_070_000, 0.6, verdict=verdict("IQ1_S", 0.6, waiver=waiver))
    text = plain(page.render(make(variants=(waived,))))
    assert "IQ1_S , gate divergence , waived by Ada: a museum" in text
    assert "failed , waived said so Waived by Ada: a museum" in text


def test_without_built_variants_it_says_why_and_draws_nothing(make: Make) -> None:
    blocked = [
        ReportedVariant(tag=tag, kind=Kind.GGUF, file=None, bytes=None, bpw=None, measurements=measured(0.6)[:1], verdict=verdict(tag, 0.6))
        for tag in ("Q8_0", "Q2_K")
    ]
    text = page.render(make(variants=tuple(blocked), missing="The template gate failed."))
    assert "<svg" not in text
    assert "Nothing was built The template gate failed." in plain(text)
    assert "divergence kld.mean 0.6 nats" in plain(text)


def test_strangers_strings_stay_text(make: Make, shown: str) -> None:
    found = make()

    def hostile(item: ReportedVariant) -> ReportedVariant:
        evil = tuple(replace(block, role=block.role + EVIL, type=block.type) for block in item.blocks)
        waiver = Waiver(tag=EVIL, gate=EVIL, by=EVIL, comment=EVIL, outcome=Outcome.FAILED)
        told = verdict(EVIL, 0.6, EVIL, waiver)
        results = tuple(replace(result, gate=EVIL, measure=EVIL, condition=EVIL) for result in told.results)
        return replace(item, tag=item.tag + EVIL, blocks=evil, fallbacks={EVIL: {EVIL: [0]}}, verdict=replace(told, reasons=(EVIL,), results=results))

    patch = Patch(fix=EVIL, version=1, file=EVIL, key=EVIL, reason=EVIL, before=EVIL, after={EVIL: [EVIL]})
    changed = replace(
        found, release=Release(repo=EVIL, sha=EVIL), recipe_name=EVIL, recipe_digest=EVIL, tools={EVIL: EVIL}, patches=(patch,), missing=EVIL,
        variants=tuple(hostile(item) for item in found.variants),
    )  # fmt: skip
    text = page.render(changed)
    outline, kind = Outline(text), Outline(shown)
    assert {tag for tag, _ in outline.elements} <= {tag for tag, _ in kind.elements} | {"ul", "li", "i"}
    assert not {name for _, names in outline.elements for name in names} & {"onerror", "src", "onload"}
    assert {target[0] for target in outline.targets} == {"#"}
    assert "<script" not in text
    assert "49" not in plain(text)


def test_the_page_is_self_contained(shown: str) -> None:
    assert not re.search(r"https?:", shown)
    assert {target[0] for target in Outline(shown).targets} == {"#"}
    identifiers = re.findall(r' id="([^"]+)"', shown)
    assert len(identifiers) == len(set(identifiers))
    assert set(re.findall(r"var\(--([a-z]+)\)", shown)) <= set(re.findall(r"--([a-z]+):", shown))


def test_equal_findings_give_equal_bytes_by_way_of_json(make: Make, tmp_path: Path) -> None:
    found = make()
    found = replace(found, variants=(*found.variants, variant("Q3_K_M", 10**6, 0.02, fallbacks={"Q4_0": {"attn_q": [0], "output": []}})))
    assert read(found.as_json()) == found
    before = dict(mpl.rcParams)
    contents = tmp_path / "contents.json"
    contents.write_text('{"tiny-chat-Q4_K_M.gguf": [[0, "attn_q", "Q4_K", 562, 1000]], "tiny-chat-IQ1_S.gguf": null}', encoding="utf-8")
    written = []
    for name in "ab":
        (out := tmp_path / name).mkdir()
        assert page.write(out, contents=[contents], figures=found.as_json()) == {"file": REPORT}
        written.append((out / REPORT).read_bytes())
    assert written[0] == written[1]
    assert b"Types of the tensors of Q4_K_M" in written[0]
    assert b"Types of the tensors of IQ1_S" not in written[0]
    assert dict(mpl.rcParams) == before


def test_a_thousand_tensors_stay_a_small_drawing() -> None:
    item = variant("UD-Q4_K_XL", 10**9, 0.01, blocks=blocks(128, roles=8))
    drawn = tensors.tensor_plot(item, "large", tensors.type_colors([item]))
    assert drawn is not None
    assert len(drawn) < 150_000


def test_colours_are_those_of_the_definition() -> None:
    # corners of sRGB in OKLCH, from the definition's own table
    assert svg.color(1.0, 0.0, 0.0) == "#ffffff"
    assert svg.color(0.62796, 0.25768, 29.234) == "#ff0000"
    assert svg.color(0.45201, 0.31321, 264.052) == "#0000ff"
