"""A fresh environment, in which `mmsa` is installed as its wheel would be, without a checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

from tests.conftest import ROOT


def installed_in(folder: Path) -> Path:
    """The programs of an environment with what a wheel carries, beside the packages of this environment.

    Args:
        folder: of the environment, which is made where it is missing.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    carried = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    for name in carried["only-include"]:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, site / carried["sources"].get(name, name), ignore=ignored)
    for name, place in carried["force-include"].items():
        shutil.copy(ROOT / name, site / place)
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    module, _, function = project["project"]["scripts"]["mmsa"].partition(":")
    program = folder / "bin" / "mmsa"
    program.write_text(f"#!{folder}/bin/python\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    program.chmod(0o755)
    return folder / "bin"
