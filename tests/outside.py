"""Methods outside the repository, as a user has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def package(folder: Path, name: str, source: str, options: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """A package in a folder, and the arguments and environment that admit it.

    Args:
        folder: new.
        name: the package's.
        source: of its module `methods`.
        options: group/option -> its file.
    """
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text("")
    (folder / name / "methods.py").write_text(source)
    for option, content in options.items():
        path = folder / "conf" / f"{option}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(content)
    return ["--config-dir", str(folder / "conf")], {"MMSA_PACKAGES": name, "PYTHONPATH": str(folder)}
