#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""PyTorch's PowerSGD hook for DistributedDataParallel over one matrix, as one rank of one.

    compress_powersgd.py RANK THREADS ROWS COLUMNS

Started by bench/compress_codecs.cpp, so that both take turns in one run. With its best settings: error feedback, warm
start, compressing from the first step on. For every line "N" read from its input, N buckets are compressed, and their
seconds are printed.
"""
import os
import sys
import time

rank, threads, rows, columns = (int(word) for word in sys.argv[1:5])
os.environ.update(OMP_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
import torch  # noqa: E402  (the number of threads comes first)
import torch.distributed as distributed  # noqa: E402
from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook  # noqa: E402

torch.set_num_threads(threads)
distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
gradient = torch.rand(rows * columns) - 0.5
matrix = torch.nn.Parameter(torch.empty(rows, columns))


class Bucket:
    """What the hook asks of a GradBucket, which Python cannot make."""

    def buffer(self):
        return gradient

    def gradients(self):
        return [gradient.view(rows, columns)]

    def parameters(self):
        return [matrix]

    def index(self):
        return 0

    def is_last(self):
        return True


state = powerSGD_hook.PowerSGDState(
    process_group=None, matrix_approximation_rank=rank, start_powerSGD_iter=2, use_error_feedback=True, warm_start=True)
for _ in range(4):  # two dense ones, and two to begin with
    powerSGD_hook.powerSGD_hook(state, Bucket()).wait()
print("PyTorch", torch.__version__, flush=True)
for line in sys.stdin:
    begin = time.perf_counter()
    for _ in range(int(line)):
        powerSGD_hook.powerSGD_hook(state, Bucket()).wait()
    print(time.perf_counter() - begin, flush=True)
