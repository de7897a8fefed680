#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""bench/nn_char_lstm.cpp's training step with PyTorch: one process, or several under DistributedDataParallel over Gloo,
one thread each.

    nn_char_lstm.py RANKS [RANK PORT]

Started by the benchmark, so that both take turns in one run. For every line "N" read from its input, N steps are made,
and their seconds are printed. Rank 0 starts the others.
"""
import os
import socket
import subprocess
import sys
import time

STEPS, VOCABULARY, SEQUENCES = 50, 96, 25


def main():
    ranks = int(sys.argv[1])
    rank = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
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
        if rank == 0:
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                port = str(s.getsockname()[1])
            for r in range(1, ranks):
                subprocess.Popen([sys.executable, __file__, str(ranks), str(r), port], stdin=subprocess.DEVNULL)
        else:
            port = sys.argv[3]
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        torch.distributed.init_process_group("gloo", rank=rank, world_size=ranks)
        model = torch.nn.parallel.DistributedDataParallel(model)
    try:
        optimizer, setting = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True), "fused"
    except (RuntimeError, TypeError):  # before 2.4
        optimizer, setting = torch.optim.AdamW(model.parameters(), lr=1e-3), "foreach"
    tokens = torch.randint(VOCABULARY, (SEQUENCES, STEPS))
    targets = torch.randint(VOCABULARY, (SEQUENCES, STEPS))

    def step():
        optimizer.zero_grad(set_to_none=False)
        loss = torch.nn.functional.cross_entropy(model(tokens).reshape(-1, VOCABULARY), targets.reshape(-1))
        loss.backward()
        optimizer.step()

    if rank == 0:
        print(f"PyTorch {torch.__version__}, AdamW {setting}", flush=True)
    while True:
        count = int(sys.stdin.readline() or 0) if rank == 0 else 0
        if ranks > 1:
            wanted = torch.tensor([count])
            torch.distributed.broadcast(wanted, 0)
            count = int(wanted[0])
        if count == 0:
            return
        begin = time.perf_counter()
        for _ in range(count):
            step()
        if rank == 0:
            print(time.perf_counter() - begin, flush=True)


if __name__ == "__main__":
    main()
