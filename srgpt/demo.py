"""The demo: run the retraining flow, ask the served model a question over gRPC, and sum it all up."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from rich.panel import Panel
from rich.rule import Rule

from srgpt import process, promotion
from srgpt.errors import SrgptError
from srgpt.evaluation.report import summary_table
from srgpt.model.drawing import draw_regions
from srgpt.params import Params
from srgpt.progress import console
from srgpt.records import CATEGORIES, Conversation, Scene, Turn
from srgpt.serving.client import Client
from srgpt.serving.protocol import Answer, AskedArea
from srgpt.storage import read_json, read_rows, scenes_of

PICTURE = Path("reports/demo.png")
EVALUATION = "reports/evaluation"
_WIDTH, _LINE = 896, 42
"""Of the picture, and of a line of text below it, in pixels."""

_NEXT = """\
[bold]MLflow UI[/]     make mlflow      then open http://127.0.0.1:5000
[bold]Prefect UI[/]    make prefect     then open http://127.0.0.1:4200
[bold]schedule[/]      make schedule    runs the flow every night (needs `make prefect` beside it)
[bold]gallery[/]       {evaluation}/index.html
[bold]data checks[/]   reports/validation/{bench}/index.html
[bold]served model[/]  .venv/bin/srgpt status | rollback | serve --stop"""


def run(params: Params, *, profile: str | None = None, overrides: Sequence[str] = ()) -> None:
    """Run the flow as a child process, then show scores, lineage, one served answer, and where to look next."""
    started = time.monotonic()
    command = [sys.executable, "-m", "flows.retrain"]
    command += ["--profile", profile] if profile else []
    for override in overrides:
        command += ["--set", override]
    process.run(command)
    summarise(params)
    console.print(f"[bold green]done[/] in {(time.monotonic() - started) / 60:.1f} minutes")


def summarise(params: Params) -> None:
    """Print the summary of what is trained, promoted and served now; write the picture of one answer."""
    console.print(Rule("[bold]Benchmark"))
    console.print(summary_table(read_json(f"{EVALUATION}/metrics.json")))
    console.print(Rule("[bold]Served"))
    console.print(promotion.status(params).table())
    console.print(Rule("[bold]One question, asked over gRPC"))
    scene, conversation, turn = choose(f"data/conversations/{params.evaluate.dataset}")
    answer = ask(params, scene, conversation, turn)
    draw(scene, conversation, turn, answer).save(PICTURE)
    shown = f"[bold]Q[/] {turn.question}\n[bold]A[/] {answer.text}   [dim](truth: {turn.answer})[/]\npicture: {PICTURE}"
    console.print(Panel(shown, expand=False))
    console.print(Rule("[bold]Next"))
    console.print(_NEXT.format(evaluation=EVALUATION, bench=params.evaluate.dataset), highlight=False)


def choose(conversations: str) -> tuple[Scene, Conversation, Turn]:
    """Pick the benchmark's first question about which of two things is behind or in front."""
    wanted = ("behind_predicate", "front_predicate", *CATEGORIES)
    rows = [Conversation.from_row(row) for row in read_rows(conversations, "conversations")]
    ranked = ((wanted.index(t.category), c, t) for c in rows for t in c.turns if t.category in CATEGORIES)
    best = min(ranked, key=lambda found: found[0], default=None)
    if best is None:
        raise SrgptError(f"{conversations}: no questions to ask")
    _, conversation, turn = best
    for row in read_rows(scenes_of(conversations), "scenes"):
        if row["scene_id"] == conversation.scene_id:
            return Scene.from_row(row), conversation, turn
    raise SrgptError(f"{conversations}: scene {conversation.scene_id} is not among its perceived scenes")


def ask(params: Params, scene: Scene, conversation: Conversation, turn: Turn) -> Answer:
    """Ask the served model."""
    regions = {r.id: r for r in conversation.regions}
    areas = [AskedArea(regions[i].bbox, regions[i].rle) for i in turn.regions]
    url = f"{params.serve.host}:{params.serve.grpc_port}"
    with Client(url, model=params.promote.model_name) as client:
        return client.ask(
            scene.image,
            areas,
            turn.question,
            depth=scene.depth,
            intrinsics=scene.intrinsics,
            gravity=scene.gravity,
        )


def draw(scene: Scene, conversation: Conversation, turn: Turn, answer: Answer) -> Image.Image:
    """Draw the asked regions over the picture, the question and the served answer below it."""
    by_id = {r.id: r for r in conversation.regions}
    regions = [by_id[i] for i in turn.regions]
    picture = draw_regions(scene, regions, _WIDTH)
    named = ", ".join(f"{index} {region.category}" for index, region in enumerate(regions))
    lines = [
        f"regions: {named}",
        f"asked: {turn.question}",
        f"Triton: {answer.text}",
        f"truth: {turn.answer}",
    ]
    canvas = Image.new("RGB", (_WIDTH, picture.height + _LINE * len(lines) + 24), "white")
    canvas.paste(picture)
    pen = ImageDraw.Draw(canvas)
    for row, line in enumerate(lines):
        pen.text((16, picture.height + 18 + _LINE * row), line, fill="black", font=ImageFont.load_default(22))
    return canvas
