from collections.abc import Callable
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from config.words import Kind, Measurement, Release
from publishers.card import Card, Change, DataSet, Facts, Kept, Mix, TypeUse, render
from publishers.manifest import Waiver
from publishers.naming import NOBODY

MakeCard = Callable[..., Card]


def metadata(text: str) -> dict[str, object]:
    opening, front, _body = text.split("---\n", 2)
    assert opening == ""
    loaded = yaml.safe_load(front)
    assert isinstance(loaded, dict)
    return loaded


def body(text: str) -> str:
    return text.split("---\n", 2)[2]


@pytest.mark.parametrize(
    ("kind", "library", "relation"),
    [(Kind.GGUF, "gguf", "quantized"), (Kind.SIXTEEN_BIT, "transformers", None), (Kind.BNB_4BIT, "transformers", "quantized")],
)
def test_front_matter_names_base_model_and_relation(make_card: MakeCard, kind: Kind, library: str, relation: str | None) -> None:
    found = metadata(render(make_card(kind=kind)))
    assert found["base_model"] == "upstream/tiny-chat"
    assert found.get("base_model_relation") == relation
    assert found["library_name"] == library
    assert found["license"] == "apache-2.0"
    assert found["language"] == ["en"]
    assert found["pipeline_tag"] == "text-generation"
    assert isinstance(found["tags"], list)
    assert "sluice" in found["tags"]
    assert ("gguf" in found["tags"]) == (kind is Kind.GGUF)


@pytest.mark.parametrize("kind", list(Kind))
def test_the_client_parses_it(make_card: MakeCard, kind: Kind) -> None:
    card = ModelCard(render(make_card(kind=kind)))
    assert card.data.base_model == "upstream/tiny-chat"
    assert card.data.license == "apache-2.0"


@pytest.mark.parametrize("kind", list(Kind))
def test_is_deterministic_and_ends_lines_cleanly(make_card: MakeCard, kind: Kind) -> None:
    text = render(make_card(kind=kind))
    assert text == render(make_card(kind=kind))
    assert "\n\n\n" not in text
    assert not [line for line in text.splitlines() if line != line.rstrip()]
    assert text.endswith("\n")


def test_shows_the_measured_figures(make_card: MakeCard) -> None:
    (row,) = [line for line in render(make_card()).splitlines() if line.startswith("| `Q4_K_M`")]
    assert row == ("| `Q4_K_M` | `tiny-chat-Q4_K_M.gguf` | 2.33 MB | 5.02 | 0.00767 ± 0.00020 | 0.21000 | 98.10 ± 0.10 % | 99.75 ± 0.18 % | 2 of 800 | 31.25 |")


def test_says_how_far_samples_were_extended(make_card: MakeCard) -> None:
    method = make_card().method
    assert "left a gate undecided" not in render(make_card())
    text = render(make_card(method=replace(method, most_tokens=2 * method.tokens, most_questions=3200)))
    assert "(evaluation.jsonl), and up to 22,528 where these left a gate undecided." in text
    assert "800 questions in the hendrycks form, 5 shots, and up to 3,200 where these left a gate undecided;" in text


def test_without_questions_says_nothing_of_answers(make_card: MakeCard) -> None:
    card = make_card()
    measured = {name: found for name, found in card.rows[0].measurements.items() if name.partition(".")[0] not in {"mmlu", "flips", "efficiency"}}
    bare = replace(card, method=replace(card.method, questions=0), rows=(replace(card.rows[0], measurements=measured),))
    text = render(bare)
    assert "MMLU" in render(card)
    for word in ("MMLU", "flips", "Flips", "fficiency"):
        assert word not in text
    table = [line for line in text.splitlines() if (line.startswith("|") and "Q4_K_M" in line) or line.startswith(("| tag", "|---"))]
    assert len(table) == 3
    assert len({line.count("|") for line in table}) == 1
    assert "\n\n\n" not in text
    assert not [line for line in text.splitlines() if line != line.rstrip()]


def test_names_the_data_sets_with_commit_and_licence(make_card: MakeCard) -> None:
    sets = (
        DataSet(use="evaluation.plain", repo="Salesforce/wikitext", commit="c" * 40, path="wikitext-2-raw-v1/test.parquet", license=("cc-by-sa-3.0", "gfdl")),
        DataSet(use="calibration.chat", repo="owner/chat", commit="d" * 40, path="a`](http://evil.example)|b.jsonl", license=()),
    )
    text = render(make_card(method=replace(make_card().method, data=sets)))
    assert f"`Salesforce/wikitext`, `wikitext-2-raw-v1/test.parquet`, at commit `{'c' * 40}`, licence: cc-by-sa-3.0, gfdl." in text
    assert "licence: none stated." in text
    assert "evil.example" not in [link for token in MarkdownIt().parse(body(text)) for link in str(token.attrs)]
    assert "](http://evil" not in text


