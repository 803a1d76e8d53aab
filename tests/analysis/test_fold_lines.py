"""Tables of runs on folds of their own: a row is over folds and seeds, and shares a table with nothing else."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev

import pytest

from mmsa.analysis.comparison import comparable_groups
from mmsa.analysis.layout import Table
from mmsa.analysis.runs import read_run
from mmsa.analysis.selection import Selection
from mmsa.analysis.shape import shape_of
from mmsa.analysis.tables import make_tables, report
from mmsa.errors import DataError

AddRun = Callable[..., Path]
AddFolds = Callable[..., list[Path]]
GRID = {(held_out, seed): 0.8 + 0.1 * held_out + 0.01 * seed for held_out in range(5) for seed in (1, 2, 3)}


def tables_of(outputs: Path, *words: str, **shape: object) -> list[Table]:
    return make_tables(Selection.of(words, outputs).read().runs, shape_of(**shape))  # type: ignore[arg-type]


def test_a_row_is_over_folds_and_seeds_and_says_so(outputs: Path, add_folds: AddFolds) -> None:
    add_folds(GRID, ("fusion=concat",))
    (table,) = tables_of(outputs)
    assert table.title == "cmu_mosi, 5 test folds of num_folds=5 by video (parts parts5), data aaaabbbbcccc"
    assert "mean ± sample standard deviation over 5 folds × 3 seeds" in table.notes
    assert any("train folds overlap, so ± is not the error of a mean" in note for note in table.notes)
    (row,), (baseline,) = table.blocks
    assert (row[0].text, baseline[0].text) == ("fusion=concat (5 folds × 3 seeds)", "mean")
    values = list(GRID.values())
    assert row[1].text == f"{fmean(values):.3f} ± {stdev(values):.3f}"
    assert baseline[1].text == f"{fmean([1, 2, 3, 4, 5]):.3f} ± {stdev([1, 2, 3, 4, 5]):.3f}", "once per fold"
    assert [name for name, _ in row[0].runs][:4] == [
        f"held_out {k} seed {s}" for k, s in [*[(0, s) for s in (1, 2, 3)], (1, 1)]
    ]


def test_of_two_runs_of_one_fold_and_seed_the_newest_counts(outputs: Path, add_folds: AddFolds) -> None:
    add_folds({(0, 1): 0.5, (1, 1): 0.5})
    add_folds({(1, 1): 0.7})
    (table,) = tables_of(outputs)
    assert table.blocks[0][0][0].text == "defaults (2 folds × 1 seed)" and table.blocks[0][0][1].text[:5] == "0.600"


def test_what_a_row_lacks_is_said(outputs: Path, add_folds: AddFolds) -> None:
    add_folds(GRID, ("fusion=concat",))
    add_folds(
        {place: mae for place, mae in GRID.items() if place not in ((3, 1), (3, 2), (3, 3), (4, 2))}, ("fusion=lmf",)
    )
    (table,) = tables_of(outputs)
    assert "mean ± sample standard deviation over the folds and seeds of each row" in table.notes
    assert "fusion=lmf lacks held_out=3" in table.notes and not any("concat lacks" in note for note in table.notes)
    assert [row[0].text for row in table.blocks[0]] == [
        "fusion=concat (5 folds × 3 seeds)",
        "fusion=lmf (11 runs of 4 folds × 3 seeds)",
    ]
    assert [row[0].text for row in table.blocks[1]] == ["mean [fusion=concat]", "mean [fusion=lmf]"]


def test_one_held_out_part_is_named_and_lacks_nothing(outputs: Path, add_folds: AddFolds) -> None:
    (folder, _) = add_folds({(2, 1): 0.8, (2, 2): 0.9})
    (table,) = tables_of(outputs)
    assert table.title.startswith("cmu_mosi, test fold of held_out=2 in num_folds=5 by video (parts parts5)")
    assert not any("lacks" in note or "overlap" in note for note in table.notes)
    (alone,) = make_tables([read_run(folder)])
    assert alone.blocks[0][0][0].text == "defaults (1 fold × 1 seed)" and alone.blocks[0][0][1].text == "0.800"


def test_neither_the_folds_of_the_source_nor_other_parts_share_the_table(
    outputs: Path, add_run: AddRun, add_folds: AddFolds
) -> None:
    add_run(0.5)
    add_folds({(0, 1): 0.6, (1, 1): 0.6})
    add_folds({(0, 1): 0.7, (1, 1): 0.7}, num_folds=10)
    add_folds({(0, 1): 0.8}, parts="others")
    tables = tables_of(outputs)
    assert [table.blocks[0][0][1].text[:5] for table in tables] == ["0.500", "0.600", "0.700", "0.800"]
    assert [len(table.blocks[0]) for table in tables] == [1] * 4 and len({table.title for table in tables}) == 4


def test_runs_are_chosen_and_grouped_by_their_part(outputs: Path, add_folds: AddFolds) -> None:
    add_folds(GRID)
    (chosen,) = tables_of(outputs, "dataset.held_out=0,1", "dataset.num_folds=5")
    assert chosen.blocks[0][0][0].text == "defaults (2 folds × 3 seeds)"
    (by,) = tables_of(outputs, by=["dataset.held_out"])
    assert [row[0].text for row in by.blocks[0]] == [f"dataset.held_out={k} (3 runs)" for k in range(5)]
    (single,) = tables_of(outputs, seeds=True)
    assert [row[0].text for row in single.blocks[0]][:2] == [f"defaults held_out=0 seed={s}" for s in (1, 2)]
    assert not any("lacks" in note for note in single.notes)


def test_csv_has_the_part_of_each_run(outputs: Path, add_run: AddRun, add_folds: AddFolds) -> None:
    add_folds(GRID)
    add_run(0.5)
    lines = list(csv.DictReader(io.StringIO(report(Selection(outputs), format="csv"))))
    (whole, first, *_), plain = lines, [line for line in lines if not line["parts"]]
    keys = ("parts", "kind", "folds", "held_out", "seeds", "seed")
    assert [whole[key] for key in keys] == ["parts5", "configuration", "5", "", "3", ""]
    assert [first[key] for key in keys] == ["parts5", "seed", "", "0", "", "1"]
    assert [plain[0][key] for key in keys] == ["", "configuration", "", "", "1", ""]
    assert sum(line["kind"] == "seed" and line["parts"] == "parts5" for line in lines) == 15


def test_runs_of_several_parts_are_not_evaluated_side_by_side(add_folds: AddFolds) -> None:
    first, second, third = add_folds({(0, 1): 0.8, (0, 2): 0.9, (1, 1): 0.8})
    (group,) = comparable_groups([first, second])
    assert len(group.runs) == 2
    with pytest.raises(
        DataError, match=r"held_out=0 in [\s\S]*held_out=1 in [\s\S]*\n  type dataset\.held_out=0 beside"
    ):
        comparable_groups([first, third])
