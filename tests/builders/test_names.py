"""Names from a stranger's listing and shard index."""

import unicodedata
from collections.abc import Callable

import pytest

from builders.names import check_name, check_names, converses, is_legal, is_lost, predicts, shards, speaks, tokenizes
from config.errors import UpstreamError

REPO = "upstream/tiny-chat"


@pytest.mark.parametrize("name", ["config.json", "original/params.json", "a b.txt", "日本語.md", ".gitattributes", "model-00001-of-00002.safetensors"])
def test_ordinary_names(name: str) -> None:
    check_name(name, REPO)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a/./b",
        "a//b",
        "a/",
        "..",
        "a\\b",
        "C:x",
        "a\nb",
        "a\0b",
        "\x1b[2J",
        "a\u202eb",
        "/".join("abcdefghijk"),
        "x" * 300,
    ],
)
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(UpstreamError, match="Nothing was downloaded"):
        check_name(name, REPO)


def test_names_that_some_file_systems_take_for_one() -> None:
    check_names(["config.json", "sub/Config.json"], REPO)
    with pytest.raises(UpstreamError, match="upper and lower case"):
        check_names(["config.json", "Config.json"], REPO)
    with pytest.raises(UpstreamError, match="the form of a letter"):
        check_names(["LICENÇA", unicodedata.normalize("NFD", "LICENÇA")], REPO)


@pytest.mark.parametrize(
    ("name", "legal"),
    [
        ("LICENSE", True),
        ("LICENSE.txt", True),
        ("NOTICE", True),
        ("USE_POLICY.md", True),
        ("license-extra.pdf", True),
        ("LICENSES", True),
        ("MODEL_LICENSE", True),
        ("LICENSE-MODEL", True),
        ("License.docx", True),
        ("THIRD-PARTY-NOTICES.txt", True),
        ("TERMS_OF_USE.md", True),
        ("Gemma_Terms.txt", True),
        ("ACCEPTABLE_USE_POLICY.md", True),
        ("usage-policy.pdf", True),
        ("COPYING", True),
        ("EULA.txt", True),
        ("legal/LICENSE", True),
        ("LICENSES/Apache-2.0.txt", True),
        ("LICENSE.py", False),
        ("LICENSE.PY", False),
        ("terms.safetensors", False),
        ("a/b/LICENSE", True),
        ("docs/legal/LICENSE", True),
        ("third_party/licenses/mit/MIT.txt", True),
        ("Community License for Baichuan2 Model.pdf", True),
        ("NVIDIA Open Model License.pdf", True),
        ("EXAONE AI Model License Agreement.txt", True),
        ("LICENSE AGREEMENT", True),
        ("LICENSE (1).txt", True),
        ("Terms of Use.md", True),
        ("Third Party Notices.md", True),
        ("ThirdPartyNotices.txt", True),
        ("ModelLicense.PDF", True),
        ("ACCEPTABLE_USE.md", True),
        ("LICENSE-2.0", True),
        ("a/b/c/d/e/f/g/h/i/LICENSE", True),
        ("a/b/c/d/e/f/g/h/i/j/LICENSE", False),
        ("license_plate_detection.py", False),
        ("LicensePlates.txt", False),
        ("license plate.txt", False),
        ("search_terms.txt", False),
        ("terms.jsonl", False),
        ("licenses.csv", False),
        ("LICENSES/figure.png", False),
        ("notices/data.parquet", False),
        (".git/LICENSE", False),
        ("LICENSE .txt/../x", False),
        (" LICENSE", False),
        ("LICENSE ", False),
        ("What happens to a person who does not read the terms that were sent to them by post.txt", False),
        ("../LICENSE", False),
        ("/LICENSE", False),
        ("noticeable.txt", False),
        ("determs", False),
        ("policy.md", False),
        ("config.json", False),
        ("chat_template.jinja", False),
        ("LICENSE_中文.md", True),
        ("LICENSE，NOTICE.txt", True),
        ("许可证.txt", True),
        ("模型使用條款.pdf", True),
        ("ライセンス.txt", True),
        (unicodedata.normalize("NFD", "라이선스.txt"), True),
        ("Лицензия.md", True),
        ("LICENÇA.md", True),
        ("Lizenzvertrag.pdf", True),
        ("Licencia de uso.txt", True),
        ("LICENSE&NOTICE", True),
        ("_LICENSE", True),
        ("COPYRIGHTS", True),
        ("NVIDIA's Licence, v1+.txt", True),
        ("法律/LICENSE", True),
        ("授權.py", False),
        ("日本語.md", False),
        ("licentiate.txt", False),
    ],
)
def test_terms_in_any_case_form_and_place(name: str, legal: bool) -> None:
    assert is_legal(name) is legal


