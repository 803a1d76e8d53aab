"""Published results beside ours: the anchors, and why a table's runs are not comparable with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import yaml  # type: ignore[import-untyped]
from annotated_types import Ge, Le, MinLen
from pydantic import BaseModel, ConfigDict

from mmsa.analysis.layout import counted
from mmsa.analysis.runs import Run
from mmsa.training.metrics import metric_mode

FILE = Path(__file__).with_name("anchors.yaml")
FEWEST = 5
"""Published rows on a data set that a metric needs, lest its best value be a weak one."""
_FINE_TUNED = "mmsa.encoder.bert.TransformerEncoder"

Text = Annotated[str, MinLen(1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Source(_Part):
    """Where figures were published, and what all of them share.

    Args:
        title: authors, place and year, or the file.
        url: of it.
        quoted_by: the text in which the figures were read, where that was another one.
        convention: of the metrics, where their names leave something open.
        seeds: number of runs behind a figure; None: not known.
        selection: of the epoch; None: not known.
        caveats: other reasons why the figures do not compare.
    """

    title: Text
    url: Annotated[str, MinLen(12)]
    quoted_by: Text | None = None
    convention: Text
    seeds: Annotated[int, Ge(1)] | None = None
    selection: Text | None = None
    caveats: Sequence[Text] = ()


class Anchor(_Part):
    """A published row.

    Args:
        dataset: name of the data set.
        system: name of the system.
        source: key of its source.
        text: features of the text.
        fine_tuned: whether the encoder of text was trained on the data set.
        aligned: whether all modalities had one time axis; None: not known.
        modalities: that it reads.
        caveats: reasons beside those of its source.
        metrics: name of METRICS -> value in its units, on the test fold.
    """

    dataset: Text
    system: Text
    source: Text
    text: Text
    fine_tuned: bool
    aligned: bool | None = None
    modalities: Sequence[Literal["text", "audio", "visual"]] = ("text", "audio", "visual")
    caveats: Sequence[Text] = ()
    metrics: Annotated[Mapping[str, Annotated[float, Ge(0), Le(2)]], MinLen(1)]

    @property
    def label(self) -> str:
        """Its row's name, which says that it is published."""
        return f"{self.system}, published [{self.source}]"


class Anchors(_Part):
    """The content of the file."""

    sources: Mapping[str, Source]
    anchors: Sequence[Anchor]

    def fitting(self, dataset: str, metrics: Iterable[str]) -> list[Anchor]:
        """Those on a data set with one of some metrics."""
        shown = set(metrics)
        return [anchor for anchor in self.anchors if anchor.dataset == dataset and shown & set(anchor.metrics)]

    def notes(self, found: Sequence[Anchor], runs: Sequence[Run], metrics: Iterable[str]) -> list[str]:
        """Lines below a table of these metrics of runs with these anchors: why they do not compare, and the sources."""
        first = runs[0]
        if first.planted:
            return ["no published results: planted data"]
        if not found:
            return [f"no published results of {first.dataset} with these metrics are known here"]
        with_f1 = any(metric.startswith("f1") for metric in metrics)
        of_source = {one.source: self.sources[one.source] for one in found}

        def each(what: Callable[[Anchor], Iterable[str]]) -> list[str]:
            """The different values of something, each with the rows that have it."""
            members: dict[str, list[Anchor]] = {}
            for one in found:
                for text in what(one):
                    members.setdefault(text, []).append(one)
            return [f"{text} ({_named(ones, found)})" for text, ones in members.items()]

        published = [
            "published rows are quoted and never tested; they compare with these runs only where nothing below differs",
            *_of_folds(first),
            *each(_features),
            *each(lambda one: _of_encoder(one, runs)),
            *each(lambda one: _of_modalities(one, runs)),
            *each(lambda one: [of_source[one.source].convention] if with_f1 else []),
            *each(lambda one: [_selected(of_source[one.source])]),
            *each(lambda one: [_seeds(of_source[one.source])]),
            *each(lambda one: [*of_source[one.source].caveats, *one.caveats]),
        ]
        return [*published, *(f"[{name}] {_cited(source)}" for name, source in of_source.items())]


