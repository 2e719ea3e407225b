import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from markdown_it.token import Token

from config.cards import Recommendation
from config.facts import Facts
from config.words import Kind, Measurement, Release
from publishers.card import Card, Change, Kept, Merged, Mix, Row, Trained, TypeUse
from publishers.form import Form
from publishers.manifest import Approval, DataEntry, Waiver
from publishers.naming import NOBODY
from publishers.quoting import quote
from publishers.readme import render
from publishers.sections import merge
from tests.publishers.conftest import MEASURED, PASSED, PATCH, MakeCard


def metadata(text: str) -> dict[str, object]:
    opening, front, _body = text.split("---\n", 2)
    assert opening == ""
    loaded = yaml.safe_load(front)
    assert isinstance(loaded, dict)
    return loaded


def body(text: str) -> str:
    return text.split("---\n", 2)[2]


def parsed(text: str) -> list[Token]:
    """The blocks of a card's body."""
    return MarkdownIt("commonmark").enable("table").parse(body(text))


def links(tokens: Sequence[Token]) -> set[object]:
    """Where one can get by clicking."""
    return {child.attrGet("href") for token in tokens for child in token.children or () if child.type == "link_open"}


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


def test_the_class_that_loads_a_model_and_how_it_is_spoken_to(make_card: MakeCard) -> None:
    said = render(make_card(kind=Kind.SIXTEEN_BIT))
    assert "from transformers import AutoModelForCausalLM, AutoTokenizer\n" in said
    assert '"content": "Hello!"}]' in said
    seeing = render(make_card(kind=Kind.BNB_4BIT, sees=True, parts=True))
    assert "from transformers import AutoModelForImageTextToText, AutoTokenizer\n" in seeing
    assert "model = AutoModelForImageTextToText.from_pretrained(" in seeing
    assert '"content": [{"type": "text", "text": "Hello!"}]}]' in seeing


@pytest.mark.parametrize("kind", [Kind.GGUF, Kind.SIXTEEN_BIT, Kind.BNB_4BIT])
def test_the_client_parses_it(make_card: MakeCard, kind: Kind) -> None:
    card = ModelCard(render(make_card(kind=kind)))
    assert card.data.base_model == "upstream/tiny-chat"
    assert card.data.license == "apache-2.0"


@pytest.mark.parametrize("kind", [Kind.GGUF, Kind.SIXTEEN_BIT, Kind.BNB_4BIT])
def test_is_deterministic_and_ends_lines_cleanly(make_card: MakeCard, kind: Kind) -> None:
    text = render(make_card(kind=kind))
    assert text == render(make_card(kind=kind))
    assert "\n\n\n" not in text
    assert not [line for line in text.splitlines() if line != line.rstrip()]
    assert text.endswith("\n")


def test_shows_the_measured_figures(make_card: MakeCard) -> None:
    (row,) = [line for line in render(make_card()).splitlines() if line.startswith("| `Q4_K_M`")]
    assert row == ("| `Q4_K_M` | 2.33 MB | 5.02 | 0.00767 ± 0.00020 | 0.21000 | 98.10 ± 0.10 % | 99.75 ± 0.18 % | 2 of 800 | 31.25 |")


def test_says_how_far_samples_were_extended(make_card: MakeCard) -> None:
    method = make_card().method
    assert "left a gate undecided" not in render(make_card())
    text = render(make_card(method=replace(method, most_tokens=2 * method.tokens, most_questions=3200)))
    assert "(evaluation.jsonl), and up to 22,528 where these left a gate undecided." in text
    assert "800 questions in the hendrycks form, 5 shots, and up to 3,200 where these left a gate undecided;" in text


def test_names_the_type_that_holds_the_upstreams_weights(make_card: MakeCard) -> None:
    usual = make_card()
    assert "Reference" not in render(usual)
    fine = render(replace(usual, method=replace(usual.method, reference="F16")))
    assert "- **Reference**: the upstream's weights need float16, so the file that all others are made from and measured against is F16, which holds" in fine
    assert "32-bit safetensors" in render(make_card(kind=Kind.SIXTEEN_BIT, method=replace(usual.method, reference="F32")))


def test_weights_that_were_multiplied_out_are_not_called_the_upstreams_own(make_card: MakeCard) -> None:
    assert "The weights are the upstream's own, unchanged." in render(make_card(kind=Kind.SIXTEEN_BIT))
    without = render(make_card(kind=Kind.SIXTEEN_BIT, patches=(replace(PATCH, fix="copied-head"),)))
    assert "The weights are the upstream's own, unchanged, without the copy of the embeddings that it stores as output matrix." in without
    for because, stored in (("2 matrices in F8_E4M3, each with one scale", "8 bits with scales"), ("4 tensors in MXFP4, a power of two for each", "MXFP4")):
        patch = replace(PATCH, fix="plain-weights", reason=f"Weights in 8 bits or MXFP4 are multiplied with their scales once ({because}).")
        said = render(make_card(kind=Kind.SIXTEEN_BIT, patches=(patch,)))
        assert "unchanged" not in said
        assert f"The upstream's weights are in {stored}. Here they are multiplied out to bfloat16" in said
        files = render(make_card(patches=(patch,)))
        assert f"and why. Weights in {stored} were multiplied out to bfloat16, from which the files here are made.\n\n- **plain-weights**" in files
        assert "The weights were not." not in files
    own = replace(make_card().rows[0], tag="MXFP4", file="tiny-chat-MXFP4.gguf")
    assert "are made, but for `MXFP4`, which holds the upstream's own bits.\n" in render(make_card(patches=(patch,), rows=(own,)))


