#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Writes trajectories.txt, or with the argument "matrix" matrix.txt, "curvature" curvature.txt: what PyTorch, optax and
plain transcriptions of the papers make of the same weights and gradients, in double precision. Run by hand when a rule
is added:

    python3 -m venv env && env/bin/pip install torch==2.9.1 optax==0.2.6 jax==0.8.1 schedulefree==1.4.1 numpy
    env/bin/python make.py > trajectories.txt; env/bin/python make.py matrix > matrix.txt
    env/bin/python make.py curvature > curvature.txt

Weights and gradients are a hash of (step, element), exact in single precision, which goldens.cpp computes again; so is
the loss, a hash of the step.
Hyperparameters are rounded to single precision first, as the library holds them. A case is a line "case NAME SOURCE
RULE HYPERPARAMETERS", then the weights after some steps, one line each; a schedule is a line "schedule NAME SOURCE" with
the rate of every step. Of a chain, NAME is what goldens.cpp calls it.

    python3 make.py --only NAME…     the cases of these names, if they are from papers: for a rule that is added; needs numpy
"""
import sys

import numpy as np

ONLY = sys.argv[2:] if sys.argv[1:2] == ["--only"] else []
if not ONLY:
    import jax
    import jax.numpy as jnp
    import optax
    import optax.contrib
    import schedulefree
    import torch
    jax.config.update("jax_enable_x64", True)

MATRIX, CURVATURE = sys.argv[1:] == ["matrix"], sys.argv[1:] == ["curvature"]
SHAPES = [(4, 4), (6, 3), (7,)] if MATRIX else [(2, 3, 2, 2), (3, 5), (7,)] if CURVATURE else [(3, 5), (7,), (1,)]
STEPS, SHOWN = 40, (1, 2, 5, 12, 40)
SIZE = sum(int(np.prod(s)) for s in SHAPES)

# What a case is for the test: a rule of the library with its hyperparameters, or an average of its weights. A case
# that is not here is a chain of goldens.cpp or matrix.cpp.
RULES = {
    "schedule_free_sgd": "schedule_free_sgd lr=0.1 beta=0.8 warmup=6 weight_decay=0.03",
    "schedule_free_sgd_x": "average of schedule_free_sgd lr=0.1 beta=0.8 warmup=6 weight_decay=0.03",
    "schedule_free_adamw": "schedule_free_adamw lr=0.02 beta1=0.8 beta2=0.95 epsilon=1e-3 warmup=6 weight_decay=0.03",
    "schedule_free_adamw_x":
        "average of schedule_free_adamw lr=0.02 beta1=0.8 beta2=0.95 epsilon=1e-3 warmup=6 weight_decay=0.03",
    "schedule_free_adamw_default": "schedule_free_adamw",
    "schedule_free_adamw_default_x": "average of schedule_free_adamw",
    "sgd": "sgd lr=0.05 weight_decay=0.03",
    "momentum": "momentum lr=0.05 momentum=0.8 dampening=0.25 weight_decay=0.03",
    "nesterov": "nesterov lr=0.05 momentum=0.8 weight_decay=0.03",
    "adam": "adam lr=0.02 beta1=0.8 beta2=0.95 epsilon=1e-4 weight_decay=0.03",
    "adam_default": "adam",
    "adamw": "adamw lr=0.02 beta1=0.8 beta2=0.95 epsilon=1e-4 weight_decay=0.03",
    "adamw_default": "adamw",
    "adagrad": "adagrad lr=0.05 initial_accumulator=0.1 epsilon=1e-3 weight_decay=0.03",
    "adagrad_default": "adagrad",
    "adadelta": "adadelta lr=0.7 rho=0.85 epsilon=1e-3 weight_decay=0.03",
    "adadelta_default": "adadelta",
    "rmsprop": "rmsprop lr=0.02 alpha=0.9 epsilon=1e-3 weight_decay=0.03",
    "rmsprop_default": "rmsprop",
    "rmsprop_momentum": "rmsprop_momentum lr=0.01 alpha=0.9 momentum=0.7 epsilon=1e-3 weight_decay=0.03",
    "rmsprop_centered": "rmsprop_centered lr=0.01 alpha=0.9 momentum=0.7 epsilon=1e-2 weight_decay=0.03",
    "rprop": "rprop initial_step=0.03 shrink=0.4 grow=1.3 smallest_step=1e-3 largest_step=0.1",
    "rprop_default": "rprop",
    "adamax": "adamax lr=0.02 beta1=0.8 beta2=0.95 epsilon=1e-3 weight_decay=0.03",
    "adamax_default": "adamax",
    "nadam": "nadam lr=0.02 beta1=0.8 beta2=0.95 epsilon=1e-3 momentum_decay=0.05 weight_decay=0.03",
    "nadam_default": "nadam",
    "amsgrad": "amsgrad lr=0.02 beta1=0.8 beta2=0.9 epsilon=1e-3 weight_decay=0.03",
    "radam": "radam lr=0.02 beta1=0.8 beta2=0.95 epsilon=1e-3 weight_decay=0.03",
    "radam_default": "radam",
    "sign_sgd": "sign_sgd lr=0.02 weight_decay=0.03",
    "signum": "signum lr=0.02 momentum=0.8 weight_decay=0.03",
    "lion": "lion lr=0.02 beta1=0.85 beta2=0.97 weight_decay=0.03",
    "lion_default": "lion",
    "yogi": "yogi lr=0.02 beta1=0.8 beta2=0.95 initial_accumulator=0 weight_decay=0.03",
    "adabelief": "adabelief lr=0.02 beta1=0.8 beta2=0.95 epsilon=1e-3 weight_decay=0.03",
    "adabelief_default": "adabelief",
    "adan": "adan lr=0.02 beta1=0.9 beta2=0.8 beta3=0.95 epsilon=1e-3 weight_decay=0.03",
    "ademamix": "ademamix lr=0.02 beta1=0.8 beta2=0.95 beta3=0.99 alpha=3 epsilon=1e-3 weight_decay=0.03",
    "ademamix_warm_up":
        "ademamix lr=0.02 beta1=0.8 beta2=0.95 beta3=0.99 alpha=3 warmup=25 epsilon=1e-3 weight_decay=0.03",
    "lamb": "lamb lr=0.02 beta1=0.8 beta2=0.95 epsilon=1e-3 weight_decay=0.03",
    "qhm": "qhm lr=0.02 nu=0.6 beta=0.9 weight_decay=0.03",
    "qhadam": "qhadam lr=0.02 nu1=0.6 nu2=0.8 beta1=0.9 beta2=0.95 epsilon=1e-3 weight_decay=0.03",
    "adabound": "adabound lr=0.02 final_ratio=2 gamma=0.1 beta1=0.8 beta2=0.95 epsilon=1e-3 weight_decay=0.03",
    "adopt": "adopt lr=0.02 beta1=0.8 beta2=0.95 epsilon=1e-3 weight_decay=0.03",
    "adafactor": "adafactor lr=0.02 decay=-0.7 smallest_rms=0.01 clipping=1.25 weight_decay=0.03",
    "adafactor_relative_step": "adafactor lr=relative_step(0.3)",
    "adafactor_default": "adafactor",
    "novograd": "novograd lr=0.02 beta1=0.8 beta2=0.7 epsilon=1e-3 weight_decay=0.03",
    "novograd_default": "novograd",
    "prodigy": "prodigy lr=0.9 beta1=0.8 beta2=0.95 epsilon=1e-3 weight_decay=0.03 initial_d=0.01 coefficient=1.5",
    "prodigy_corrected":
        "prodigy lr=0.9 beta1=0.8 beta2=0.95 epsilon=1e-3 weight_decay=0.03 initial_d=0.01 coefficient=1.5 "
        "bias_correction=true",
    "sm3": "sm3 lr=0.05 momentum=0.8 epsilon=1e-4 weight_decay=0.03",
    "sm3_default": "sm3",
    "larc": "larc lr=0.05 momentum=0.8 weight_decay=0.03 trust_coefficient=0.05",
    "lans": "lans lr=0.02 beta1=0.8 beta2=0.95 epsilon=1e-3 weight_decay=0.03",
    "row_wise_adagrad": "row_wise_adagrad lr=0.02 epsilon=1e-3 weight_decay=0.03",
    "lars": "lars lr=0.5 momentum=0.8 weight_decay=0.03 trust_coefficient=0.02",
    "padam": "padam lr=0.02 power=0.2 beta1=0.8 beta2=0.9 epsilon=1e-3 weight_decay=0.03",
    "padam_default": "padam",
    "amsbound": "amsbound lr=0.02 final_ratio=2 gamma=0.1 beta1=0.8 beta2=0.9 epsilon=1e-3 weight_decay=0.03",
    "amsbound_default": "amsbound",
    "nadamax": "nadamax lr=0.02 beta1=0.8 beta2=0.95 epsilon=1e-3 momentum_decay=0.05 weight_decay=0.03",
    "nadamax_default": "nadamax",
    "simplified_ademamix": "simplified_ademamix lr=5e-3 beta1=0.9 beta2=0.8 alpha=1.5 epsilon=1e-3 weight_decay=0.03",
    "simplified_ademamix_default": "simplified_ademamix",
    "acprop": "acprop lr=0.02 beta1=0.8 beta2=0.95 epsilon=1e-3 weight_decay=0.03",
    "acprop_default": "acprop",
    "optimistic_adam": "optimistic_adam lr=0.02 beta1=0.8 beta2=0.95 epsilon=1e-3 optimism=0.6 weight_decay=0.03",
    "optimistic_adam_default": "optimistic_adam",
    "ftml": "ftml lr=0.02 beta1=0.8 beta2=0.95 epsilon=1e-3 weight_decay=0.03",
    "ftml_default": "ftml",
    "swats": "swats lr=0.02 beta1=0.7 beta2=0.8 epsilon=1e-3 tolerance=7e-4 weight_decay=0.03",
    "swats_default": "swats",
    "optimistic_sgd": "optimistic_sgd lr=0.05 alpha=0.7 beta=1.4 weight_decay=0.03",
    "optimistic_sgd_default": "optimistic_sgd",
    "demon": "demon lr=0.02 momentum=0.8 steps=30 weight_decay=0.03",
    "demon_default": "demon",
    "entropy_sgd": "entropy_sgd lr=0.05 outer_lr=0.8 steps=6 scope=0.5 scope_growth=0.25 alpha=0.6 weight_decay=0.03",
    "entropy_sgd_x":
        "average of entropy_sgd lr=0.05 outer_lr=0.8 steps=6 scope=0.5 scope_growth=0.25 alpha=0.6 "
        "weight_decay=0.03",
    "entropy_sgd_default": "entropy_sgd",
    "ftrl": "ftrl lr=0.3 beta=0.5 l1=0.4 l2=0.2",
    "ftrl_default": "ftrl",
    "wngrad": "wngrad lr=0.7 initial=2.5 weight_decay=0.03",
    "wngrad_default": "wngrad",
    "adagrad_norm": "adagrad_norm lr=0.7 initial=2.5 weight_decay=0.03",
    "adagrad_norm_default": "adagrad_norm",
    "dadapt_adamw": "dadapt_adamw beta1=0.8 beta2=0.95 epsilon=1e-3 weight_decay=0.03 initial_d=0.01",
    "dadapt_adamw_default": "dadapt_adamw",
    "dog": "dog lr=0.7 reach=0.03 epsilon=0.5 weight_decay=0.03",
    "dog_default": "dog",
    "dowg": "dowg lr=0.7 initial_square=0.05 epsilon=0.1 weight_decay=0.03",
    "dowg_default": "dowg",
    "cocob": "cocob alpha=7 epsilon=0.2 weight_decay=0.03",
    "cocob_default": "cocob",
    "smorms3": "smorms3 lr=0.05 epsilon=1e-3 weight_decay=0.03",
    "smorms3_default": "smorms3",
    "fromage": "fromage lr=0.1",
    "fromage_default": "fromage",
    "percent_delta": "percent_delta lr=0.02 momentum=0.8 epsilon=0.1 weight_decay=0.03",
    "percent_delta_default": "percent_delta",
    "polyak_sgd": "polyak_sgd lr=0.5 lower_bound=0.5 largest=0.2 epsilon=0.3 weight_decay=0.03",
    "polyak_sgd_default": "polyak_sgd",
    "momo": "momo lr=0.3 beta=0.8 lower_bound=1.5",
    "momo_decay": "momo lr=0.3 beta=0.8 lower_bound=1.5 weight_decay=0.3",
    "momo_default": "momo",
    "momo_adam": "momo_adam lr=0.1 beta1=0.8 beta2=0.95 epsilon=1e-3 lower_bound=1.5",
    "momo_adam_decay": "momo_adam lr=0.1 beta1=0.8 beta2=0.95 epsilon=1e-3 lower_bound=1.5 weight_decay=0.3",
    "momo_adam_default": "momo_adam",
    "eve": "eve lr=0.02 beta1=0.8 beta2=0.95 beta3=0.7 epsilon=1e-3 clipping=2 lower_bound=0.5 weight_decay=0.03",
    "eve_default": "eve",
    "muon": "muon lr=0.02 momentum=0.9 weight_decay=0.03",
    "muon_3": "muon lr=0.02 momentum=0.9 iterations=3 weight_decay=0.03",
    "shampoo": "shampoo lr=0.02 epsilon=1e-3 interval=4 weight_decay=0.03",
    "shampoo_blocks":
        "shampoo lr=0.02 momentum=0.5 beta2=0.95 epsilon=1e-3 interval=3 block=3 grafting=rmsprop "
        "weight_decay=0.03",
    "shampoo_sgd":
        "shampoo lr=0.02 momentum=0.5 beta2=0.95 epsilon=1e-3 interval=1 block=4 grafting=sgd "
        "weight_decay=0.03",
    "shampoo_plain": "shampoo lr=0.02 momentum=0 epsilon=1e-3 interval=1 grafting=none weight_decay=0.03",
    "soap": "soap lr=0.02 beta1=0.9 beta2=0.95 epsilon=1e-3 interval=5 largest=5 weight_decay=0.03",
    "madgrad": "madgrad lr=0.02 momentum=0.8 epsilon=1e-3 weight_decay=0.03",
    "madgrad_default": "madgrad",
}


def f(x):
    return float(np.float32(x))


def loss(step):
    """What the rules that need it take for the loss: from 1 to 3, exact in single precision."""
    h = (step * 7368787 + 4093) * 2654435761 % 2**32
    return 1.0 + ((h ^ (h >> 15)) * 2246822519 % 2**32 >> 16) * 2.0**-15


def draw(step):
    h = (np.arange(SIZE, dtype=np.uint64) * 7919 + step * 1000003 + 12345) * 2654435761 % 2**32
    h = (h ^ (h >> np.uint64(15))) * 2246822519 % 2**32
    return (h >> np.uint64(8)).astype(np.float64) * 2.0**-23 - 1.0


def cut(flat):
    at, parts = 0, []
    for s in SHAPES:
        n = int(np.prod(s))
        parts.append(flat[at:at + n].reshape(s))
        at += n
    return parts


def flat(params):
    return np.concatenate([p.detach().numpy().ravel() for p in params])


def show(name, source, rows):
    if ONLY and name not in ONLY:
        return
    print("case", name, source, *([RULES[name]] if name in RULES else []))
    for step, w in rows:
        print(step, *(f"{x:.10g}" for x in w))


def with_torch(name, make):
    params = [torch.nn.Parameter(torch.tensor(p)) for p in cut(draw(0))]
    optimizer, rows = make(params), []
    for t in range(1, STEPS + 1):
        for p, g in zip(params, cut(draw(t))):
            p.grad = torch.tensor(g)
        optimizer.step()
        if t in SHOWN:
            rows.append((t, flat(params)))
    show(name, f"torch-{torch.__version__.split('+')[0]}", rows)


def averaged(name, source, make, average):
    """What average(params, optimizer, step) says behind every step, instead of the weights."""
    params = [torch.nn.Parameter(torch.tensor(p)) for p in cut(draw(0))]
    optimizer, rows = make(params), []
    for t in range(1, STEPS + 1):
        for p, g in zip(params, cut(draw(t))):
            p.grad = torch.tensor(g)
        optimizer.step()
        shown = average(params, optimizer, t)
        if t in SHOWN:
            rows.append((t, shown))
    show(name, source, rows)


def averages():
    decay, torch_version = f(0.03), f"torch-{torch.__version__.split('+')[0]}"

    def momentum(p):
        return torch.optim.SGD(p, lr=f(0.05), momentum=f(0.8), weight_decay=decay)

    ema, mean = {}, {}

    def exponential(params, optimizer, t):
        ema["e"] = flat(params) if t == 1 else f(0.9) * ema["e"] + (1 - f(0.9)) * flat(params)
        return ema["e"]

    def every_third(params, optimizer, t):
        if t >= 2 and (t - 2) % 3 == 0:
            mean.setdefault("all", []).append(flat(params))
        return np.mean(mean["all"], axis=0) if mean else flat(params)

    averaged("ema_weights", torch_version, momentum, exponential)
    averaged("swa_weights", torch_version, momentum, every_third)
    # Lookahead around torch's momentum: weights, not an average, are shown.
    slow = {"w": [torch.tensor(p) for p in cut(draw(0))]}

    def lookahead(params, optimizer, t):
        if t % 4 == 0:
            for s, p in zip(slow["w"], params):
                s.add_(p.detach() - s, alpha=f(0.6))
                p.data.copy_(s)
        return flat(params)

    averaged("lookahead", "Zhang-2019-algorithm-1", momentum, lookahead)

    def at_x(params, optimizer, t):
        optimizer.eval()
        x = flat(params)
        optimizer.train()
        return x

    def keep_training(make):
        def made(params):
            optimizer = make(params)
            optimizer.train()
            return optimizer
        return made

    sgd = keep_training(lambda p: schedulefree.SGDScheduleFree(p, lr=f(0.1), momentum=f(0.8), weight_decay=decay,
                                                               warmup_steps=6))
    adamw = keep_training(lambda p: schedulefree.AdamWScheduleFree(p, lr=f(0.02), betas=(f(0.8), f(0.95)), eps=f(1e-3),
                                                                   weight_decay=decay, warmup_steps=6))
    plain = keep_training(lambda p: schedulefree.AdamWScheduleFree(p, betas=(f(0.9), f(0.999)), lr=f(0.0025)))
    for name, make in (("schedule_free_sgd", sgd), ("schedule_free_adamw", adamw),
                       ("schedule_free_adamw_default", plain)):
        averaged(name, "schedulefree-1.4.1", make, lambda params, optimizer, t: flat(params))
        averaged(name + "_x", "schedulefree-1.4.1", make, at_x)


def with_optax(name, rule):
    params = [jnp.asarray(p) for p in cut(draw(0))]
    rule = optax.with_extra_args_support(rule)
    state, rows = rule.init(params), []
    for t in range(1, STEPS + 1):
        updates, state = rule.update([jnp.asarray(g) for g in cut(draw(t))], state, params, value=jnp.asarray(loss(t)))
        params = optax.apply_updates(params, updates)
        if t in SHOWN:
            rows.append((t, np.concatenate([np.asarray(p).ravel() for p in params])))
    show(name, f"optax-{optax.__version__}", rows)


def from_paper(name, update, citation, shown=None):
    """update(w, g, t, memory) returns the new weights of one tensor; memory is a dict that it keeps. `shown` names what
    of it is shown instead of the weights."""
    params, memories, rows = cut(draw(0)), [{} for _ in SHAPES], []
    for t in range(1, STEPS + 1):
        params = [update(w, g, t, m) for w, g, m in zip(params, cut(draw(t)), memories)]
        if t in SHOWN:
            rows.append((t, np.concatenate([p.ravel() for p in ([m[shown] for m in memories] if shown else params)])))
    show(name, citation, rows)


def from_paper_on_all(name, update, citation):
    """As from_paper, of all tensors as one vector."""
    w, memory, rows = draw(0), {}, []
    for t in range(1, STEPS + 1):
        w = update(w, draw(t), t, memory)
        if t in SHOWN:
            rows.append((t, w))
    show(name, citation, rows)


def torch_cases():
    o = torch.optim
    decay = f(0.03)
    with_torch("sgd", lambda p: o.SGD(p, lr=f(0.05), weight_decay=decay))
    with_torch("momentum", lambda p: o.SGD(p, lr=f(0.05), momentum=f(0.8), dampening=f(0.25), weight_decay=decay))
    with_torch("nesterov", lambda p: o.SGD(p, lr=f(0.05), momentum=f(0.8), nesterov=True, weight_decay=decay))
    with_torch("adam", lambda p: o.Adam(p, lr=f(0.02), betas=(f(0.8), f(0.95)), eps=f(1e-4), weight_decay=decay))
    with_torch("adam_default", lambda p: o.Adam(p, betas=(f(0.9), f(0.999)), lr=f(1e-3)))
    with_torch("adamw", lambda p: o.AdamW(p, lr=f(0.02), betas=(f(0.8), f(0.95)), eps=f(1e-4), weight_decay=decay))
    with_torch("adamw_default",
               lambda p: o.AdamW(p, lr=f(1e-3), betas=(f(0.9), f(0.999)), weight_decay=f(0.01)))
    with_torch("adagrad", lambda p: o.Adagrad(p, lr=f(0.05), initial_accumulator_value=f(0.1), eps=f(1e-3),
                                              weight_decay=decay))
    with_torch("adagrad_default", lambda p: o.Adagrad(p, lr=f(0.01)))
    with_torch("adadelta", lambda p: o.Adadelta(p, lr=f(0.7), rho=f(0.85), eps=f(1e-3), weight_decay=decay))
    with_torch("adadelta_default", lambda p: o.Adadelta(p, rho=f(0.9)))
    with_torch("rmsprop", lambda p: o.RMSprop(p, lr=f(0.02), alpha=f(0.9), eps=f(1e-3), weight_decay=decay))
    with_torch("rmsprop_default", lambda p: o.RMSprop(p, lr=f(0.01), alpha=f(0.99)))
    with_torch("rmsprop_momentum", lambda p: o.RMSprop(p, lr=f(0.01), alpha=f(0.9), eps=f(1e-3), momentum=f(0.7),
                                                       weight_decay=decay))
    with_torch("rmsprop_centered", lambda p: o.RMSprop(p, lr=f(0.01), alpha=f(0.9), eps=f(1e-2), momentum=f(0.7),
                                                      centered=True, weight_decay=decay))
    with_torch("rprop", lambda p: o.Rprop(p, lr=f(0.03), etas=(f(0.4), f(1.3)), step_sizes=(f(1e-3), f(0.1))))
    with_torch("rprop_default", lambda p: o.Rprop(p, lr=f(0.01), etas=(f(0.5), f(1.2)), step_sizes=(f(1e-6), 50)))
    with_torch("adamax", lambda p: o.Adamax(p, lr=f(0.02), betas=(f(0.8), f(0.95)), eps=f(1e-3), weight_decay=decay))
    with_torch("adamax_default", lambda p: o.Adamax(p, lr=f(2e-3), betas=(f(0.9), f(0.999))))
    with_torch("nadam", lambda p: o.NAdam(p, lr=f(0.02), betas=(f(0.8), f(0.95)), eps=f(1e-3), momentum_decay=f(0.05),
                                          weight_decay=decay))
    with_torch("nadam_default",
               lambda p: o.NAdam(p, lr=f(2e-3), betas=(f(0.9), f(0.999)), momentum_decay=f(4e-3)))
    with_torch("amsgrad", lambda p: o.Adam(p, lr=f(0.02), betas=(f(0.8), f(0.9)), eps=f(1e-3), amsgrad=True,
                                           weight_decay=decay))
    with_torch("radam", lambda p: o.RAdam(p, lr=f(0.02), betas=(f(0.8), f(0.95)), eps=f(1e-3), weight_decay=decay))
    with_torch("adafactor", lambda p: o.Adafactor(p, lr=f(0.02), beta2_decay=f(-0.7), eps=(f(1.1920929e-7), f(0.01)),
                                                  d=1.25, weight_decay=decay))
    with_torch("adafactor_relative_step", lambda p: o.Adafactor(p, lr=f(0.3), eps=(f(1.1920929e-7), f(1e-3))))
    with_torch("adafactor_default",
               lambda p: o.Adafactor(p, lr=f(1e-2), beta2_decay=f(-0.8), eps=(f(1.1920929e-7), f(1e-3))))
    with_torch("radam_default", lambda p: o.RAdam(p, lr=f(1e-3), betas=(f(0.9), f(0.999))))
    with_torch("nadam_decoupled", lambda p: o.NAdam(p, lr=f(0.02), betas=(f(0.8), f(0.95)), eps=f(1e-3),
                                                    momentum_decay=f(0.05), weight_decay=decay,
                                                    decoupled_weight_decay=True))

    def asgd(p):
        return o.ASGD(p, lr=f(0.1), lambd=decay, alpha=f(0.75), t0=5)

    with_torch("asgd", asgd)
    averaged("asgd_ax", f"torch-{torch.__version__.split('+')[0]}", asgd,
             lambda params, optimizer, t: np.concatenate([optimizer.state[p]["ax"].numpy().ravel() for p in params]))


def optax_cases():
    decay = f(0.03)
    lr = f(0.02)

    def decayed(*stages, rate=lr):
        return optax.chain(*stages, optax.add_decayed_weights(decay), optax.scale_by_learning_rate(rate))

    with_optax("sign_sgd", decayed(optax.scale_by_sign()))
    with_optax("signum", decayed(optax.ema(f(0.8), debias=False), optax.scale_by_sign()))
    with_optax("lion", optax.lion(lr, b1=f(0.85), b2=f(0.97), weight_decay=decay))
    with_optax("lion_default", optax.lion(f(1e-4), b1=f(0.9), b2=f(0.99), weight_decay=0.0))
    with_optax("yogi", decayed(optax.scale_by_yogi(b1=f(0.8), b2=f(0.95), eps=f(1e-3), initial_accumulator_value=0.0)))
    with_optax("adabelief",
               decayed(optax.scale_by_belief(b1=f(0.8), b2=f(0.95), eps=f(1e-3), eps_root=f(1e-3))))
    with_optax("adabelief_default", optax.adabelief(f(1e-3), b1=f(0.9), b2=f(0.999)))
    # Not Adan: optax 0.2.6 keeps b2 of the average, as the authors' program does, but weighs the difference by 1 - b2,
    # which is right only in the paper's notation, where b2 is the share of what is new.
    with_optax("ademamix", optax.contrib.ademamix(lr, b1=f(0.8), b2=f(0.95), b3=f(0.99), alpha=f(3), eps=f(1e-3),
                                                  weight_decay=decay))
    with_optax("novograd", optax.novograd(lr, b1=f(0.8), b2=f(0.7), eps=f(1e-3), weight_decay=decay))
    with_optax("novograd_default", optax.novograd(f(1e-2), b1=f(0.95), b2=f(0.98), eps=f(1e-8)))
    with_optax("prodigy_corrected", optax.contrib.prodigy(
        f(0.9), betas=(f(0.8), f(0.95)), eps=f(1e-3), estim_lr0=f(0.01), estim_lr_coef=f(1.5), weight_decay=decay))
    with_optax("sm3", decayed(optax.scale_by_sm3(b1=f(0.8), b2=1.0, eps=f(1e-4)), rate=f(0.05)))
    with_optax("sm3_default", optax.sm3(f(0.1), momentum=f(0.9)))
    with_optax("centralize", optax.chain(optax.centralize(), optax.sgd(f(0.05))))
    with_optax("lamb", optax.lamb(lr, b1=f(0.8), b2=f(0.95), eps=f(1e-3), weight_decay=decay))
    with_optax("adamaxw", optax.adamaxw(lr, b1=f(0.8), b2=f(0.95), eps=f(1e-3), weight_decay=decay))

    def coupled(rule):
        return optax.chain(optax.add_decayed_weights(decay), rule)

    c = optax.contrib
    with_optax("dadapt_adamw", c.dadapt_adamw(1.0, betas=(f(0.8), f(0.95)), eps=f(1e-3), estim_lr0=f(0.01),
                                              weight_decay=decay))
    with_optax("dadapt_adamw_default", c.dadapt_adamw(1.0, betas=(f(0.9), f(0.999)), eps=f(1e-8), estim_lr0=f(1e-6)))
    with_optax("simplified_ademamix", c.simplified_ademamix(f(5e-3), b1=f(0.9), b2=f(0.8), alpha=f(1.5), eps=f(1e-3),
                                                            weight_decay=decay))
    with_optax("simplified_ademamix_default", c.simplified_ademamix(f(1e-4), b1=f(0.99), b2=f(0.95)))
    # optax 0.2.6 takes the gradient's distance to the mean of before, the paper and the authors' program to the new
    # mean, which is b1 times as far: with epsilons scaled alike, all steps but the first are b1 times as long.
    b1, eps = f(0.8), f(1e-3)
    with_optax("acprop", optax.chain(
        c.scale_by_acprop(b1=b1, b2=f(0.95), eps=eps / b1, eps_root=eps / b1**2),
        optax.scale_by_schedule(lambda n: jnp.where(n == 0, (1 + eps / b1) / (1 + eps), 1 / b1)),
        optax.add_decayed_weights(decay), optax.scale_by_learning_rate(lr)))
    with_optax("optimistic_adam", coupled(optax.optimistic_adam_v2(lr, beta=f(0.6), b1=f(0.8), b2=f(0.95), eps=f(1e-3),
                                                                   nesterov=False)))
    with_optax("optimistic_adam_default", optax.optimistic_adam_v2(f(1e-3), b1=f(0.9), b2=f(0.999), nesterov=False))
    with_optax("optimistic_sgd", coupled(optax.optimistic_gradient_descent(f(0.05), alpha=f(0.7), beta=f(1.4))))
    with_optax("optimistic_sgd_default", optax.optimistic_gradient_descent(f(1e-3)))
    with_optax("dog", c.dog(f(0.7), ("heuristic", f(0.03)), eps=f(0.5), weight_decay=decay))
    with_optax("dog_default", c.dog(1, ("heuristic", f(1e-6))))
    with_optax("dowg", c.dowg(f(0.7), init_estim_sq_dist=f(0.05), eps=f(0.1), weight_decay=decay))
    with_optax("dowg_default", c.dowg(1, eps=f(1e-4)))
    with_optax("cocob", c.cocob(alpha=f(7), eps=f(0.2), weight_decay=decay))
    with_optax("cocob_default", c.cocob())
    with_optax("fromage", optax.fromage(f(0.1)))
    with_optax("fromage_default", optax.fromage(f(0.01)))
    # Not polyak_sgd: its factor is in front, so that it also divides the bounds.
    with_optax("polyak_sgd", coupled(optax.chain(
        optax.scale_by_polyak(f_min=f(0.5), max_learning_rate=f(0.2), eps=f(0.3), variant="sps+"),
        optax.scale_by_learning_rate(f(0.5)))))
    with_optax("polyak_sgd_default", optax.polyak_sgd(variant="sps+"))
    # Without decay: with it optax 0.2.6 does not divide tau m by 1 + lr weight_decay, as the paper's model asks for.
    with_optax("momo", c.momo(f(0.3), beta=f(0.8), lower_bound=f(1.5)))
    with_optax("momo_default", c.momo(1.0, beta=f(0.9)))
    with_optax("momo_adam", c.momo_adam(f(0.1), b1=f(0.8), b2=f(0.95), eps=f(1e-3), lower_bound=f(1.5)))
    with_optax("momo_adam_default", c.momo_adam(f(1e-2), b1=f(0.9), b2=f(0.999)))


def paper_cases():
    decay, lr = f(0.03), f(0.02)

    def zeros(memory, like, *names):
        return [memory.setdefault(n, np.zeros_like(like)) for n in names]

    def qhm(nu, beta):
        def update(w, g, t, memory):
            d = g + decay * w
            memory["b"] = beta * zeros(memory, w, "b")[0] + (1 - beta) * d
            return w - lr * ((1 - nu) * d + nu * memory["b"])
        return update
    from_paper("qhm", qhm(f(0.6), f(0.9)), "Ma-Yarats-2019-section-3")

    def qhadam(nu1, nu2, b1, b2, eps):
        def update(w, g, t, memory):
            m, v = zeros(memory, w, "m", "v")
            memory["m"], memory["v"] = m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            mhat, vhat = m / (1 - b1**t), v / (1 - b2**t)
            direction = ((1 - nu1) * g + nu1 * mhat) / (np.sqrt((1 - nu2) * g * g + nu2 * vhat) + eps)
            return w - lr * (direction + decay * w)
        return update
    from_paper("qhadam", qhadam(f(0.6), f(0.8), f(0.9), f(0.95), f(1e-3)), "Ma-Yarats-2019-section-4")

    def adabound(b1, b2, eps, final, gamma):
        def update(w, g, t, memory):
            m, v = zeros(memory, w, "m", "v")
            d = g + decay * w
            memory["m"], memory["v"] = m, v = b1 * m + (1 - b1) * d, b2 * v + (1 - b2) * d * d
            low, high = final * (1 - 1 / (gamma * t + 1)), final * (1 + 1 / (gamma * t))
            rate = lr * np.sqrt(1 - b2**t) / (1 - b1**t) / (np.sqrt(v) + eps)
            return w - np.clip(rate, low, high) * m
        return update
    from_paper("adabound", adabound(f(0.8), f(0.95), f(1e-3), lr * f(2), f(0.1)), "Luo-2019-algorithm-2")

    def adopt(b1, b2, eps):
        def update(w, g, t, memory):
            if t == 1:
                memory["m"], memory["v"] = np.zeros_like(g), g * g
                return w - lr * decay * w
            limit = (t - 1)**0.25
            scaled = np.clip(g / np.maximum(np.sqrt(memory["v"]), eps), -limit, limit)
            memory["m"] = b1 * memory["m"] + (1 - b1) * scaled
            memory["v"] = b2 * memory["v"] + (1 - b2) * g * g
            return w - lr * (memory["m"] + decay * w)
        return update
    from_paper("adopt", adopt(f(0.8), f(0.95), f(1e-3)), "Taniguchi-2024-algorithm-2")

    def ademamix(b1, b2, b3, alpha, horizon, eps):
        def update(w, g, t, memory):
            m, v, n = zeros(memory, w, "m", "v", "n")
            done = min(t / horizon, 1)
            a = alpha * done
            kept = min(np.exp(np.log(b1) * np.log(b3) / ((1 - done) * np.log(b3) + done * np.log(b1))), b3)
            memory["m"], memory["v"] = m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            memory["n"] = n = kept * n + (1 - kept) * g
            direction = (m / (1 - b1**t) + a * n) / (np.sqrt(v / (1 - b2**t)) + eps)
            return w - lr * (direction + decay * w)
        return update
    paper = "Pagliardini-2025-algorithm-1"
    from_paper("ademamix_warm_up", ademamix(f(0.8), f(0.95), f(0.99), f(3), 25, f(1e-3)), paper)

    def adan(b1, b2, b3, eps):  # in the paper's notation
        def update(w, g, t, memory):
            m, v, n = zeros(memory, w, "m", "v", "n")
            difference = g - memory.get("g", g)
            memory["g"] = g
            memory["m"] = m = (1 - b1) * m + b1 * g
            memory["v"] = v = (1 - b2) * v + b2 * difference
            memory["n"] = n = (1 - b3) * n + b3 * (g + (1 - b2) * difference)**2
            mhat, vhat, nhat = m / (1 - (1 - b1)**t), v / (1 - (1 - b2)**t), n / (1 - (1 - b3)**t)
            return w - lr * ((mhat + (1 - b2) * vhat) / (np.sqrt(nhat) + eps) + decay * w)
        return update
    from_paper("adan", adan(1 - f(0.9), 1 - f(0.8), 1 - f(0.95), f(1e-3)), "Xie-2024-algorithm-1")

    def larc(momentum, trust, rate):
        def update(w, g, t, memory):
            b, = zeros(memory, w, "b")
            wn, gn = np.linalg.norm(w), np.linalg.norm(g)
            local = min(trust * wn / (gn + decay * wn + f(1e-8)) / rate, 1)
            memory["b"] = b = momentum * b + local * (g + decay * w)
            return w - rate * b
        return update
    from_paper("larc", larc(f(0.8), f(0.05), f(0.05)), "Apex-LARC")

    def lans(b1, b2, eps):
        def update(w, g, t, memory):
            m, v = zeros(memory, w, "m", "v")
            g = g / np.linalg.norm(g)
            memory["m"], memory["v"] = m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            root = np.sqrt(v / (1 - b2**t)) + eps
            r, c = m / (1 - b1**t) / root + decay * w, g / root + decay * w
            phi = np.linalg.norm(w)
            d = phi * (b1 * r / np.linalg.norm(r) + (1 - b1) * c / np.linalg.norm(c))
            return w - lr * d
        return update
    from_paper("lans", lans(f(0.8), f(0.95), f(1e-3)), "Zheng-2020-algorithm-2")

    def row_wise(eps):
        def update(w, g, t, memory):
            d = g + decay * w
            rows = d.reshape(d.shape[0] if d.ndim > 1 else 1, -1)
            memory["s"] = memory.get("s", 0) + (rows**2).mean(axis=1, keepdims=True)
            return w - lr * (rows / (np.sqrt(memory["s"]) + eps)).reshape(w.shape)
        return update
    from_paper("row_wise_adagrad", row_wise(f(1e-3)), "Mudigere-2022-section-4.1.4")

    def adaptive_clipping(clipping, eps):
        def update(w, g, t, memory):
            rows, weights = (x.reshape(x.shape[0] if x.ndim > 1 else 1, -1) for x in (g, w))
            norm = np.linalg.norm(rows, axis=1, keepdims=True)
            limit = clipping * np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), eps)
            return w - lr * np.where(norm > limit, rows * limit / norm, rows).reshape(w.shape)
        return update
    from_paper("clip_adaptively", adaptive_clipping(f(0.5), f(1e-3)), "Brock-2021-equation-3")

    def lars(momentum, trust):
        def update(w, g, t, memory):
            b, = zeros(memory, w, "b")
            wn, gn = np.linalg.norm(w), np.linalg.norm(g)
            rate = trust * wn / (gn + decay * wn)
            memory["b"] = b = momentum * b + f(0.5) * rate * (g + decay * w)
            return w - b
        return update
    from_paper("lars", lars(f(0.8), f(0.02)), "You-2017-algorithm-1")

    def padam(rate, power, b1, b2, eps, wd):
        def update(w, g, t, memory):
            m, v, x = zeros(memory, w, "m", "v", "x")
            d = g + wd * w
            memory["m"], memory["v"] = m, v = b1 * m + (1 - b1) * d, b2 * v + (1 - b2) * d * d
            memory["x"] = x = np.maximum(x, v)
            return w - rate * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(x) + eps)**(2 * power)
        return update
    paper = "Chen-2020-algorithm-1"
    from_paper("padam", padam(lr, f(0.2), f(0.8), f(0.9), f(1e-3), decay), paper)
    from_paper("padam_default", padam(f(0.1), f(0.125), f(0.9), f(0.999), f(1e-8), 0), paper)

    def amsbound(rate, final, gamma, b1, b2, eps, wd):
        def update(w, g, t, memory):
            m, v, x = zeros(memory, w, "m", "v", "x")
            d = g + wd * w
            memory["m"], memory["v"] = m, v = b1 * m + (1 - b1) * d, b2 * v + (1 - b2) * d * d
            memory["x"] = x = np.maximum(x, v)
            steps = rate * np.sqrt(1 - b2**t) / (1 - b1**t) / (np.sqrt(x) + eps)
            return w - np.clip(steps, final * (1 - 1 / (gamma * t + 1)), final * (1 + 1 / (gamma * t))) * m
        return update
    paper = "Luo-2019-program"
    from_paper("amsbound", amsbound(lr, lr * 2, f(0.1), f(0.8), f(0.9), f(1e-3), decay), paper)
    from_paper("amsbound_default", amsbound(f(1e-3), f(1e-3) * 100, f(1e-3), f(0.9), f(0.999), f(1e-8), 0), paper)

    def nadamax(rate, b1, b2, eps, slowness, wd):
        # The average keeps b1, as PyTorch's NAdam, where the paper has the momentum of the step.
        def momentum(t):
            return b1 * (1 - 0.5 * 0.96**(t * slowness))

        def update(w, g, t, memory):
            m, n = zeros(memory, w, "m", "n")
            d = g + wd * w
            memory["product"] = product = memory.get("product", 1) * momentum(t)
            memory["m"], memory["n"] = m, n = b1 * m + (1 - b1) * d, np.maximum(b2 * n, np.abs(d))
            mhat, ghat = m / (1 - product * momentum(t + 1)), d / (1 - product)
            return w - rate * ((1 - momentum(t)) * ghat + momentum(t + 1) * mhat) / (n + eps)
        return update
    paper = "Dozat-2016-section-3"
    from_paper("nadamax", nadamax(lr, f(0.8), f(0.95), f(1e-3), f(0.05), decay), paper)
    from_paper("nadamax_default", nadamax(f(1e-3), f(0.9), f(0.999), f(1e-8), f(4e-3), 0), paper)

    def acprop(rate, b1, b2, eps):
        def update(w, g, t, memory):
            m, s = zeros(memory, w, "m", "s")
            step = g if t == 1 else g / (np.sqrt(s / (1 - b2**(t - 1))) + eps)
            memory["m"] = m = b1 * m + (1 - b1) * g
            memory["s"] = b2 * s + (1 - b2) * (g - m)**2 + eps
            return w - rate * step
        return update
    from_paper("acprop_default", acprop(f(1e-3), f(0.9), f(0.999), f(1e-16)), "Zhuang-2021-program")

    def ftml(rate, b1, b2, eps, wd):
        def update(w, g, t, memory):
            v, z, before = zeros(memory, w, "v", "z", "d")
            u = g + wd * w
            memory["v"] = v = b2 * v + (1 - b2) * u * u
            memory["d"] = d = (1 - b1**t) / rate * (np.sqrt(v / (1 - b2**t)) + eps)
            sigma = d - b1 * before
            memory["z"] = z = b1 * z + (1 - b1) * u - sigma * w
            return -z / d
        return update
    paper = "Zheng-Kwok-2017-algorithm-1"
    from_paper("ftml", ftml(lr, f(0.8), f(0.95), f(1e-3), decay), paper)
    from_paper("ftml_default", ftml(f(2.5e-3), f(0.6), f(0.999), f(1e-8), 0), paper)

    def swats(rate, b1, b2, eps, tolerance, wd):
        def update(w, g, t, memory):
            m, a, v = zeros(memory, w, "m", "a", "v")
            u = g + wd * w
            if "sgd" in memory:
                memory["v"] = v = b1 * v + u
                return w - (1 - b1) * memory["sgd"] * v
            memory["m"], memory["a"] = m, a = b1 * m + (1 - b1) * u, b2 * a + (1 - b2) * u * u
            p = -rate * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(a) + eps)
            if p @ u != 0:
                gamma = p @ p / -(p @ u)
                memory["lambda"] = average = b2 * memory.get("lambda", 0) + (1 - b2) * gamma
                average /= 1 - b2**t
                if t > 1 and abs(average - gamma) < tolerance and average > 0:
                    memory["sgd"] = average
            return w + p
        return update
    paper = "Keskar-Socher-2017-algorithm-1"
    from_paper_on_all("swats", swats(lr, f(0.7), f(0.8), f(1e-3), f(7e-4), decay), paper)
    from_paper_on_all("swats_default", swats(f(1e-3), f(0.9), f(0.999), f(1e-9), f(1e-9), 0), paper)

    def demon(rate, first, steps, wd):
        def update(w, g, t, memory):
            left = max(1 - (t - 1) / steps, 0)
            momentum = first * left / ((1 - first) + first * left)
            v, = zeros(memory, w, "v")
            memory["v"] = v = momentum * v - rate * (g + wd * w)
            return w + v
        return update
    paper = "Chen-2022-equation-1"
    from_paper("demon", demon(lr, f(0.8), 30, decay), paper)
    from_paper("demon_default", demon(f(1e-3), f(0.9), 100000, 0), paper)

    def entropy_sgd(eta, inner, steps, scope, growth, alpha, wd):
        def update(w, g, t, memory):
            if (t - 1) % steps == 0:
                memory["x"] = memory["mu"] = w
            x, gamma = memory["x"], scope * (1 + growth)**((t - 1) // steps)
            w = w - inner * (g + wd * w - gamma * (x - w))
            memory["mu"] = mu = (1 - alpha) * memory["mu"] + alpha * w
            if t % steps == 0:
                memory["x"] = w = x - eta * (x - mu)
            return w
        return update
    paper = "Chaudhari-2017-algorithm-1"
    rule = entropy_sgd(f(0.8), f(0.05), 6, f(0.5), f(0.25), f(0.6), decay)
    from_paper("entropy_sgd", rule, paper)
    from_paper("entropy_sgd_x", rule, paper, shown="x")
    from_paper("entropy_sgd_default", entropy_sgd(1, f(0.1), 20, f(1e-4), f(1e-3), f(0.75), 0), paper)

    def ftrl(rate, beta, l1, l2):
        # The paper's weights begin at 0; here z begins with what gives the weights that there are.
        def update(w, g, t, memory):
            n, = zeros(memory, w, "n")
            z = memory["z"] if t > 1 else -(beta / rate + l2) * w - l1 * np.sign(w)
            sigma = (np.sqrt(n + g * g) - np.sqrt(n)) / rate
            memory["z"], memory["n"] = z, n = z + g - sigma * w, n + g * g
            return np.where(np.abs(z) <= l1, 0, -(z - np.sign(z) * l1) / ((beta + np.sqrt(n)) / rate + l2))
        return update
    paper = "McMahan-2013-algorithm-1"
    from_paper("ftrl", ftrl(f(0.3), f(0.5), f(0.4), f(0.2)), paper)
    from_paper("ftrl_default", ftrl(f(0.1), 1, 0, 0), paper)

    def wngrad(rate, first, wd):
        def update(w, g, t, memory):
            d, b = g + wd * w, memory.get("b", first)
            memory["b"] = b = b + d @ d / b
            return w - rate / b * d
        return update
    paper = "Wu-2018-program"
    from_paper_on_all("wngrad", wngrad(f(0.7), f(2.5), decay), paper)
    from_paper_on_all("wngrad_default", wngrad(1, 1, 0), paper)

    def adagrad_norm(rate, first, wd):
        def update(w, g, t, memory):
            d = g + wd * w
            memory["b"] = b = np.hypot(memory.get("b", first), np.linalg.norm(d))
            return w - rate / b * d
        return update
    paper = "Ward-2019-algorithm-1"
    from_paper_on_all("adagrad_norm", adagrad_norm(f(0.7), f(2.5), decay), paper)
    from_paper_on_all("adagrad_norm_default", adagrad_norm(1, f(1e-2), 0), paper)

    def smorms3(rate, eps, wd):
        def update(w, g, t, memory):
            m, v, k = *zeros(memory, w, "m", "v"), memory.get("k", np.ones_like(w))
            d, r = g + wd * w, 1 / (k + 1)
            memory["m"], memory["v"] = m, v = (1 - r) * m + r * d, (1 - r) * v + r * d * d
            memory["k"] = 1 + k * (1 - m * m / (v + eps))
            return w - d * np.minimum(rate, m * m / (v + eps)) / (np.sqrt(v) + eps)
        return update
    from_paper("smorms3", smorms3(f(0.05), f(1e-3), decay), "Funk-2015")
    from_paper("smorms3_default", smorms3(f(1e-3), f(1e-16), 0), "Funk-2015")

    def madgrad(rate, momentum, eps, wd):
        def update(w, g, t, memory):
            s, v, first = *zeros(memory, w, "s", "v"), memory.setdefault("x", w)
            d, weight = g + wd * w, rate * np.sqrt(t)
            memory["s"], memory["v"] = s, v = s + weight * d, v + weight * d * d
            z = first - s / (np.cbrt(v) + eps)
            return momentum * w + (1 - momentum) * z
        return update
    paper = "Defazio-Jelassi-2022-algorithm-1"
    from_paper("madgrad", madgrad(lr, f(0.8), f(1e-3), decay), paper)
    from_paper("madgrad_default", madgrad(f(1e-2), f(0.9), f(1e-6), 0), paper)

    def percent_delta(rate, momentum, eps, wd):
        def update(w, g, t, memory):
            d = g + wd * w
            share = np.abs(d / np.maximum(np.abs(w), eps)).mean()
            memory["b"] = momentum * zeros(memory, w, "b")[0] + d / share
            return w - rate * memory["b"]
        return update
    paper = "Abu-El-Haija-2017-section-3"
    from_paper("percent_delta", percent_delta(lr, f(0.8), f(0.1), decay), paper)
    from_paper("percent_delta_default", percent_delta(f(0.03), f(0.9), f(1e-3), 0), paper)

    def eve(rate, b1, b2, b3, eps, limit, lowest, wd):
        def update(w, g, t, memory):
            m, v = zeros(memory, w, "m", "v")
            u = g + wd * w
            memory["m"], memory["v"] = m, v = b1 * m + (1 - b1) * u, b2 * v + (1 - b2) * u * u
            if t > 1:
                now, before = loss(t), loss(t - 1)
                d = np.clip(abs(now - before) / (min(now, before) - lowest), 1 / limit, limit)
                memory["d"] = b3 * memory["d"] + (1 - b3) * d
            else:
                memory["d"] = 1
            return w - rate / memory["d"] * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        return update
    paper = "Hayashi-2016-algorithm-1"
    from_paper("eve", eve(lr, f(0.8), f(0.95), f(0.7), f(1e-3), 2, f(0.5), decay), paper)
    from_paper("eve_default", eve(f(1e-3), f(0.9), f(0.999), f(0.999), f(1e-8), 10, 0, 0), paper)


def prodigy_without_correction():
    """As the authors' program does by default, which optax does not."""
    b1, b2, eps, decay, rate, d0 = f(0.8), f(0.95), f(1e-3), f(0.03), f(0.9), f(0.01)
    b3, d, r = f(np.sqrt(b2)), f(0.01), 0.0
    first = w = draw(0)
    m, v, s, rows = np.zeros(SIZE), np.zeros(SIZE), np.zeros(SIZE), []
    for t in range(1, STEPS + 1):
        g = draw(t)
        m, v, s = b1 * m + (1 - b1) * d * g, b2 * v + (1 - b2) * (d * g)**2, b3 * s + d / d0 * rate * d * g
        r = b3 * r + d / d0 * rate * d * (g @ (first - w))
        before, d = d, max(d, 1.5 * r / np.abs(s).sum())
        w = w - rate * before * (m / (np.sqrt(v) + d * eps) + decay * w)
        if t in SHOWN:
            rows.append((t, w))
    show("prodigy", "Mishchenko-Defazio-2024", rows)


