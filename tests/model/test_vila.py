"""Released checkpoints: there and back without a difference, and every damage named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from srgpt.errors import InputError, SrgptError
from srgpt.model.loading import load_model
from srgpt.model.vila import convert
from srgpt.model.vila.importing import plan_import
from srgpt.model.vila.plan import KEPT
from srgpt.model.vila.settings import PARTS
from srgpt.model.vila.weights import INDEX, SINGLE, list_tensors
from tests.model.released import TOKENIZERS, Reference, make_released, read_weights, write_json
from tests.model.tiny import make_tiny_checkpoint
from tests.test_cli import srgpt


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_released(tmp_path_factory.mktemp("pristine") / "released", dtype=torch.bfloat16)


@pytest.fixture
def released(pristine: Path, tmp_path: Path) -> Path:
    """A checkpoint to damage."""
    return Path(shutil.copytree(pristine, tmp_path / "released"))


@pytest.fixture(scope="module")
def imported(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("imported") / "ours"
    convert(str(pristine), str(out))
    return out


def files(folder: Path) -> dict[str, bytes]:
    """Return what lies beside the weights, by path."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.suffix != ".safetensors" and p.name not in (INDEX, "conversion.json")
    }


def assert_same_weights(one: Path, other: Path) -> None:
    for part in PARTS:
        a, b = read_weights(one / part), read_weights(other / part)
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype
            assert torch.equal(a[name], b[name]), name


# There and back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", list(TOKENIZERS))
@pytest.mark.parametrize("shard_bytes", [10**4, 10**9])
def test_there_and_back_is_the_same_folder(family: str, shard_bytes: int, tmp_path: Path) -> None:
    released = make_released(tmp_path / "released", family, torch.bfloat16)
    (released / "LICENSE").write_text("Use it well.")
    (released / "optimizer.pt").write_bytes(b"\x80")
    ours, back = tmp_path / "ours", tmp_path / "back"
    record = convert(str(released), str(ours), shard_bytes=shard_bytes)
    assert record["left_out"] == ["optimizer.pt"]
    assert record["tensors"] == sum(len(read_weights(released / part)) for part in PARTS)
    assert json.loads((ours / "conversion.json").read_text()) == record
    assert (ours / INDEX).exists() == (shard_bytes == 10**4)
    convert(str(ours), str(back), shard_bytes=shard_bytes)
    assert_same_weights(released, back)
    assert files(back) == {k: v for k, v in files(released).items() if k != "optimizer.pt"}


def test_the_result_is_a_model_that_answers(imported: Path) -> None:
    model, processor = load_model(imported, "auto")
    assert model.dtype == torch.bfloat16
    assert model.config.feature_layer == "penultimate"
    rows = model.get_input_embeddings().num_embeddings
    assert processor.image_id == rows == model.config.image_token_id
    assert processor.mask_id == rows - 2
    assert processor.depth_id == rows - 1
    assert processor.depth == "relative"
    assert processor.template.image_tokens == model.config.image_tokens == 196
    lineage = json.loads((imported / "lineage.json").read_text())
    assert (lineage["profile"], lineage["run_id"], lineage["data"]) == ("imported", "", {})


def test_the_exported_language_model_stands_alone(imported: Path, tmp_path: Path) -> None:
    convert(str(imported), str(tmp_path / "back"))
    model, _ = load_model(imported)
    alone = AutoModelForCausalLM.from_pretrained(tmp_path / "back" / "llm", dtype=torch.float32)
    ids = torch.tensor([[1, 20, 30]])
    torch.testing.assert_close(alone(ids).logits, model(input_ids=ids).logits)