def test_says_what_was_blocked_patched_and_not_shown(make_card: MakeCard) -> None:
    text = render(make_card())
    assert "**IQ1_S** (1.02 MB): mean KLD 0.47200 nats is above the bound of 0.15" in text
    assert "- **eos-ends-turn** (version 1): Answers must end with the turn.\n  - `generation_config.json`, `eos_token_id`: `5` → `4`\n" in text
    assert "do **not** rule out a backdoor that only quantization wakes" in text
    assert "a" * 40 in text
    assert "b" * 64 in text


def test_says_how_to_run_each_kind(make_card: MakeCard) -> None:
    text = render(make_card())
    assert "llama-server -hf acme/tiny-chat-GGUF:Q4_K_M --temp 0.6 --top-k 20 --top-p 0.95 --min-p 0 --repeat-penalty 1\n" in text
    assert "ollama run hf.co/acme/tiny-chat-GGUF:Q4_K_M\n" in text
    assert "hf download acme/tiny-chat-GGUF tiny-chat-Q4_K_M.gguf --local-dir .\n" in text
    assert "derives its template from the one inside the GGUF" in text
    assert "derives its template" not in render(make_card(ollama_template=True))
    assert 'repo = "acme/tiny-chat"' in render(make_card(kind=Kind.SIXTEEN_BIT, repo="acme/tiny-chat"))


def test_waivers_are_shown(make_card: MakeCard) -> None:
    card = make_card()
    waived = replace(card, rows=(replace(card.rows[0], waivers=(Waiver(gate="divergence", by="ann", comment="an experiment"),)),))
    text = render(waived)
    assert "| `Q4_K_M` (waiver) |" in text
    assert "**Q4_K_M**, gate *divergence*, waived by ann: an experiment" in text
    assert "## Waivers" not in render(card)


def planned(card: Card, **changes: object) -> Card:
    """The card with a planned mix in place of its variant."""
    uses = (TypeUse(type="Q6_K", tensors=4, bytes=600), TypeUse(type="IQ4_XS", tensors=25, bytes=400))
    mix = Mix(
        stock="Q4_K_M", replaced=False, rounded=False, types=uses,
        more=(Change(tensors="ffn_down", bits=5.5, stock_bits=4.834), Change(tensors="output", bits=8.5, stock_bits=6.5625)),
        fewer=(Change(tensors="attn_q", bits=4.25, stock_bits=4.5),),
    )  # fmt: skip
    figures = {"plan.predicted": (0.0016, 0.00012), "plan.measured": (0.00767, 0.0002), "plan.stock": (0.00417, 0.0003)}
    found = {name: Measurement(name=name, value=value, unit="nats", stderr=stderr) for name, (value, stderr) in figures.items()}
    found["plan.error"] = Measurement(name="plan.error", value=4.8, unit="ratio", details=("It is 4.8 times higher.",))
    row = replace(card.rows[0], tag="UD-Q4_K_XL", measurements={**card.rows[0].measurements, **found}, mix=replace(mix, **changes))
    return replace(card, rows=(card.rows[0], row))


def test_a_mix_that_was_rounded_anew_says_so(make_card: MakeCard) -> None:
    assert "- Rounded anew: " in render(planned(make_card(), rounded=True))
    assert "- Rounded anew: " not in render(planned(make_card()))


def test_a_planned_mix_is_explained_in_one_table(make_card: MakeCard) -> None:
    text = render(planned(make_card()))
    lines = [
        "### `UD-Q4_K_XL`", "", "| type | tensors | share of bytes |", "|---|--:|--:|", "| Q6_K | 4 | 60.0 % |", "| IQ4_XS | 25 | 40.0 % |", "",
        "- More bits per weight than in `Q4_K_M`: `ffn_down` (5.50 instead of 4.83), `output` (8.50 instead of 6.56)",
        "- Fewer bits per weight: `attn_q` (4.25 instead of 4.50)",
        "- KLD: predicted 0.00160 ± 0.00012, measured 0.00767 ± 0.00020; the stock mix `Q4_K_M`, of the same size: 0.00417 ± 0.00030",
        "- **Look twice**: It is 4.8 times higher.",
    ]  # fmt: skip
    assert "\n".join(lines) in text
    assert "\n\n\n" not in text
    assert "ollama run hf.co/acme/tiny-chat-GGUF:UD-Q4_K_XL\n" in text
    tables = [token for token in MarkdownIt("commonmark").enable("table").parse(body(text)) if token.type == "table_open"]
    assert len(tables) == 2
    assert "planned mixes" not in render(make_card())


