"""The first look at all pictures: how many are in memory at a time."""

import os
import signal
import threading
import time
from dataclasses import dataclass
from functools import partial

from PIL import Image

from srgpt.params import EngineParams
from srgpt.records import Rejected
from srgpt.sources.pictures import UnusableError
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


def look(number: int) -> tuple[str, partial[Image.Image]]:
    """Number 3 crashes whoever looks at it, number 4 is broken, 5 looks like 2."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 4:
        raise UnusableError("unreadable-image", "4: broken")
    return f"sha{number}", partial(paint, 2 if number == 5 else number)


def paint(number: int) -> Image.Image:
    picture = Image.new("L", (64, 64))
    for k in range(6):
        if number >> k & 1 or k == 5:
            picture.paste(200, (8 * k, 5 * k, 8 * k + 20, 5 * k + 30))
    return picture


def test_a_picture_that_crashes_its_decoder_is_set_aside() -> None:
    candidates = [(Item(str(i)), partial(look, i)) for i in range(8)]
    found = survey(
        [*candidates, Rejected("8", "missing-image", "")],
        max_distance=0, total=9, description="look", engine=EngineParams(workers=2),
    )  # fmt: skip
    reasons = {r.id: r.reason for r in found.items if isinstance(r, Rejected)}
    assert reasons == {
        "3": "kills-worker", "4": "unreadable-image", "5": "duplicate", "8": "missing-image",
    }  # fmt: skip
    assert [getattr(i, "scene_id", None) or i.id for i in found.items] == [str(i) for i in range(9)]


def test_processes_see_what_threads_see() -> None:
    candidates = [(Item(str(i)), partial(look, i)) for i in (*range(3), *range(4, 40))]
    found = [
        survey(candidates, max_distance=0, total=39, description="look", engine=engine)
        for engine in (None, EngineParams(workers=1), EngineParams(workers=2))
    ]
    assert found[0] == found[1] == found[2]
    assert found[0].sha256


def test_nothing_to_look_at() -> None:
    assert survey([], max_distance=4, total=0, description="look", engine=EngineParams(workers=2)).items == []
