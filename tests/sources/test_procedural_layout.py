"""Layouts are physical: everything is held up by something, and nothing shares space with anything else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srgpt.sources.procedural.catalog import COLOURS, MATERIALS, ROOM, STREET, TABLETOP
from srgpt.sources.procedural.families import FAMILIES, arrange
from srgpt.sources.procedural.mesh import template
from srgpt.sources.procedural.placement import CEILING, CONTACT, GROUND, WALL, Body, apart
from srgpt.sources.procedural.shapes import shape
from srgpt.sources.procedural.textures import TEXTURES

CATALOG = {"room": ROOM, "street": STREET, "tabletop": TABLETOP}
EVERY = [c for group in CATALOG.values() for c in group]


def layouts(family: str, count: int):
    return [arrange(family, np.random.default_rng([11, i]), 112, 8) for i in range(count)]


def part_boxes(body: Body):
    """The boxes of a body's parts: (footprint (4, 2), low height, high height)."""
    for _, x0, y0, z0, x1, y1, z1, _ in body.category.parts:
        corners = body.place(np.array([[x0, y0, z0], [x0, y0, z1], [x1, y0, z1], [x1, y1, z0]], dtype=float))
        yield corners[[0, 1, 2, 3]][:, [0, 2]], -corners[0, 1], -corners[3, 1]


def test_apart_by_hand():
    square = np.array([[0, 0], [0, 1], [1, 1], [1, 0]], dtype=float)
    assert apart(square, square + np.array([1.5, 0]), 0.4)
    assert not apart(square, square + np.array([1.5, 0]), 0.6)
    assert not apart(square, square + np.array([0.5, 0.5]), 0.0)
    turn = np.array([[1, -1], [1, 1]]) / np.sqrt(2)
    assert apart(square, (square - 0.5) @ turn.T + [1.75, 1.75], 0.1), (
        "a diagonal gap that no axis-aligned test sees"
    )


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_nothing_interpenetrates(family):
    """No two parts of different bodies overlap by more than a millimetre in all directions."""
    pairs = 0
    for _, _, bodies in layouts(family, 40):
        parts = [list(part_boxes(b)) for b in bodies]
        for first in range(len(bodies)):
            for second in range(first):
                for outline, low, high in parts[first]:
                    for other, other_low, other_high in parts[second]:
                        pairs += 1
                        overlap = min(high, other_high) - max(low, other_low)
                        assert overlap < 1e-3 or apart(outline, other, -1e-3), (bodies[first], bodies[second])
    assert pairs > 1000


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_everything_is_held_up(family):
    kinds = set()
    for _, scenery, bodies in layouts(family, 40):
        for index, body in enumerate(bodies):
            kinds.add(min(body.support, 0))
            if body.support == GROUND:
                assert body.base == pytest.approx(CONTACT)
                assert scenery.inside(body.footprint())
            elif body.support == WALL:
                back = body.place(np.array([[0.5, 0.5, 1.0]]))[0, [0, 2]]
                distances = [abs(w.inward @ (back - w.start)) for w in scenery.walls]
                assert min(distances) == pytest.approx(CONTACT, abs=1e-9)
            elif body.support == CEILING:
                assert body.top == pytest.approx(scenery.ceiling - CONTACT)
            else:
                assert body.support < index
                host = bodies[body.support]
                levels = [host.base + s[4] * host.size[1] + CONTACT for s in host.category.surfaces]
                assert min(abs(body.base - level) for level in levels) < 1e-9
                assert apart(body.footprint(), host.footprint(), 0) is False
                own = body.footprint() - [host.x, host.z]
                sin, cos = np.sin(host.yaw), np.cos(host.yaw)
                own = np.stack([cos * own[:, 0] - sin * own[:, 1], sin * own[:, 0] + cos * own[:, 1]], 1)
                assert (np.abs(own) <= np.array([host.size[0], host.size[2]]) / 2 + 1e-6).all(), "no overhang"
    assert 0 in kinds
    assert GROUND in kinds
    if family != "tabletop":
        assert WALL in kinds


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_heights_vary(family):
    heights = [b.base for _, _, bodies in layouts(family, 40) for b in bodies]
    raised = np.mean(np.array(heights) > 0.03)
    assert 0.2 < raised < 0.8


@pytest.mark.parametrize("category", EVERY, ids=lambda c: c.name)
def test_catalog_entry(category):
    """Parts fill the unit cube exactly, so the cuboid is tight; ranges, colours and surfaces are sane."""
    points = template(category).vertices
    assert points.min(0) == pytest.approx([0, 0, 0], abs=1e-9)
    assert points.max(0) == pytest.approx([1, 1, 1], abs=1e-9)
    for low, high in (category.width, category.height, category.depth):
        assert 0.02 < low < high < 12
        assert high / low < 3.3
    assert set(category.colours) <= set(COLOURS)
    assert any(p[-1] == "main" for p in category.parts)
    assert {p[-1] for p in category.parts} <= set(MATERIALS) | {"main"}
    for x0, z0, x1, z1, level, clearance in category.surfaces:
        assert 0 <= x0 < x1 <= 1
        assert 0 <= z0 < z1 <= 1
        assert 0 < level <= 1
        assert level + clearance <= 1
    assert (category.hang != (0.0, 0.0)) == ("wall" in category.places)


def test_names_are_unique_within_a_family():
    for group in CATALOG.values():
        assert len({c.name for c in group}) == len(group)


@pytest.mark.parametrize(
    "name",
    ["box", "taper", "wedge", "cylinder", "cylinder_x", "cylinder_z", "cone", "frustum", "cup", "sphere"],
)
def test_shape_fills_its_cube_and_is_closed(name):
    import trimesh

    made = shape(name)
    assert made.vertices.min(0) == pytest.approx([0, 0, 0], abs=1e-9)
    assert made.vertices.max(0) == pytest.approx([1, 1, 1], abs=1e-9)
    assert np.linalg.norm(made.normals, axis=1) == pytest.approx(1)
    outward = np.sum(made.normals * (made.vertices - 0.5), axis=1)
    assert (outward > -1e-9).all()
    mesh = trimesh.Trimesh(made.vertices, made.faces, process=False)
    mesh.merge_vertices(merge_norm=True)
    assert mesh.is_watertight


@settings(max_examples=50, deadline=None)
@given(st.floats(-50, 50), st.floats(-50, 50), st.sampled_from(sorted(TEXTURES)))
def test_textures_stay_in_range(u, v, name):
    value = TEXTURES[name](np.array([u], dtype=np.float32), np.array([v], dtype=np.float32))
    assert 0 <= value[0] <= 1
