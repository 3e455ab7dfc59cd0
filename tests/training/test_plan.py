"""The plan of a training: which tables each stage reads, and what DVC must be told."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import yaml

from srgpt.errors import InputError
from srgpt.params import build, load
from srgpt.training.plan import data_of, epoch_rows, plan, table_of, warn_of_undeclared
from tests.training.data import tiny_params, write_dataset


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with two datasets: one of its own, and an imported one."""
    folder = tmp_path_factory.mktemp("project")
    write_dataset(folder / "data" / "imported" / "captions", shards=1, scenes=3)
    own = Path(write_dataset(folder / "data" / "conversations", shards=1, scenes=2))
    own.rename(own.with_name("train"))
    return folder


@pytest.fixture(autouse=True)
def inside(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tables)


STAGES = [
    {"name": "align", "mixture": [{"dataset": "captions"}], "trainable": ["mm_projector"]},
    {
        "name": "instruct",
        "mixture": [{"dataset": "train", "weight": 2}, {"dataset": "captions", "weight": 0.5}],
    },
]


def test_the_only_stage_may_say_what_is_the_default_anyway(tmp_path: Path) -> None:
    own = {"rates": {}, "muon": [], "learning_rate": 1e-3}
    train = {"rates": {"llm": 2.0}, "muon": ["llm.model.layers"], "stages": [{"name": "tune", **own}]}
    found = tiny_params(tmp_path, **train).train.at(0)
    assert {key: getattr(found, key) for key in own} == own


def test_names_are_found_among_ones_own_tables_then_imported_ones(tables: Path) -> None:
    assert table_of("train") == "data/conversations/train"
    assert table_of("captions") == "data/imported/captions/conversations"
    assert table_of("s3://bucket/talks") == "s3://bucket/talks"
    with pytest.raises(InputError, match=r"no dataset 'osd': neither .* `srgpt import --dataset`"):
        table_of("osd")


def test_a_stage_reads_its_mixture_or_the_source(tmp_path: Path) -> None:
    first, second = plan(tiny_params(tmp_path, stages=STAGES), "data/conversations/train")
    assert [(s.url, s.weight) for s in first.sources] == [("data/imported/captions/conversations", 1.0)]
    assert [(s.url, s.weight) for s in second.sources] == [
        ("data/conversations/train", 2.0),
        ("data/imported/captions/conversations", 0.5),
    ]
    assert Path(second.sources[0].scenes).name == "perceived"
    assert epoch_rows(second.sources) == 2 * 2 + round(0.5 * 3)
    assert first.folder(Path("work")).as_posix() == "work/1-align"
    assert (first.params.trainable, second.params.trainable[0]) == (["mm_projector"], "vision_tower")
    (only,) = plan(tiny_params(tmp_path), "data/conversations/train")
    assert [(s.url, s.weight) for s in only.sources] == [("data/conversations/train", 1.0)]


def test_tables_of_one_name_are_told_apart_in_the_lineage(tmp_path: Path) -> None:
    found = data_of(plan(tiny_params(tmp_path, stages=STAGES), "data/conversations/train"))
    assert set(found) == {"data/conversations/train", "train"}
    assert len(set(found.values())) == 2


@pytest.mark.parametrize("declared", [False, True])
def test_what_dvc_does_not_know_of_is_named(
    tmp_path: Path, declared: bool, caplog: pytest.LogCaptureFixture
) -> None:
    params = tiny_params(tmp_path, stages=STAGES)
    stages = plan(params, "data/conversations/train")
    deps = ["data/conversations/${train.dataset}", "srgpt/training"]
    deps += ["data/imported/captions"] if declared else []
    path = tmp_path / "dvc.yaml"
    path.write_text(yaml.safe_dump({"stages": {"train": {"deps": deps}}}))
    with caplog.at_level(logging.WARNING):
        found = warn_of_undeclared(params, stages, path, "data/conversations/train")
    tables = ["data/imported/captions/conversations", "data/imported/captions/perceived"]
    assert found == ([] if declared else tables)
    assert ("will not train again when they change" in caplog.text) == (not declared)


@pytest.mark.parametrize("text", ["", "stages: {}", "[", "stages: {train: {deps: 3}}"])
def test_a_dvc_file_of_any_kind_is_no_reason_to_fail(tmp_path: Path, text: str) -> None:
    (tmp_path / "dvc.yaml").write_text(text)
    params = tiny_params(tmp_path)
    warn_of_undeclared(params, plan(params, "data/conversations/train"), tmp_path / "dvc.yaml", "")
    assert warn_of_undeclared(params, [], tmp_path / "none.yaml", "") == []


