"""Parameters: precedence, errors that teach, the file that is edited in place."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from srgpt.errors import InputError
from srgpt.params import PROFILES, DatasetParams, Params, check_dataset, load, merge, read_profile, write

FILE = """\
# The file's own comment.
seed: 3  # kept
datasets:
  train:
    ingest: {scenes: 30}  # few
  bench:
    ask: {truth: cuboids}
ingest:
  # how many
  scenes: 40
  source: 'procedural'
train: {steps: 5}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(FILE)
    return path


def failing(text: str, tmp_path: Path) -> str:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load(path)
    return str(caught.value)


def failing_set(*overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load(None, overrides=overrides, cwd=Path("/nonexistent"))
    return str(caught.value)


# The committed file -----------------------------------------------------------------------------------------


def test_committed_file_is_the_demo_profile_spelled_out(root: Path) -> None:
    written = yaml.safe_load((root / "params.yaml").read_text())
    expected = load(None, "demo", cwd=Path("/nonexistent")).dump()
    assert written == expected


@pytest.mark.parametrize(("first", "second"), itertools.permutations(PROFILES, 2))
def test_a_profile_leaves_nothing_of_another(first: str, second: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(load(None, first, cwd=Path("/nonexistent")).dump()))
    assert load(path, second).dump() == load(None, second, cwd=Path("/nonexistent")).dump()


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_valid_for_every_dataset(profile: str) -> None:
    params = load(None, profile, cwd=Path("/nonexistent"))
    assert params.profile == profile
    for name in params.datasets:
        params.for_dataset(name)


def test_dvc_finds_every_section_of_every_dataset(root: Path) -> None:
    datasets = yaml.safe_load((root / "params.yaml").read_text())["datasets"]
    assert {name: set(sections) for name, sections in datasets.items()} == {
        name: set(DatasetParams.model_fields) for name in ("train", "bench")
    }


# Precedence -------------------------------------------------------------------------------------------------


def test_defaults_file_profile_dataset_set(file: Path) -> None:
    assert load(None, cwd=file.parent / "nowhere").ingest.scenes == Params().ingest.scenes
    assert load(file).ingest.scenes == 40
    assert load(file).train.steps == 5
    assert load(file, "gpu").train.steps == read_profile("gpu")["train"]["steps"] != 5
    assert load(file).for_dataset("train").ingest.scenes == 30
    assert load(file).for_dataset("bench").ask.truth == "cuboids"
    assert load(file).for_dataset("elsewhere").ingest.scenes == 40
    chosen = load(file, "gpu", ["ingest.scenes=20", "train.steps=6"])
    assert chosen.train.steps == 6
    assert chosen.for_dataset("train").ingest.scenes == 20
    assert chosen.for_dataset("train").for_dataset("bench").ingest.scenes == 20


def test_set_for_one_dataset_wins_over_set_for_all() -> None:
    params = load(None, None, ["datasets.bench.ingest.scenes=2", "ingest.scenes=9"])
    assert params.for_dataset("bench").ingest.scenes == 2
    assert params.for_dataset("train").ingest.scenes == 9


def test_later_set_wins() -> None:
    assert load(None, None, ["seed=1", "seed=2"]).seed == 2


def test_default_file_is_that_of_the_folder(file: Path) -> None:
    assert load(cwd=file.parent).seed == 3
    assert load(cwd=file.parent / "nowhere").seed == Params().seed


def test_loaded_parameters_do_not_change() -> None:
    with pytest.raises(Exception, match="frozen"):
        load(None).train.steps = 3  # type: ignore[misc]


def test_dump_is_what_load_reads(tmp_path: Path) -> None:
    params = load(None, "full")
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(params.dump()))
    assert load(path).dump() == params.dump()


@pytest.mark.parametrize(
    ("text", "value"),
    [("train.learning_rate=1e-3", 0.001), ("train.learning_rate=2", 2.0), ("train.learning_rate=.5", 0.5)],
)
def test_numbers_on_the_command_line(text: str, value: float) -> None:
    assert load(None, None, [text]).train.learning_rate == value


