#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""AdamW with fused=True on a GPU.

    cuda_adamw.py

Started by bench/cuda_optim.cu, so that both take turns in one run, and one process for all sizes: it takes PyTorch
seconds to start. For every line "tensors SIZE..." read from its input there are parameters of these sizes from then
on, and "ready" is printed; without a size, their memory is given back. For every line "N", N steps are made, and
their seconds on the device are printed.
"""
import sys

import torch

if not torch.cuda.is_available():
    sys.exit("this PyTorch finds no GPU")
device = torch.device("cuda", 0)


def make(sizes):
    parameters = [torch.nn.Parameter(torch.full((int(n),), 0.5, device=device)) for n in sizes]
    for p in parameters:
        p.grad = torch.full_like(p, 0.0115)
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)
    for _ in range(3):
        optimizer.step()
    torch.cuda.synchronize()
    return optimizer


def seconds(optimizer, steps):
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(steps):
        optimizer.step()
    end.record()
    end.synchronize()
    return 1e-3 * begin.elapsed_time(end)


print("torch", torch.__version__, flush=True)
optimizer = None
for line in sys.stdin:
    words = line.split()
    if words[0] == "tensors":
        optimizer = None
        torch.cuda.empty_cache()
        optimizer = make(words[1:]) if words[1:] else None
        print("ready", flush=True)
    else:
        print(seconds(optimizer, int(words[0])), flush=True)
