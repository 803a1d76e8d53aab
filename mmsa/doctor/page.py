"""The doctor's page: one HTML file without anything from elsewhere, drawn from the numbers of a diagnosis."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsa.data.naming import data_name
from mmsa.data.store import FOLDS
from mmsa.doctor.examination import Diagnosis
from mmsa.drawing import BLUE, GREY, INK, ORANGE, canvas, plain
from mmsa.errors import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS_NAMED = 12
_LONGEST = 32
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #30353b; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin: 2rem 0 .5rem; border-bottom: 1px solid #d8dce1; }
table { border-collapse: collapse; width: 100%; }
td, th { padding: .25rem .6rem; text-align: left; vertical-align: top; }
th { font-weight: 600; border-bottom: 1px solid #b4bac2; } tr + tr td { border-top: 1px solid #eceef1; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } code { font-size: .9em; overflow-wrap: anywhere; }
td:has(.badge), td:has(.badge) + td code { white-space: nowrap; overflow-wrap: normal; }
.long { overflow-wrap: anywhere; }
.scroll { overflow-x: auto; } img { max-width: 100%; } p.quiet, .advice { color: #5b636d; margin: 0; }
.badge { border-radius: .3rem; padding: .1rem .5rem; color: #fff; font-size: .85em; }
.error { background: #b3372f; } .warning { background: #a8620f; } .note { background: #5b636d; }
"""


def page(diagnosis: Diagnosis) -> str:
    """The whole page; every text that comes from a file is escaped."""
    numbers = diagnosis.numbers
    name = data_name(numbers["title"], numbers["source"])
    title = _text(f"{name}: the doctor's findings")
    parts = [
        f"<h1>{_text(name)}</h1>",
        f"<p class='quiet'>mmsa doctor, store <code>{_text(numbers['store'])}</code></p>",
        f"<h2>Findings</h2><p>{_text(diagnosis.verdict)}</p>{_findings(diagnosis)}",
        f"<h2>Folds</h2>{_folds(numbers)}",
        f"<h2>Labels</h2>{_picture(_draw_labels(numbers), 'histogram of the labels of every fold')}{_labels(numbers)}",
        f"<h2>Modalities</h2>{_modalities(numbers)}",
        _picture(_draw_steps(numbers), "number of steps of the utterances") if numbers["modalities"] else "",
        f"<h2>Data card</h2>{_card(numbers)}",
        f"<h2>Sources</h2>{_sources(numbers)}",
    ]
    head = f"<meta charset='utf-8'><title>{title}</title><style>{_STYLE}</style>"
    return "\n".join([f"<!DOCTYPE html>\n<html lang='en'><head>{head}</head><body>", *parts, "</body></html>\n"])


def _findings(diagnosis: Diagnosis) -> str:
    rows = []
    for finding in diagnosis.findings:
        advice = f"<p class='advice'>{_text(finding.advice)}</p>" if finding.advice else ""
        badge = f"<span class='badge {finding.severity}'>{finding.severity}</span>"
        rows.append(
            f"<tr><td>{badge}</td><td><code>{finding.code}</code></td><td>{_text(finding.text)}{advice}</td></tr>"
        )
    return f"<table>{''.join(rows)}</table>" if rows else ""


def _folds(numbers: Mapping[str, Any]) -> str:
    rows = [
        (fold, part["utterances"], "" if part["published"] is None else part["published"], part["videos"])
        for fold, part in numbers["folds"].items()
    ]
    return _table(("fold", "utterances", "published", "videos"), rows)


def _labels(numbers: Mapping[str, Any]) -> str:
    rows = []
    for name, measured in numbers["targets"].items():
        for fold, part in measured["folds"].items():
            signs = part["signs"]
            spread = (_short(part[key]) for key in ("min", "median", "mean", "max"))
            beyond = (part["beyond_nominal"], part["not_finite"])
            rows.append((name, fold, *spread, signs["negative"], signs["zero"], signs["positive"], *beyond))
    heads = ("target", "fold", "min", "median", "mean", "max", "< 0", "= 0", "> 0", "beyond range", "not finite")
    return _table(heads, rows, words=2)


def _modalities(numbers: Mapping[str, Any]) -> str:
    rows = []
    for name, part in numbers["modalities"].items():
        source = part["not_finite_in_source"]
        rows.append(
            (
                name,
                part["width"],
                *(_short(part["steps"][key]) for key in ("min", "median", "max")),
                part["steps"]["one"],
                part["steps"]["none"],
                _which(part["constant_columns"]),
                _which(part["zero_columns"]),
                " / ".join(str(part["zero_utterances"][fold]) for fold in FOLDS),
                "?" if source is None else source,
            )
        )
    heads = ("modality", "columns", "least steps", "median", "most", "one step", "absent", "constant", "all-zero")
    said = (
        "<p class='quiet'>Constant and all-zero columns are those of the train fold. Values that were not finite have "
        "been set to 0 on reading.</p>"
    )
    return _table((*heads, "zero utterances: train / valid / test", "not finite"), rows) + said