def planned_nf4(make_card: MakeCard, *, replaced: bool) -> str:
    """The card of an NF4 repo in which some layers stay in 16 bits, or of plain NF4 in their stead."""
    card = make_card(kind=Kind.BNB_4BIT, repo="acme/tiny-chat-dynamic-bnb-4bit")
    kept = (Kept(module="mlp.down_proj", layers=(1, 7)), Kept(module="self_attn.o_proj", layers=(0,)), Kept(module="model.projector", layers=()))
    uses = (TypeUse(type="NF4", tensors=25, bytes=600), TypeUse(type="BF16", tensors=4, bytes=400))
    (_, row) = planned(card, stock="bnb-4bit", replaced=replaced, types=uses, more=(), fewer=(), kept=() if replaced else kept).rows
    return render(replace(card, rows=(replace(row, tag="dynamic-bnb-4bit", file="model.safetensors"),)))


def test_the_layers_of_nf4_that_stay_in_16_bits_are_named(make_card: MakeCard) -> None:
    text = planned_nf4(make_card, replaced=False)
    kept = "`mlp.down_proj` (layers 1, 7); `self_attn.o_proj` (layer 0); `model.projector`"
    lines = [
        "### `dynamic-bnb-4bit`", "", "| type | tensors | share of bytes |", "|---|--:|--:|", "| NF4 | 25 | 60.0 % |", "| BF16 | 4 | 40.0 % |", "",
        f"- In 16 bits: {kept}; besides, as in every NF4 variant, embeddings, output layer and norms",
        "- KLD: predicted 0.00160 ± 0.00012, measured 0.00767 ± 0.00020; plain NF4: 0.00417 ± 0.00030",
    ]  # fmt: skip
    assert "\n".join(lines) in text
    assert "\n\n\n" not in text
    assert "as safetensors, with the layers that 4 bits hurt most kept in 16 bits, made from" in text
    assert 'repo = "acme/tiny-chat-dynamic-bnb-4bit"' in text
    assert "vllm serve acme/tiny-chat-dynamic-bnb-4bit" in text
    assert "stock mix" not in text


def test_plain_nf4_under_a_planned_name_is_called_so(make_card: MakeCard) -> None:
    text = planned_nf4(make_card, replaced=True)
    assert "(0.00767 ± 0.00020) and is no better than plain NF4, which is smaller (0.00417 ± 0.00030), so **this is plain NF4**" in text
    assert "hurt most kept in 16 bits, made" not in text
    assert "In 16 bits:" not in text


def test_a_stock_mix_under_a_planned_name_is_called_so(make_card: MakeCard) -> None:
    text = render(planned(make_card(), replaced=True, more=(), fewer=()))
    assert "is worse (0.00767 ± 0.00020) than the stock mix `Q4_K_M` of the same size (0.00417 ± 0.00030), so **this file is the stock mix**." in text
    assert "More bits" not in text
    assert "Fewer" not in text
    assert "\n\n\n" not in text


def test_a_prediction_that_rests_on_probes_says_so(make_card: MakeCard) -> None:
    card = planned(make_card())
    found = dict(card.rows[1].measurements)
    found["plan.predicted"] = replace(found["plan.predicted"], details=("By probes, known within 24%.",))
    text = render(replace(card, rows=(replace(card.rows[1], measurements=found),)))
    assert "0.00417 ± 0.00030\n- By probes, known within 24%.\n- **Look twice**" in text


def test_a_planned_mix_without_a_stock_mix_of_its_size(make_card: MakeCard) -> None:
    card = planned(make_card(), stock=None, more=(), fewer=())
    row = replace(card.rows[1], measurements={"plan.predicted": card.rows[1].measurements["plan.predicted"]})
    text = render(replace(card, rows=(row,)))
    assert "- KLD: predicted 0.00160 ± 0.00012, measured —\n" in text
    assert "stock mix" not in text
    assert "Look twice" not in text


def test_says_where_the_repairs_were_offered(make_card: MakeCard) -> None:
    address = "http://127.0.0.1:8090/acme/tiny-chat/discussions/1"
    assert f"These changes were offered to the upstream in <{address}>." in render(make_card(offered=address))
    assert "offered" not in render(make_card())
    assert "offered" not in render(make_card(offered="http://evil/)[x](y)<script>"))


