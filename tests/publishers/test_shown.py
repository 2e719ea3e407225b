import pytest

from config.words import Measurement
from publishers.shown import excerpts, nats, share, size, tensors


@pytest.mark.parametrize(("count", "words"), [(None, "—"), (999, "999 B"), (1000, "1.00 kB"), (2_345_678, "2.35 MB"), (10**9, "1.00 GB")])
def test_bytes_are_shown_in_decimal_units(count: int | None, words: str) -> None:
    assert size(count) == words


def test_tensors_of_one_role_are_named_together() -> None:
    assert tensors({"attn_q": [0, 1, 2, 5, 7, 8], "attn_v": [3], "output": []}) == ["blk.{0-2,5,7-8}.attn_q", "blk.3.attn_v", "output"]


def test_errors_follow_figures_where_they_are_known() -> None:
    assert nats(Measurement(name="kld.mean", value=0.00767, unit="nats", stderr=0.0002)) == "0.00767 ± 0.00020"
    assert share(Measurement(name="same_top", value=0.981, unit="share")) == "98.10 %"
    assert nats(None) == share(None) == "—"


def test_long_values_are_cut_around_the_place_where_they_part() -> None:
    one, other = excerpts("x" * 500 + "OLD" + "y" * 500, "x" * 500 + "NEW" + "y" * 500, 100)
    assert one == "… " + "x" * 25 + "OLD" + "y" * 72 + " …"
    assert other == one.replace("OLD", "NEW")


def test_of_a_long_value_and_its_continuation_the_continuation_is_shown() -> None:
    one, other = excerpts(["x" * 1000], ["x" * 1000, "MORE"], 100)
    assert one.removeprefix("… ") == "x" * 24 + '"]'
    assert "MORE" in other
    one, other = excerpts(10**999, 10**1009, 100)
    assert (one, other) == ("… " + "0" * 25, "… " + "0" * 35)


def test_short_values_are_whole_and_what_is_not_there_is_called_so() -> None:
    assert excerpts(None, {"b": 1, "a": "ä"}, 100) == ("absent", '{"a": "ä", "b": 1}')
