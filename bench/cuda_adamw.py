#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""AdamW with fused=True on a GPU, over tensors of the sizes that are given.

    cuda_adamw.py SIZE...

Started by bench/cuda_optim.cu, so that both take turns in one run. For every line "N" read from its input, N steps
are made, and their seconds on the device are printed.
"""
import sys

import torch

if not torch.cuda.is_available():
    sys.exit("this PyTorch finds no GPU")
device = torch.device("cuda", 0)
parameters = [torch.nn.Parameter(torch.full((int(n),), 0.5, device=device)) for n in sys.argv[1:]]
for p in parameters:
    p.grad = torch.full_like(p, 0.0115)
optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)
for _ in range(3):
    optimizer.step()
torch.cuda.synchronize()
print("torch", torch.__version__, flush=True)
for line in sys.stdin:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(int(line)):
        optimizer.step()
    end.record()
    end.synchronize()
    print(1e-3 * begin.elapsed_time(end), flush=True)