def test_strings_lists_and_null_on_the_command_line() -> None:
    params = load(
        None,
        None,
        [
            "ingest.procedural.families=[room, street]",
            "train.model.vision.pretrained=a/b=c",
            "tracking.uri='x'",
        ],
    )
    assert params.ingest.procedural.families == ["room", "street"]
    assert params.train.model.vision.pretrained == "a/b=c"
    assert params.tracking.uri == "x"
    assert load(None, None, ["train.model.vision.pretrained=null"]).train.model.vision.pretrained is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'123'", "123"),
        ('"1e5"', "1e5"),
        ("nan", "nan"),
        ("1_0.e", "1_0.e"),
        ("a 1e5", "a 1e5"),
        ("it's", "it's"),
    ],
)
def test_text_that_looks_like_a_number_stays_text(text: str, value: str) -> None:
    assert load(None, None, [f"tracking.experiment={text}"]).tracking.experiment == value


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "-x", "a b", "x\n", ".work"])
def test_a_dataset_needs_a_plain_name(name: str) -> None:
    with pytest.raises(InputError, match="cannot name a dataset"):
        check_dataset(name)
    assert check_dataset("bench-2.b_1") == "bench-2.b_1"


def test_the_source_of_one_dataset_in_one_set(file: Path) -> None:
    override = "datasets.train.ingest={source: omni3d, url: /data/omni3d}"
    write(file, None, [override])
    for params in (load(file), load(None, None, [override], cwd=Path("/nonexistent"))):
        train, bench = params.for_dataset("train").ingest, params.for_dataset("bench").ingest
        assert (train.source, train.url) == ("omni3d", "/data/omni3d")
        assert (bench.source, bench.url) == ("procedural", None)


def test_merge_goes_deep_and_leaves_its_inputs() -> None:
    base: dict[str, Any] = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merge(base, {"a": {"b": 5}, "e": {"f": 1}}) == {"a": {"b": 5, "c": 2}, "d": 3, "e": {"f": 1}}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}
    assert merge(base, {"a": 1})["a"] == 1


# Errors -----------------------------------------------------------------------------------------------------


def test_unknown_key_suggests(tmp_path: Path) -> None:
    message = failing("train: {stepz: 5}", tmp_path)
    assert "p.yaml: 1 wrong parameter(s)" in message
    assert "train.stepz = 5: unknown key. Did you mean 'steps'? Allowed: mixture, trainable, lora," in message


def test_unknown_section(tmp_path: Path) -> None:
    message = failing("validat: {min_rows: 5}", tmp_path)
    assert "validat = {'min_rows': 5}: unknown key. Did you mean 'validate'?" in message


def test_unknown_nested_key(tmp_path: Path) -> None:
    message = failing("train: {model: {vision: {layer: 5}}}", tmp_path)
    assert "train.model.vision.layer = 5: unknown key. Did you mean 'layers'?" in message


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.steps=many", "train.steps = 'many': input should be a valid integer"),
        ("train.steps=0", "train.steps = 0: input should be greater than or equal to 1 (allowed: >= 1)"),
        ("train.steps=1.5", "train.steps = 1.5: input should be a valid integer"),
        ("train.zero_stage=4", "train.zero_stage = 4: input should be less than or equal to 3 (allowed: >="),
        ("ask.tie_margin=1.5", "ask.tie_margin = 1.5: input should be less than or equal to 1 (allowed: >="),
        ("ask.truth=guessed", "ask.truth = 'guessed': input should be 'cuboids' or 'perceived'"),
        ("train.learning_rate=.nan", "train.learning_rate = nan: "),
        ("train.learning_rate=.inf", "train.learning_rate = inf: "),
        ("train.learning_rate=-1", "train.learning_rate = -1: input should be greater than 0 (allowed: > 0)"),
        ("ingest.procedural.families=[room, moon]", "ingest.procedural.families.1 = 'moon': input should be 'r"),
        ("validate.yes_share=[0.4, 2]", "validate.yes_share.1 = 2: input should be less than or equal to 1"),
        ("serve.grpc_port=70000", "serve.grpc_port = 70000: input should be less than or equal to 65535"),
        ("profile=huge", "profile = 'huge': input should be 'demo', 'cpu-long', 'gpu' or"),
        ("seed=-1", "seed = -1: input should be greater than or equal to 0"),
        ("train=5", "train = 5: input should be a valid dictionary"),
        ("datasets.train.ingest.scenes=0", "datasets.train: 1 wrong parameter(s)\n  ingest.scenes = 0: "),
        ("datasets.train.train.steps=5", "datasets.train.train = {'steps': 5}: unknown key. Allowed: ing"),
        ("datasets.Bad Name.ask.turns=1", "should match pattern"),
        ("train.dataset=nowhere", "train.dataset = 'nowhere': no such dataset; allowed: bench, train"),
        ("ingest.procedural.min_objects=9", "min_objects (9) must not exceed max_objects (8)"),
    ],
)  # fmt: skip
def test_wrong_values_name_key_value_and_what_is_allowed(override: str, expected: str) -> None:
    assert expected in failing_set(override)


