"""The image connector's layout, by hand."""

import torch

from srgpt.model.connector import Connector, DownSampleBlock


def test_even_grid_is_column_major_with_row_major_channels():
    # cell (r, c) of a 4x4 grid holds 10 r + c
    cells = torch.tensor([[10 * r + c] for r in range(4) for c in range(4)], dtype=torch.float32)[None]
    tokens = DownSampleBlock()(cells)[0]
    assert tokens.tolist() == [
        [0, 1, 10, 11],  # block (0, 0)
        [20, 21, 30, 31],  # block (1, 0): down the first column first
        [2, 3, 12, 13],
        [22, 23, 32, 33],
    ]


def test_odd_grid_is_padded_with_zeros_at_its_end():
    cells = torch.tensor([[10 * r + c + 1] for r in range(3) for c in range(3)], dtype=torch.float32)[None]
    tokens = DownSampleBlock()(cells)[0].tolist()
    assert tokens == [[1, 2, 11, 12], [21, 22, 0, 0], [3, 0, 13, 0], [23, 0, 0, 0]]


def test_reference_size_and_order():
    numbers = torch.arange(27 * 27, dtype=torch.float32).reshape(1, 729, 1)
    tokens = DownSampleBlock()(numbers)
    assert tokens.shape == (1, 196, 4)
    i, j = 5, 9
    assert tokens[0, j * 14 + i].tolist() == [
        2 * i * 27 + 2 * j,
        2 * i * 27 + 2 * j + 1,
        (2 * i + 1) * 27 + 2 * j,
        (2 * i + 1) * 27 + 2 * j + 1,
    ]


def test_tensor_names_are_the_references():
    assert list(Connector(8, 16).state_dict()) == [
        "layers.1.weight",
        "layers.1.bias",
        "layers.2.weight",
        "layers.2.bias",
        "layers.4.weight",
        "layers.4.bias",
    ]
