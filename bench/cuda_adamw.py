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


class Steps:
    """A step of each kind over the same parameters."""

    def __init__(self, sizes):
        parameters = [torch.nn.Parameter(torch.full((int(n),), 0.5, device=device)) for n in sizes]
        for p in parameters:
            p.grad = torch.full_like(p, 0.0115)
        self.plain = torch.optim.AdamW(parameters, lr=1e-3, fused=True).step
        captured = torch.optim.AdamW(parameters, lr=1e-3, fused=True, capturable=True)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.plain()
                captured.step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured.step()
        self.kept = captured
        self.replayed = graph.replay
        torch.cuda.synchronize()


def seconds(step, times):
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(times):
        step()
    end.record()
    end.synchronize()
    return 1e-3 * begin.elapsed_time(end)


print("torch", torch.__version__, flush=True)
steps = None
for line in sys.stdin:
    words = line.split()
    if words[0] == "tensors":
        steps = None
        torch.cuda.empty_cache()
        steps = Steps(words[1:]) if words[1:] else None
        print("ready", flush=True)
    elif words[0] == "graph":
        print(seconds(steps.replayed, int(words[1])), flush=True)
    else:
        print(seconds(steps.plain, int(words[0])), flush=True)