def test_without_questions_says_nothing_of_answers(make_card: MakeCard) -> None:
    card = make_card()
    measured = {name: found for name, found in card.rows[0].measurements.items() if name.partition(".")[0] not in {"mmlu", "flips", "efficiency"}}
    bare = replace(card, method=replace(card.method, questions=0), rows=(replace(card.rows[0], measurements=measured),))
    text = render(bare)
    assert "MMLU" in render(card)
    for word in ("MMLU", "flips", "Flips", "fficiency"):
        assert word not in text
    table = [
        line for line in text.partition("## Measured")[2].splitlines() if (line.startswith("|") and "Q4_K_M" in line) or line.startswith(("| tag", "|---"))
    ]
    assert len(table) == 3
    assert len({line.count("|") for line in table}) == 1
    assert "\n\n\n" not in text
    assert not [line for line in text.partition("## Measured")[2].splitlines() if line != line.rstrip()]


def test_names_the_data_sets_with_commit_and_licence(make_card: MakeCard) -> None:
    sets = (
        DataEntry(
            use="evaluation.plain", name="wikitext", sha256="e" * 64, repo="Salesforce/wikitext", commit="c" * 40, path="wikitext-2-raw-v1/test.parquet",
            license=("cc-by-sa-3.0", "gfdl"),
        ),
        DataEntry(use="calibration.chat", name="chat", sha256="e" * 64, repo="owner/chat", commit="d" * 40, path="a`](http://evil.example)|b.jsonl"),
    )  # fmt: skip
    text = render(make_card(method=replace(make_card().method, data=sets)))
    assert f"`Salesforce/wikitext`, `wikitext-2-raw-v1/test.parquet`, at commit `{'c' * 40}`, licence: cc-by-sa-3.0, gfdl." in text
    assert "licence: none stated." in text
    assert links(parsed(text)) == links(parsed(render(make_card())))
    assert "](http://evil" not in text


def test_says_what_was_blocked_patched_and_not_shown(make_card: MakeCard) -> None:
    text = render(make_card())
    assert "**IQ1_S** (1.02 MB): mean KLD 0.47200 nats is above the bound of 0.15" in text
    assert "- **eos-ends-turn** (version 1): Answers must end with the turn.\n  - `generation_config.json`, `eos_token_id`: `5` → `4`\n" in text
    assert "do **not** rule out a backdoor that only quantization wakes" in text
    assert "a" * 40 in text
    assert "b" * 64 in text


@pytest.mark.parametrize("kind", [Kind.GGUF, Kind.SIXTEEN_BIT, Kind.BNB_4BIT])
def test_names_programs_that_read_the_repo_otherwise(make_card: MakeCard, kind: Kind) -> None:
    assert "otherwise than they were measured" not in render(make_card(kind=kind))
    text = render(make_card(kind=kind, readers=("Some `reader_file` (1.2) drops the RoPE factors: use another.", "Another (3) breaks.")))
    told = "Programs that read "
    assert text.count(told) == 1
    assert "as far as is known:\n\n- Some `reader_file` (1.2) drops the RoPE factors: use another.\n- Another (3) breaks.\n" in text.partition(told)[2]


def test_says_how_to_run_each_kind(make_card: MakeCard) -> None:
    text = render(make_card())
    for program in "llama-server", "llama-cli":
        assert f"{program} -hf acme/tiny-chat-GGUF:Q4_K_M \\\n  --temp 0.6 --top-k 20 --top-p 0.95 --min-p 0 --repeat-penalty 1\n" in text
    assert "lms get https://huggingface.co/acme/tiny-chat-GGUF\n" in text
    assert "ollama run hf.co/acme/tiny-chat-GGUF:Q4_K_M\n" in text
    assert "hf download acme/tiny-chat-GGUF tiny-chat-Q4_K_M.gguf --local-dir .\n" in text
    assert "derives its template from the one inside the GGUF" in text
    assert "derives its template" not in render(make_card(ollama_template=True))
    assert "which all of the above but Ollama, which makes one of its own, apply by themselves" in render(make_card(prompt="{prompt}"))
    assert "which all of the above apply by themselves" in render(make_card(prompt="{prompt}", ollama_template=True))
    assert 'repo = "acme/tiny-chat"' in render(make_card(kind=Kind.SIXTEEN_BIT, repo="acme/tiny-chat"))


def test_of_ollama_is_spoken_only_where_it_runs_the_files(make_card: MakeCard) -> None:
    text = render(make_card(form=Form(word="gguf-other", title="GGUF files of another kind", library="gguf")))
    assert "llama-server -hf acme/tiny-chat-GGUF:Q4_K_M" in text
    assert "lms get https://huggingface.co/acme/tiny-chat-GGUF\n" in text
    assert "ollama" not in text.lower()
    assert "`params`" not in text
    assert "\n\n\n" not in text


