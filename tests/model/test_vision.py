"""Towers: the right cell lights up, other tokens are dropped, pictures are normalised as the tower wants them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, Siglip2VisionConfig

from srgpt.errors import InputError
from srgpt.model.build import build_model, build_processor
from srgpt.model.pixels import normalise
from srgpt.model.processing import SrgptProcessor, View
from srgpt.model.tokenizer import train_tokenizer
from srgpt.model.vision import normalisation, own_size, square_side, tower_config, tower_features
from srgpt.params import ModelParams, VisionParams
from srgpt.serving.preprocess import Preprocessor
from tests.model.bases import IMAGENET, TOWERS, write_tower
from tests.model.tiny import TEXTS, TINY

GRID = 4


def without_mixing(kind):
    """A tower whose layers add nothing, so that a cell's feature depends on its own patch alone."""
    torch.manual_seed(0)
    tower = AutoModel.from_config(TOWERS[kind])
    for name, parameter in tower.named_parameters():
        if any(part in name for part in ("out_proj", "o_proj", "fc2", "down_proj", "output.dense")):
            torch.nn.init.zeros_(parameter)
    return tower.eval()


@pytest.mark.parametrize("layer", ["last", "penultimate"])
@pytest.mark.parametrize("kind", TOWERS)
def test_the_cell_of_a_bright_patch_lights_up(kind, layer):
    tower = without_mixing(kind)
    for row, column in ((0, 0), (0, 3), (1, 2), (3, 1)):
        pixels = torch.zeros(1, 3, 28, 28)
        dark = tower_features(tower, pixels, layer, GRID)
        pixels[:, :, 7 * row : 7 * row + 7, 7 * column : 7 * column + 7] = 3.0
        changed = (tower_features(tower, pixels, layer, GRID) - dark).abs().amax(-1)[0]
        assert changed.shape == (GRID * GRID,)
        assert changed.nonzero().flatten().tolist() == [GRID * row + column]


@pytest.mark.parametrize("kind", TOWERS)
def test_last_is_normed_and_gradients_flow(kind):
    torch.manual_seed(0)
    tower = AutoModel.from_config(TOWERS[kind])
    features = tower_features(tower, torch.rand(2, 3, 28, 28), "last", GRID)
    # every final norm starts with weights of one and biases of zero
    torch.testing.assert_close(features.mean(-1), torch.zeros(2, 16), atol=1e-5, rtol=0)
    torch.testing.assert_close(features.std(-1, correction=0), torch.ones(2, 16), atol=1e-2, rtol=0)
    (features * torch.rand_like(features)).sum().backward()
    patches = [p for n, p in tower.named_parameters() if "patch_embedding" in n and p.ndim > 1]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in patches)


@pytest.mark.parametrize("kind", TOWERS)
def test_larger_pictures_interpolate_positions(kind):
    torch.manual_seed(0)
    tower = AutoModel.from_config(TOWERS[kind]).eval()
    assert tower_features(tower, torch.rand(1, 3, 42, 42), "last", 6).shape == (1, 36, 16)


def test_naflex_is_given_what_its_own_processor_would_give():
    from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

    from srgpt.model.vision import _patches

    pixels = torch.rand(2, 3, 28, 28)
    patches, grid = _patches(pixels, 7)
    assert grid == GRID
    for picture, found in zip(pixels, patches, strict=True):
        np.testing.assert_array_equal(found, convert_image_to_patches(np.asarray(picture), 7))


def test_other_numbers_of_tokens_are_refused():
    tower = AutoModel.from_config(TOWERS["clip"])
    with pytest.raises(InputError, match=r"gives 17 tokens .* 3 x 3 patches after 1 others"):
        tower_features(tower, torch.rand(1, 3, 28, 28), "last", 3)


def test_only_squares():
    assert square_side([28, 28], "image_size") == 28
    with pytest.raises(InputError, match=r"image_size is \[28, 21\]: only square"):
        square_side([28, 21], "image_size")


