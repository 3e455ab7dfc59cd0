"""Make Great Expectations' pages whole: readable from a disk without a network, and without remote content.

As rendered they fetch styles, scripts and a logo from half a dozen hosts, and the list on the start page is
built by one of those scripts. Here the remote parts go, a small style sheet and script of our own come in,
and the start page gets a plain list.
"""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from srgpt.curation.expectations import Outcome
from srgpt.errors import SrgptError

_REMOTE = re.compile(
    r"<script\b.*?</script>|<link\b[^>]*>|<img\b[^>]*https?://[^>]*>|<footer\b.*?</footer>",
    re.DOTALL,
)


def finish(folder: Path, outcomes: Iterable[Outcome]) -> None:
    """Rewrite every page under ``folder``; the start page lists each suite with its verdict."""
    style = (resources.files("srgpt") / "curation" / "data_docs.html").read_text()
    shutil.rmtree(folder / "static", ignore_errors=True)  # logos, and fonts that our style does not use
    verdicts: dict[str, bool] = {}
    for outcome in outcomes:
        verdicts[outcome.table] = verdicts.get(outcome.table, True) and outcome.passed
    for page in sorted(folder.rglob("*.html")):
        # a frame read from a file has no asset name to show
        text = _REMOTE.sub("", page.read_text()).replace("Data asset: None<br>", "")
        text = text.replace("</head>", f"{style}</head>", 1)
        if page == folder / "index.html":
            text = _with_list(text, folder, verdicts)
        page.write_text(text)


def _with_list(text: str, folder: Path, verdicts: dict[str, bool]) -> str:
    rows = []
    for suite, passed in verdicts.items():
        verdict = '<b class="text-success">passed</b>' if passed else '<b class="text-danger">broken</b>'
        pages = [
            page.relative_to(folder).as_posix()
            for page in sorted(folder.glob(f"validations/{suite}/**/*.html"))
        ]
        name = f'<a href="{html.escape(pages[0])}">{suite}</a>' if pages else suite
        rules = f'<a href="expectations/{suite}.html">rules</a>' if pages else "no rows"
        rows.append(f"<tr><td>{name}</td><td>{verdict}</td><td>{rules}</td></tr>")
    head = "<tr><th>Table</th><th>Verdict</th><th>Suite</th></tr>"
    table = f'<table class="table"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'
    back = '<p><a href="../index.html">Back to the validation report</a></p>'
    body = re.search(r"<body[^>]*>", text)
    if body is None:
        raise SrgptError(
            "Great Expectations rendered a start page of an unknown form; its version is not ours"
        )
    content = f'<div class="container-fluid"><h4>Data Docs</h4>{back}{table}</div>'
    return f"{text[: body.end()]}{content}</body></html>\n"
