"""`make bench`: what a run costs, beside the same mathematics written plainly, and against the floor of the machine."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the libraries that read it: two threads that wait spoil a figure
