"""A packed model on the Hugging Face hub, uploaded where its packer asks for that."""

from __future__ import annotations

import re
from types import ModuleType

from mmsa.errors import ConfigError, MmsaError, first_line
from mmsa.program import program
from mmsa.serving.card import PIECES
from mmsa.serving.packed import PackedModel

_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_OURS = ["*.safetensors", f"{PIECES}/*"]
"""Files of a model that was pushed before, of which a new one may have fewer."""


def check_push(name: str, licence: str | None) -> None:
    """Refuse what cannot be pushed, before anything is packed.

    Args:
        name: of the repository.
        licence: of the card.

    Raises:
        ConfigError: the name is none, the licence is not stated, or the hub's package is not installed.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--push {name}: the name of a repository is required.\n  type --push USER/NAME")
    if licence in (None, "other"):
        raise ConfigError(
            "--push needs the licence of the model, which depends on that of its data.\n"
            "  type --license mit, or another of https://huggingface.co/docs/hub/repositories-licenses"
        )
    _hub()


def push(model: PackedModel, name: str) -> str:
    """Upload a packed model as a repository of the hub, which is private if it is new; returns its address.

    Raises:
        MmsaError: the hub does not answer, or refuses it.
    """
    hub = _hub()
    api = hub.HfApi()
    try:
        address = api.create_repo(name, private=True, exist_ok=True)
        about = f"Packed by {model.card.written_by}"
        api.upload_folder(repo_id=name, folder_path=model.folder, commit_message=about, delete_patterns=_OURS)
    # Whatever goes wrong in a network.
    except Exception as error:  # noqa: BLE001
        status = getattr(getattr(error, "response", None), "status_code", None)
        why = first_line(error)[:200]
        after = (
            f"type {program('hf')} auth login"
            if status in (401, 403)
            else "the same command packs and pushes it once that is mended"
        )
        raise MmsaError(f"the hub has not taken {name}: {why}\n  {after}") from None
    return str(address)


def _hub() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError:
        raise ConfigError(
            f"--push needs the package huggingface_hub.\n  type {program('pip')} install huggingface_hub"
        ) from None
    return huggingface_hub
