import pytest

from publishers.sections import merge, section, split

OWNED = {"license", "tags"}


def card(*, size: str = "2 MB", tail: str = "from here") -> str:
    return f"---\nlicense: mit\ntags:\n- sluice\n---\n\n{section('about', '# Model')}\n{section('files', f'| Q4 | {size} |')}\n{section('source', tail)}"


def merged(new: str, old: str, base: str | None = None) -> str:
    found = merge(new, old, owned=OWNED, base=base)
    assert found.damage is None
    assert merge(new, found.text, owned=OWNED, base=base).text == found.text, "once more changes nothing"
    return found.text


@pytest.mark.parametrize(
    ("text", "front", "body"),
    [
        ("", "", ""),
        ("# Model\n", "", "# Model\n"),
        ("---\nlicense: mit\n---\n\n# Model\n", "license: mit\n", "# Model\n"),
        ("---\r\nlicense: mit\r\n---\r\n# Model\r\n", "license: mit\n", "# Model\n"),
        ("\ufeff\n---  \nlicense: mit\n---\t\nx", "license: mit\n", "x"),
        ("\ufeff# Model", "", "# Model"),
        ("---\n---\n\nHello.\n\n---\nmore\n", "", "Hello.\n\n---\nmore\n"),
        ("---\nlicense: mit\n---", "license: mit\n", ""),
        ("---\nMy text below a rule\n", "", "---\nMy text below a rule\n"),
        ("--- My thesis\n\nWhole text\n---\n", "", "--- My thesis\n\nWhole text\n---\n"),
        ("----\na: b\n---\n", "", "----\na: b\n---\n"),
    ],
)
def test_front_matter_stands_between_two_fences(text: str, front: str, body: str) -> None:
    assert split(text) == (front, body)


def test_a_byte_order_mark_or_an_empty_line_hides_no_front_matter() -> None:
    for before in ("\ufeff", "\n\n"):
        assert merged(card(size="3 MB"), before + card()) == card(size="3 MB")


def test_an_untouched_card_is_replaced_whole() -> None:
    assert merged(card(size="3 MB"), card()) == card(size="3 MB")


def test_what_people_wrote_stays_where_it_stands() -> None:
    old = card()
    old = old.replace("<!-- sluice:begin about", "Our banner.\n\n<!-- sluice:begin about")
    old = old.replace("<!-- sluice:begin files", "We use it for *poems*.\n\n- and songs\n\n<!-- sluice:begin files") + "\n## Thanks\n\nTo Ada.\n"
    text = merged(card(size="3 MB"), old)
    assert text == old.replace("2 MB", "3 MB")


def test_what_people_wrote_into_a_section_does_not_stay() -> None:
    assert merged(card(), card().replace("| Q4 | 2 MB |", "| Q4 | 1 kB, honestly |")) == card()


def test_line_endings_of_a_web_page_are_no_damage() -> None:
    assert merged(card(size="3 MB"), (card() + "\nMine.\n").replace("\n", "\r\n")) == card(size="3 MB") + "\nMine.\n"


def test_text_after_a_section_that_is_no_more_follows_the_one_before() -> None:
    old = card().replace("<!-- sluice:begin source", "About the files.\n\n<!-- sluice:begin source")
    new = card().replace(section("files", "| Q4 | 2 MB |") + "\n", "")
    assert merged(new, old).index("About the files.") > merged(new, old).index("end about")


def test_other_keys_of_the_front_matter_stay() -> None:
    old = card().replace("license: mit", "license: beer\nthumbnail: https://acme.example/x.png\nextra: {a: [1, 2]}")
    text = merged(card(), old)
    assert "license: mit\n" in text
    assert "beer" not in text
    assert "thumbnail: https://acme.example/x.png\nextra:\n  a:\n  - 1\n  - 2\n---\n" in text


@pytest.mark.parametrize("front", ["- a list\n", "a: [\n", "5: x\n", "just words\n", ""])
def test_front_matter_that_holds_no_keys_is_left(front: str) -> None:
    assert merged(card(), f"---\n{front}---\n\n" + card().partition("---\n\n")[2]) == card()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (("<!-- sluice:end files -->\n", ""), "source begins within files"),
        (("<!-- sluice:begin files -->\n", ""), "files ends and did not begin"),
        (("<!-- sluice:end source -->\n", ""), "source has no end"),
        (("sluice:begin files -->", "sluice:begin about -->"), "there are two sections about"),
        (("sluice:end files", "sluice:end fils"), "fils ends and did not begin"),
    ],
)
def test_damaged_markers_are_told_and_people_s_text_is_kept(damage: tuple[str, str], said: str) -> None:
    old = card().replace("<!-- sluice:begin files", "We use it for poems.\n\n<!-- sluice:begin files").replace(*damage) + "\nTo Ada.\n"
    found = merge(card(size="3 MB"), old, owned=OWNED, base=card())
    assert found.damage == f"The markers of Sluice's sections in README.md were damaged: {said}."
    assert found.text.startswith(card(size="3 MB").rstrip("\n"))
    kept = found.text.removeprefix(card(size="3 MB").rstrip("\n"))
    assert "We use it for poems." in kept
    assert "To Ada." in kept
    assert "2 MB" not in kept, "an old figure of ours is no text of theirs"
    again = merge(card(size="4 MB"), found.text, owned=OWNED)
    assert (again.damage, again.text) == (None, found.text.replace("3 MB", "4 MB"))


def test_without_any_marker_only_what_was_not_published_is_theirs() -> None:
    plain = "---\nlicense: mit\n---\n\n# Model\n\nOld figures: 5\n"
    found = merge(card(), plain + "\nMine.\n", owned=OWNED, base=plain)
    assert found.damage == "README.md has no markers of Sluice's sections."
    assert "Mine." in found.text
    assert "Old figures" not in found.text
    assert merge(card(), plain, owned=OWNED, base=plain).text == card()
    assert "Old figures" in merge(card(), plain, owned=OWNED).text, "unless nobody knows whose it is"


def test_what_they_had_written_before_survives_the_loss_of_markers() -> None:
    published = card() + "\nTo Ada.\n"
    found = merge(card(), published.replace("<!-- sluice:end files -->\n", ""), owned=OWNED, base=published)
    assert "To Ada." in found.text


def test_a_stub_of_the_hub_is_no_damage() -> None:
    assert merged(card(), "---\nlicense: mit\n---\n") == card()
    assert merged(card(), "") == card()


def test_a_section_cannot_hold_a_marker() -> None:
    with pytest.raises(ValueError, match="holds a marker"):
        section("use", "x\n<!-- sluice:end use -->")