@cache
def known_anchors() -> Anchors:
    """The anchors that the package carries."""
    return Anchors.model_validate(yaml.safe_load(FILE.read_text(encoding="utf-8")), strict=False)


@cache
def best_anchors(dataset: str) -> Mapping[str, Anchor]:
    """Metric -> the published row on a data set with its best value, of metrics that enough rows have."""
    there = [anchor for anchor in known_anchors().anchors if anchor.dataset == dataset]
    counts = Counter(metric for anchor in there for metric in anchor.metrics)
    found: dict[str, Anchor] = {}
    for anchor in there:
        for metric, value in anchor.metrics.items():
            if counts[metric] < FEWEST:
                continue
            best = found.setdefault(metric, anchor).metrics[metric]
            if (value < best) if metric_mode(metric) == "min" else (value > best):
                found[metric] = anchor
    return found


def _named(ones: Sequence[Anchor], found: Sequence[Anchor]) -> str:
    """Rows by name; those that are all of a source together, and all as all."""
    if len(ones) == len(found):
        return "all"
    names: dict[str, list[str]] = {}
    for one in ones:
        names.setdefault(one.source, []).append(one.system)
    sizes = Counter(one.source for one in found)
    return ", ".join(
        f"[{source}]" if len(systems) == sizes[source] else f"{', '.join(systems)} [{source}]"
        for source, systems in names.items()
    )


def _features(one: Anchor) -> list[str]:
    aligned = {True: ", aligned", False: ", unaligned", None: ""}[one.aligned]
    return [f"text features {one.text}{aligned}"]


def _of_folds(run: Run) -> list[str]:
    if run.fold != "test":
        return [f"fold: published figures are of the test fold, these of the {run.fold} fold"]
    usual = _usual_sizes(run.dataset).get("test")
    ours = run.data.utterances.get("test")
    if ours is None or usual is None:
        return ["folds: whether the test utterances are the same is not known"]
    return [f"folds: {ours:,} test utterances here, usually {usual:,}"] if ours != usual else []


def _usual_sizes(dataset: str) -> Mapping[str, int]:
    """The sizes of the folds that papers use, as far as the data set's class knows them."""
    module = import_module(f"mmsa.dataset.{dataset}")
    (made,) = [part for part in vars(module).values() if getattr(part, "__module__", "") == module.__name__ and
               "canonical_sizes" in vars(part)]  # fmt: skip
    sizes: Mapping[str, int] = made.canonical_sizes
    return sizes


def _of_encoder(one: Anchor, runs: Sequence[Run]) -> list[str]:
    """Whether one of both fine-tunes an encoder of text, and the other does not."""
    ours = {_fine_tunes(run) for run in runs}
    if ours == {one.fine_tuned}:
        return []
    there = "fine-tuned" if one.fine_tuned else "not fine-tuned"
    here = "in some of these runs" if len(ours) > 1 else "in these runs"
    return [f"text encoder {there}, unlike {here}"]


def _fine_tunes(run: Run) -> bool:
    place = next((name for name in ("text", "default") if f"encoder.{name}._target_" in run.configuration), "")
    return (
        run.configuration.get(f"encoder.{place}._target_") == _FINE_TUNED
        and run.configuration.get(f"encoder.{place}.freeze") != "all"
    )


def _of_modalities(one: Anchor, runs: Sequence[Run]) -> list[str]:
    ours = {run.configuration.get("dataset.modalities", "") for run in runs}
    same = all(set(text.strip("[]").replace("'", "").split(",")) == set(one.modalities) for text in ours)
    return [] if same or ours == {""} else [f"reads {', '.join(one.modalities)}, unlike some of these runs"]


def _selected(source: Source) -> str:
    return f"selection: {source.selection}" if source.selection else "selection of the epoch not known"


def _seeds(source: Source) -> str:
    return f"means of {counted(source.seeds)} without deviation" if source.seeds else "number of seeds not known"


def _cited(source: Source) -> str:
    quoted = f", as quoted by {source.quoted_by}" if source.quoted_by else ""
    return f"{source.title}, {source.url}{quoted}"
