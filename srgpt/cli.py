"""The command line: one verb per stage in chain order, then the verbs that act on the world.

Exit codes: 0 when all is done, 1 when the work failed, 2 for wrong input, 130 when interrupted.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srgpt.errors import InputError, SrgptError

if TYPE_CHECKING:
    from srgpt.params import Params
    from srgpt.storage import Manifest

app = typer.Typer(
    name="srgpt",
    help="Grounded spatial vision-language models: from pictures to a served model.\n\n"
    "The stages, in chain order: ingest, perceive, lift, ask, validate, train, evaluate, export. "
    "Without --in and --out a stage works on the project's own folders (data/, models/, reports/, exports/).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

ParamsFile = Annotated[
    Path | None, typer.Option("--params", help="Parameter file. [dim](default: ./params.yaml)[/]")
]
Profile = Annotated[
    str | None, typer.Option("--profile", help="Overlay a profile: demo, cpu-long, gpu or full.")
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Override one value: section.key=value. Repeatable.")
]
Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="Dataset: picks its folders and its overrides. [dim](default: that of --in, else train)[/]",
    ),
]
In = Annotated[str | None, typer.Option("--in", help="Input folder or URL (s3://...).")]
Out = Annotated[str | None, typer.Option("--out", help="Output folder or URL (s3://...).")]
Model = Annotated[str, typer.Option("--model", help="Model folder.")]

_STAGES, _EXCHANGE, _WORLD, _HELP = "The chain", "Data in and out", "Serving and promotion", "Looking around"
_INTERRUPTED = 130
"""Exit code: 128 and the number of SIGINT."""


def _params(file: Path | None, profile: str | None, overrides: list[str] | None) -> Params:
    from srgpt.params import load

    return load(file, profile, overrides or [])


def _stage(name: str) -> Any:
    return import_module(f"srgpt.stages.{name}").run


def _said(text: Any) -> None:
    from srgpt.progress import console

    console.print(text, highlight=False, soft_wrap=True)


def _done(verb: str, text: str) -> None:
    """Say what a verb did; ``text`` may hold anything, brackets of a path included."""
    from rich.markup import escape

    _said(f"[green]{verb}[/]{escape(text)}")


def _report(manifest: Manifest, out: str) -> None:
    from rich.markup import escape

    _done(manifest.stage, f" {manifest.dataset}: {manifest.rows} rows in {out}")
    if "objects" in manifest.statistics:
        lost, why = sum(manifest.dropped.values()), _counts(manifest.dropped)
        _said(
            f"  {manifest.statistics['objects']} objects, {lost} dropped"
            + (f": {escape(why)}" if lost else "")
        )
    if manifest.rejected:
        where = f"(see {out}/rejected.jsonl)"
        _said(f"  [yellow]set aside: {escape(_counts(manifest.rejected))}[/] {escape(where)}")


def _counts(reasons: dict[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in reasons.items())


def _input(default_in: str, source: str | None, dataset: str | None) -> tuple[str, str]:
    """Return which table to read, and the dataset that it holds.

    Raises :class:`InputError` where the table holds another dataset than the one asked for by name.
    """
    from srgpt.params import check_dataset
    from srgpt.storage import read_manifest

    url = source or f"data/{default_in}/{check_dataset('train' if dataset is None else dataset)}"
    held = check_dataset(read_manifest(url).dataset)
    if dataset is not None and dataset != held:
        raise InputError(
            f"--dataset {dataset}: {url} holds dataset {held!r}. Leave --dataset away, or change --in."
        )
    return url, held


def _run_table_stage(
    name: str, default_in: str, params: Params, source: str | None, out: str | None, dataset: str | None
) -> None:
    source, held = _input(default_in, source, dataset)
    out = out or f"data/{_TABLE[name]}/{held}"
    _report(_stage(name)(params.for_dataset(held), source=source, out=out), out)


def _name_of(source: str | None, dataset: str | None) -> str:
    """Return the name of the dataset to ingest: as given, else the input folder's own."""
    from srgpt.params import check_dataset

    if dataset is not None or source is None:
        return check_dataset("train" if dataset is None else dataset)
    remote = "://" in source and not source.startswith("file://")
    path = Path(source.removeprefix("file://"))
    return check_dataset(
        source.split("://", 1)[1].rstrip("/").rpartition("/")[2] if remote else path.resolve().name
    )


_TABLE = {"perceive": "perceived", "lift": "graphs", "ask": "conversations"}


