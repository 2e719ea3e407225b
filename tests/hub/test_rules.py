"""The pure rules: names, ignore files, cards, merges."""

import pytest

from hub import cards, commits, names
from hub.commits import Add, Delete, lfs_entry, regular_entry
from hub.errors import BadRequest
from hub.gitignore import matcher


@pytest.mark.parametrize(
    ("rule", "path", "expected"),
    [
        ("*.log", "a/b.log", True),
        ("*.log", "a/b.logs", False),
        ("/a.txt", "a.txt", True),
        ("/a.txt", "b/a.txt", False),
        ("build/", "build/x", True),
        ("build/", "a/build/x", True),
        ("build/", "build", False),
        ("a/b", "c/a/b", False),
        ("a/**/b", "a/x/y/b", True),
        ("a/**/b", "a/b", True),
        ("a/**", "a/x", True),
        ("a/**", "a", False),
        ("**/x", "a/b/x", True),
        ("[ab].txt", "b.txt", True),
        ("[!ab].txt", "b.txt", False),
        ("?.txt", "ab.txt", False),
        ("*.log\n!keep.log", "keep.log", False),
        ("logs/\n!logs/keep", "logs/keep", True),
        ("# comment\n\n", "comment", False),
        (r"\#x", "#x", True),
        ("a.c", "abc", False),
    ],
)
def test_ignore_rules_are_gits(rule: str, path: str, expected: bool) -> None:
    assert matcher(rule)(path) is expected


@pytest.mark.parametrize(
    ("front", "part"),
    [
        ("license: beer", '"license"'),
        ("license: [mit, beer]", '"license"'),
        ("base_model: a/b/c", '"base_model"'),
        ("base_model: [../x]", '"base_model"'),
        ("base_model_relation: copied", '"base_model_relation"'),
        ("tags: one", '"tags"'),
        ("language: no", '"language"'),
        ("a: [", "not valid YAML"),
        ("- a\n- b", "mapping"),
        ("1: x", "mapping"),
        ("a: &x [1]\nb: *x", "aliases"),
        ("a: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("a: " + "[" * 5000, "not valid YAML"),
        ("a: " + "x" * 70_000, "does not end within"),
    ],
)
def test_cards_that_the_hub_objects_to(front: str, part: str) -> None:
    (error,) = cards.read(f"---\n{front}\n---\ntext").errors
    assert part in error


def test_cards_that_are_fine() -> None:
    lines = ["license: other", "license_name: mine", "license_link: LICENSE", "base_model: [a/b, c]", "base_model_relation: quantized", "language: [en, 'no']"]
    card = cards.read("\r\n".join(["---", *lines, "---", "text"]))
    assert (card.errors, card.warnings) == ((), ())
    assert cards.tags(card.data) == ["en", "no", "base_model:a/b", "base_model:quantized:a/b", "base_model:c", "base_model:quantized:c", "license:other"]
    assert cards.read("---\nlicense: other\n---\n").warnings
    assert cards.read("no front matter").warnings == ("empty or missing yaml metadata in repo card",)
    assert cards.read("---\ndate: 2024-01-02\nlicense: mit\n---").data["date"] == "2024-01-02"


def test_merging_takes_what_only_one_side_changed() -> None:
    one, two, three = (regular_entry(data, "0" * 64) for data in (b"1", b"2", b"3"))
    base = {"same": one, "mine": one, "theirs": one, "both": one, "gone": one, "alike": one}
    ours = base | {"mine": two, "both": two, "alike": two, "new": one}
    theirs = {**base, "theirs": two, "both": three, "alike": two, "new": two}
    del theirs["gone"]
    merged, conflicts = commits.merge(base, ours, theirs)
    assert conflicts == ["both", "new"]
    assert merged["theirs"] == two
    assert merged["mine"] == two
    assert "gone" not in merged
    assert commits.merge({}, {"a": one}, {"a/b": one})[1] == ["a"]


def test_operations_apply_in_their_order() -> None:
    one, two = regular_entry(b"1", "0" * 64), lfs_entry("1" * 64, 5)
    tree = {"a/x": one, "a/y": one, "ab": one}
    assert commits.apply(tree, [Delete("a", True), Add("a", two)]) == {"a": two, "ab": one}
    assert commits.apply(tree, [Add("a/x", two), Delete("a/x", False)]) == {"a/y": one, "ab": one}
    with pytest.raises(BadRequest):
        commits.apply(tree, [Add("a", one)])


def test_names() -> None:
    for good in ("a", "A.b_c-d", "x" * 96, "_x"):
        assert names.name(good) == good
    for good in ("main", "feature/one", "v1.0", "release@2"):
        assert names.ref(good, "branch") == good
    for bad in ("", "a/", "/a", "a//b", "a..b", "a@{b", "a/.b", "refs/x", "a.lock", "a b", "a~", "x" * 300):
        with pytest.raises(BadRequest):
            names.ref(bad, "branch")
