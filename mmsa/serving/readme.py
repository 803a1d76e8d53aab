"""README.md of a packed model: a model card in the layout of the Hugging Face hub."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from mmsa.analysis.rendering import rendered
from mmsa.analysis.runs import run_of
from mmsa.analysis.tables import make_tables
from mmsa.errors import printable
from mmsa.record import RunRecord
from mmsa.serving.card import Card, Reads, without_folders
from mmsa.stages import Task

_PLANTED = (
    "**Planted data.** It was trained on the built-in corpus, whose truth is planted: it knows nothing of people."
)
_UNKNOWN = (
    "mmsa does not know the licence of the data. Look up what it permits before you pass this model on, and then "
    "replace `license: other` above."
)
_READ = {"vectors": "feature vectors (steps, {width})", "words": "words", "pieces": "words"}


def readme(card: Card, folders: Sequence[Path], records: Sequence[RunRecord], task: Task, licence: str | None) -> str:
    """The text of the file.

    Args:
        card: model.json.
        folders, records: of the runs.
        task: what they predict.
        licence: of the model; None is not known.
    """
    runs = [run_of(folder, record) for folder, record in zip(folders, records, strict=True)]
    table = without_folders(rendered(make_tables(runs), "markdown"))
    data, planted = card.data, [_PLANTED, ""] if card.data.planted else []
    counts = ", ".join(f"{count:,} {fold}" for fold, count in data.utterances.items())
    seeds = ", ".join(str(member.seed) for member in card.members)
    commit = card.members[0].git.commit
    title, origin = printable(data.title), "" if data.dataset == "custom" else printable(data.origin)
    lines = [
        f"---\n{_front_matter(card, records, task, licence)}---",
        "",
        f"# {task.target} of {title}",
        "",
        *planted,
        f"Predicts {task.target} of an utterance" + (f", {', '.join(task.columns)}" if task.columns else "") + ".",
        "",
        "## Use",
        "",
        "```python",
        "import mmsa",
        f"print(mmsa.predict('.', {_example(card)}).values)",
        "```",
        "",
        "Each modality is what it was in training; one that an utterance lacks is left out.",
        "",
        "| modality | reads | from |",
        "|---|---|---|",
        *(_row(m, reads) for m, reads in card.inputs.items()),
        "",
        "## Scores",
        "",
        f"Seeds: {seeds}.",
        "",
        table,
        "",
        "## Data and licence",
        "",
        f"{title}, data {data.fingerprint}: {counts} utterances. {origin}",
        "",
        _UNKNOWN if licence is None else f"Whoever packed this model states its licence: {licence}.",
        "",
        f"Packed by {card.written_by}" + (f", trained at commit {commit}." if commit else "."),
        "",
    ]
    return "\n".join(lines)


def _front_matter(card: Card, records: Sequence[RunRecord], task: Task, licence: str | None) -> str:
    """The head that the hub reads."""
    fold = records[0].fold
    means = {
        name: sum(record.metrics.get(f"{fold}/{name}", math.nan) for record in records) / len(records)
        for name in task.shown
    }
    metrics = [{"type": name, "value": round(value, 4)} for name, value in means.items() if math.isfinite(value)]
    found = {"task": {"type": "other"}, "dataset": {"name": printable(card.data.title), "type": card.data.dataset}}
    tags = ["multimodal", "sentiment-analysis", *card.inputs, *(["planted-data"] if card.data.planted else [])]
    head: dict[str, Any] = {"license": licence or "other", "library_name": "mmsa", "tags": tags}
    head["model-index"] = [{"name": card.members[0].name, "results": [{**found, "metrics": metrics}]}]
    text: str = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=1000)
    return text


def _row(modality: str, reads: Reads) -> str:
    read = _READ[reads.kind].format(width=reads.width)
    return f"| {modality} | {read} | {printable(reads.source or '').replace('|', '/')} |"


def _example(card: Card) -> str:
    """A record of one modality."""
    modality, reads = next(iter(card.inputs.items()))
    value = f"[[0.0] * {reads.width}]" if reads.kind == "vectors" else "'a fine film'"
    return f"{{{modality!r}: {value}}}"