def test_a_folder_with_oblong_pictures_is_refused(tmp_path: Path):
    name = write_tower(tmp_path, "dinov3")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "image_size": [28, 21]}))
    with pytest.raises(InputError, match="only square"):
        tower_config(name)


def test_what_is_no_tower_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(InputError, match="'llama' is not supported; allowed: siglip_vision_model"):
        tower_config(str(tmp_path))
    with pytest.raises(InputError, match="not a model that can be read"):
        tower_config(str(tmp_path / "nothing"))


def test_normalisation_and_size_are_the_preprocessor_s(tmp_path: Path):
    name = write_tower(tmp_path, "dinov2", do_center_crop=True, crop_size={"height": 21, "width": 21})
    found = normalisation(name)
    assert (list(found.mean), list(found.std)) == IMAGENET
    assert own_size(name, tower_config(name)) == 21
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5]}')
    with pytest.raises(InputError, match="lacks image_mean and image_std"):
        normalisation(name)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match=r"no readable preprocessor_config\.json"):
        normalisation(name)


def test_naflex_has_a_size():
    assert own_size("", Siglip2VisionConfig(num_patches=256, patch_size=16)) == 256


def test_normalise_follows_its_formula_by_channel():
    image = np.arange(2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 3) * 20
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.2)
    found = normalise(image, mean, std)
    for channel in range(3):
        expected = (image[..., channel] / 255 - mean[channel]) / std[channel]
        np.testing.assert_allclose(found[channel], expected, rtol=1e-5)
    grey = normalise(image[..., 0], mean, std)
    np.testing.assert_allclose(grey[2], (image[..., 0] / 255 - 0.3) / 0.2, rtol=1e-5)


@pytest.mark.parametrize("kind", TOWERS)
def test_a_pretrained_tower_in_a_model_and_back(kind, tmp_path: Path):
    name = write_tower(tmp_path / "tower", kind)
    params = TINY.model_copy(update={"vision": VisionParams(pretrained=name, image_size=None)})
    tokenizer = train_tokenizer(TEXTS, 320)
    model, processor = build_model(params, tokenizer).eval(), build_processor(params, tokenizer)
    assert (processor.image_size, model.config.grid, processor.template.image_tokens) == (28, GRID, 4)
    own = AutoModel.from_pretrained(name).state_dict()
    assert all(torch.equal(value, own[key]) for key, value in model.vision_tower.state_dict().items())
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    again = type(model).from_pretrained(tmp_path / "model").eval()
    pixels = torch.rand(1, 3, 28, 28)
    masks, of = torch.ones(1, 28, 28), torch.zeros(1, dtype=torch.long)
    for one, two in zip(
        model.encode_images(pixels, pixels, masks, of),
        again.encode_images(pixels, pixels, masks, of),
        strict=True,
    ):
        torch.testing.assert_close(one, two)
    loaded = SrgptProcessor.from_pretrained(tmp_path / "model")
    assert (list(loaded.image_mean), list(loaded.image_std)) == IMAGENET
    picture = processor.picture(View(np.full((28, 28, 3), 128, np.uint8), {}))
    expected = (128 / 255 - np.array(IMAGENET[0])) / np.array(IMAGENET[1])
    seen = loaded.pixel_inputs([picture])["pixel_values"][0, :, 0, 0]
    np.testing.assert_allclose(seen, expected, rtol=1e-5)
    settings = json.loads((tmp_path / "model" / "processor_config.json").read_text())
    served = Preprocessor(settings).normalise(picture.rgb)
    np.testing.assert_array_equal(served, loaded.pixel_inputs([picture])["pixel_values"][0])


def test_another_size_than_the_tower_s_own(tmp_path: Path):
    name = write_tower(tmp_path / "tower", "dinov2")
    params = ModelParams(vision=VisionParams(pretrained=name, image_size=42), text=TINY.text)
    tokenizer = train_tokenizer(TEXTS, 320)
    model = build_model(params, tokenizer).eval()
    assert model.config.grid == 6
    model.save_pretrained(tmp_path / "model")
    assert type(model).from_pretrained(tmp_path / "model").config.grid == 6