def test_what_a_person_decided_is_shown(make_card: MakeCard) -> None:
    card = make_card()
    text = render(replace(card, approvals=(Approval(subject="end-of-turn-eos", by="ann", comment="*sure*"),)))
    assert "- **end-of-turn-eos**, approved by ann: &#42;sure&#42;" in text
    assert "held" not in render(card)


def test_a_second_template_is_told_of(make_card: MakeCard) -> None:
    told = render(replace(make_card(), unforced=True))
    assert (
        "[chat_template_without_think.jinja](chat_template_without_think.jinja) is the same without it: download it for `llama-server --chat-template-file`."
        in told
    )
    safetensors = render(make_card(kind=Kind.SIXTEEN_BIT, unforced=True))
    assert "is the same without it: `vllm serve --chat-template` (as its documentation says, not run here)." in safetensors
    assert "without_think" not in render(make_card())


def test_what_is_proved_of_ollama_s_template_is_told(make_card: MakeCard) -> None:
    told = render(replace(make_card(), ollama_template=True, ollama_proof="not verified by Go, which is not installed here"))
    assert "Ollama, which reads this repo's `params` file and `template` file (not verified by Go, which is not installed here):" in told


def test_waivers_are_shown(make_card: MakeCard) -> None:
    card = make_card()
    waived = replace(card, rows=(replace(card.rows[0], waivers=(Waiver(gate="divergence", by="ann", comment="an experiment"),)),))
    text = render(waived)
    assert "| `Q4_K_M` (waiver) |" in text
    assert "**Q4_K_M**, gate *divergence*, waived by ann: an experiment" in text
    assert "## Waivers" not in render(card)


STANDING_IN = {"Q4_0": {"attn_q": [0, 1, 2, 3, 5, 7, 8], "attn_v": [2]}, "Q8_0": {"token_embd": []}}


def test_types_that_stand_in_and_files_that_others_outdo_are_told(make_card: MakeCard) -> None:
    card = make_card()
    assert "Types that stand in" not in render(card)
    coarse = replace(card.rows[0], tag="Q3_K_M", file="tiny-chat-Q3_K_M.gguf", bytes=2_400_000, fallbacks=STANDING_IN)
    coarse = replace(coarse, measurements={**MEASURED, "kld.mean": replace(MEASURED["kld.mean"], value=0.1)})
    text = render(replace(card, rows=(card.rows[0], coarse, replace(coarse, tag="Q3_K_L", bytes=2_500_000))))
    assert "- As small or smaller, and closer: Q4_K_M than Q3_K_M and Q3_K_L. How fast a type is depends on the processor." in text
    assert "[other types](#types-that-stand-in)" in text
    assert "- **Q3_K_M**: Q4_0 for `blk.{0-3,5,7-8}.attn_q`, `blk.2.attn_v`; Q8_0 for `token_embd`\n" in text
    assert "**Q4_K_M**: Q" not in text


def test_a_variant_in_parts_is_fetched_whole_and_not_by_ollama(make_card: MakeCard) -> None:
    card = make_card()
    parts = replace(card.rows[0], file="Q4_K_M/tiny-chat-Q4_K_M-00001-of-00003.gguf", files=3)
    text = render(replace(card, rows=(parts,)))
    assert "[Q4_K_M](Q4_K_M/tiny-chat-Q4_K_M-00001-of-00003.gguf) (3 parts)" in text
    assert "ollama run" not in text
    assert "llama-gguf-split --merge Q4_K_M/tiny-chat-Q4_K_M-00001-of-00003.gguf tiny-chat-Q4_K_M.gguf" in text
    assert 'hf download acme/tiny-chat-GGUF --include "Q4_K_M/*" --local-dir .' in text
    assert "llama-server -hf acme/tiny-chat-GGUF:Q4_K_M" in text


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
    row = replace(
        card.rows[0], tag="UD-Q4_K_XL", file="tiny-chat-UD-Q4_K_XL.gguf", measurements={**card.rows[0].measurements, **found}, mix=replace(mix, **changes)
    )
    return replace(card, rows=(card.rows[0], row))


def test_a_mix_that_was_rounded_anew_says_so(make_card: MakeCard) -> None:
    assert "- Rounded anew: " in render(planned(make_card(), rounded=True))
    assert "- Rounded anew: " not in render(planned(make_card()))