@app.command(rich_help_panel=_STAGES)
def ingest(
    source: In = None, out: Out = None, dataset: Dataset = None,
    params: ParamsFile = None, profile: Profile = None, overrides: Set = None,
) -> None:  # fmt: skip
    """Read a source: pictures with what it knows of depth and objects.

    Example: srgpt ingest --in photos --out scenes --set ingest.source=omni3d
    """
    loaded = _params(params, profile, overrides)
    name = _name_of(source, dataset)
    out = out or f"data/scenes/{name}"
    _report(_stage("ingest")(loaded.for_dataset(name), source=source, out=out, dataset=name), out)


@app.command(rich_help_panel=_STAGES)
def perceive(
    source: In = None, out: Out = None, dataset: Dataset = None,
    params: ParamsFile = None, profile: Profile = None, overrides: Set = None,
) -> None:  # fmt: skip
    """Fill what the source left open: masks, camera, gravity.

    What the source gave is kept and marked as given; depth is passed through, never made up.
    """
    _run_table_stage("perceive", "scenes", _params(params, profile, overrides), source, out, dataset)


@app.command(rich_help_panel=_STAGES)
def lift(
    source: In = None, out: Out = None, dataset: Dataset = None,
    params: ParamsFile = None, profile: Profile = None, overrides: Set = None,
) -> None:  # fmt: skip
    """Lift masks and depth to object boxes and a 3D scene graph."""
    _run_table_stage("lift", "perceived", _params(params, profile, overrides), source, out, dataset)


@app.command(rich_help_panel=_STAGES)
def ask(
    source: In = None, out: Out = None, dataset: Dataset = None,
    params: ParamsFile = None, profile: Profile = None, overrides: Set = None,
) -> None:  # fmt: skip
    """Ask spatial questions, with the numbers behind each answer."""
    _run_table_stage("ask", "graphs", _params(params, profile, overrides), source, out, dataset)


@app.command(rich_help_panel=_STAGES)
def validate(
    source: In = None, out: Out = None, dataset: Dataset = None,
    params: ParamsFile = None, profile: Profile = None, overrides: Set = None,
) -> None:  # fmt: skip
    """Check every table and measure curation quality; fails closed."""
    loaded = _params(params, profile, overrides)
    source, held = _input("conversations", source, dataset)
    out = out or f"reports/validation/{held}"
    _stage("validate")(loaded.for_dataset(held), source=source, out=out)
    _done("validate", f" {held}: passed; see {out}/index.html")


@app.command(rich_help_panel=_STAGES)
def train(
    source: In = None, out: Out = None,
    node_rank: Annotated[
        int | None,
        typer.Option(help="Which of train.nodes this is, from 0. [dim](default: NODE_RANK)[/]"),
    ] = None,
    params: ParamsFile = None, profile: Profile = None, overrides: Set = None,
) -> None:  # fmt: skip
    """Train the region-and-depth model with DeepSpeed; resumes.

    On several nodes (train.nodes) run it on each; node 0 writes the model, at MASTER_ADDR and MASTER_PORT.
    """
    loaded = _params(params, profile, overrides)
    out = out or "models/srgpt"
    source = source or f"data/conversations/{loaded.train.dataset}"
    result = _stage("train")(loaded, source=source, out=out, node_rank=node_rank)
    if not result:
        _done("train", ": this node's ranks have ended; node 0 writes the model")
        return
    _done("train", f": {result['steps']} steps, loss {result['final_loss']:.4f}, model in {out}")


@app.command(rich_help_panel=_STAGES)
def evaluate(
    source: In = None, model: Model = "models/srgpt", out: Out = None,
    params: ParamsFile = None, profile: Profile = None, overrides: Set = None,
) -> None:  # fmt: skip
    """Score the model beside its blind and RGB-only controls."""
    from srgpt.evaluation.report import summary_table

    loaded = _params(params, profile, overrides)
    out = out or "reports/evaluation"
    source = source or f"data/conversations/{loaded.evaluate.dataset}"
    metrics = _stage("evaluate")(loaded, source=source, model=model, out=out)
    _said(summary_table(metrics))
    _done("evaluate", f": see {out}/index.html")


@app.command(rich_help_panel=_STAGES)
def export(
    source: In = None, out: Out = None,
    benchmark: Annotated[str | None, typer.Option(help="Conversations whose questions prove parity.")] = None,
    params: ParamsFile = None, profile: Profile = None, overrides: Set = None,
) -> None:  # fmt: skip
    """Write ONNX graphs, prove parity, make a Triton repository."""
    loaded = _params(params, profile, overrides)
    out = out or "exports/srgpt"
    benchmark = benchmark or f"data/conversations/{loaded.evaluate.dataset}"
    _stage("export")(loaded, source=source or "models/srgpt", benchmark=benchmark, out=out)
    _done("export", f": see {out}/parity.json")


