"""The configuration of a run, composed from Python."""

from __future__ import annotations

from pathlib import Path

import hydra
import pytest

from mmsa.compose import compose
from mmsa.errors import ConfigError
from tests.composition import HYDRA


@pytest.mark.parametrize("option", ["feedback=learnable_mask", "regularizer=mmdrop", "encoder=rnn"])
def test_an_option_that_does_not_exist_is_refused(option: str) -> None:
    with pytest.raises(ConfigError, match="there is no such option; choose from"):
        compose([option])


@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=3", "feedback=mmlatch", "encoder.text.dropout=0.3", "name='a b'", "hidden_dim=8"],
        [
            "experiment=misa_mosi",
            "encoder/text=misa",
            "trainer.max_epochs=2",
            "dataset=cmu_mosi",
            "dataset.source=null",
        ],
        ["encoder=bigru", "encoder/audio=bilstm", "dataset.modalities=[text,audio]", "paths.outputs=/tmp/a=b (1)"],
    ],
)
def test_the_tests_compose_as_hydra_does(overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ours = compose(overrides)
    monkeypatch.setattr(hydra, "compose", HYDRA)
    assert ours == compose(overrides)


SIGNS = ["my (x)", "a,b", "[x]", "{a: b}", "a=b", "é", "x'y", 'q"q', "a\\b", "50%20 #1?"]


@pytest.mark.parametrize("name", SIGNS)
def test_a_folder_may_have_any_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name / "fusion").mkdir(parents=True)
    (tmp_path / name / "fusion" / "own.yaml").write_text("_target_: mmsa.fusion.concat.Concat\n")
    assert compose(["fusion=own"], [str(tmp_path / name)]).fusion == {"_target_": "mmsa.fusion.concat.Concat"}
    assert compose([f"paths.outputs={name}"]).paths == {"outputs": name, "data": f"{name}/data"}