@pytest.mark.parametrize(
    "name",
    [
        "LICENSE:2.txt",
        "LICENSE?.md",
        "LICENSE\\x.md",
        "LICENSE／x.md",  # which becomes a part of a path where forms of a letter are the same
        "LICENSE⁄x.md",
        "LICENSE#1",
        "LICENSE%41",
        "LICENSE [1].txt",
        "LICENSE\u202etxt.md",
        "LICENSE\u200d",
        "LICENSE\u3164",
        "LICENSE\n",
        "LICENSE.",
        "LICENSE ",
        "-LICENSE",
        "aux/LICENSE",
        "COM¹.licence.txt",
        "许可" * 60,
        "a/b/c/d/e/f/g/h/i/j/LICENSE",
    ],
)
def test_terms_whose_names_are_not_passed_on_are_known_as_such(name: str) -> None:
    assert is_lost(name)
    assert not is_legal(name)


@pytest.mark.parametrize("name", ["LICENSE", "许可证.txt", ".git/LICENSE", "../LICENSE", "/LICENSE", "LICENSE:2.py", "config:2.json"])
def test_no_other_name_is(name: str) -> None:
    assert not is_lost(name)


@pytest.mark.parametrize(
    ("name", "read_by"),
    [
        ("config.json", {tokenizes, speaks, predicts, converses}),  # a scaling of positions that upstream corrects is another model
        ("tokenizer.json", {tokenizes, speaks, predicts, converses}),
        ("model.safetensors", {predicts, converses}),
        ("chat_template.jinja", {speaks, converses}),
        ("additional_chat_templates/tool_use.jinja", {speaks, converses}),
        ("generation_config.json", set()),
        ("README.md", set()),
        ("LICENSE", set()),
    ],
)
def test_what_a_file_decides(name: str, read_by: set[Callable[[str], bool]]) -> None:
    """By which it is known what of an earlier revision need not be computed again."""
    assert {by for by in (tokenizes, speaks, predicts, converses) if by(name)} == read_by


def test_shards_are_plain_files_of_the_repo() -> None:
    present = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "config.json"]
    assert shards({"a": present[1], "b": present[0], "c": present[1]}, present, REPO) == (present[0], present[1])


@pytest.mark.parametrize(
    ("weight_map", "said"),
    [
        ({"a": "../../other/model.safetensors"}, "not a plain"),
        ({"a": "/model.safetensors"}, "not a plain"),
        ({"a": "sub/model.safetensors"}, "not a plain"),
        ({"a": ".safetensors"}, "not a plain"),
        ({"a": "pytorch_model.bin"}, "not a plain"),
        ({"a": "model.safetensors\n"}, "not a plain"),
        ({"a": "http://elsewhere/model.safetensors"}, "not a plain"),
        ({"a": 7}, "not a plain"),
        ({"a": "model-00001-of-00001.safetensors"}, "does not hold"),
        ({}, "no `weight_map`"),
        (None, "no `weight_map`"),
        (["model.safetensors"], "no `weight_map`"),
    ],
)
def test_indexes_that_are_refused(weight_map: object, said: str) -> None:
    with pytest.raises(UpstreamError, match=said):
        shards(weight_map, ["config.json"], REPO)
