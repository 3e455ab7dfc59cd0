"""Words: whole words, nouns, and the reference's list as data."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgpt.perception.words import chosen, ends_in, keep_tags, noun, word_lists, words_of

REMOVED = word_lists()["tagging"]["removed"]


@pytest.mark.parametrize(
    "tag",
    [
        "seat", "sunglasses", "whiteboard", "wallet", "player", "display", "sidewalk", "nightstand", "underwear",
        "mushroom", "shredder", "lampshade", "office chair", "red car", "wall clock", "floor lamp", "kitchen knife",
    ],
)  # fmt: skip
def test_good_classes_stay_that_the_reference_drops_for_a_substring(tag):
    assert any(word in tag for word in REMOVED), "the reference would drop it"
    assert keep_tags([tag], REMOVED, 10) == (tag,)


@pytest.mark.parametrize("tag", ["sky", "Blue sky", "living room", "the wall", "a floor", "red", "wall lamp"])
def test_places_backgrounds_and_colours_go(tag):
    assert keep_tags([tag], REMOVED, 10) == ()


def test_the_lists_are_what_the_reference_has():
    assert len(set(REMOVED)) == len(REMOVED) == 48 + 3
    assert {"wall", "floor", "ceiling", "wall lamp", "sing"} <= set(REMOVED)


@pytest.mark.parametrize(
    ("phrase", "name"),
    [
        ("A man in a red shirt.", "man"),
        ("two cups", "cups"),
        ("glass of water", "glass"),
        ("The", ""),
        ("  ", ""),
        ("in the sky", ""),
        ("traffic light", "traffic light"),
        ("child's bicycle", "child's bicycle"),
    ],
)
def test_a_phrase_is_reduced_to_its_noun(phrase, name):
    assert noun(phrase) == name


def test_tags_are_distinct_in_order_and_limited():
    assert keep_tags(["Cup", "a cup", "sky", "table", "lamp"], REMOVED, 2) == ("cup", "table")


@pytest.mark.parametrize(
    ("tag", "word"),
    [
        ("buildings", "building"), ("two rooms", "room"), ("white clouds", "cloud"), ("walls", "wall"),
        ("floors", "floor"), ("shadows", "shadow"), ("cities", "city"), ("skies", "sky"), ("wall lamps", "wall lamp"),
        ("parking lots", "parking lot"), ("boxes", "box"), ("buses", "bus"), ("stairs", "stairs"), ("stair", "stairs"),
    ],
)  # fmt: skip
def test_a_plural_is_about_the_same_noun(tag, word):
    assert ends_in(tag, [word])


@pytest.mark.parametrize(
    ("tag", "word"), [("glass", "glas"), ("walls", "wal"), ("grass", "gras"), ("bus", "bu")]
)
def test_a_word_that_only_ends_like_a_plural_stays(tag, word):
    assert not ends_in(tag, [word])


def test_plurals_of_removed_words_are_no_tags():
    plurals = ["buildings", "rooms", "walls", "floors", "shadows", "cups"]
    assert keep_tags(plurals, REMOVED, 9) == ("cups",)


def test_a_setting_replaces_a_list():
    assert chosen(("sand",), "calibration", "ground") == ("sand",)
    assert chosen((), "tagging", "removed") == ()
    assert "floor" in chosen(None, "calibration", "ground")


@given(st.text(max_size=60))
def test_any_text_gives_clean_nouns(text):
    name = noun(text)
    assert name == name.strip().lower()
    assert noun(name) == name, "a noun is its own noun"
    assert ends_in(name, [name]) == bool(words_of(name))
