#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Sequences per second of bench/nn_char_lstm.cpp's network with PyTorch: one process, and two under
DistributedDataParallel over Gloo, one thread each. Prints a table; says so and exits with 77 where torch is missing."""
import os
import statistics
import sys
import time

STEPS, VOCABULARY, SEQUENCES, ITERATIONS, REPETITIONS = 50, 100, 25, 8, 5


def rate(rank, ranks, port):
    import torch
    torch.set_num_threads(1)
    torch.manual_seed(rank)

    class Reader(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(VOCABULARY, 64)
            self.lstm = torch.nn.LSTM(64, 256, num_layers=2, batch_first=True)
            self.dense = torch.nn.Linear(256, VOCABULARY)

        def forward(self, tokens):
            return self.dense(self.lstm(self.embedding(tokens))[0])

    model = Reader()
    if ranks > 1:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        torch.distributed.init_process_group("gloo", rank=rank, world_size=ranks)
        model = torch.nn.parallel.DistributedDataParallel(model)
    tokens = torch.randint(VOCABULARY, (SEQUENCES, STEPS))
    targets = torch.randint(VOCABULARY, (SEQUENCES, STEPS))

    def step():
        model.zero_grad(set_to_none=False)
        loss = torch.nn.functional.cross_entropy(model(tokens).reshape(-1, VOCABULARY), targets.reshape(-1))
        loss.backward()

    step()
    step()
    rates = []
    for _ in range(REPETITIONS):
        begin = time.perf_counter()
        for _ in range(ITERATIONS):
            step()
        rates.append(ranks * SEQUENCES * ITERATIONS / (time.perf_counter() - begin))
    if rank == 0:
        print(f"ranks {ranks}  sequences/s {statistics.median(rates):8.1f}  [{min(rates):.1f}, {max(rates):.1f}]", flush=True)
    if ranks > 1:
        torch.distributed.destroy_process_group()


def main():
    try:
        import torch
        import torch.multiprocessing as processes
    except ImportError:
        print("nn_char_lstm.py: torch cannot be imported here, nothing was measured")
        return 77
    print(f"PyTorch {torch.__version__}, one thread per process")
    rate(0, 1, 0)
    if torch.distributed.is_available():
        processes.spawn(rate, args=(2, 29511), nprocs=2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