def test_a_planned_mix_is_explained_in_one_table(make_card: MakeCard) -> None:
    text = render(planned(make_card()))
    lines = [
        "### `UD-Q4_K_XL`", "",
        "- More bits per weight than in `Q4_K_M`: `ffn_down` (5.50 instead of 4.83), `output` (8.50 instead of 6.56)",
        "- Fewer bits per weight: `attn_q` (4.25 instead of 4.50)",
        "- KLD: predicted 0.00160 ± 0.00012, measured 0.00767 ± 0.00020; the stock mix `Q4_K_M`, of the same size: 0.00417 ± 0.00030",
        "- **Look twice**: It is 4.8 times higher.", "", "<details><summary>Types</summary>", "",
        "| type | tensors | share of bytes |", "|---|--:|--:|", "| Q6_K | 4 | 60.0 % |", "| IQ4_XS | 25 | 40.0 % |", "", "</details>",
    ]  # fmt: skip
    assert "\n".join(lines) in text
    assert "\n\n\n" not in text
    assert "ollama run hf.co/acme/tiny-chat-GGUF:UD-Q4_K_XL\n" in text
    tables = [token for token in parsed(text) if token.type == "table_open"]
    assert len(tables) == 3
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
        "### `dynamic-bnb-4bit`", "",
        f"- In 16 bits: {kept}; besides, as in every NF4 variant, embeddings, output layer and norms",
        "- KLD: predicted 0.00160 ± 0.00012, measured 0.00767 ± 0.00020; plain NF4: 0.00417 ± 0.00030",
    ]  # fmt: skip
    assert "\n".join(lines) in text
    assert "\n\n\n" not in text
    assert "as safetensors, with the layers that 4 bits hurt most kept in 16 bits, for transformers and vLLM" in text
    assert 'repo = "acme/tiny-chat-dynamic-bnb-4bit"' in text
    assert "vLLM, from version 0.28 on with `vllm-bnb-plugin` installed (as its documentation says, not run here):\n\n```sh\nvllm serve " in text
    assert "stock mix `" not in text
    assert "| NF4 | 25 | 60.0 % |" in text


def test_plain_nf4_under_a_planned_name_is_called_so(make_card: MakeCard) -> None:
    text = planned_nf4(make_card, replaced=True)
    assert "(0.00767 ± 0.00020) and is no better than plain NF4, which is smaller (0.00417 ± 0.00030), so **this is plain NF4**" in text
    assert "hurt most kept in 16 bits, for" not in text
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
    assert "stock mix `" not in text
    assert "Look twice" not in text


def test_says_where_the_repairs_were_offered(make_card: MakeCard) -> None:
    address = "http://127.0.0.1:8090/acme/tiny-chat/discussions/1"
    assert f"These changes were offered to the upstream in <{address}>." in render(make_card(offered=address))
    assert "offered" not in render(make_card())
    assert "offered" not in render(make_card(offered="http://evil/)[x](y)<script>"))


def test_without_patches_or_sampling_it_says_so(make_card: MakeCard) -> None:
    text = render(make_card(patches=(), sampling={}))
    assert "No file of the upstream release was changed." in text
    assert "- Sampling: the release names no defaults." in text


EVIL = 'x\n---\nbase_model: evil/evil\n---\n# Owned <script>alert(1)</script> [x](https://evil.example) `|` $$x$$ "quoted"'


