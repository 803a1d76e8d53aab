"""Train one model, or many with -m: python train.py regularizer=m3 feedback=mmlatch (--help lists the options)."""

import os
import shlex
import sys

try:
    from mmsa.train import main
except KeyboardInterrupt:
    sys.exit(130)
except ModuleNotFoundError as lack:
    if str(lack.name).startswith("mmsa"):
        raise
    checkout = os.path.relpath(os.path.dirname(os.path.abspath(__file__)))
    activate = os.path.join(checkout, ".venv", "bin", "activate")
    enter = f"source {shlex.quote(activate)} && python {shlex.join(sys.argv)}"
    sys.exit(
        f"train.py needs mmsa's environment, and this Python has no {lack.name}.\n"
        f"  type {enter if os.path.isfile(activate) else f'make -C {shlex.quote(checkout)} setup'}"
    )

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
