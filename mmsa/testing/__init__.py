"""The laws that every method keeps, as tests for one of your own.

    from mmsa.testing import laws_of

    TestMine = laws_of("fusion=mine", config_dir="FOLDER/conf")

Then type: MMSA_PACKAGES=my_package PYTHONPATH=FOLDER pytest FOLDER
"""

from __future__ import annotations

from mmsa.testing.suite import laws_of

__all__ = ["laws_of"]