def momo_with_decay(name, rate, b1, b2, eps, bound, decay):
    """The minimum of the model max(f* + <m, w' - w> - g + <m, w>, bound) + |w' - w|^2 / (2 lr) + decay |w'|^2 / 2, norms
    in the metric D, by the paper's formula: w' = (w - tau D^-1 m) / (1 + lr decay). b2 None is MoMo: D = 1, and averages
    begin with their first values."""
    w, m, v, f_average, g_average, rows = draw(0), np.zeros(SIZE), np.zeros(SIZE), 0.0, 0.0, []
    for t in range(1, STEPS + 1):
        g = draw(t)
        keep = 0 if b2 is None and t == 1 else b1
        m = keep * m + (1 - keep) * g
        f_average, g_average = keep * f_average + (1 - keep) * loss(t), keep * g_average + (1 - keep) * (g @ w)
        if b2 is None:
            metric, begun = np.ones(SIZE), 1
        else:
            v = b2 * v + (1 - b2) * g * g
            metric, begun = eps + np.sqrt(v / (1 - b2**t)), 1 - b1**t
        gap = (1 + rate * decay) * (f_average - begun * bound - g_average) + m @ w
        tau = min(rate / begun, max(gap, 0) / (m @ (m / metric)))
        w = (w - tau * m / metric) / (1 + rate * decay)
        if t in SHOWN:
            rows.append((t, w))
    show(name, "Schaipp-2024", rows)


