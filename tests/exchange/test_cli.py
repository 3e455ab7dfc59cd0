"""The verbs of data in and out, as they are typed."""

from pathlib import Path

import pytest

from tests.exchange.rows import osd_row, write_pictures, write_rows
from tests.test_cli import srgpt


def test_data_comes_in_and_goes_out(tmp_path: Path) -> None:
    rows = [osd_row(i) for i in range(3)]
    rows[1]["filename"] = "../x"
    images, _ = write_pictures(tmp_path, [rows[0]["filename"], rows[2]["filename"]])
    done = srgpt(
        "import",
        "--in",
        write_rows(tmp_path / "r.json", rows),
        "--images",
        images,
        "--dataset",
        "d",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "import d: 2 rows in data/imported/d/conversations" in done.stderr
    assert "set aside: bad-filename 1" in done.stderr
    done = srgpt(
        "publish", "--in", "data/imported/d/conversations", "--out", "out", "--format", "osd", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "publish d: 2 conversations in out" in done.stderr
    assert (tmp_path / "out" / "d.json").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["import", "--in", "r.json"], "give the folder of the pictures with --images, or --without-images"),
        (["import", "--in", "r.json", "--images", "i", "--without-images"], "and not both"),
        (["import", "--in", "absent.json", "--without-images"], "absent.json: not found"),
        (
            ["import", "--in", "r.json", "--without-images", "--format", "coco"],
            "allowed: osd, llava, captions",
        ),
        (["publish", "--in", "absent", "--out", "out"], "absent: no manifest.json here"),
    ],
)
def test_wrong_input_exits_with_2(tmp_path: Path, arguments: list[str], says: str) -> None:
    write_rows(tmp_path / "r.json", [osd_row(0)])
    done = srgpt(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