@app.command("import", rich_help_panel=_EXCHANGE)
def import_(
    source: Annotated[str, typer.Option("--in", help="File or URL: a JSON array, JSON lines, CSV.")],
    form: Annotated[
        str, typer.Option("--format", help="osd (Open Spatial Dataset), llava or captions.")
    ] = "osd",
    images: Annotated[str | None, typer.Option("--images", help="Folder or URL of the pictures.")] = None,
    depth: Annotated[
        str | None, typer.Option("--depth", help="Folder or URL of relative depth pictures.")
    ] = None,
    without_images: Annotated[
        bool, typer.Option("--without-images", help="Import the text and regions only.")
    ] = False,
    out: Annotated[
        str | None,
        typer.Option("--out", help="Folder or URL for two tables. [dim](default: data/imported/DATASET)[/]"),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Name of the dataset. [dim](default: the format's)[/]")
    ] = None,
    rows: Annotated[int | None, typer.Option("--rows", min=1, help="Import the first so many rows.")] = None,
    licence: Annotated[str, typer.Option("--licence", help="Licence of the pictures.")] = "",
) -> None:
    """Read what others have released: OSD or LLaVA JSON, pictures with captions; of any size; resumes.

    Writes OUT/scenes and OUT/conversations; train on the latter. Example: srgpt import --in result.json
    --images openimages/train --depth depth
    """
    if without_images == (images is not None):
        raise InputError("give the folder of the pictures with --images, or --without-images, and not both")
    from srgpt.exchange.importing import Source
    from srgpt.exchange.importing import run as import_rows

    given = Source(source, form, dataset or form, images, depth, licence)
    out = out or f"data/imported/{given.dataset}"
    _report(import_rows(given, out, limit=rows), f"{out}/conversations")


@app.command(rich_help_panel=_EXCHANGE)
def publish(
    out: Annotated[str, typer.Option("--out", help="Folder or URL.")],
    source: In = None,
    form: Annotated[
        str, typer.Option("--format", help="huggingface (Parquet and a card) or osd (Open Spatial Dataset).")
    ] = "huggingface",
    without_images: Annotated[
        bool, typer.Option("--without-images", help="Publish the text and regions only.")
    ] = False,
    licence: Annotated[str, typer.Option("--licence", help="Licence for the card, such as cc-by-4.0.")] = "",
    dataset: Dataset = None,
) -> None:
    """Write conversations and their pictures in a form for other programs.

    Example: srgpt publish --in data/conversations/train --out published --licence cc-by-4.0
    """
    from srgpt.exchange.publishing import run as write

    source, held = _input("conversations", source, dataset)
    record = write(source, out, form, images=not without_images, licence=licence)
    _done("publish", f" {held}: {record['rows']} conversations in {out}")
    if record["rejected"]:
        _said(f"  [yellow]set aside: {_counts(record['rejected'])}[/] (see {out}/rejected.jsonl)")


@app.command(rich_help_panel=_EXCHANGE)
def convert(
    source: Annotated[str, typer.Option("--in", help="Model folder or URL, in either layout.")],
    out: Annotated[str, typer.Option("--out", help="Folder or URL for the converted model.")],
    to: Annotated[
        str | None, typer.Option("--to", help="srgpt or reference. [dim](default: the other layout)[/]")
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            "--template",
            help="Prompts of a released checkpoint: llama_3 or vicuna_v1. [dim](default: by its tokenizer)[/]",
        ),
    ] = None,
) -> None:
    """Turn a released SpatialRGPT checkpoint into a model folder, or a model folder into such a checkpoint.

    A checkpoint has config.json, llm/, vision_tower/, mm_projector/ and region_extractor/, with weights in
    safetensors. Every tensor is checked first and keeps its type; shards of 2 GB pass through memory one by one. The
    result can be evaluated, exported and trained further. Example: srgpt convert --in SpatialRGPT-VILA1.5-8B --out
    models/released
    """
    from srgpt.model.vila import convert as run

    record = run(source, out, to=to, template=template)
    size = f"{record['tensors']} tensors, {record['bytes'] / 1e9:.1f} GB"
    _done("convert", f": {size}, in the layout {record['layout']}, in {out}")
    if record["left_out"]:
        _said(f"  [yellow]left out: {len(record['left_out'])} file(s)[/] (see {out}/conversion.json)")


