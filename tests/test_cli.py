"""The command line: verbs in chain order, exit codes, errors for people."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

CHAIN = ["ingest", "perceive", "lift", "ask", "validate", "train", "evaluate", "export"]


def srgpt(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "srgpt.cli", *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )


def test_help_lists_the_verbs_in_chain_order() -> None:
    done = srgpt("--help")
    assert done.returncode == 0
    listed = re.findall(r"^│ ([a-z]+) ", done.stdout, re.M)
    assert listed[: len(CHAIN)] == CHAIN
    assert {"promote", "rollback", "serve", "status", "params", "doctor", "demo"} <= set(listed)


@pytest.mark.parametrize("verb", CHAIN)
def test_every_stage_takes_the_common_options(verb: str) -> None:
    text = srgpt(verb, "--help").stdout
    assert all(option in text for option in ("--in", "--out", "--params", "--profile", "--set"))


@pytest.mark.parametrize("verb", ["promote", "rollback", "serve", "status", "params", "doctor", "demo"])
def test_every_other_verb_takes_parameters(verb: str) -> None:
    text = srgpt(verb, "--help").stdout
    assert all(option in text for option in ("--params", "--profile", "--set"))


def test_help_imports_nothing_heavy() -> None:
    heavy = ("torch", "pyarrow", "numpy", "mlflow", "prefect")
    code = f"import sys, srgpt.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ingest", "--set", "ingest.sauce=omni3d"], "Did you mean 'source'?"),
        (["ingest", "--set", "ingest.source=camera"], "'procedural', 'omni3d'"),
        (["ingest", "--set", "nonsense"], "expected section.key=value"),
        (["ingest", "--params", "absent.yaml"], "absent.yaml: no such file"),
        (["ingest", "--profile", "huge"], "allowed: demo, cpu-long, gpu, full"),
        (["perceive", "--in", "nowhere"], "nowhere"),
        (["lift", "--in", "nowhere"], "nowhere"),
        (["ask", "--in", "nowhere"], "nowhere"),
        (["validate", "--in", "nowhere"], "nowhere"),
        (["bake"], "No such command 'bake'"),
        (["ingest", "--dataset", "../.."], "'../..' cannot name a dataset"),
        (["ingest", "--dataset", ""], "'' cannot name a dataset"),
        (["ingest", "--in", "/", "--set", "ingest.source=omni3d"], "Give --dataset NAME"),
        (["ingest", "--in", "s3://", "--set", "ingest.source=omni3d"], "Give --dataset NAME"),
        (["perceive", "--dataset", "../.."], "'../..' cannot name a dataset"),
        (["validate", "--dataset", "../.."], "'../..' cannot name a dataset"),
        (["perceive", "--dataset", ""], "'' cannot name a dataset"),
        (["lift", "--in", "foo://x"], "foo:// cannot be used here"),
        (
            ["ingest", "--out", "/proc/x", "--set", "ingest.scenes=1"],
            "/proc/.x.work/state.json: cannot be written",
        ),
    ],
)
def test_wrong_input_is_explained_and_exits_with_2(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = srgpt(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_ctrl_c_says_that_work_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from srgpt import cli

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_params", interrupted)
    monkeypatch.setattr(sys, "argv", ["srgpt", "params"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130
    assert "interrupted; finished work is kept" in " ".join(capsys.readouterr().err.split())


def test_params_shows_what_would_be_used(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("train: {steps: 5}\n")
    done = srgpt("params", "--set", "train.learning_rate=1e-4", cwd=tmp_path)
    assert "steps: 5\n" in done.stdout
    assert "learning_rate: 0.0001\n" in done.stdout


def test_the_folder_of_a_source_names_its_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from srgpt.cli import _name_of

    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    assert _name_of(".", None) == _name_of(f"file://{tmp_path}/photos/", None) == "photos"
    assert _name_of("s3://bucket/photos/", None) == "photos"
    assert _name_of("..", "bench") == "bench"
    assert _name_of(None, None) == "train"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes in a folder whose name looks like rich's markup."""
    folder = tmp_path_factory.mktemp("tables") / "b[" / "x]"
    small = ("ingest.scenes=2", "ingest.procedural.image_size=48", "ingest.procedural.min_pixels=6")
    sets = [word for value in (*small, "engine.workers=1") for word in ("--set", value)]
    done = srgpt("ingest", "--out", str(folder), "--dataset", "toy", *sets, cwd=folder.parents[1])
    assert done.returncode == 0, done.stderr
    assert f"ingest toy: 2 rows in {folder}\n" in done.stderr
    return folder


def test_dropped_objects_are_counted(scenes: Path, tmp_path: Path) -> None:
    perceived, graphs = str(tmp_path / "perceived"), str(tmp_path / "graphs")
    assert srgpt("perceive", "--in", str(scenes), "--out", perceived).returncode == 0
    done = srgpt("lift", "--in", perceived, "--out", graphs, "--set", "lift.min_mask_points=100000")
    assert re.search(r"lift toy: 2 rows in .*\n  (\d+) objects, \1 dropped: few-points \1\n", done.stderr)


def test_another_dataset_than_the_one_asked_for_is_refused(scenes: Path, tmp_path: Path) -> None:
    done = srgpt("perceive", "--in", str(scenes), "--dataset", "train", "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "--dataset train:" in done.stderr
    assert "holds dataset 'toy'" in " ".join(done.stderr.split())
    same = srgpt("perceive", "--in", str(scenes), "--dataset", "toy", "--out", str(tmp_path / "out"))
    assert same.returncode == 0, same.stderr
