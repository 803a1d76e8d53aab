"""UR-FUNNY: about 16,500 punchlines of talks with the sentences before them, half of them followed by laughter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mmsa.data.loading import Loading
from mmsa.dataset.dataset import Dataset
from mmsa.dataset.pickles import Pickles

_FILES = (
    "a folder with data_folds.pkl, humor_label_sdk.pkl, language_sdk.pkl, word_embedding_list.pkl, "
    "covarep_features_sdk.pkl and openface_features_sdk.pkl"
)


class UrFunny(Dataset):
    """UR-FUNNY with the folds of its data_folds.pkl; the target is "humor", 0 or 1.

    It has no computational sequences: its folder of pickles is read, or a pickle or folder that others made of it. The
    folder does not name videos, so each segment counts as one of its own.

    Args:
        source: folder of version 1 or 2, MultiBench's humor.pkl, or MISA's folder; None takes the prepared store.
        modalities: as of `Dataset`.
        context: the steps of the sentences before the punchline stand before its own; else the punchline alone.
        glove: as of `Dataset`.
        keep_pauses: as recipes set it; its files hold no pauses.
        loading: as of `Dataset`.

    Raises:
        ConfigError: an option is out of its range.

    Reference: Hasan et al., UR-FUNNY: a multimodal language dataset for understanding humor, EMNLP 2019.
    """

    name = "ur_funny"
    title = "UR-FUNNY"
    kinds: ClassVar[Mapping[str, str]] = {"humor": "binary"}
    nominal_range = (0.0, 1.0)
    stated_bound = (0.0, 1.0)
    canonical_sizes: ClassVar[Mapping[str, int]] = {"train": 10598, "valid": 2626, "test": 3290}  # of version 1
    origin = "Its pickles come from github.com/ROC-HCI/UR-FUNNY."

    def __init__(
        self,
        source: str | None = None,
        modalities: Sequence[str] = ("text", "audio", "visual"),
        context: bool = False,
        glove: str | None = None,
        keep_pauses: bool = False,
        loading: Loading = Loading(),  # noqa: B008  (frozen)
    ) -> None:
        super().__init__(source, modalities, keep_pauses, glove, loading=loading)
        self.context = context
        self.format = Pickles(_FILES, "FOLDER_OR_FILE", context)

    @property
    def options(self) -> dict[str, Any]:
        """The context, which makes another store."""
        return {"context": self.context}