def _card(numbers: Mapping[str, Any]) -> str:
    rows = [(name, part["width"], part["meaning"] or "unknown") for name, part in numbers["modalities"].items()]
    said = "".join(f"<p>{_text(sentence)}</p>" for sentence in numbers["card"])
    return said + _table(("modality", "columns", "feature set, inferred from their number"), rows)


def _sources(numbers: Mapping[str, Any]) -> str:
    rows = [
        (role, source["file"], source["sha256"], source["known"] or "") for role, source in numbers["sources"].items()
    ]
    said = f"read as {numbers['family']}'s layout; " if numbers["family"] else ""
    options = json.dumps(numbers["options"])
    return _table(("role", "file", "SHA-256", "known as"), rows, words=4) + (
        f"<p class='quiet'>{_text(said)}options <code>{_text(options)}</code>, fingerprint "
        f"<code>{_text(numbers['fingerprint'])}</code></p>"
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]], words: int = 1) -> str:
    """A table of which the first `words` columns are text; numbers stand on the right."""
    numeric = [i >= words and all(_is_number(row[i]) for row in rows) for i in range(len(heads))]
    kinds = [" class='n'" if right else "" for right in numeric]
    lines = ["".join(f"<th{kind}>{_text(head)}</th>" for head, kind in zip(heads, kinds, strict=True))]
    for row in rows:
        cells = zip(row, kinds, strict=True)
        lines.append("".join(f"<td{_long(cell) or kind}>{_text(cell)}</td>" for cell, kind in cells))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<div class='scroll'><table>{body}</table></div>"


def _long(cell: object) -> str:
    """A hash or a long name may be broken anywhere."""
    return " class='long'" if max(map(len, str(cell).split()), default=0) > _LONGEST else ""


def _is_number(cell: object) -> bool:
    return str(cell).lstrip("-").replace(".", "", 1).isdecimal() or cell in ("", "?")


def _draw_labels(numbers: Mapping[str, Any]) -> Figure:
    first = next(iter(numbers["targets"]))  # of a primary target of several columns
    measured = numbers["targets"].get(numbers["primary"], numbers["targets"][first])
    folds = [(fold, part["histogram"]) for fold, part in measured["folds"].items()]
    figure = _bars([(f"{fold} ({sum(histogram['counts'])})", histogram) for fold, histogram in folds], "label")
    for panel in figure.axes:
        for bound in measured["nominal_range"]:
            if bound is not None:
                panel.axvline(bound, color=GREY, linewidth=1, linestyle="--", zorder=0)
    return figure


def _draw_steps(numbers: Mapping[str, Any]) -> Figure:
    shown = numbers["modalities"]
    figure = _bars(
        [(printable(name)[:40], part["step_histogram"]) for name, part in shown.items()], "steps (line: median)"
    )
    for panel, part in zip(figure.axes, shown.values(), strict=True):
        if part["steps"]["median"] is not None:
            panel.axvline(part["steps"]["median"], color=ORANGE, linewidth=1.5)
    return figure


def _bars(titled: Sequence[tuple[str, Mapping[str, list[float]]]], what: str) -> Figure:
    """A panel per histogram, side by side."""
    from matplotlib.ticker import MaxNLocator

    figure = canvas(9.0, 2.6)
    for panel, (title, histogram) in zip(np.atleast_1d(figure.subplots(1, len(titled))), titled, strict=True):
        plain(panel)
        panel.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        edges = np.array(histogram["edges"])
        panel.bar(edges[:-1], histogram["counts"], width=np.diff(edges), align="edge", color=BLUE, edgecolor="white")
        panel.set_title(title, color=INK, fontsize=10, parse_math=False)  # a name from a file is no formula
        panel.set_xlabel(what)
    figure.axes[0].set_ylabel("utterances")
    return figure


def _picture(figure: Figure, described: str) -> str:
    written = io.BytesIO()
    figure.savefig(written, dpi=140, format="png")
    return f"<img alt='{_text(described)}' src='data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}'>"


def _which(columns: Sequence[int]) -> str:
    """How many columns, and the first of them."""
    if not columns:
        return "0"
    more = ", …" if len(columns) > _COLUMNS_NAMED else ""
    return f"{len(columns)} ({', '.join(map(str, columns[:_COLUMNS_NAMED]))}{more})"


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _text(value: object) -> str:
    """A value as HTML text."""
    return escape(printable(str(value)))