def transposed_optax(name, rule):
    """optax has matrices {in, out}: it is given the transposes."""
    params = [jnp.asarray(p.T) for p in cut(draw(0))[:2]]
    vector = cut(draw(0))[2]
    state, rows = rule.init(params), []
    for t in range(1, STEPS + 1):
        updates, state = rule.update([jnp.asarray(g.T) for g in cut(draw(t))[:2]], state, params)
        params = optax.apply_updates(params, updates)
        if t in SHOWN:
            rows.append((t, np.concatenate([np.asarray(p).T.ravel() for p in params] + [vector])))
    show(name, f"optax-{optax.__version__}", rows)


def matrix_cases():
    decay, lr = f(0.03), f(0.02)
    transposed_optax("muon_without_nesterov", optax.contrib.muon(lr, beta=f(0.8), eps=f(1e-7), ns_coeffs=(
        f(3.4445), f(-4.7750), f(2.0315)), weight_decay=decay, nesterov=False))

    def as_matrix(x):
        return x.reshape(x.shape[0], -1) if x.ndim > 1 else x.reshape(1, -1)

    def muon(momentum, steps):
        def update(w, g, t, memory):
            memory["b"] = b = momentum * memory.get("b", 0) + (1 - momentum) * g
            x = as_matrix((1 - momentum) * g + momentum * b)
            x = x / (np.linalg.norm(x) + f(1e-7))
            tall = x.shape[0] > x.shape[1]
            x = x.T if tall else x
            for _ in range(steps):
                a = x @ x.T
                x = f(3.4445) * x + (f(-4.7750) * a + f(2.0315) * a @ a) @ x
            x = x.T if tall else x
            o = max(1, x.shape[0] / x.shape[1])**0.5 * x.reshape(w.shape)
            return w - lr * (o + decay * w)
        return update
    from_paper("muon", muon(f(0.9), 5), "Jordan-2024")
    from_paper("muon_3", muon(f(0.9), 3), "Jordan-2024")

    def root(a, ridge):
        values, vectors = np.linalg.eigh(a)
        return vectors @ np.diag((np.maximum(values, 0) + ridge * values[-1])**-0.25) @ vectors.T

    def shampoo(momentum, beta2, ridge, interval, block, grafting):
        def precondition(g, t, memory):
            out = np.empty_like(g)
            for i in range(0, g.shape[0], block):
                for j in range(0, g.shape[1], block):
                    u = g[i:i + block, j:j + block]
                    l, r = memory.get((i, j), (0, 0))
                    fresh = 1 if beta2 == 1 else 1 - beta2
                    memory[i, j] = l, r = beta2 * l + fresh * u @ u.T, beta2 * r + fresh * u.T @ u
                    if t == 1 or t % interval == 0:
                        memory["roots", i, j] = root(l, ridge), root(r, ridge)
                    a, b = memory["roots", i, j]
                    out[i:i + block, j:j + block] = a @ u @ b
            return out

        def update(w, g, t, memory):
            kept, fresh = (1, 1) if grafting == "adagrad" else (f(0.999), 1 - f(0.999))
            memory["s"] = kept * memory.get("s", 0) + fresh * g * g
            other = g / (np.sqrt(memory["s"]) + f(1e-10)) if grafting in ("adagrad", "rmsprop") else g
            if g.ndim < 2:
                u = other
            else:
                u = precondition(g, t, memory)
                if grafting != "none":
                    u = u * np.linalg.norm(other) / np.linalg.norm(u)
            memory["m"] = m = momentum * memory.get("m", 0) + u
            return w - lr * (m + decay * w)
        return update
    for name, arguments in (("shampoo", (f(0.9), 1, f(1e-3), 4, 1024, "adagrad")),
                            ("shampoo_blocks", (f(0.5), f(0.95), f(1e-3), 3, 3, "rmsprop")),
                            ("shampoo_sgd", (f(0.5), f(0.95), f(1e-3), 1, 4, "sgd")),
                            ("shampoo_plain", (0, 1, f(1e-3), 1, 1024, "none"))):
        from_paper(name, shampoo(*arguments), "Gupta-2018-algorithm-1;Anil-2020")

    def soap(b1, b2, b3, eps, interval, largest):
        def update(w, g, t, memory):
            x = as_matrix(g)
            sides = [w.ndim > 1 and n <= largest for n in x.shape]
            if t == 1:
                memory["m"], memory["v"] = np.zeros_like(x), np.zeros_like(x)
                memory["l"], memory["r"] = (1 - b3) * x @ x.T, (1 - b3) * x.T @ x
                memory["p"], memory["q"] = (np.linalg.eigh(s)[1][:, ::-1] if used else np.eye(len(s))
                                            for s, used in zip((memory["l"], memory["r"]), sides))
                return w - lr * decay * w
            p, q, n = memory["p"], memory["q"], t - 1
            memory["m"] = m = b1 * memory["m"] + (1 - b1) * x
            memory["v"] = v = b2 * memory["v"] + (1 - b2) * (p.T @ x @ q)**2
            d = p @ ((p.T @ m @ q / (1 - b1**n)) / (np.sqrt(v / (1 - b2**n)) + eps)) @ q.T
            memory["l"], memory["r"] = b3 * memory["l"] + (1 - b3) * x @ x.T, b3 * memory["r"] + (1 - b3) * x.T @ x
            if n % interval == 0:
                for s, basis, used in (("l", "p", sides[0]), ("r", "q", sides[1])):
                    if used:
                        o, upper = np.linalg.qr(memory[s] @ memory[basis])
                        memory[basis] = o * np.sign(np.diag(upper))
            return w - lr * (d.reshape(w.shape) + decay * w)
        return update
    # Only bases that the first gradient determines: a side longer than the other has arbitrary vectors in its null
    # space.
    from_paper("soap", soap(f(0.9), f(0.95), f(0.95), f(1e-3), 5, 5), "Vyas-2025-algorithm-3")
    from_paper("soap_every_step", soap(0, f(0.9), f(0.8), f(1e-3), 1, 5), "Vyas-2025-algorithm-3")
    from_paper("soap_one_side", soap(f(0.9), f(0.95), f(0.95), f(1e-3), 5, 3), "Vyas-2025-algorithm-3")