def test_without_patches_or_sampling_it_says_so(make_card: MakeCard) -> None:
    text = render(make_card(patches=(), sampling={}))
    assert "No file of the upstream release was changed." in text
    assert "The release names no sampling defaults." in text


EVIL = 'x\n---\nbase_model: evil/evil\n---\n# Owned <script>alert(1)</script> [x](https://evil.example) `|` $$x$$ "quoted"'


def test_a_hostile_upstream_injects_nothing(make_card: MakeCard) -> None:
    card = make_card()
    hostile = replace(
        card,
        facts=Facts(license=EVIL, license_name=EVIL, license_link="javascript:alert(1)", languages=("en", EVIL, "no"), pipeline_tag=EVIL),
        patches=(replace(card.patches[0], before=EVIL, after={EVIL: [EVIL]}, file=EVIL, key=EVIL, reason=EVIL),),
        blocked=(replace(card.blocked[0], verdict=replace(card.blocked[0].verdict, reasons=(EVIL, EVIL))),),
        sampling={"temperature": EVIL, "top_k": float("nan"), EVIL: 1, "top_p": 0.9},
        tools={EVIL: EVIL},
        method=replace(card.method, texts=(EVIL,), calibration=(EVIL,)),
    )
    text = render(hostile)
    found = metadata(text)
    assert found["base_model"] == "upstream/tiny-chat"
    assert "license" not in found
    assert found["language"] == ["en", "no"]
    assert found["pipeline_tag"] == "text-generation"
    assert ModelCard(text).data.base_model == "upstream/tiny-chat"

    expected, parsed = (MarkdownIt("commonmark").enable("table").parse(body(each)) for each in (render(card), text))
    assert [token.content for token in parsed if token.type == "heading_open"] == [token.content for token in expected if token.type == "heading_open"]
    inline = [child for token in parsed for child in token.children or ()]
    assert {child.content for child in inline if child.type == "html_inline"} <= {"<code>", "</code>"}
    assert {child.attrGet("href") for child in inline if child.type == "link_open"} == {"sluice-report.html"}
    assert "image" not in {child.type for child in inline}
    assert not [token for token in parsed if token.type in {"html_block", "hr"}]
    assert "$$" not in text


def test_a_custom_licence_is_named_and_linked(make_card: MakeCard) -> None:
    facts = Facts(license="other", license_name="tiny-community", license_link="https://example.org/LICENSE")
    found = metadata(render(make_card(facts=facts)))
    assert (found["license"], found["license_name"], found["license_link"]) == ("other", "tiny-community", "https://example.org/LICENSE")


def test_repo_names_cannot_reach_the_shell(make_card: MakeCard) -> None:
    with pytest.raises(ValueError, match="cannot stand in a code block"):
        render(make_card(repo="acme/x;rm -rf ~"))


def test_an_upstream_with_a_strange_name_stays_quoted(make_card: MakeCard) -> None:
    text = render(make_card(release=Release(repo="a/b: no", sha="a" * 40)))
    assert metadata(text)["base_model"] == "a/b: no"


def test_a_local_folder_is_named_by_its_content_and_is_nobody_s_base_model(make_card: MakeCard) -> None:
    text = render(make_card(release=Release(repo="mine", sha="a" * 40), namespace=NOBODY))
    assert {"base_model", "base_model_relation", "quantized_by"}.isdisjoint(metadata(text))
    assert f"local folder `mine`, sha256 `{'a' * 40}`" in text


def test_small_samples_are_marked_above_the_figures(make_card: MakeCard) -> None:
    text = render(make_card(quick=True))
    assert text.index("Quick measurements") < text.index("## Measured")
    assert "Quick" not in render(make_card())


@pytest.mark.parametrize("kind", list(Kind))
def test_a_base_model_is_called_one_and_nothing_is_said_of_chats(make_card: MakeCard, kind: Kind) -> None:
    text = render(replace(make_card(kind=kind), base=True))
    assert "This is a **base model**" in text
    assert "apply_chat_template" not in text
    assert "**Template**" not in text
    assert "**Generation**" not in text
    assert "conversational" not in str(metadata(text)["tags"])
    assert "\n\n\n" not in text


def test_remarks_are_told_as_text(make_card: MakeCard) -> None:
    text = render(replace(make_card(kind=Kind.GGUF), remarks=("It *renders* <b>a role</b>.",)))
    assert "## Good to know\n\n- It &#42;renders&#42; &#60;b>a role" in text
    assert "## Good to know" not in render(make_card(kind=Kind.GGUF))
