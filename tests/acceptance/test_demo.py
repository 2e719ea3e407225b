"""The demo as a person runs it, and what it leaves behind."""

import json
import re
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import pytest
from huggingface_hub import HfApi, ModelCard
from PIL import Image

from config.digests import file_sha256
from hub.server import running
from hub.tokens import create_token
from tests.acceptance.conftest import PROGRAMS, ROOT, Demo, environment, sluice

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SANE = {"16bit", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K_M", "Q2_K", "UD-Q4_K_XL", "UD-Q3_K_XL", "UD-Q2_K_XL", "bnb-4bit"}


def test_the_sane_variants_pass_and_the_hopeless_one_is_blocked_with_figures(demo: Demo) -> None:
    assert demo.code == 3, demo.errors
    assert demo.summary["state"] == "done"
    passed = {row["tag"] for row in demo.summary["variants"] if row["verdict"] == "passed"}
    assert passed == SANE
    hopeless = demo.variant("IQ1_S")
    assert hopeless["verdict"] == "failed"
    assert any("KL divergence" in reason or "kld.mean" in reason for reason in hopeless["reasons"])
    assert hopeless["kld"]["mean"] > 0.15


def test_the_figures_are_those_of_quantization(demo: Demo) -> None:
    gguf = [demo.variant(tag) for tag in ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K", "IQ1_S")]
    means = [row["kld"]["mean"] for row in gguf]
    assert means == sorted(means), "divergence grows as bits shrink"
    assert [row["bytes"] for row in gguf] == sorted((row["bytes"] for row in gguf), reverse=True)
    for row in gguf:
        assert 0 < row["kld"]["stderr"] < row["kld"]["mean"] < row["kld"]["p999"] <= row["kld"]["max"]
        assert 0 < row["same_top"] <= 1
        assert row["mmlu"]["n"] == 800
        points = 100 * row["mmlu"]["accuracy"] - 25
        assert row["efficiency"] == pytest.approx(points / (row["bytes"] / 1e9))
    assert demo.variant("BF16")["kld"]["mean"] == 0


@pytest.mark.parametrize(("tag", "stock"), [("UD-Q4_K_XL", "Q4_K_M"), ("UD-Q3_K_XL", "Q3_K_M"), ("UD-Q2_K_XL", "Q2_K")])
def test_a_planned_mix_is_better_than_the_stock_mix_of_its_size_and_as_foretold(demo: Demo, tag: str, stock: str) -> None:
    ours, theirs = demo.variant(tag), demo.variant(stock)
    assert ours["bytes"] <= theirs["bytes"]
    assert ours["kld"]["mean"] < 0.9 * theirs["kld"]["mean"]
    plan = ours["plan"]
    assert (plan["measured"], plan["stock"], plan["replaced"]) == (ours["kld"]["mean"], theirs["kld"]["mean"], False)
    assert 0 < plan["predicted_stderr"] < plan["predicted"] < plan["stock"]
    assert plan["factor"] < 2
    assert plan["remarks"] == []


def dry_run(demo: Demo) -> dict[str, Any]:
    """What would be said of the demo's release in an empty home."""
    with running(demo.home / "hub") as url:
        token = create_token(demo.home / "hub", user="sluice-demo")
        settings = {"SLUICE_HOME": str(demo.home / "empty"), "SLUICE_HUB_ENDPOINT": url, "SLUICE_HUB_TOKEN": token}
        told = sluice("run", "upstream/tiny-chat", "--recipe", str(ROOT / "demo" / "recipe.yaml"), "--dry-run", "--json", **settings)
    assert told.returncode == 0, told.stderr
    document: dict[str, Any] = json.loads(told.stdout)
    return document


def test_a_dry_run_says_beforehand_how_much_disk_it_takes(demo: Demo) -> None:
    needed = dry_run(demo)["disk_needed"]
    # every token's scores and the report are not counted: a fifteenth of this tiny model, and nothing of a large one
    assert 0.8 * demo.summary["disk_high_water"] < needed < 1.1 * demo.summary["disk_high_water"]


def test_a_dry_run_says_beforehand_how_long_it_takes(demo: Demo) -> None:
    """Within a factor of two, which leaves room for what else the machine does; `python -m bench.estimate` compares stage by stage."""
    foretold = dry_run(demo)["seconds"]
    taken = sum(stage["seconds"] for stage in demo.summary["stages"])
    assert 0.5 < foretold / taken < 2


def test_every_planted_defect_is_patched_with_a_reason(demo: Demo) -> None:
    patched = {patch["fix"] for patch in demo.summary["patches"]}
    assert patched == {"end-of-turn-eos", "distinct-pad", "single-bos", "sampling-defaults", "strip-remote-code"}
    assert all(patch["reason"] for patch in demo.summary["patches"])


def test_the_stock_client_downloads_what_was_published(demo: Demo, tmp_path: Path) -> None:
    repos = {publication["repo"]: publication for publication in demo.summary["publications"]}
    assert set(repos) == {"sluice-demo/tiny-chat-GGUF", "sluice-demo/tiny-chat", "sluice-demo/tiny-chat-bnb-4bit"}
    with running(demo.home / "hub") as url:
        command = [PROGRAMS / "hf", "download", "sluice-demo/tiny-chat-GGUF", "--local-dir", str(tmp_path)]
        subprocess.run(command, env=environment(HF_ENDPOINT=url), check=True, capture_output=True, timeout=120)
    names = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert set(repos["sluice-demo/tiny-chat-GGUF"]["files"]) <= names
    assert not any("IQ1_S" in name for name in names)
    manifest = json.loads((tmp_path / "sluice-manifest.json").read_text())
    for name, entry in manifest["files"].items():
        assert file_sha256(tmp_path / name) == entry["sha256"]
    assert "training_args.bin" not in manifest["files"]
    assert (tmp_path / "sluice-report.html").read_bytes() == report_of(demo).read_bytes()
    assert "(sluice-report.html)" in (tmp_path / "README.md").read_text()


def report_of(demo: Demo) -> Path:
    """Where the command says that the report of the demo's run is."""
    told = sluice("report", str(demo.summary["run"]), "--json", SLUICE_HOME=str(demo.home / "service"))
    assert told.returncode == 0, told.stderr
    return Path(json.loads(told.stdout)["report"])


def test_the_report_shows_every_variant_with_gates_and_plots(demo: Demo) -> None:
    text = report_of(demo).read_text()
    for row in demo.summary["variants"]:
        assert f">{row['tag']}</a></th>" in text
        drawn = f'aria-label="Types of the tensors of {row["tag"]} by role and layer"' in text
        assert drawn == (row["tag"] not in {"16bit", "bnb-4bit"}), row["tag"]
    assert "Mean KL divergence against size" in text
    assert "position in the window" in text
    assert demo.variant("IQ1_S")["reasons"][0] in text


def test_the_published_card_is_one_the_hub_accepts(demo: Demo) -> None:
    with running(demo.home / "hub") as url:
        api = HfApi(endpoint=url, token=False)
        path = api.hf_hub_download("sluice-demo/tiny-chat-GGUF", "README.md", local_dir=demo.home / "card")
    card = ModelCard.load(path)
    assert card.data.base_model == "upstream/tiny-chat"
    assert card.data.base_model_relation == "quantized"
    assert card.data.license == "apache-2.0"
    row = demo.variant("Q4_K_M")
    assert "Q4_K_M" in card.text
    assert f"{row['kld']['mean']:.5f}" in card.text


def test_every_line_that_the_demo_prints_at_its_end_works_when_it_is_pasted(demo: Demo, tmp_path: Path) -> None:
    lines = [line.strip() for line in demo.errors.partition("Look at what was done")[2].splitlines() if line.startswith("  ")]
    assert [line.split()[1] for line in lines if line.startswith("sluice")] == ["status", "gates", "report", "waive", "hub"]
    assert all(len(line) <= 78 for line in lines if str(demo.home) not in line)
    script = []
    for line in lines:
        script.append(line)
        if line.endswith("&"):  # whoever pastes is not so fast that the Hub is not there yet
            script.append("for i in $(seq 100); do curl -so /dev/null $HF_ENDPOINT && break; sleep 0.1; done")
        else:
            script.append(f"echo ended with $?: {shlex.quote(line)}")
    script += ["sluice waive 1 divergence IQ1_S --by me --comment 'it was tried' --withdraw", "kill %1", "wait"]
    shell = {"cwd": tmp_path, "env": environment(COLUMNS="80"), "stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    done = subprocess.run(["bash", "-c", "\n".join(script)], **shell, timeout=300, check=False)
    ended = {line.partition(": ")[2]: int(line.split()[2].rstrip(":")) for line in done.stdout.splitlines() if line.startswith("ended with")}
    blocked = {"sluice status 1": 3, "sluice gates 1 --failed": 3}
    assert ended == {line: blocked.get(line, 0) for line in lines if not line.endswith("&")}, done.stdout + done.stderr
    assert "Paris" in done.stdout, "the model answers"
    assert (demo.home / "use.sh").stat().st_mode & 0o077 == 0, "it holds a token"


def test_its_links_live_on_until_ctrl_c_where_that_is_wanted(demo: Demo) -> None:
    command = [PROGRAMS / "sluice", "demo", "--home", demo.home, "--serve"]
    with subprocess.Popen(command, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said: list[str] = []
        while not said or "until Ctrl-C" not in said[-1]:
            said.append(process.stdout.readline())
            assert said[-1], "it ended"
        links = re.findall(r"^published .*: (http\S+)$", "".join(said), re.MULTILINE)
        assert len(links) == 3
        for link in links:
            assert httpx.get(link).status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 3
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_the_published_card_helps_to_choose(demo: Demo) -> None:
    with running(demo.home / "hub") as url:
        api = HfApi(endpoint=url, token=False)
        folder = Path(api.snapshot_download("sluice-demo/tiny-chat-GGUF", allow_patterns=["*.md", "sluice-*"], local_dir=demo.home / "chooser"))
    text = (folder / "README.md").read_text()
    table = text.partition("| file |")[2].partition("\n\n")[0].splitlines()[2:]
    rows = {found[1]: [cell.strip() for cell in line.split("|")[2:-1]] for line in table if (found := re.search(r"\[([\w-]+)\]\(tiny-chat-\1\.gguf\)", line))}
    passed = {row["tag"]: row for row in demo.summary["variants"] if row["verdict"] == "passed" and row["tag"] not in {"16bit", "bnb-4bit"}}
    assert rows.keys() == passed.keys()
    assert list(rows) == sorted(rows, key=lambda tag: passed[tag]["bytes"])
    cache = 2 * 2 * 64 * 2 * 4 * 2048  # keys and values of 2 heads of 64 in 2 bytes, in 4 layers, of all 2048 tokens of the model's context
    for tag, (size, memory, closeness, top) in rows.items():
        assert float(size) == pytest.approx(passed[tag]["bytes"] / 1e6, abs=0.006), tag
        assert float(memory) == pytest.approx((passed[tag]["bytes"] + cache) / 1e6, abs=0.006), tag
        if passed[tag]["kld"]["mean"] > 0:
            assert float(closeness.split()[-1]) == pytest.approx(passed[tag]["kld"]["mean"], abs=6e-5), tag
            assert float(top.split()[-1].removesuffix("&nbsp;%")) == pytest.approx(100 * passed[tag]["same_top"], abs=0.06), tag
    close = [row for row in passed.values() if row["kld"]["mean"] < 0.04]
    assert "**Recommended: [UD-" in text, "planned mixes are the closest of their size"
    assert passed[text.partition("**Recommended: [")[2].partition("]")[0]]["bytes"] <= 1.01 * min(row["bytes"] for row in close)
    assert "{system}<|im_end|>" in text
    assert "A very small chat model that knows a few facts." in text, "the upstream's licence lets its words be quoted"
    assert "![KL divergence against size, one point for each variant](sluice-kld.png)" in text
    with Image.open(folder / "sluice-kld.png") as picture:
        picture.load()
        assert picture.width > 1000
    assert "UD-Q4_K_XL</text>" in (folder / "sluice-kld.svg").read_text()
    manifest = json.loads((folder / "sluice-manifest.json").read_text())
    assert {"sluice-kld.png", "sluice-kld.svg"} <= manifest["files"].keys()


def test_a_second_run_publishes_nothing_new(demo: Demo) -> None:
    def commits() -> dict[str, list[str]]:
        with running(demo.home / "hub") as url:
            api = HfApi(endpoint=url, token=False)
            return {item["repo"]: [commit.commit_id for commit in api.list_repo_commits(item["repo"])] for item in demo.summary["publications"]}

    before = commits()
    again = sluice("demo", "--home", demo.home, "--json")
    assert again.returncode == 3, again.stderr
    assert commits() == before
    first, second = demo.summary, json.loads(again.stdout)
    assert second["variants"] == first["variants"]
    assert [(item["repo"], item["revision"]) for item in second["publications"]] == [(item["repo"], item["revision"]) for item in first["publications"]]


def test_a_mix_is_planned_for_a_repo_on_the_hub_from_what_the_run_measured(demo: Demo) -> None:
    with running(demo.home / "hub") as url:
        settings = {"SLUICE_HOME": str(demo.home / "service"), "SLUICE_HUB_ENDPOINT": url}
        wanted = ("--like", "Q3_K_M", "--recipe", str(ROOT / "demo" / "recipe.yaml"), "--json")
        done = sluice("plan", "upstream/tiny-chat", *wanted, **settings)
        unknown = sluice("plan", "upstream/no-such-model", *wanted, **settings)
    assert done.returncode == 0, done.stderr
    plan, ours = json.loads(done.stdout), demo.variant("UD-Q3_K_XL")
    assert plan["predicted"]["mean"] == ours["plan"]["predicted"]
    assert 0 <= ours["bytes"] - plan["bytes"] < 512, "but for what the file says about the importance matrix"
    assert unknown.returncode == 1
    assert "upstream/no-such-model" in unknown.stderr


def test_without_fixes_the_template_gate_blocks_everything(tmp_path: Path) -> None:
    done = sluice("demo", "--home", str(tmp_path), "--no-fixes", "--json")
    assert done.returncode == 3, done.stderr
    summary = json.loads(done.stdout)
    assert summary["state"] == "blocked"
    assert summary["publications"] == []
    assert len(summary["variants"]) == 16
    for row in summary["variants"]:
        assert row["verdict"] == "failed"
        assert any("template" in reason for reason in row["reasons"])
    assert {patch["fix"] for patch in summary["patches"]} <= {"strip-remote-code"}
    assert {path.name for path in (tmp_path / "hub").rglob("*GGUF*")} == set()
    assert sluice("report", str(summary["run"]), "-o", tmp_path / "report.html", SLUICE_HOME=str(tmp_path / "service")).returncode == 0
    page = (tmp_path / "report.html").read_text()
    assert "Nothing was built" in page
    assert page.count("<svg") == 1, "the stages, and no plot"


def test_the_picture_in_the_readme_shows_the_figures_of_the_demo(demo: Demo) -> None:
    assert "](docs/demo.svg)" in (ROOT / "README.md").read_text(encoding="utf-8")
    printed = {line.split()[0]: line.split() for line in _lines(ROOT / "docs" / "demo.svg") if " MB " in line and line.startswith(" ")}
    assert printed.keys() == {row["tag"] for row in demo.summary["variants"]}
    for row in demo.summary["variants"]:
        tag, size, _, bits, kld, p999, top, accuracy, flips, _, verdict = printed[row["tag"]]
        assert verdict == {"passed": "passed", "failed": "blocked"}[row["verdict"]], tag
        assert float(size) == pytest.approx(row["bytes"] / 1e6, abs=0.01)
        assert float(bits) == pytest.approx(row["bpw"], abs=0.01)
        # processors round differently: the figures agree, not their last digits
        assert float(kld) == pytest.approx(row["kld"]["mean"], rel=0.1, abs=2e-5)
        assert float(p999) == pytest.approx(row["kld"]["p999"], rel=0.25, abs=1e-3)
        assert float(top.rstrip("%")) == pytest.approx(100 * row["same_top"], abs=0.5)
        assert float(accuracy.rstrip("%")) == pytest.approx(100 * row["mmlu"]["accuracy"], abs=0.5)
        assert int(flips) == pytest.approx(row["flips"], abs=4)


def _lines(picture: Path) -> list[str]:
    """What stands in a picture of a terminal, line by line: its pieces of text by their place."""
    pieces: dict[float, list[tuple[float, str]]] = {}
    for piece in ET.parse(picture).iter("{http://www.w3.org/2000/svg}text"):  # noqa: S314  our own
        pieces.setdefault(float(piece.attrib["y"]), []).append((float(piece.attrib["x"]), piece.text or ""))
    return ["".join(text for _, text in sorted(pieces[line])).replace("\xa0", " ") for line in sorted(pieces)]
