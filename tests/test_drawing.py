from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mmsa import drawing
from mmsa.drawing import canvas, drawn, export, folded


def figure_of(text: str) -> drawing.Figure:
    figure = canvas(2.0, 1.5)
    figure.add_subplot().plot([0, 1], [0, 1], "o")
    figure.text(0.5, 0.5, text, parse_math=False)
    return figure


def test_a_figure_is_three_files_of_equal_bits_without_a_time(tmp_path: Path) -> None:
    first, second = (export(figure_of("MAE ↓"), tmp_path / name, "a") for name in ("first", "deep/second"))
    assert [path.name for path in first] == ["a.pdf", "a.svg", "a.png"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    pdf, svg, png = (path.read_bytes() for path in first)
    assert pdf.startswith(b"%PDF") and b"CreationDate" not in pdf and png.startswith(b"\x89PNG")
    root = ElementTree.fromstring(svg)
    assert "MAE ↓" in "".join(root.itertext()) and not re.search(rb"<dc:date>|20\d\d-\d\d-\d\d", svg)


def test_a_home_that_may_not_be_written_costs_no_line() -> None:
    asked = [sys.executable, "-c", "from mmsa.drawing import canvas; canvas(1, 1)"]
    no_home = {**os.environ, "HOME": os.devnull, "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": "", "MPLCONFIGDIR": ""}
    assert subprocess.run(asked, env=no_home, capture_output=True, text=True, check=True).stderr == ""


def test_signs_that_no_font_has_neither_warn_nor_stop() -> None:
    odd = "今天 สวัสดี שלום 한국 😀 $x^2$ \\x00"
    assert "今天" in drawn(figure_of(odd), "svg").decode()
    assert drawn(figure_of(odd), "png") and drawn(figure_of(odd), "pdf")


def test_signs_come_from_a_font_of_the_machine_that_has_them() -> None:
    def families(text: str) -> tuple[str, ...]:
        return drawing._families(frozenset(text))

    assert families("plain ↓ † –\n") == ()
    lacking = "\uf8e5\ue0a1"  # private signs, of which Matplotlib's own Computer Modern and STIX have some
    from matplotlib.font_manager import findfont

    for name in families(lacking):
        assert findfont(name, fallback_to_default=False)
    assert not [name for name in families("今" + lacking) if name.startswith("Last Resort")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("short", "short"),
        ("feedback=mmlatch fusion=concat", "feedback=mmlatch\nfusion=concat"),
        ("a\nb\x00 ", "a\\nb\\x00"),
        ("", ""),
    ],
)
def test_a_name_stands_on_two_lines(text: str, expected: str) -> None:
    assert folded(text, 18) == expected


def test_of_a_longer_name_the_middle_is_left_out() -> None:
    long = "feedback=mmlatch " + " ".join(f"encoder.text.option{k}={k}" for k in range(9)) + " seed=7"
    shown = folded(long, 30)
    first, second = shown.split("\n")
    assert max(len(first), len(second)) <= 30 and "…" in shown
    assert shown.startswith("feedback=mmlatch") and shown.endswith("seed=7")
    assert max(map(len, folded("x" * 500, 12).split("\n"))) <= 12