def test_a_hostile_upstream_injects_nothing(make_card: MakeCard) -> None:
    card = make_card()
    hostile = replace(
        card,
        facts=Facts(
            license=EVIL,
            license_name=EVIL,
            license_link="javascript:alert(1)",
            languages=("en", EVIL, "no"),
            pipeline_tag=EVIL,
            tags=(EVIL, "roleplay"),
            datasets=(EVIL, "../x", "owner/set"),
        ),
        prompt=f"```\n</details>\n{EVIL}",
        remarks=(EVIL,),
        hub="javascript:alert(1)",
        quotation=quote(EVIL),
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
    assert found["tags"] == ["sluice", "conversational", "gguf", "imatrix", "roleplay"]
    assert found["datasets"] == ["owner/set"]
    assert found["pipeline_tag"] == "text-generation"
    assert ModelCard(text).data.base_model == "upstream/tiny-chat"

    expected, found_there = (parsed(each) for each in (render(replace(card, prompt="{prompt}")), text))
    headings = [[token.content for place, token in enumerate(tokens) if tokens[place - 1].type == "heading_open"] for tokens in (expected, found_there)]
    assert headings[0] == [name for name in headings[1] if name not in {"From the upstream's card", "Good to know"}]
    inline = [child for token in found_there for child in token.children or ()]
    assert {child.content for child in inline if child.type == "html_inline"} <= {"<code>", "</code>"}
    assert links(found_there) == {
        "sluice-report.html", "sluice-manifest.json", "tiny-chat-Q4_K_M.gguf", "#how-it-was-measured",
    }  # fmt: skip
    assert "image" not in {child.type for child in inline}
    blocks = [token.content for token in found_there if token.type in {"html_block", "hr"}]
    assert all(re.fullmatch(r"<!-- (sluice:(begin|end) [a-z]+|Sluice writes .*) -->\n", block) for block in blocks)
    (prompt,) = [token.content for token in found_there if token.type == "fence" and "</details>" in token.content]
    assert "# Owned" in prompt, "a block of code holds all of it"
    assert "$$" not in text.replace(prompt, "")


def test_commands_name_the_file_where_the_tag_would_fetch_another(make_card: MakeCard) -> None:
    card = make_card()
    row = card.rows[0]
    rows = tuple(replace(row, tag=tag, file=f"tiny-chat-{tag}.gguf") for tag in ("BF16", "F16", "Q4_K_L"))
    text = render(replace(card, rows=rows, recommend="F16"))
    assert "llama-server -hf acme/tiny-chat-GGUF -hff tiny-chat-F16.gguf" in text
    assert "llama-cli -hf acme/tiny-chat-GGUF -hff tiny-chat-F16.gguf" in text
    assert "ollama run hf.co/acme/tiny-chat-GGUF:F16\n" in text, "the Hub compares whole labels"
    assert "For F16, llama.cpp looks for the tag anywhere in files' names and may take another file" in text
    assert "The Hub knows no tag Q4_K_L: give Ollama the file's name, `ollama run hf.co/acme/tiny-chat-GGUF:FILE`." in text
    assert "ollama run hf.co/acme/tiny-chat-GGUF:tiny-chat-Q4_K_L.gguf\n" in render(replace(card, rows=rows, recommend="Q4_K_L"))
    assert "llama.cpp looks for the tag" not in render(card)
    long = replace(row, tag="mine", file=f"{'x' * 80}-mine.gguf")
    text = render(replace(card, rows=(long,), recommend=None))
    assert "Ollama can be given neither this tag nor this file's name." in text
    assert "give Ollama the file's name" not in text


def test_files_beside_the_variants_are_seen_by_those_who_look_for_a_tag(make_card: MakeCard) -> None:
    card = make_card()
    row = card.rows[0]
    rows = tuple(replace(row, tag=tag, file=f"tiny-chat-{tag}.gguf") for tag in ("F16", "Q8_0"))
    beside = tuple(replace(row, tag=f"mmproj-{type}", file=f"mmproj-{type}.gguf") for type in ("BF16", "F16", "Q8_0"))
    text = render(replace(card, rows=rows, projectors=beside, recommend="F16"))
    assert "llama-server -hf acme/tiny-chat-GGUF:F16\n" in text
    assert "ollama run hf.co/acme/tiny-chat-GGUF:F16\n" in text
    assert "of the model's file, here mmproj-BF16.gguf or mmproj-F16.gguf, whichever the Hub names first; `--mmproj FILE` takes another" in text
    text = render(replace(card, rows=(*rows, replace(row, tag="BF16", file="tiny-chat-BF16.gguf")), projectors=beside, recommend="F16"))
    assert text.count("llama-server -hf acme/tiny-chat-GGUF -hff tiny-chat-F16.gguf") == 2, "also where images are spoken of"
    assert "Give llama.cpp the projector by `--mmproj FILE`." in render(replace(card, rows=(), projectors=beside))


def test_a_base_model_is_offered_to_no_program_for_chats(make_card: MakeCard) -> None:
    text = render(make_card(base=True))
    assert "whose `/v1/completions` goes on with a text" in text
    assert "llama-cli -hf" not in text
    assert "derives its template" not in text
    assert "ollama run hf.co/acme/tiny-chat-GGUF:Q4_K_M\n" in text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("tiny-community", "`tiny-community`"),
        ("NVIDIA Open Model License (2025)", "`NVIDIA Open Model License (2025)`"),
        ("智谱", "<code>智谱</code>"),
        ("'quoted': *no*, #1 & $x$", "<code>'quoted': &#42;no&#42;, #1 &#38; &#36;x&#36;</code>"),
    ],
)
def test_a_custom_licence_is_named_and_linked(make_card: MakeCard, name: str, shown: str) -> None:
    facts = Facts(license="other", license_name=name, license_link="https://example.org/LICENSE?for=us#7")
    text = render(make_card(facts=facts))
    found = metadata(text)
    assert (found["license"], found["license_name"], found["license_link"]) == ("other", name, "https://example.org/LICENSE?for=us#7")
    assert f"- Licence: that of the upstream, {shown}\n" in text


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


@pytest.mark.parametrize("kind", [Kind.GGUF, Kind.SIXTEEN_BIT, Kind.BNB_4BIT])
def test_a_base_model_is_called_one_and_nothing_is_said_of_chats(make_card: MakeCard, kind: Kind) -> None:
    text = render(replace(make_card(kind=kind), base=True))
    assert "This is a **base model**" in text
    assert "apply_chat_template" not in text
    assert "**Template**" not in text
    assert "**Generation**" not in text
    assert "conversational" not in str(metadata(text)["tags"])
    assert "\n\n\n" not in text


def test_an_order_of_samplers_is_a_flag_and_a_line(make_card: MakeCard) -> None:
    order = ("top_k", "top_p", "min_p", "temperature", "dry", "typ_p", "xtc")
    text = render(replace(make_card(kind=Kind.GGUF), samplers=order))
    flags = text.partition("llama-cli -hf ")[2].partition("```")[0]
    assert flags.endswith(' \\\n  --samplers "top_k;top_p;min_p;temperature;dry;typ_p;xtc"\n')
    assert "--temp" in flags
    assert "- Order of llama.cpp's samplers: `top_k`, `top_p`, `min_p`, `temperature`, `dry`, `typ_p`, `xtc`\n" in text
    assert "samplers" not in render(make_card(kind=Kind.GGUF))
    assert '\\\n  --samplers "top_k"' in render(replace(make_card(kind=Kind.GGUF), sampling={}, samplers=("top_k",)))


