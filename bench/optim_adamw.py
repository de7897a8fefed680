#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""AdamW with foreach=True on one thread, over tensors of the sizes that are given.

    optim_foreach.py SIZE...

Started by bench/optim_rules.cpp, so that both take turns in one run. For every line "N" read from its input, N steps
are made, and their seconds are printed.
"""
import os
import sys
import time

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
import torch  # noqa: E402  (the number of threads comes first)

torch.set_num_threads(1)
parameters = [torch.nn.Parameter(torch.rand(int(n)) - 0.5) for n in sys.argv[1:]]
for p in parameters:
    p.grad = torch.rand_like(p) - 0.5
optimizer = torch.optim.AdamW(parameters, lr=1e-3, foreach=True)
optimizer.step()
print("torch", torch.__version__, flush=True)
for line in sys.stdin:
    begin = time.perf_counter()
    for _ in range(int(line)):
        optimizer.step()
    print(time.perf_counter() - begin, flush=True)
