#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""minimum.txt: where SciPy finds the minimum of a regularized logistic regression, in double precision.

    python3 -m venv env && env/bin/pip install scipy && env/bin/python minimum.py > minimum.txt

The data are drawn as doubles::value of ../doubles.hpp draws them.
"""
import numpy as np
import scipy
from scipy.optimize import minimize

N, D, L2 = 200, 7, 1e-3
M = (1 << 64) - 1


def value(stream, i):
    x = ((i + 1) * 0x9E3779B97F4A7C15 + stream * 0xD1B54A32D192ED03) & M
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & M
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & M
    x ^= x >> 31
    return float((x >> 11) - (1 << 52)) * 2.0**-52


X = np.array([[value(1, D * r + c) for c in range(D)] for r in range(N)])
y = np.array([1.0 if X[r].sum() + value(2, r) > 0 else -1.0 for r in range(N)])


def loss(w):
    z = y * (X @ w)
    return np.mean(np.logaddexp(0, -z)) + 0.5 * L2 * w @ w


def gradient(w):
    z = y * (X @ w)
    return -(X.T @ (y / (1 + np.exp(z)))) / N + L2 * w


def hessian(w):
    p = 1 / (1 + np.exp(-(X @ w)))
    return (X.T * (p * (1 - p))) @ X / N + L2 * np.eye(D)


w = minimize(loss, np.zeros(D), jac=gradient, hess=hessian, method="trust-exact", options={"gtol": 1e-13}).x
for _ in range(3):  # to the last digits
    w = w - np.linalg.solve(hessian(w), gradient(w))
print("# SciPy", scipy.__version__, "trust-exact and three Newton steps; loss, then weights")
print(repr(float(loss(w))))
for v in w:
    print(repr(float(v)))