def test_remarks_are_told_as_text(make_card: MakeCard) -> None:
    text = render(replace(make_card(kind=Kind.GGUF), remarks=("It *renders* <b>a role</b>.",)))
    assert "## Good to know\n\n- It &#42;renders&#42; &#60;b>a role" in text
    assert "## Good to know" not in render(make_card(kind=Kind.GGUF))


def several(card: Card, **sizes: tuple[int, float, float]) -> tuple[Row, ...]:
    """Variants by tag with their bytes, mean divergence and share of same top tokens."""
    measured = card.rows[0].measurements
    return tuple(
        replace(
            card.rows[0],
            tag=tag,
            file=f"tiny-chat-{tag}.gguf",
            bytes=size,
            measurements=measured
            | {
                "kld.mean": Measurement(name="kld.mean", value=kld, unit="nats", stderr=kld / 20),
                "same_top": Measurement(name="same_top", value=top, unit="share"),
            },
        )
        for tag, (size, kld, top) in sizes.items()
    )


def chooser(text: str) -> list[str]:
    """The rows of the first table."""
    lines = body(text).splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| file"))
    return lines[start : lines.index("", start)]


def test_the_first_table_is_a_chooser(make_card: MakeCard) -> None:
    card = make_card()
    smaller = {"Q4_K_M": (4_920_000_000, 0.031, 0.92), "Q2_K": (3_180_000_000, 0.4451, 0.711)}
    rows = several(card, Q8_0=(8_510_000_000, 0.0011, 0.991), **smaller, BF16=(16_060_000_000, 0, 1))
    text = render(replace(card, rows=rows, recommend=Recommendation(at_most=0.05), context=131_072, cached=8192, cache=2**30))
    assert chooser(text) == [
        "| file | size, GB | memory, GB | KLD | same top |",
        "|:--|--:|--:|:--|:--|",
        "| [Q2_K](tiny-chat-Q2_K.gguf) | 3.18 | 4.25 | poor 0.4451 | poor 71.1&nbsp;% |",
        "| **[Q4_K_M](tiny-chat-Q4_K_M.gguf)**&nbsp;★ | 4.92 | 5.99 | very good 0.0310 | very good 92.0&nbsp;% |",
        "| [Q8_0](tiny-chat-Q8_0.gguf) | 8.51 | 9.58 | nearly lossless 0.0011 | nearly lossless 99.1&nbsp;% |",
        "| [BF16](tiny-chat-BF16.gguf) | 16.06 | 17.13 | identical | identical |",
    ]
    recommended = "**Recommended: [Q4_K_M](tiny-chat-Q4_K_M.gguf)**, the smallest file whose mean KL divergence is at most 0.05 with 95 % confidence."
    assert recommended in text
    assert "- Memory is reckoned: the weights and what llama.cpp keeps of one conversation of 8,192 tokens (1.07 GB)." in text
    assert "- Context: 131,072 tokens" in text
    assert "llama-server -hf acme/tiny-chat-GGUF:Q4_K_M" in text
    assert text.index("## Which file") < text.index("## How to run it") < text.index("## Measured") < text.index("## Where it comes from")


def test_nothing_is_claimed_that_was_not_measured(make_card: MakeCard) -> None:
    card = make_card()
    (row,) = several(card, Q4_K_M=(2_330_000, 0.01, 0.9))
    unmeasured = replace(row, measurements={}, tag="Q3_K_M", file="tiny-chat-Q3_K_M.gguf")
    text = render(replace(card, rows=(unmeasured, row), recommend=Recommendation(at_most=0.001)))
    assert "| [Q3_K_M](tiny-chat-Q3_K_M.gguf) | 2.33 | — | not measured | not measured |" in chooser(text)
    assert "None of these is recommended: none is the smallest file whose mean KL divergence is at most 0.001 with 95 % confidence." in text
    assert "★" not in text
    assert "- What a conversation takes beside the weights is not known for this architecture." in text
    assert "![" not in text, "no plot, no picture"


def test_a_recipe_may_name_its_recommendation_or_none(make_card: MakeCard) -> None:
    card = make_card()
    rows = several(card, Q8_0=(8_510, 0.0011, 0.99), Q4_K_M=(4_920, 0.031, 0.92))
    text = render(replace(card, rows=rows, recommend="Q8_0"))
    assert "**Recommended: [Q8_0](tiny-chat-Q8_0.gguf)**, by the choice of whoever wrote the recipe." in text
    assert "ollama run hf.co/acme/tiny-chat-GGUF:Q8_0\n" in text
    none = "None of these is recommended: the choice of whoever wrote the recipe, `UD-Q4_K_XL`, is not among them.\n"
    assert none in render(replace(card, rows=rows, recommend="UD-Q4_K_XL"))
    assert "ecommended" not in render(replace(card, rows=rows, recommend=None))
    assert "ecommended" not in render(replace(card, recommend=Recommendation(at_most=0.05))), "of one file there is no choice"


