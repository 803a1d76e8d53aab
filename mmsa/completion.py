"""Completion by TAB in bash and zsh, after `eval "$(mmsa completion)"`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from glob import escape, glob
from pathlib import Path

from hydra import initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.plugins.completion_plugin import DefaultCompletionPlugin
from omegaconf.errors import OmegaConfBaseException

from mmsa.config import conf_folder
from mmsa.overrides import MODALITIES, TEXTS, native_overrides, typed_overrides

SCRIPT = r"""
_mmsa_completion() {
    local line="${COMP_LINE:0:$COMP_POINT}" found
    local -a helper
    helper=("$1")
    if [[ "$1" == *python* ]]; then
        found="${line#* }" found="${found%% *}"
        [ -f "$found" ] && grep -q "from mmsa.train import main" -- "$found" || return
        helper+=(-m mmsa.cli)
    fi
    local word="${line##* }"
    COMPREPLY=()
    while IFS= read -r found; do
        COMPREPLY+=("${found#"${word%"$2"}"}")  # bash completes what follows the last = or :
    done < <("${helper[@]}" completion "$line" 2>/dev/null)
}
if [ -n "$ZSH_VERSION" ]; then
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
    autoload -Uz bashcompinit && bashcompinit
fi
complete -o nospace -o default -F _mmsa_completion mmsa python python3
""".strip()
"""Shell functions; whatever else Python runs is left to the names of files."""


def offers(line: str, of_commands: Callable[[Sequence[str], str], list[str]]) -> list[str]:
    """The words that a command line's last one may become; a whole one ends in a space.

    Args:
        line: up to the cursor.
        of_commands: the words of another command than train, from those typed after mmsa and the last one.
    """
    *words, word = line.split(" ")
    words = [one for one in words if one]
    if words[1:] and (words[1] == "train" or words[1].endswith("train.py")):
        found = of_training(words[2:], word)
    else:
        found = of_commands(words[1:], word)
    return [one if one.endswith(("=", ".", "/")) else f"{one} " for one in found if one.startswith(word)]


def of_training(words: Sequence[str], word: str) -> list[str]:
    """The options, or the values of an option, that the last word of a training command may become.

    Args:
        words: those between train.py and the last one.
        word: the last one, as far as it is typed.
    """
    key, equals, value = word.partition("=")
    if word.startswith("-"):
        return [flag for action in get_args_parser()._actions for flag in action.option_strings]
    if key in TEXTS and equals:
        return [f"{key}={path}" for path in _files(value)]
    several, comma, last = value.rpartition(",")
    (asked,) = native_overrides([f"{key}{equals}{last}"])
    typed = [one for one in words if "=" in one and not one.startswith("-")]
    found = typed_overrides(_by_hydra(native_overrides(typed), asked))
    if equals:
        return [f"{key}={several}{comma}{one.removeprefix(f'{key}=')}" for one in found if _is_value(one)]
    return [*found, *(f"encoder/{modality}=" for modality in MODALITIES)]


def _files(start: str) -> list[str]:
    """Those whose path begins so and needs no quotes; the shell itself may know the others."""
    found = [f"{path}/" if Path(path).is_dir() else path for path in glob(f"{escape(start)}*")]
    return [path for path in found if shlex.quote(path) == path]


def _by_hydra(words: Sequence[str], word: str) -> list[str]:
    former = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_folder())):
            plugin = DefaultCompletionPlugin(GlobalHydra.instance().config_loader())
            return plugin._query("config", " ".join([*words, word]))
    except (HydraException, OmegaConfBaseException, ValueError):  # of what is typed wrongly
        return []
    finally:
        GlobalHydra.instance().hydra = former


def _is_value(offered: str) -> bool:
    """Not an interpolation, nor an entry of a list."""
    return "$" not in offered and not offered.endswith("=")