@app.command(rich_help_panel=_WORLD)
def promote(
    source: In = None,
    evaluation: Annotated[str, typer.Option(help="Evaluation folder of the exported model.")] = "reports/evaluation",
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Override the benchmark comparison with the champion; every other gate still holds."
        ),
    ] = False,
    params: ParamsFile = None, profile: Profile = None, overrides: Set = None,
) -> None:  # fmt: skip
    """Register an export and, if it passes every gate, serve it as champion."""
    from srgpt.promotion import promote as run

    promotion = run(
        _params(params, profile, overrides),
        export=source or "exports/srgpt",
        evaluation=evaluation,
        force=force,
    )
    _done("promote", f": {promotion.name} version {promotion.version} is champion and serves")


@app.command(rich_help_panel=_WORLD)
def rollback(params: ParamsFile = None, profile: Profile = None, overrides: Set = None) -> None:
    """Serve the previous champion again."""
    from srgpt.promotion import rollback as run

    promotion = run(_params(params, profile, overrides))
    _done("rollback", f": {promotion.name} version {promotion.version} is champion and serves")


@app.command(rich_help_panel=_WORLD)
def serve(
    stop: Annotated[bool, typer.Option("--stop", help="Stop the server instead.")] = False,
    params: ParamsFile = None, profile: Profile = None, overrides: Set = None,
) -> None:  # fmt: skip
    """Start the local Triton server with the champion of the registry."""
    from srgpt import promotion

    loaded = _params(params, profile, overrides)
    if stop:
        _done("serve", ": stopped" if promotion.stop(loaded) else ": no server was running")
        return
    served = promotion.serve(loaded)
    _done(
        "serve",
        f": {served.name} version {served.version} on gRPC {loaded.serve.host}:{loaded.serve.grpc_port}",
    )


@app.command(rich_help_panel=_HELP)
def status(params: ParamsFile = None, profile: Profile = None, overrides: Set = None) -> None:
    """Show what is served, the aliases and where the model came from."""
    from srgpt.promotion import status as run

    _said(run(_params(params, profile, overrides)).table())


@app.command("params", rich_help_panel=_HELP)
def show_params(
    write: Annotated[bool, typer.Option("--write", help="Write them into the parameter file.")] = False,
    params: ParamsFile = None, profile: Profile = None, overrides: Set = None,
) -> None:  # fmt: skip
    """Show the parameters that a command would use, or write them down."""
    import yaml

    if write:
        from srgpt.params import write as save

        file = params or Path("params.yaml")
        save(file, profile, overrides or [])
        _done("params", f": wrote {file}")
        return
    typer.echo(yaml.safe_dump(_params(params, profile, overrides).dump(), sort_keys=False), nl=False)


@app.command(rich_help_panel=_HELP)
def doctor(params: ParamsFile = None, profile: Profile = None, overrides: Set = None) -> None:
    """Check this machine: packages, devices, server, tracking, disk."""
    from srgpt.doctor import examine, table

    findings = examine(_params(params, profile, overrides))
    _said(table(findings))
    if any(not f.good for f in findings):
        raise SrgptError("something is missing; the lines below the table say what to do")


@app.command(rich_help_panel=_HELP)
def demo(params: ParamsFile = None, profile: Profile = None, overrides: Set = None) -> None:
    """Run the retraining flow, ask the served model, and sum it all up.

    The pipeline works on ./params.yaml: another --params file is copied there, --profile and --set are written
    into it.
    """
    from srgpt import demo as steps

    loaded = _params(params, profile, overrides)
    if params and params.resolve() != Path("params.yaml").resolve():
        Path("params.yaml").write_text(params.read_text())
    steps.run(loaded, profile=profile, overrides=overrides or [])


def main() -> None:
    """Run the command line; errors are printed for people, without a traceback."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("srgpt").setLevel(logging.INFO)
    try:
        app()
    except InputError as error:
        _fail(str(error), 2)
    except SrgptError as error:
        _fail(str(error), 1)
    except MemoryError:
        _fail("out of memory; use fewer engine.workers or smaller shards (ingest.shard_scenes)", 1)
    except (KeyboardInterrupt, SystemExit) as error:  # typer makes the latter of the former
        if isinstance(error, SystemExit) and error.code != _INTERRUPTED:
            raise
        _fail("interrupted; finished work is kept, the same command goes on from there", _INTERRUPTED)


def _fail(message: str, code: int) -> None:
    from rich.markup import escape

    _said(f"[bold red]error:[/] {escape(message)}")
    sys.exit(code)


if __name__ == "__main__":
    main()
