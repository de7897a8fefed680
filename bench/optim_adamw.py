#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""PyTorch's AdamW over tensors of the sizes that are given.

    optim_adamw.py SETTING THREADS SIZE...

SETTING: fused, foreach or loop. Started by bench/optim_rules.cpp, so that both take turns in one run. For every line
"N" read from its input, N steps are made, and their seconds are printed.
"""
import os
import sys
import time

setting, threads = sys.argv[1], sys.argv[2]
os.environ.update(OMP_NUM_THREADS=threads, OPENBLAS_NUM_THREADS=threads, MKL_NUM_THREADS=threads)
import torch  # noqa: E402  (the number of threads comes first)

torch.set_num_threads(int(threads))
parameters = [torch.nn.Parameter(torch.rand(int(n)) - 0.5) for n in sys.argv[3:]]
for p in parameters:
    p.grad = torch.rand_like(p) - 0.5
optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=setting == "fused", foreach=setting == "foreach")
optimizer.step()
print("PyTorch", torch.__version__, flush=True)
for line in sys.stdin:
    begin = time.perf_counter()
    for _ in range(int(line)):
        optimizer.step()
    print(time.perf_counter() - begin, flush=True)