@pytest.mark.parametrize("family", list(TOKENIZERS))
@pytest.mark.parametrize("head", [True, False])
def test_a_model_without_kept_files_is_written_anew(family: str, head: bool, tmp_path: Path) -> None:
    """As after training: the folder is that of a checkpoint all the same."""
    released = make_released(tmp_path / "released", family, torch.bfloat16, head=head)
    ours, back, again = (tmp_path / name for name in ("ours", "back", "again"))
    convert(str(released), str(ours))
    shutil.rmtree(ours / KEPT)
    convert(str(ours), str(back))
    assert_same_weights(released, back)
    llm = json.loads((back / "llm" / "config.json").read_text())
    original = json.loads((released / "llm" / "config.json").read_text())
    noise = {"_name_or_path", "transformers_version"}
    assert {k: llm.get(k) for k in original if k not in noise} == {
        k: v for k, v in original.items() if k not in noise
    }
    whole = json.loads((back / "config.json").read_text())
    for part in PARTS:
        assert whole[f"{part}_cfg"] == json.loads((back / part / "config.json").read_text())
    assert whole["model_dtype"] == "torch.bfloat16"
    vision = json.loads((back / "vision_tower" / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(back / "llm")
    theirs = AutoTokenizer.from_pretrained(released / "llm")
    assert tokenizer.get_vocab() == theirs.get_vocab()
    text = "Is <mask> <depth> left of 1.25 meters?"
    assert tokenizer(text)["input_ids"] == theirs(text)["input_ids"]
    assert tokenizer.convert_tokens_to_ids("<mask>") == vision["llm_mask_token_id"]
    merges = json.loads((back / "llm" / "tokenizer.json").read_text())["model"]["merges"]
    assert all(isinstance(merge, str) for merge in merges)
    Reference(back)  # transformers' own classes take every weight
    convert(str(back), str(again))
    one, two = load_model(ours)[1], load_model(again)[1]
    assert vars(one.template) == vars(two.template)
    assert load_file(ours / SINGLE).keys() == load_file(again / SINGLE).keys()


def test_types_stay_what_they_are(released: Path, tmp_path: Path) -> None:
    path = released / "mm_projector" / SINGLE
    weights = load_file(path)
    weights["layers.2.bias"] = weights["layers.2.bias"].float()
    save_file(weights, path)
    convert(str(released), str(tmp_path / "ours"))
    stored = list_tensors(tmp_path / "ours")
    assert stored["mm_projector.layers.2.bias"].dtype == "F32"
    assert stored["mm_projector.layers.2.weight"].dtype == "BF16"


def test_kept_files_of_another_model_are_refused(imported: Path, tmp_path: Path) -> None:
    ours = Path(shutil.copytree(imported, tmp_path / "ours"))
    path = ours / KEPT / "llm" / "config.json"
    write_json(path, {**json.loads(path.read_text()), "rope_theta": 10000.0})
    with pytest.raises(InputError, match="no longer describe it"):
        convert(str(ours), str(tmp_path / "back"))


def test_a_conversion_replaces_its_own_result_only(released: Path, tmp_path: Path) -> None:
    out = tmp_path / "ours"
    convert(str(released), str(out))
    convert(str(released), str(out))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"x")
    for place in ("mine", "released", "released/inside"):
        with pytest.raises(InputError, match=place):
            convert(str(released), str(tmp_path / place))
    assert (tmp_path / "mine" / "photo.jpg").exists()


def test_a_full_disk_is_told_before_any_work(
    released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**5, 10**5, 100))
    with pytest.raises(SrgptError, match="Make room"):
        convert(str(released), str(tmp_path / "ours"))
    assert not (tmp_path / "ours").exists()


# Models that the reference's layout cannot hold ----------------------------------------------------------------------


def test_a_model_of_other_parts_is_refused_with_every_reason(tmp_path: Path) -> None:
    make_tiny_checkpoint(tmp_path / "tiny")
    with pytest.raises(InputError) as refused:
        convert(str(tmp_path / "tiny"), str(tmp_path / "back"))
    for reason in ("last layer", "pools masks by area", "4 x 4 patches, not 27 x 27", "prompts are none of"):
        assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("processor_config.json", {"depth": "none"}, "takes relative depth|not relative"),
        ("config.json", {"feature_layer": "last"}, "last layer, not the penultimate"),
        ("config.json", {"mask_pooling": "area"}, "by area, not as the reference"),
    ],
)
def test_a_setting_that_the_reference_lacks_is_refused(
    file: str, change: dict[str, Any], reason: str, imported: Path, tmp_path: Path
) -> None:
    ours = Path(shutil.copytree(imported, tmp_path / "ours"))
    write_json(ours / file, {**json.loads((ours / file).read_text()), **change})
    with pytest.raises(InputError, match=reason):
        convert(str(ours), str(tmp_path / "back"))


