"""The first look at all pictures: how many are in memory at a time."""

import os
import threading
import time
from dataclasses import dataclass

from PIL import Image

from srgpt.sources.survey import survey


@dataclass(frozen=True)
class Item:
    scene_id: str


def test_at_most_eight_pictures_are_decoded_at_a_time(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    lock = threading.Lock()
    now, most = 0, 0

    def decode():
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.05)
        with lock:
            now -= 1
        return Image.new("RGB", (8, 8))

    candidates = [(Item(str(i)), lambda: ("", decode)) for i in range(40)]
    survey(candidates, max_distance=0, total=40, description="look")
    assert 1 < most <= 8
