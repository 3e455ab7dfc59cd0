"""Tables are whole or absent, resume where they were killed, and refuse what was tampered with."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from srgpt import storage
from srgpt.errors import InputError, SrgptError
from srgpt.records import Rejected
from srgpt.storage import outputs
from srgpt.storage import writer as writing

NAMES = [storage.shard_name(i) for i in range(3)]


def rows(name: str) -> list[dict]:
    return [
        {
            "dataset": "d",
            "scene_id": f"{name}-{i}",
            "width": 1,
            "height": 1,
            "rotation": [1.0] * 9,
            "nodes": [],
        }
        for i in range(2)
    ]


def writer(out: Path, params: dict | None = None) -> storage.TableWriter:
    return storage.TableWriter(str(out), "graphs", stage="lift", dataset="d", params=params or {"a": 1})


def write_all(out: Path, params: dict | None = None) -> storage.Manifest:
    table = writer(out, params)
    for name in table.missing(NAMES):
        storage.write_shard(table.work, name, "graphs", rows(name), [Rejected(name, "too-dark", "why")])
    return table.commit(NAMES)


def test_a_table_reads_back_with_its_manifest(tmp_path: Path) -> None:
    manifest = write_all(tmp_path / "t")
    assert manifest.rows == 6
    assert manifest.rejected == {"too-dark": 3}
    assert [r["scene_id"] for r in storage.read_rows(str(tmp_path / "t"), "graphs")] == [
        f"{n}-{i}" for n in NAMES for i in range(2)
    ]
    assert storage.read_rejected(str(tmp_path / "t"))[0] == {
        "id": NAMES[0],
        "reason": "too-dark",
        "detail": "why",
    }
    assert not (tmp_path / ".t.work").exists()


def test_equal_work_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_all(tmp_path / name)
    files = sorted(p.name for p in (tmp_path / "one").iterdir())
    assert files == sorted(p.name for p in (tmp_path / "two").iterdir())
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_finished_shards_are_kept_after_a_kill(tmp_path: Path) -> None:
    table = writer(tmp_path / "t")
    storage.write_shard(table.work, NAMES[1], "graphs", rows(NAMES[1]))
    (Path(table.work) / NAMES[2]).write_bytes(b"cut off before its marker")
    assert writer(tmp_path / "t").missing(NAMES) == [NAMES[0], NAMES[2]]
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("change", [{"a": 2}, {"b": 1}])
def test_work_with_other_parameters_is_not_reused(tmp_path: Path, change: dict) -> None:
    table = writer(tmp_path / "t")
    storage.write_shard(table.work, NAMES[1], "graphs", rows(NAMES[1]))
    assert writer(tmp_path / "t", change).missing(NAMES) == NAMES


def _die_writing(out: Path) -> None:
    table = writer(out)
    storage.write_shard(table.work, NAMES[0], "graphs", rows(NAMES[0]))
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_loses_no_finished_shard(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_die_writing, args=(tmp_path / "t",))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert writer(tmp_path / "t").missing(NAMES) == NAMES[1:]
    assert write_all(tmp_path / "t").rows == 6


def test_a_changed_shard_is_refused_by_name(tmp_path: Path) -> None:
    manifest = write_all(tmp_path / "t")
    path = tmp_path / "t" / NAMES[1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=NAMES[1]):
        storage.read_shard(str(tmp_path / "t"), manifest.shards[1], "graphs")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"shards": 3}', "null", '{"shards": [{"name": 1}]}'])
def test_a_broken_manifest_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json"):
        storage.read_manifest(str(tmp_path))


def test_the_wrong_table_is_refused(tmp_path: Path) -> None:
    write_all(tmp_path / "t")
    with pytest.raises(InputError, match="holds graphs"):
        storage.read_manifest(str(tmp_path / "t"), "scenes")


def test_a_row_that_does_not_fit_names_shard_and_column(tmp_path: Path) -> None:
    table = writer(tmp_path / "t")
    with pytest.raises(SrgptError, match=NAMES[0]):
        storage.write_shard(table.work, NAMES[0], "graphs", [{**rows("x")[0], "width": "wide"}])


def test_inputs_follow_a_tree_that_moves(tmp_path: Path) -> None:
    write_all(tmp_path / "a" / "one")
    second = storage.TableWriter(
        str(tmp_path / "a" / "deep" / "two"),
        "graphs",
        stage="ask",
        dataset="d",
        params={},
        inputs={"x": str(tmp_path / "a" / "one")},
    )
    storage.write_shard(second.work, NAMES[0], "graphs", rows("x"))
    second.commit(NAMES[:1])
    (tmp_path / "a").rename(tmp_path / "b")
    assert storage.trace(str(tmp_path / "b" / "deep" / "two"), "lift") == str(tmp_path / "b" / "one")


def test_manifests_that_name_each_other_are_an_error(tmp_path: Path) -> None:
    write_all(tmp_path / "t")
    path = tmp_path / "t" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "inputs": {"x": {"url": "../t", "fingerprint": "0"}}}))
    with pytest.raises(InputError, match=r"manifest\.json: names itself among its own inputs"):
        storage.trace(str(tmp_path / "t"), "ingest")


@pytest.mark.parametrize(
    ("target", "base", "expected"),
    [
        ("/x/scenes/t", "/x/graphs/t", "../../scenes/t"),
        ("s3://b/p/scenes", "s3://b/p/graphs", "../scenes"),
        ("s3://other/p", "s3://b/p", "s3://other/p"),
        ("s3://b/p", "/x/y", "s3://b/p"),
    ],
)
def test_relative_urls(target: str, base: str, expected: str) -> None:
    assert storage.relative_url(target, base) == expected
    assert storage.resolve_url(expected, base) == target


def test_a_folder_appears_only_when_its_block_ends_well(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ZeroDivisionError), storage.staged_folder(str(out), keep=True) as folder:
        (folder / "half").write_text("x")
        1 / 0  # noqa: B018
    assert not out.exists()
    with storage.staged_folder(str(out), keep=True) as folder:
        assert (folder / "half").exists()
    assert (out / "half").read_text() == "x"


def test_a_full_disk_says_so_and_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write_json(str(tmp_path / "f.json"), {"old": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SrgptError, match="No space left"):
        storage.write_json(str(tmp_path / "f.json"), {"new": 2})
    assert json.loads((tmp_path / "f.json").read_text()) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["f.json"]


# What an output may replace -----------------------------------------------------------------------------------


def _stage(out: Path, kind: str, *reads: Path) -> None:
    urls = [str(path) for path in reads]
    if kind == "table":
        storage.TableWriter(str(out), "graphs", stage="lift", dataset="d", params={}, reads=urls)
        return
    with storage.staged_folder(str(out), reads=urls) as folder:
        (folder / "page.html").write_text("x")


@pytest.mark.parametrize("kind", ["table", "folder"])
@pytest.mark.parametrize(
    "name", ["holiday.jpg", "manifest.json", "lineage.json", "summary.json", "metrics.json"]
)
def test_foreign_folders_are_never_replaced(tmp_path: Path, kind: str, name: str) -> None:
    foreign = tmp_path / "home"
    foreign.mkdir()
    (foreign / name).write_text('{"name": "somebody else\'s"}')
    with pytest.raises(InputError, match=f"home: is there already and was not written as a {kind} by srgpt"):
        _stage(foreign, kind)
    assert [p.name for p in tmp_path.iterdir()] == ["home"]
    assert (foreign / name).exists()


@pytest.mark.parametrize("kind", ["table", "folder"])
def test_a_file_is_not_replaced(tmp_path: Path, kind: str) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        _stage(tmp_path / "out", kind)


@pytest.mark.parametrize("kind", ["table", "folder"])
def test_an_empty_folder_is_taken(tmp_path: Path, kind: str) -> None:
    (tmp_path / "out").mkdir()
    _stage(tmp_path / "out", kind)


def test_outputs_of_one_kind_do_not_replace_those_of_the_other(tmp_path: Path) -> None:
    write_all(tmp_path / "table")
    with pytest.raises(InputError, match="not written as a folder"):
        _stage(tmp_path / "table", "folder")
    for name, value in {
        "lineage.json": {"commit": "c", "params_hash": "p"},
        "parity.json": {"export_hash": "e"},
        "summary.json": {"dataset": "d", "fingerprint": "f", "rules": []},
    }.items():
        (tmp_path / name).mkdir()
        storage.write_json(str(tmp_path / name / name), value)
        with pytest.raises(InputError, match="not written as a table"):
            _stage(tmp_path / name, "table")
        _stage(tmp_path / name, "folder")
        assert [p.name for p in (tmp_path / name).iterdir()] == ["page.html"]


@pytest.mark.parametrize("kind", ["table", "folder"])
@pytest.mark.parametrize("out", ["in", "in/deep", ".", "link"])
def test_an_output_does_not_overlap_with_an_input(tmp_path: Path, kind: str, out: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(InputError, match=f"overlaps with the input {tmp_path}/in"):
        _stage(tmp_path / out, kind, tmp_path / "in")
    _stage(tmp_path / "in2", kind, tmp_path / "in")


@pytest.mark.parametrize(
    ("out", "read", "overlap"),
    [
        ("s3://b/in", "s3://b/in/", True),
        ("s3a://b/in/x", "s3://b/in", True),
        ("s3://b/in/../in", "s3://b/in", True),
        ("s3://b", "s3://b/in", True),
        ("s3://b/in2", "s3://b/in", False),
        ("s3://c/in", "s3://b/in", False),
        ("/b/in", "s3://b/in", False),
        ("file:///b/in", "/b/in/x", True),
    ],
)
def test_urls_overlap(out: str, read: str, overlap: bool) -> None:
    assert outputs.overlap(out, read) is overlap
    assert outputs.overlap(read, out) is overlap


def test_a_table_is_made_again_over_itself(tmp_path: Path) -> None:
    write_all(tmp_path / "t")
    assert write_all(tmp_path / "t", {"a": 2}).params == {"a": 2}
    assert storage.read_manifest(str(tmp_path / "t")).params == {"a": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


def test_the_old_output_comes_back_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(tmp_path / "t")
    real = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if self.name == ".t.work":
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(SrgptError, match="Input/output error"):
        write_all(tmp_path / "t", {"a": 2})
    assert storage.read_manifest(str(tmp_path / "t")).params == {"a": 1}


# Kills while publishing ---------------------------------------------------------------------------------------


def test_leftovers_of_a_kill_are_not_published(tmp_path: Path) -> None:
    table = writer(tmp_path / "t")
    for name in (f"{NAMES[0]}.4242.tmp", "part-00009.parquet", "part-00009.parquet.done"):
        (Path(table.work) / name).write_bytes(b"{}")
    write_all(tmp_path / "t")
    assert {p.name for p in (tmp_path / "t").iterdir()} == {*NAMES, "manifest.json", "rejected.jsonl"}


@pytest.mark.parametrize("step", ["_drop_all_but", "move"])
def test_a_kill_while_publishing_loses_nothing(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(writing if step == "move" else storage.TableWriter, step, killed)
        write_all(tmp_path / "t")
    assert writer(tmp_path / "t").missing(NAMES) == []
    write_all(tmp_path / "t")
    write_all(tmp_path / "whole")
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "t" / path.name).read_bytes() == path.read_bytes()


def test_a_complete_table_of_other_parameters_is_not_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(writing, "move", lambda *_: None)
        write_all(tmp_path / "t")
    assert writer(tmp_path / "t", {"a": 2}).missing(NAMES) == NAMES


# Places that cannot be used -----------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["foo://x/y", "gs://bucket/t"])
def test_a_scheme_that_cannot_be_used_is_named(url: str) -> None:
    with pytest.raises(InputError, match=f"{url}/.*: {url.split(':')[0]}:// cannot be used here .* s3://"):
        storage.read_manifest(url)


def test_a_place_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(SrgptError, match="cannot be written there"):
        writer(Path("/proc/x"))
    with pytest.raises(SrgptError, match="cannot be written there"), storage.staged_folder("/proc/x"):
        pass


def test_a_kill_while_copying_to_a_store_leaves_an_output_that_is_still_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    out = "memory://killed/t"

    def make() -> None:
        table = storage.TableWriter(out, "graphs", stage="lift", dataset="d", params={})
        for name in table.missing(NAMES):
            storage.write_shard(table.work, name, "graphs", rows(name))
        table.commit(NAMES)

    def killed(self: object, source: str, target: str) -> None:
        if NAMES[1] in target:
            raise KeyboardInterrupt
        real(self, source, target)  # type: ignore[arg-type]

    real = MemoryFileSystem.cp_file
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MemoryFileSystem, "copy", killed)
        make()
    assert not storage.exists(f"{out}/manifest.json")
    make()
    found = storage.filesystem(out)[0].find("/killed")
    assert sorted(found) == [f"/killed/t/{name}" for name in ("manifest.json", *NAMES)]
    with pytest.raises(InputError, match="is there already"), storage.staged_folder(out):
        pass


@pytest.mark.slow
def test_s3_is_like_a_folder(tmp_path: Path, s3: str) -> None:
    out = f"{s3}/tables/t"
    table = storage.TableWriter(out, "graphs", stage="lift", dataset="d", params={})
    storage.write_shard(table.work, NAMES[0], "graphs", rows(NAMES[0]))
    again = storage.TableWriter(out, "graphs", stage="lift", dataset="d", params={})
    assert again.missing(NAMES[:2]) == [NAMES[1]]
    storage.write_shard(again.work, NAMES[1], "graphs", rows(NAMES[1]))
    again.commit(NAMES[:2])
    assert len(list(storage.read_rows(out, "graphs"))) == 4
    with storage.staged_folder(f"{s3}/reports") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "page.html").write_text("hello")
    with storage.local_copy(f"{s3}/reports") as copy:
        assert (copy / "sub" / "page.html").read_text() == "hello"


@pytest.mark.slow
def test_an_unreachable_store_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    with pytest.raises(SrgptError, match="did not answer"):
        storage.read_manifest("s3://bucket/t")


def test_work_on_remote_outputs_is_closed_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with storage.staged_folder("memory://private/out") as work:
        assert work.parent.parent == tmp_path
        assert work.parent.stat().st_mode & 0o077 == 0
        (work / "summary.json").write_text("{}")
    work.parent.chmod(0o755)
    with pytest.raises(SrgptError, match="yours alone"), storage.staged_folder("memory://private/out2"):
        pass
