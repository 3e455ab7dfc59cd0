"""Duplicates: the index finds exactly what comparing every pair finds, and the hash sees what a person sees."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from srgpt.sources.duplicates import DuplicateIndex, perceptual_hash


def by_comparing_all(hashes, distance):
    kept = []
    found = []
    for name, value in enumerate(hashes):
        twins = [k for k in kept if (hashes[k] ^ value).bit_count() <= distance]
        found.append(str(twins[0]) if twins else None)
        if not twins:
            kept.append(name)
    return found


def by_index(hashes, distance):
    index = DuplicateIndex(distance)
    return [index.add(str(name), value) for name, value in enumerate(hashes)]


@given(
    st.integers(0, 8),
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 63), max_size=10)), max_size=30),
)
def test_the_index_misses_none_and_invents_none(distance, centres, flips):
    hashes = list(centres)
    for which, bits in flips:
        value = centres[which % len(centres)]
        for bit in bits:
            value ^= 1 << bit
        hashes.append(value)
    assert by_index(hashes, distance) == by_comparing_all(hashes, distance)


def test_many_hashes_cost_few_comparisons():
    rng = random.Random(0)
    hashes = [rng.getrandbits(64) for _ in range(20_000)]
    index = DuplicateIndex(4)
    assert all(index.add(str(i), value) is None for i, value in enumerate(hashes))
    largest = max(len(bucket.hashes) for _, band in index._bands for bucket in band.values())
    assert largest < 20, "a bucket of 13 bits holds 2.4 of 20,000 on average"
    assert index.add("twin", hashes[777] ^ 0b1011) == "777"


@pytest.mark.parametrize("seed", range(5))
def test_the_hash_sees_what_a_person_sees(seed):
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
    image = small.resize((320, 240), Image.Resampling.BICUBIC)
    other = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize((320, 240))

    def distance(changed):
        return (perceptual_hash(image) ^ perceptual_hash(changed)).bit_count()

    assert distance(image.resize((100, 75))) <= 4
    assert distance(ImageEnhance.Brightness(image).enhance(0.9)) <= 4
    assert distance(other) > 12
    assert distance(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) > 12