def test_the_upstream_is_linked_in_the_second_line_of_text(make_card: MakeCard) -> None:
    def linked(**changes: object) -> str:
        return next(line for line in body(render(make_card(**changes))).splitlines() if line.startswith("GGUF files of"))

    assert linked().startswith("GGUF files of [upstream/tiny-chat](https://huggingface.co/upstream/tiny-chat) for")
    assert "[upstream/tiny-chat](https://hub.acme.example/upstream/tiny-chat)" in linked(hub="https://hub.acme.example")
    assert "[upstream/tiny-chat](/upstream/tiny-chat)" in linked(hub=None), "a Hub on this machine has another port tomorrow"
    assert "`mine`" in linked(release=Release(repo="mine", sha="a" * 40))


def test_on_a_hub_of_their_own_files_are_fetched_from_there(make_card: MakeCard) -> None:
    text = render(make_card(hub="https://hub.acme.example"))
    assert "export HF_ENDPOINT=https://hub.acme.example\n" in text
    assert "ollama run" not in text
    assert "lms get" not in text
    assert "HF_ENDPOINT" not in render(make_card())


def test_notices_header_and_footer_have_their_places(make_card: MakeCard) -> None:
    text = render(make_card(quick=True, header="By **Acme**.", footer="Ask [us](https://acme.example)."))
    assert text.index("By **Acme**.") < text.index("# tiny-chat-GGUF") < text.index("> **Quick measurements.**") < text.index("## Which file")
    assert text.index("Ask [us](https://acme.example).") > text.index("## Where it comes from")
    assert not merge(render(make_card()), text, owned=()).text.count("Acme"), "header and footer are Sluice's to take away again"


def test_the_prompt_is_shown_as_the_template_writes_it(make_card: MakeCard) -> None:
    text = render(make_card(prompt="<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"))
    assert "```text\n<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n\n```" in text
    assert "writes this" not in render(make_card())
    assert "writes this" not in render(make_card(prompt="x\n<!-- sluice:end use -->\ny")), "a template cannot end a section"
    assert "writes this" not in render(make_card(prompt="x" * 5000))


def test_a_plot_is_shown_as_a_picture_that_needs_no_script(make_card: MakeCard) -> None:
    assert "[![KL divergence against size, one point for each variant](sluice-kld.png)](sluice-kld.svg)" in render(make_card(plot=True))


def test_tags_that_are_untrue_of_the_files_stay_behind(make_card: MakeCard) -> None:
    theirs = ("not-for-all-audiences", "Safetensors", "text-generation-inference", "awq", "4-bit", "arxiv:1234.5", "roleplay", "roleplay", "region:us", "math")
    found = metadata(render(make_card(facts=Facts(tags=theirs, datasets=("HuggingFaceH4/ultrachat_200k", "no/such/thing")))))
    assert found["tags"] == ["sluice", "conversational", "gguf", "imatrix", "not-for-all-audiences", "roleplay", "math"]
    assert found["datasets"] == ["HuggingFaceH4/ultrachat_200k"]
    assert ModelCard(render(make_card(facts=Facts(tags=theirs)))).data.tags == found["tags"]


def test_what_was_blocked_or_waived_keeps_its_figures(make_card: MakeCard) -> None:
    card = make_card()
    (blocked,) = several(card, IQ1_S=(1_020_000, 0.6, 0.7))
    text = render(replace(card, blocked=(replace(blocked, verdict=card.blocked[0].verdict),)))
    assert "- **IQ1_S** (1.02 MB, KLD 0.60000 ± 0.03000, same top token 70.00 %): mean KLD" in text


def test_the_upstream_s_words_are_attributed(make_card: MakeCard) -> None:
    found = quote("A *fine* model.\n\n" + "More. " * 2000)
    text = render(make_card(quotation=found))
    said = "The words of [upstream/tiny-chat](https://huggingface.co/upstream/tiny-chat), under the licence `apache-2.0`, not checked here."
    assert f"{said} Links, pictures, code and tables are left out, and the card goes on there.\n\n> A fine model.\n" in text
    assert "From the upstream" not in render(make_card(quotation=None))


def test_a_kind_that_has_no_templates_of_its_own_is_told_by_its_form(make_card: MakeCard) -> None:
    form = Form(word="mlx-4bit", title="MLX safetensors in 4 bits", library="mlx", tags=("mlx",))
    text = render(make_card(form=form, repo="acme/tiny-chat-mlx"))
    assert (metadata(text)["library_name"], metadata(text)["base_model_relation"]) == ("mlx", "quantized")
    assert "mlx" in metadata(text)["tags"]
    assert "as MLX safetensors in 4 bits, made from the" in text
    assert "hf download acme/tiny-chat-mlx --local-dir ." in text
    alike = render(make_card(form=replace(form, library="transformers"), repo="acme/tiny-chat-mlx"))
    assert 'repo = "acme/tiny-chat-mlx"' in alike