def test_the_committed_pipeline_declares_what_the_committed_parameters_train_on(root: Path) -> None:
    """Also a guard for who adds a mixture to params.yaml and forgets dvc.yaml."""
    params = load(root / "params.yaml")
    deps = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]["train"]["deps"]
    deps = [d.replace("${train.dataset}", params.train.dataset) for d in deps]
    for number in range(len(params.train.stages)):
        names = [item.dataset for item in params.train.at(number).mixture or []] or [params.train.dataset]
        for name in names:
            assert {f"data/conversations/{name}", f"data/imported/{name}/conversations"} & set(deps), name


# Parameters of stages ---------------------------------------------------------------------------------------


def test_a_stage_takes_from_train_what_it_does_not_say() -> None:
    train = build({"train": {"learning_rate": 0.5, "zero_stage": 2, "steps": 7, "depth_init": "rgb", "stages": [
        {"name": "one", "learning_rate": 0.1}, {"name": "two", "epochs": 3}, {"name": "three", "steps": 5},
    ]}}).train  # fmt: skip
    one, two, three = (train.at(k) for k in range(3))
    assert (one.learning_rate, one.zero_stage, one.steps, one.epochs) == (0.1, 2, 7, None)
    assert (two.learning_rate, two.epochs) == (0.5, 3)
    assert (three.steps, three.epochs) == (5, None)
    assert [s.depth_init for s in (one, two, three)] == ["rgb", "keep", "keep"]
    assert [s.stages[0].name for s in (one, two, three)] == ["one", "two", "three"]
    assert train.at(1).at(0) == train.at(1)


def test_a_stage_is_written_with_what_it_says_alone() -> None:
    params = build({"train": {"stages": [{"name": "one", "steps": 3}]}})
    assert params.dump()["train"]["stages"] == [{"name": "one", "steps": 3}]
    assert build(params.dump()) == params


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([{"name": "a", "zero_stage": 7}], r"train\.stages\.0\.zero_stage = 7: .*\(allowed: >= 0 and <= 3\)"),
        ([{"name": "a", "stepz": 7}], r"unknown key\. Did you mean 'steps'\?"),
        ([{"name": "a", "steps": 7, "epochs": 1}], "give steps or epochs, not both"),
        ([{"name": "a"}, {"name": "a"}], "names must differ"),
        ([], "at least 1 item"),
        ([{"name": "a/b"}], "should match pattern"),
        ([{"name": "a", "mixture": []}], "at least 1 item"),
        ([{"name": "a", "lora": {"rank": 0}}], r"stages\.0\.lora\.rank = 0"),
        ([{"name": "a", "lora": {"quantize": "nf4"}, "zero_stage": 3}], "needs zero_stage <= 2"),
        ([{"name": "a", "lora": {"quantize": "nf4", "targets": ["mm_projector"]}}], "needs llm among"),
        ([{"name": "a", "lora": {"quantize": "nf4"}}, {"name": "b", "lora": {"quantiz": 1}}], "mean 'quantize'"),
    ],
)  # fmt: skip
def test_wrong_stages_are_refused_by_place(stages: list[dict[str, object]], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        build({"train": {"stages": stages}})


def test_the_full_profile_is_the_reference_s_recipe() -> None:
    train = load(None, "full", cwd=Path("/nonexistent")).train
    align, pretrain, instruct = (train.at(k) for k in range(3))
    assert [s.learning_rate for s in (align, pretrain, instruct)] == [1e-3, 5e-5, 2e-5]
    assert [s.batch_images for s in (align, pretrain, instruct)] == [32, 16, 16]
    assert [s.accumulation for s in (align, pretrain, instruct)] == [1, 1, 2]
    assert [s.zero_stage for s in (align, pretrain, instruct)] == [2, 3, 3]
    assert [set(s.trainable) for s in (align, pretrain, instruct)] == [
        {"mm_projector", "region_extractor"},
        {"mm_projector", "region_extractor", "llm"},
        {"mm_projector", "region_extractor", "llm", "vision_tower"},
    ]
    assert all(
        (s.epochs, s.warmup_share, s.weight_decay) == (1, 0.03, 0) for s in (align, pretrain, instruct)
    )
