"""The papers of the methods and data of runs, as BibTeX; CITATION.cff is where they are kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml  # type: ignore[import-untyped]

from mmsa.analysis.latex import escaped
from mmsa.analysis.runs import Run
from mmsa.program import installed

_FIELDS = {"collection-title": "booktitle", "journal": "journal", "volume": "volume", "issue": "number", "year": "year"}
_SEQUENCES = "computational sequences of the CMU-MultimodalSDK"


def bibtex(runs: Iterable[Run]) -> str:
    """An entry per paper of these runs' parts and data, and that of this software."""
    known = yaml.safe_load(installed("CITATION.cff").read_text(encoding="utf-8"))
    made = list(runs)
    cited = [reference for reference in known["references"] if any(_is_used(reference["scope"], run) for run in made)]
    return "\n\n".join([*map(_entry, cited), _software(known)])


def _is_used(scope: str, run: Run) -> bool:
    """Whether a run has a part that a reference is for; variants of a method are of its module."""
    if scope == _SEQUENCES:
        return any(name.endswith(".csd") for name in run.data.hashes)
    parts = [part.partition("=")[::2] for part in scope.split(", ")]
    return any(option in run.made_by(group) for group, option in parts)


def _entry(reference: Mapping[str, Any]) -> str:
    names = [f"{author['family-names']}, {author['given-names']}" for author in reference["authors"]]
    fields = {"title": f"{{{escaped(reference['title'])}}}", "author": escaped(" and ".join(names))}
    fields |= {name: escaped(str(reference[key])) for key, name in _FIELDS.items() if key in reference}
    if "start" in reference:
        fields["pages"] = f"{reference['start']}--{reference['end']}"
    fields |= {name: reference[name] for name in ("doi", "url") if name in reference}
    kind = "article" if reference["type"] == "article" else "inproceedings"
    first = reference["authors"][0]["family-names"]
    return _written(kind, _key(first, reference["year"], reference["title"]), fields)


def _software(known: Mapping[str, Any]) -> str:
    authors = " and ".join(f"{{{author['name']}}}" for author in known["authors"])
    fields = {"title": f"{{{escaped(known['title'])}}}", "author": authors, "note": f"version {known['version']}"}
    return _written("misc", "mmsa", fields)


def _key(family: str, year: int, title: str) -> str:
    """Author, year and the title's first word: letters and digits alone."""
    words = "".join(sign if sign.isascii() and sign.isalnum() else " " for sign in f"{family} {year} {title}").split()
    return "".join(words[:3]).lower()


def _written(kind: str, key: str, fields: Mapping[str, str]) -> str:
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])