def curvature_cases():
    """Rules that are given an estimate of the Hessian's diagonal, draw(1000 + t), before step t, every few steps."""
    decay = f(0.03)

    def blocks(d, average):  # Yao et al., equation 10: the mean over a block, in each of its elements
        axes = {"none": (), "kernel": tuple(range(2, d.ndim)), "row": tuple(range(1, d.ndim))}[average]
        return np.broadcast_to(d.mean(axis=axes, keepdims=True), d.shape) if axes else d

    def follow(name, citation, every, update):
        params, memories, rows, d = cut(draw(0)), [{} for _ in SHAPES], [], None
        for t in range(1, STEPS + 1):
            if (t - 1) % every == 0:
                d = cut(draw(1000 + t))
            params = [update(w, g, h, t, m, (t - 1) % every == 0)
                      for w, g, h, m in zip(params, cut(draw(t)), d, memories)]
            if t in SHOWN:
                rows.append((t, np.concatenate([p.ravel() for p in params])))
        show(name, citation, rows)

    def adahessian(lr, b1, b2, eps, wd, average, power=1):
        def update(w, g, d, t, m, _):
            d = blocks(d, average)
            m["m"] = b1 * m.get("m", 0) + (1 - b1) * g
            m["v"] = b2 * m.get("v", 0) + (1 - b2) * d * d
            mhat, vhat = m["m"] / (1 - b1**t), m["v"] / (1 - b2**t)
            return w - lr * (mhat / (np.sqrt(vhat)**power + eps) + wd * w)
        return update

    def sophia(lr, b1, b2, gamma, eps, rho, wd):
        def update(w, g, d, t, m, observed):
            if observed:
                m["h"] = b2 * m.get("h", 0) + (1 - b2) * d
            m["m"] = b1 * m.get("m", 0) + (1 - b1) * g
            return w - lr * wd * w - lr * np.clip(m["m"] / np.maximum(gamma * m["h"], eps), -rho, rho)
        return update

    paper = "Yao-2021-algorithm-1"
    follow("adahessian", paper, 3, adahessian(f(0.02), f(0.8), f(0.95), f(1e-2), decay, "kernel"))
    follow("adahessian_row", paper, 1, adahessian(f(0.02), f(0.8), f(0.95), f(1e-2), decay, "row"))
    follow("adahessian_none", paper, 5, adahessian(f(0.02), f(0.8), f(0.95), f(1e-2), 0, "none"))
    follow("adahessian_power", paper, 3, adahessian(f(0.02), f(0.8), f(0.95), f(1e-2), decay, "kernel", f(0.5)))
    follow("adahessian_default", paper, 2, adahessian(f(0.15), f(0.9), f(0.999), f(1e-4), 0, "kernel"))
    paper = "Liu-2024-algorithm-3"
    follow("sophia", paper, 3, sophia(f(0.02), f(0.8), f(0.7), f(2), f(1e-3), f(0.5), decay))
    follow("sophia_unclipped", paper, 4, sophia(f(0.02), f(0.8), f(0.7), f(1), f(1), f(9), decay))
    follow("sophia_default", paper, 10, sophia(f(1e-3), f(0.96), f(0.99), f(0.05), f(1e-12), 1, f(0.1)))


