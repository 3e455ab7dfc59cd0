"""Pages of answers: what is asked, what is shown, and that asking changes nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from srgpt.dataset.reading import ConversationDataset
from srgpt.storage import scenes_of
from srgpt.training.samples import answers, choose, write_page
from tests.model.tiny import make_tiny
from tests.training.data import write_dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, ConversationDataset]:
    source = write_dataset(tmp_path_factory.mktemp("data"))
    model, processor = make_tiny()
    return model, processor, ConversationDataset(source, scenes_of(source), processor)


def test_the_same_questions_are_asked_always(made: tuple[Any, Any, ConversationDataset]) -> None:
    one, two = choose(made[2], 4), choose(made[2], 4)
    names = [(s.sample.conversation.conversation_id, s.turn) for s in one]
    assert names == [(s.sample.conversation.conversation_id, s.turn) for s in two]
    assert len(set(names)) == 4
    assert {turn for _, turn in names} == {0, 1}
    assert len(choose(made[2], 1000)) == len(made[2])


def test_asking_leaves_the_model_as_it_was(made: tuple[Any, Any, ConversationDataset]) -> None:
    model, processor, dataset = made
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    given = answers(model, processor, choose(dataset, 3))
    assert len(given) == 3
    assert given == answers(model, processor, choose(dataset, 3))
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_a_page_shows_pictures_and_answers_as_text(
    tmp_path: Path, made: tuple[Any, Any, ConversationDataset]
) -> None:
    shown = choose(made[2], 2)
    page = write_page(tmp_path / "samples", 12, shown, ["<b>left</b>", "2 meters"])
    assert page.name == "step-000012.html"
    text = page.read_text()
    assert [p.name for p in page.parent.iterdir()] == [page.name]
    assert len(re.findall(r'<img src="data:image/jpeg;base64,', text)) == 2
    assert "&lt;b&gt;left&lt;/b&gt;" in text
    assert "<b>left" not in text
    for each in shown:
        assert each.sample.conversation.turns[each.turn].answer in text
    assert "http" not in text
