"""Weights: loaded once, safetensors only, whole or not at all; what is not here is told with its command."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from srgpt.errors import InputError, SrgptError
from srgpt.params import DetectionParams, FilteringParams, MetricDepthParams, PerceiveParams, WeightsParams
from srgpt.perception import inventory as module
from srgpt.perception.depth import load_metric
from srgpt.perception.filtering import load_filter
from srgpt.perception.inventory import UNKNOWN_LICENCE, find_weights, inventory, licence
from srgpt.perception.weights import load, pick_device, source_name
from tests.perception.conftest import folder_copy

TASK = "ZeroShotImageClassification"


def test_a_model_is_loaded_once_per_weights_and_device(checkpoint):
    folder = checkpoint("clip")
    first = load(TASK, FilteringParams(model=folder, min_positive=0.1))
    second = load(TASK, FilteringParams(model=folder, min_positive=0.9), "cpu")
    assert first is second
    assert load(TASK, FilteringParams(model=folder, dtype="bfloat16")) is not first
    assert load_filter(FilteringParams(model=folder)) is load_filter(FilteringParams(model=folder))
    assert not first.model.training


def test_a_cpu_works_in_float32_unless_told(checkpoint):
    loaded = load(TASK, FilteringParams(model=checkpoint("clip")), "cpu", "bfloat16")
    assert (loaded.device.type, loaded.dtype, next(loaded.model.parameters()).dtype) == (
        "cpu",
        torch.float32,
        torch.float32,
    )
    half = load(TASK, FilteringParams(model=checkpoint("clip"), dtype="float16"))
    assert next(half.model.parameters()).dtype == torch.float16


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    with pytest.raises(InputError, match="torch sees no GPU here"):
        pick_device("cuda")


def test_weights_that_are_not_here_are_told_with_the_command_that_fetches_them():
    params = DetectionParams(model="IDEA-Research/grounding-dino-tiny", revision="abc123")
    with pytest.raises(SrgptError) as caught:
        load("ZeroShotObjectDetection", params)
    told = str(caught.value)
    assert "hf download IDEA-Research/grounding-dino-tiny --revision abc123" in told
    assert "HF_HUB_OFFLINE is set" in told
    assert "\n" not in told, "one clear error"
    assert source_name(params) == "IDEA-Research/grounding-dino-tiny@abc123"


@pytest.mark.parametrize("path", ["/no/such/folder", "./models/dino", "~/models/dino", "a/b/c", "plain"])
def test_a_path_that_is_no_folder_is_wrong_input(path):
    with pytest.raises(InputError, match="no such folder, and not a hub id"):
        load(TASK, FilteringParams(model=path))


def test_pickled_weights_are_refused(checkpoint, tmp_path):
    folder = folder_copy(checkpoint("clip"), tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(SrgptError, match=r"no model for ZeroShotImageClassification.*Expected config\.json"):
        load(TASK, FilteringParams(model=str(folder)))
    assert find_weights(FilteringParams(model=str(folder)))[0] is None


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda w: w.pop("visual_projection.weight"), "1 weights are missing.*visual_projection"),
        (
            lambda w: w.update({"visual_projection.weight": w["visual_projection.weight"][:4].clone()}),
            "1 weights are mismatched.*visual_projection",
        ),
    ],
)
def test_weights_that_are_not_whole_would_answer_at_random_and_are_refused(
    damage, words, checkpoint, tmp_path
):
    folder = folder_copy(checkpoint("clip"), tmp_path / "damaged")
    weights = load_file(folder / "model.safetensors")
    damage(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SrgptError, match=words):
        load(TASK, FilteringParams(model=str(folder)))


def test_a_cut_off_file_is_told(checkpoint, tmp_path):
    folder = folder_copy(checkpoint("clip"), tmp_path / "cut")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(SrgptError, match="no model for"):
        load(TASK, FilteringParams(model=str(folder)))


def test_a_model_for_something_else_is_told(checkpoint):
    with pytest.raises(SrgptError, match="no model for DepthEstimation can be loaded"):
        load_metric(MetricDepthParams(model=checkpoint("clip")))


def test_foreign_code_is_never_run(checkpoint, tmp_path):
    folder = folder_copy(checkpoint("clip"), tmp_path / "code")
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "home_made"
    config["auto_map"] = {"AutoConfig": "evil.Config", f"AutoModelFor{TASK}": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\nclass Model: pass\n"
    )
    with pytest.raises(SrgptError):
        load(TASK, FilteringParams(model=str(folder)))
    assert not (tmp_path / "ran").exists()


# What doctor shows ------------------------------------------------------------------------------------------


def hub(root: Path, repo: str, files: dict[str, str], revision: str = "main") -> Path:
    """Lay a repository out as the hub's cache has it."""
    commit = "0" * 40
    base = root / f"models--{repo.replace('/', '--')}"
    snapshot = base / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (base / "refs").mkdir()
    (base / "refs" / revision).write_text(commit)
    for name, text in files.items():
        (snapshot / name).write_text(text)
    return snapshot


CONFIGS = {"config.json": "{}", "preprocessor_config.json": "{}", "tokenizer.json": "{}"}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    root = tmp_path / "hub"
    root.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(root))
    return root


def status(role="detection", **settings):
    return next(s for s in inventory(PerceiveParams(**settings)) if s.role == role)


def test_every_role_is_listed_with_its_switch():
    statuses = inventory(PerceiveParams())
    assert [s.role for s in statuses] == [r.name for r in module._ROLES]
    assert not any(s.used for s in statuses), "the defaults use no model"
    everything = PerceiveParams(
        pictures="model", tags="model", regions="model", masks="model", depth="model", relative_depth="model",
        intrinsics="model",
    )  # fmt: skip
    assert all(s.used for s in inventory(everything))
    assert all(s.licence != UNKNOWN_LICENCE for s in statuses), "defaults have a known licence"