def schedule_cases():
    def show_rates(name, initial, make):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=initial)
        scheduler, rates = make(optimizer), []
        for _ in range(STEPS):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        print("schedule", name, f"torch-{torch.__version__.split('+')[0]}", *(f"{x:.9g}" for x in rates))

    s = torch.optim.lr_scheduler
    show_rates("step_decay", f(0.1), lambda o: s.StepLR(o, 7, gamma=f(0.5)))
    show_rates("piecewise", f(0.1), lambda o: s.MultiStepLR(o, [5, 20], gamma=f(0.1)))
    show_rates("exponential", f(0.1), lambda o: s.ExponentialLR(o, gamma=f(0.9)))
    show_rates("polynomial", f(0.1), lambda o: s.PolynomialLR(o, total_iters=30, power=f(2.5)))
    show_rates("linear", f(0.1), lambda o: s.LinearLR(o, start_factor=1, end_factor=f(0.25), total_iters=30))
    show_rates("cosine", f(0.1), lambda o: s.CosineAnnealingLR(o, T_max=39, eta_min=f(0.01)))
    show_rates("warm_restarts", f(0.1), lambda o: s.CosineAnnealingWarmRestarts(o, 5, T_mult=2, eta_min=f(0.01)))
    show_rates("cyclical", f(0.01), lambda o: s.CyclicLR(o, f(0.01), f(0.1), step_size_up=6, cycle_momentum=False))
    show_rates("cyclical_halved", f(0.01), lambda o: s.CyclicLR(o, f(0.01), f(0.1), step_size_up=6,
                                                                mode="triangular2", cycle_momentum=False))
    show_rates("one_cycle", f(0.1), lambda o: s.OneCycleLR(o, f(0.1), total_steps=STEPS + 1, pct_start=f(0.25),
                                                           div_factor=10, final_div_factor=100, cycle_momentum=False))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=f(0.1))
    plateau, rates = s.ReduceLROnPlateau(optimizer, factor=0.5, patience=2, threshold=f(0.01), cooldown=3,
                                         min_lr=f(0.004)), []
    for t in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        plateau.step(1 / (1 + t) if t < 8 else 0.125 + 0.01 * (t * 7 % 5))
    print("schedule", "plateau", f"torch-{torch.__version__.split('+')[0]}", *(f"{x:.9g}" for x in rates))
    # The rest is one formula each.
    steps = np.arange(STEPS)
    for name, rates in (("inverse_time", f(0.1) / (1 + f(0.2) * steps)),
                        ("inverse_power", f(0.1) * (1 + f(0.2) * steps)**-0.75),
                        ("inverse_sqrt", f(0.1) * np.sqrt(10 / np.maximum(steps, 10)))):
        print("schedule", name, "formula", *(f"{x:.9g}" for x in rates))


if ONLY:
    paper_cases()
    sys.exit()
print("# make.py:", "weights after steps", *SHOWN, "of", STEPS, "in tensors of shapes", *SHAPES)
if MATRIX:
    matrix_cases()
elif CURVATURE:
    curvature_cases()
else:
    torch_cases()
    optax_cases()
    paper_cases()
    prodigy_without_correction()
    momo_with_decay("momo_decay", f(0.3), f(0.8), None, None, f(1.5), f(0.3))
    momo_with_decay("momo_adam_decay", f(0.1), f(0.8), f(0.95), f(1e-3), f(1.5), f(0.3))
    averages()
    schedule_cases()
sys.stdout.flush()