def test_a_merged_adapter_names_both_models_and_what_changed(make_card: MakeCard) -> None:
    merged = Merged(base=Release(repo="meta/base", sha="c" * 40), changed=56, unchanged=2, tensors=290, rounded=0.0312)
    text = render(make_card(merged=merged))
    assert "(an adapter, merged into its base model [meta/base](https://huggingface.co/meta/base))" in text
    assert "56 of 290 tensors changed (2 more belong to the adapter, which leaves them as they are)" in text
    assert f"Base model: [meta/base](https://huggingface.co/meta/base) at commit `{'c' * 40}`" in text
    assert "Storing rounded 3.1 % of the change away" in text
    assert front(text) == {"base_model": "upstream/tiny-chat", "base_model_relation": "quantized"}
    whole = render(make_card(kind=Kind.SIXTEEN_BIT, repo="acme/tiny-chat", merged=merged))
    assert front(whole) == {"base_model": ["meta/base", "upstream/tiny-chat"], "base_model_relation": "merge"}
    assert "The weights are the upstream's own" not in whole
    local = Merged(base=Release(repo="base", sha="c" * 40), changed=1, unchanged=0, tensors=1, rounded=0.0)
    assert front(render(make_card(kind=Kind.SIXTEEN_BIT, merged=local))) == {"base_model": "upstream/tiny-chat", "base_model_relation": "finetune"}


def test_a_model_that_was_rebuilt_names_the_file(make_card: MakeCard) -> None:
    files = {"tiny-BF16-00001-of-00002.gguf": "a" * 64, "tiny-BF16-00002-of-00002.gguf": "b" * 64}
    text = render(make_card(gguf=files))
    for path, digest in files.items():
        assert f"`{path}`, sha256 `{digest}`" in text
    assert "rebuilt from its GGUF file, in parts: " in text
    assert "Converted back by llama.cpp's converter, they gave the same tensors and metadata" in text
    whole = render(make_card(kind=Kind.SIXTEEN_BIT, repo="acme/tiny-chat", gguf=files, patches=()))
    assert "safetensors of [upstream/tiny-chat](https://huggingface.co/upstream/tiny-chat) rebuilt from its GGUF file" in whole
    assert "rebuilt" not in render(make_card())


def front(text: str) -> dict[str, object]:
    return {key: value for key, value in metadata(text).items() if key.startswith("base_model")}


def test_what_a_model_was_trained_for_stands_beside_the_planned_mix(make_card: MakeCard) -> None:
    made = make_card()
    baseline = replace(made.rows[0], tag="Q4_0", file="tiny-chat-Q4_0.gguf", bpw=4.6)
    mix = Mix(stock="Q4_K_M", replaced=False, rounded=False, types=(TypeUse(type="Q4_K", tensors=1, bytes=10),))
    planned = replace(made.rows[0], tag="UD-Q4_K_XL", file="tiny-chat-UD-Q4_K_XL.gguf", mix=mix)
    far = replace(planned, tag="UD-Q8_K_XL", file="tiny-chat-UD-Q8_K_XL.gguf", bpw=8.5)
    trained = Trained(type="Q4_0", because="its name")
    part = render(replace(made, trained=trained, rows=(baseline, planned, far))).partition("## Trained for Q4_0")[2].partition("\n## ")[0]
    assert "(quantization-aware training): its name says so" in part
    assert [line.split("|")[1].strip() for line in part.splitlines() if line.startswith("| `")] == ["`Q4_0` (baseline)", "`UD-Q4_K_XL`"]
    assert "It is not here: the recipe does not build it." in render(replace(made, trained=trained))
    blocked = replace(made.blocked[0], tag="Q4_0", file="tiny-chat-Q4_0.gguf")
    assert "It is not here: a gate blocked it, see below." in render(replace(made, trained=trained, blocked=(blocked,)))
    untold = render(replace(made, trained=Trained(type=None, because="its name"), rows=(baseline, planned, far))).partition("\n## Trained to be quantized\n")[2]
    assert "its name says so, and nothing says for which type. So no file here is the baseline" in untold.partition("\n## ")[0]
    assert "| file |" not in untold.partition("\n## ")[0]
    assert "Trained for" not in render(made)


def test_projectors_are_listed_with_what_they_make_of_images(make_card: MakeCard) -> None:
    def projector(type: str, error: float, reshaped: float, **fields: Any) -> Row:
        figures = {"mmproj.error": error, "mmproj.cosine": 0.9991, "mmproj.reshaped": reshaped}
        measured = {name: Measurement(name=name, value=value, unit="share") for name, value in figures.items()}
        verdict = replace(PASSED, tag=f"mmproj-{type}")
        return Row(tag=f"mmproj-{type}", file=f"mmproj-{type}.gguf", bytes=850_000_000, bpw=16.0, measurements=measured, verdict=verdict, **fields)

    text = render(make_card(projectors=(projector("BF16", 0.004, 0.3), projector("Q8_0", 0.021, 0.31))))
    assert "| [mmproj-BF16](mmproj-BF16.gguf) | 850.0 | 0.40&nbsp;% | 0.9991 |" in text
    assert "**Images of other shapes come out differently**: llama.cpp scales them otherwise than transformers does (off by 30&nbsp;% " in text
    assert "## Images" not in render(make_card())
    assert "come out differently" not in render(make_card(projectors=(projector("BF16", 0.004, 0.006),)))
    waived = projector("F16", 0.004, 0.006, waivers=(Waiver(gate="images in float16", by="Ada", comment="for old cards"),))
    assert "**mmproj-F16**, gate *images in float16*, waived by Ada" in render(make_card(projectors=(waived,)))