def test_absent_weights_come_with_the_command(cache):
    found = status(regions="model")
    assert (found.used, found.present, found.bytes) == (True, False, 0)
    assert found.fetch == "`hf download IDEA-Research/grounding-dino-tiny`"
    assert found.licence == "apache-2.0"


def test_weights_in_the_hubs_cache_are_found_measured_and_their_card_is_read(cache):
    files = {
        **CONFIGS,
        "model.safetensors": "x" * 1000,
        "README.md": "---\nlicense: bsd-3\n---\nHello",
    }
    hub(cache, "IDEA-Research/grounding-dino-tiny", files)
    found = status()
    assert found.present
    assert found.bytes == sum(map(len, files.values()))
    assert found.licence == "bsd-3"


def test_half_of_the_shards_is_not_whole(cache):
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    files = {
        **CONFIGS,
        "model.safetensors.index.json": json.dumps(index),
        "model-1.safetensors": "x",
    }
    snapshot = hub(cache, "IDEA-Research/grounding-dino-tiny", files)
    assert not status().present
    (snapshot / "model-2.safetensors").write_text("x")
    assert status().present


def test_a_shard_without_the_index_is_half_a_download(cache):
    files = {**CONFIGS, "model-00001-of-00003.safetensors": "x"}
    hub(cache, "IDEA-Research/grounding-dino-tiny", files)
    assert not status().present


@pytest.mark.parametrize("index", ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": 3}'])
def test_an_index_that_names_nothing_is_no_whole_model(index, cache):
    hub(cache, "IDEA-Research/grounding-dino-tiny", {**CONFIGS, "model.safetensors.index.json": index})
    assert not status().present


@pytest.mark.parametrize(
    ("role", "section", "lost", "words"),
    [
        ("detection", "detection", "preprocessor_config.json", "no preprocessor_config.json or"),
        ("detection", "detection", "tokenizer.json", "no tokenizer"),
        ("detection", "detection", "model.safetensors", "no whole weights"),
        ("segmentation", "segmentation", "preprocessor_config.json", "no preprocessor_config.json or"),
        ("segmentation", "segmentation", "tokenizer.json", None),
    ],
)
def test_what_a_role_needs_is_named_where_it_is_lost(role, section, lost, words, tmp_path):
    for name in {*CONFIGS, "model.safetensors"} - {lost}:
        (tmp_path / name).write_text("{}")
    found = status(role, **{section: {"model": str(tmp_path)}})
    assert found.present == (words is None)
    if words:
        assert words in found.fetch


def test_a_vocabulary_of_an_older_form_is_a_tokenizer(tmp_path):
    for name in ("config.json", "processor_config.json", "model.safetensors", "vocab.json", "merges.txt"):
        (tmp_path / name).write_text("{}")
    assert status(detection={"model": str(tmp_path)}).present


def test_every_tiny_checkpoint_is_whole(checkpoint):
    for name in ("clip", "siglip", "florence2", "grounding_dino", "owlv2"):
        assert find_weights(WeightsParams(model=checkpoint(name)), reads_text=True)[1] == ""
    for name in ("sam_hq", "sam2", "depth_pro", "zoedepth", "depth_anything_metric"):
        assert find_weights(WeightsParams(model=checkpoint(name)))[1] == ""


def test_a_pinned_revision_is_another_model(cache):
    files = {**CONFIGS, "model.safetensors": "x"}
    hub(cache, "IDEA-Research/grounding-dino-tiny", files, revision="v1")
    pinned = status(detection={"revision": "v1"})
    assert (pinned.present, pinned.model) == (True, "IDEA-Research/grounding-dino-tiny@v1")
    assert not status().present


def test_a_folder_is_looked_into(checkpoint, tmp_path):
    found = status(detection={"model": checkpoint("grounding_dino")})
    assert found.present
    assert found.licence == UNKNOWN_LICENCE
    assert found.bytes > 1000
    empty = status(detection={"model": str(tmp_path)})
    assert not empty.present
    assert empty.fetch == f"{tmp_path} holds no config.json"
    nowhere = status(detection={"model": str(tmp_path / "nowhere")})
    assert "no such folder" in nowhere.fetch


def test_restricted_licences_are_marked():
    assert licence(WeightsParams(model="apple/DepthPro-hf"), None) == "apple-amlr (research only)"
    assert "not for commercial use" in licence(
        WeightsParams(model="depth-anything/Depth-Anything-V2-Large-hf"), None
    )


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: other\nlicense_name: my-licence\n---\n", "my-licence"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\nlicense: [a, b]\n---\n", "a, b"),
        ("---\nlicense: [a, 1]\n---\n", UNKNOWN_LICENCE),
        ("---\nlicense: mit\ndate: 2020-99-99\n---\n", UNKNOWN_LICENCE),
        ("no front matter\nlicense: mit", UNKNOWN_LICENCE),
        ("---\n: : :\n---", UNKNOWN_LICENCE),
        ("---\n- a\n---\n", UNKNOWN_LICENCE),
        ("---", UNKNOWN_LICENCE),
    ],
)
def test_model_cards_as_people_write_them(card, expected, tmp_path):
    (tmp_path / "README.md").write_text(card)
    assert licence(WeightsParams(model="someone/something"), tmp_path) == expected


@given(text=st.text(max_size=80))
def test_any_card_is_read_or_passed_over(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("card")
    (folder / "README.md").write_text("---\n" + text, encoding="utf-8", errors="replace")
    assert isinstance(licence(WeightsParams(model="someone/something"), folder), str)
