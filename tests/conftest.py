"""Settings of the whole suite."""

import os

# One thread per test process: the tensors of the tests are small, and the suite runs one process per core.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import torch

torch.set_num_threads(1)