def test_every_wrong_key_is_named_at_once(tmp_path: Path) -> None:
    message = failing("train: {steps: 0, zero_stage: 9}\nask: {turnz: 3}", tmp_path)
    assert "3 wrong parameter(s)" in message
    assert all(key in message for key in ("train.steps", "train.zero_stage", "ask.turnz"))


@pytest.mark.parametrize("override", ["train.steps", "=5", "train.=5", ".steps=5", "train..steps=5", ""])
def test_malformed_set(override: str) -> None:
    assert "expected section.key=value, for example train.steps=200" in failing_set(override)


def test_set_with_broken_yaml() -> None:
    assert "--set ask.truth=[a: the value is not YAML" in failing_set("ask.truth=[a")


def test_unknown_profile() -> None:
    with pytest.raises(
        InputError, match="--profile tiny: no such profile; allowed: demo, cpu-long, gpu, full"
    ):
        load(None, "tiny")


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--params .*none\.yaml: no such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match=r"cannot be read|not YAML"):
        load(tmp_path / "binary.yaml")
    assert "not YAML" in failing("train: [", tmp_path)
    assert "expected sections (a mapping), found list" in failing("- train", tmp_path)
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load(tmp_path / "empty.yaml").dump() == Params().dump()


KEYS = st.sampled_from(["train", "ask", "datasets", "steps", "seed", "validate", "x", "", "ingest", "model"])
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(TREES)
@settings(max_examples=150, deadline=None)
def test_any_yaml_is_loaded_or_refused(tmp_path_factory: pytest.TempPathFactory, tree: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_text(yaml.safe_dump(tree))
    with contextlib.suppress(InputError):
        load(path)


@given(st.text(max_size=30))
@settings(max_examples=150, deadline=None)
def test_any_set_is_applied_or_refused_with_an_input_error(text: str) -> None:
    with contextlib.suppress(InputError):
        load(None, None, [text], cwd=Path("/nonexistent"))


# Editing the file -------------------------------------------------------------------------------------------


def test_write_keeps_comments_order_and_quotes(file: Path) -> None:
    write(file, None, ["seed=11", "train.steps=9"])
    text = file.read_text()
    assert text == FILE.replace("seed: 3 ", "seed: 11").replace("steps: 5", "steps: 9")


def test_write_changes_nothing_when_nothing_changes(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "params.yaml"
    copy.write_text((root / "params.yaml").read_text())
    write(copy, "demo")
    assert copy.read_text() == (root / "params.yaml").read_text()


@pytest.mark.parametrize("overrides", [["train.steps=0"], ["train.stepz=1"], ["nonsense"]])
def test_a_wrong_value_leaves_the_file_alone(file: Path, overrides: list[str]) -> None:
    with pytest.raises(InputError):
        write(file, None, overrides)
    assert file.read_text() == FILE
    assert [p.name for p in file.parent.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize(
    ("profile", "overrides"),
    [
        ("gpu", []),
        (None, ["ingest.scenes=7"]),
        ("full", ["ingest.scenes=7", "ask.truth=cuboids"]),
        (None, ["datasets.bench.ingest.scenes=2", "ingest.scenes=9"]),
        ("demo", ["datasets.extra.ask.turns=3"]),
        (None, ["ingest.procedural.min_objects=4", "train.model.vision.pretrained=null"]),
    ],
)
def test_what_is_written_is_what_the_command_line_would_use(
    file: Path, profile: str | None, overrides: list[str]
) -> None:
    wanted = load(file, profile, overrides)
    write(file, profile, overrides)
    found = load(file)
    for name in wanted.datasets:
        expected = {k: v for k, v in wanted.for_dataset(name).dump().items() if k != "datasets"}
        assert {k: v for k, v in found.for_dataset(name).dump().items() if k != "datasets"} == expected


def test_write_to_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("")
    write(path, None, ["seed=5"])
    assert load(path).seed == 5


def test_write_needs_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        write(tmp_path / "params.yaml", "demo")