def test_a_missing_tensor_of_ours_is_named(imported: Path, tmp_path: Path) -> None:
    ours = Path(shutil.copytree(imported, tmp_path / "ours"))
    weights = load_file(ours / SINGLE)
    del weights["mm_projector.layers.2.bias"]
    save_file(weights, ours / SINGLE)
    with pytest.raises(InputError, match=r"1 missing \(mm_projector\.layers\.2\.bias\)"):
        convert(str(ours), str(tmp_path / "back"))


# Damaged checkpoints ----------------------------------------------------------------------------------------------


def weights_of(part: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / part / SINGLE
        weights = load_file(path)
        change(weights)
        save_file(weights, path)

    return damage


def config_of(part: str, **fields: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / part / "config.json"
        found = {**json.loads(path.read_text()), **fields}
        write_json(path, {k: v for k, v in found.items() if v is not ...})

    return damage


def cut(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-7])  # type: ignore[return-value]


def remove(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content)  # type: ignore[return-value]


def pickles_only(folder: Path) -> None:
    (folder / "mm_projector" / SINGLE).unlink()
    (folder / "mm_projector" / "pytorch_model.bin").write_bytes(b"\x80\x04")


def swap_index(folder: Path) -> None:
    path = folder / "llm" / INDEX
    index = json.loads(path.read_text())
    names = sorted(index["weight_map"])
    first, last = index["weight_map"][names[0]], index["weight_map"][names[-1]]
    index["weight_map"] |= {names[0]: last, names[-1]: first}
    write_json(path, index)


def twice(folder: Path) -> None:
    one, two = sorted((folder / "llm").glob("*.safetensors"))[:2]
    save_file({**load_file(one), **load_file(two)}, two)


LLM_1 = "llm/model-00001-of-00004.safetensors"
PROJECTOR = f"mm_projector/{SINGLE}"
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (weights_of("region_extractor", lambda w: w.pop("depth_projector.bias")),
                r"region_extractor: .*1 missing \(depth_projector\.bias\)"),
    "extra": (weights_of("mm_projector", lambda w: w.update(intruder=torch.zeros(1))),
              r"mm_projector: .*1 unexpected \(intruder\)"),
    "shape": (weights_of("region_extractor", lambda w: w.update({"rgb_projector.bias": torch.zeros(23)})),
              r"1 of another shape \(rgb_projector\.bias is \[23\], not \[32\]\)"),
    "many": (weights_of("vision_tower", lambda w: [w.pop(k) for k in sorted(w)[:5]]), r"5 missing \(.*, \.\.\.\)"),
    "tower of later transformers": (
        weights_of("vision_tower", lambda w: [w.update({k[13:]: w.pop(k)}) for k in list(w)]),
        r"missing \(vision_model\."),
    "integers": (weights_of("mm_projector", lambda w: w.update({"layers.1.bias": torch.zeros(64).int()})),
                 "'layers.1.bias' holds I32"),
    "cut": (cut(PROJECTOR), "mm_projector/model.safetensors: damaged or cut off"),
    "cut shard": (cut(LLM_1), "model-00001-of-00004.safetensors: damaged or cut off"),
    "empty": (write(PROJECTOR, b""), "damaged or cut off"),
    "lost shard": (remove(LLM_1), "differ in model-00001-of-00004.safetensors"),
    "lost index": (remove(f"llm/{INDEX}"), "but no model.safetensors.index.json"),
    "index without map": (write(f"llm/{INDEX}", b'{"weight_map": 5}'), "no weight_map"),
    "index elsewhere": (write(f"llm/{INDEX}", b'{"weight_map": {"x": "../../secret.safetensors"}}'), "differ in"),
    "index of others": (swap_index, "does not say where"),
    "tensor twice": (twice, "and so does model-00001"),
    "pickles": (pickles_only, r"weights are pickles \(pytorch_model\.bin\)"),
    "no weights": (remove(PROJECTOR), r"no model\.safetensors"),
    **{f"no {part}": (remove(part), f"no folder {part}/") for part in PARTS},
    **{f"no config of {part}": (remove(f"{part}/config.json"), f"{part}/config.json: not found") for part in PARTS},
    "no tokenizer": (remove("llm/tokenizer.json"), r"tokenizer\.json: not found"),
    "cut tokenizer": (cut("llm/tokenizer.json"), "the tokenizer cannot be read"),
    "not JSON": (write("config.json", b"{"), r"config\.json: not JSON"),
    "a list": (write("llm/config.json", b"[]"), "a JSON object was expected, not list"),
    "deep": (write("llm/config.json", b"[" * 100_000), "not JSON"),
    "another model": (config_of("", model_type="llava_mistral"), "model_type is 'llava_mistral'"),
    "another language model": (config_of("llm", model_type="mistral"), "model_type is 'mistral'"),
    "another tower": (config_of("vision_tower", architectures=["CLIPVisionModel"]), "CLIPVisionModel"),
    "another projector": (config_of("mm_projector", mm_projector_type="mlp2x_gelu"), "mlp2x_gelu"),
    "another extractor": (config_of("region_extractor", region_extractor_type="duplicate"), "duplicate"),
    "no region": (config_of("", enable_region=False), "enable_region is False"),
    "scales": (config_of("", s2=True), "s2 is True"),
    "start and end": (config_of("", mm_use_im_start_end=True), "mm_use_im_start_end is True"),
    "layer": (config_of("", mm_vision_select_layer=...), "mm_vision_select_layer is None"),
    "layers of the model": (config_of("llm", num_hidden_layers=10**9), "the weights have 2 layers"),
    "layers of the tower": (config_of("vision_tower", num_hidden_layers=2), "the weights have 3 layers"),
    "hidden size": (config_of("llm", hidden_size=48), "of another shape"),
    "hidden text": (config_of("llm", hidden_size="wide"), "not a configuration of llama"),
    "no heads": (config_of("llm", num_attention_heads=0), "not a configuration of llama"),
    "vast": (config_of("llm", hidden_size=2**62, num_attention_heads=2), "sizes make no model|another shape"),
    "rope": (config_of("llm", rope_theta="far"), "sizes make no model"),
    "grid": (config_of("vision_tower", image_size=56), "needs 27 x 27 patches"),
    "no patch": (config_of("vision_tower", patch_size=0), "needs 27 x 27 patches"),
    "no mask id": (config_of("vision_tower", llm_mask_token_id=...), "llm_mask_token_id is None"),
    "true mask id": (config_of("vision_tower", llm_mask_token_id=True), "llm_mask_token_id is True"),
    "mask id": (config_of("vision_tower", llm_mask_token_id=9), "the tokenizer's id of <mask> is"),
    "vocabulary": (config_of("llm", vocab_size=100), "of another shape"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(DAMAGES))
def test_a_damaged_checkpoint_is_refused_by_name(name: str, released: Path, tmp_path: Path) -> None:
    damage, says = DAMAGES[name]
    shards = sorted((released / "llm").glob("*.safetensors"))
    assert len(shards) == 4
    damage(released)
    with pytest.raises(InputError, match=says):
        convert(str(released), str(tmp_path / "ours"))
    assert not (tmp_path / "ours").exists()


def test_a_vocabulary_beyond_the_embeddings_is_refused(released: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(released / "llm")
    tokenizer.add_tokens(["<newcomer>"])
    tokenizer.save_pretrained(released / "llm")
    with pytest.raises(InputError, match="'<newcomer>', which is beyond the vocabulary"):
        convert(str(released), str(tmp_path / "ours"))


def test_a_dtype_in_a_config_is_never_evaluated(released: Path, tmp_path: Path) -> None:
    config_of("", model_dtype="__import__('os').abort()")(released)
    convert(str(released), str(tmp_path / "ours"))
    assert load_model(tmp_path / "ours", "auto")[0].dtype == torch.bfloat16


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FUZZ = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def refusal(folder: Path) -> str:
    """Return why a checkpoint is refused, or, where it is not, the names of its parts."""
    try:
        plan_import(folder)
    except InputError as error:
        return str(error)
    return f"{folder}: {', '.join(PARTS)}"


@FUZZ
@given(data=st.data())
def test_any_value_in_a_config_is_taken_or_refused(data: st.DataObject, released: Path) -> None:
    part = data.draw(st.sampled_from(["", *PARTS]))
    path = released / part / "config.json"
    before = path.read_bytes()
    field = data.draw(st.sampled_from(sorted(json.loads(before))))
    write_json(path, {**json.loads(before), field: data.draw(JSON)})
    try:
        assert str(released) in refusal(released)
    finally:
        path.write_bytes(before)


@FUZZ
@given(
    name=st.sampled_from(["config.json", "llm/config.json", f"llm/{INDEX}", PROJECTOR]),
    data=st.binary(max_size=80),
)
def test_garbage_in_a_file_is_refused(name: str, data: bytes, released: Path) -> None:
    before = (released / name).read_bytes()
    (released / name).write_bytes(data)
    try:
        with pytest.raises(InputError, match=Path(name).name):
            plan_import(released)
    finally:
        (released / name).write_bytes(before)


@FUZZ
@given(start=st.integers(0, 200), data=st.binary(min_size=1, max_size=12))
def test_garbage_in_a_header_is_refused_or_names_a_tensor(start: int, data: bytes, released: Path) -> None:
    path = released / PROJECTOR
    before = path.read_bytes()
    path.write_bytes(before[:start] + data + before[start + len(data) :])
    try:
        assert "mm_projector" in refusal(released)
    finally:
        path.write_bytes(before)


# The verb ---------------------------------------------------------------------------------------------------------


def test_the_verb_converts_and_explains(released: Path, tmp_path: Path) -> None:
    done = srgpt("convert", "--in", "released", "--out", "ours", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "in the layout srgpt, in ours" in done.stderr
    assert (tmp_path / "ours" / SINGLE).exists()
    shutil.rmtree(released / "region_extractor")
    done = srgpt("convert", "--in", "released", "--out", "other", cwd=tmp_path)
    assert done.returncode == 2
    assert "no folder region_extractor/" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"to": "reference"}, "is in the layout reference already"),
        ({"to": "onnx"}, "--to onnx: allowed are srgpt and reference"),
        ({"template": "alpaca"}, "allowed: llama_3, vicuna_v1"),
        ({"template": "vicuna_v1", "source": "ours"}, "--template: chosen when"),
        ({"source": "nowhere"}, "nowhere: not found"),
        ({"source": "."}, r"no config\.json, so no model folder"),
    ],
)
def test_wrong_options_are_explained(
    options: dict[str, str], says: str, pristine: Path, imported: Path, tmp_path: Path
) -> None:
    places = {"ours": str(imported), "nowhere": "nowhere", ".": str(tmp_path)}
    source = places.get(options.pop("source", ""), str(pristine))
    with pytest.raises(InputError, match=says):
        convert(source, str(tmp_path / "out"), **options)


def test_another_template_can_be_chosen(pristine: Path, tmp_path: Path) -> None:
    convert(str(pristine), str(tmp_path / "ours"), template="vicuna_v1")
    _, processor = load_model(tmp_path / "ours")
    assert processor.template.tail == " ASSISTANT:"
    assert processor.template.end == "<|eot_id|>"
