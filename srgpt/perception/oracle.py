"""An oracle: perception that starts from the exact truth of procedural scenes and is made worse on purpose.

So the rest of the chain can be measured as a function of one error at a time. What is not degraded stays exactly
as it was given; what is degraded is marked ``oracle:`` with the degradation.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from srgpt.params import OracleParams
from srgpt.perception.gaps import Gap, IncompleteError, SetAsideError
from srgpt.randomness import seeded
from srgpt.records import Region, Scene, encode_depth, encode_rle

PREFIX = "procedural://"
"""How the uri of a scene begins whose given values are exact."""


def degrade(scene: Scene, params: OracleParams, seed: int) -> Scene:
    """Return the scene as degraded perception would see it, a function of the scene, the settings and the seed.

    Every error has random numbers of its own, so that changing one leaves the others as they are. Raises
    :class:`IncompleteError` for a scene that is not procedural, and where no object is left.
    """
    if not scene.uri.startswith(PREFIX):
        raise IncompleteError(
            Gap(
                "no-truth",
                f"perceive.oracle needs exact values, and {scene.uri or 'this scene'} is not procedural; set "
                "perceive.oracle=null",
            )
        )
    scene = _with_masks(scene, params, seed)
    scene = _with_depth(scene, params, seed)
    return _with_gravity(scene, params, seed)


def _rng(scene: Scene, seed: int, purpose: str) -> np.random.Generator:
    return seeded(seed, scene.dataset, scene.scene_id, f"oracle-{purpose}")


def _with_masks(scene: Scene, params: OracleParams, seed: int) -> Scene:
    regions = scene.regions
    if params.missed_share > 0:
        draws = _rng(scene, seed, "missed").random(len(regions))
        regions = tuple(r for r, draw in zip(regions, draws, strict=True) if draw >= params.missed_share)
    if params.mask_erosion != 0:
        regions = tuple(seen for r in regions if (seen := _eroded(r, params.mask_erosion)) is not None)
    if scene.regions and not regions:
        raise SetAsideError(Gap("no-regions", "the oracle overlooked every object of the scene"))
    return scene if regions is scene.regions else scene.replace(regions=regions)


def _eroded(region: Region, pixels: int) -> Region | None:
    """Take pixels off a mask's outline, or add them where negative; None where nothing is left of it.

    The picture's own edge is no outline: there the mask ends because the picture does.
    """
    from scipy.ndimage import binary_dilation, binary_erosion

    if region.rle is None:
        return region
    mask = region.mask()
    if pixels > 0:
        mask = binary_erosion(mask, iterations=pixels, border_value=1)
    else:
        mask = binary_dilation(mask, iterations=-pixels)
    if not mask.any():
        return None
    source = f"oracle:mask_erosion={pixels}"
    return replace(region, rle=encode_rle(mask), mask_source=source, bbox=_bounds(mask))


def _bounds(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Return the outer edges of a mask's pixels, xyxy."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def _with_depth(scene: Scene, params: OracleParams, seed: int) -> Scene:
    if scene.depth is None or (params.depth_scale == 1 and params.depth_noise == 0):
        return scene
    metres = scene.depth_metres().astype(np.float64) * params.depth_scale
    if params.depth_noise > 0:
        metres *= 1 + params.depth_noise * _rng(scene, seed, "depth").standard_normal(metres.shape)
    source = f"oracle:depth_scale={params.depth_scale:g},depth_noise={params.depth_noise:g}"
    return scene.replace(depth=encode_depth(metres), depth_source=source)


def _with_gravity(scene: Scene, params: OracleParams, seed: int) -> Scene:
    """Turn gravity by the angle about a random axis that is perpendicular to it (Rodrigues' formula)."""
    if scene.gravity is None or params.tilt_degrees == 0:
        return scene
    down = np.asarray(scene.gravity, dtype=np.float64)
    across = np.cross(down, np.eye(3)[np.abs(down).argmin()])
    across /= np.linalg.norm(across)
    heading = _rng(scene, seed, "tilt").uniform(0, 2 * np.pi)
    sideways = np.cos(heading) * across + np.sin(heading) * np.cross(down, across)
    angle = np.radians(params.tilt_degrees)
    x, y, z = (float(v) for v in np.cos(angle) * down + np.sin(angle) * sideways)
    return scene.replace(gravity=(x, y, z), gravity_source=f"oracle:tilt_degrees={params.tilt_degrees:g}")
