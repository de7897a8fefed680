// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The rules of optim/rules.hpp, one line a rule: DOVETAIL_RULE(family, name). Whoever needs them all, a registry, a
// test, the pages, defines DOVETAIL_RULE and includes this file, which undefines it. To be compiled, headers of the
// rules come first.
DOVETAIL_RULE(base, sgd)
DOVETAIL_RULE(base, momentum)
DOVETAIL_RULE(base, nesterov)
DOVETAIL_RULE(base, adam)
DOVETAIL_RULE(base, adamw)
DOVETAIL_RULE(base, lars)
DOVETAIL_RULE(base, lamb)

DOVETAIL_RULE(adam_family, adamax)
DOVETAIL_RULE(adam_family, nadam)
DOVETAIL_RULE(adam_family, amsgrad)
DOVETAIL_RULE(adam_family, radam)
DOVETAIL_RULE(adam_family, adabound)
DOVETAIL_RULE(adam_family, adabelief)
DOVETAIL_RULE(adam_family, yogi)
DOVETAIL_RULE(adam_family, qhadam)
DOVETAIL_RULE(adam_family, ademamix)
DOVETAIL_RULE(adam_family, adopt)
DOVETAIL_RULE(adam_family, adan)

DOVETAIL_RULE(adam_variants, padam)
DOVETAIL_RULE(adam_variants, amsbound)
DOVETAIL_RULE(adam_variants, nadamax)
DOVETAIL_RULE(adam_variants, simplified_ademamix)
DOVETAIL_RULE(adam_variants, acprop)
DOVETAIL_RULE(adam_variants, optimistic_adam)
DOVETAIL_RULE(adam_variants, ftml)
DOVETAIL_RULE(adam_variants, swats)

DOVETAIL_RULE(adaptive, adagrad)
DOVETAIL_RULE(adaptive, adadelta)
DOVETAIL_RULE(adaptive, rmsprop)
DOVETAIL_RULE(adaptive, rmsprop_momentum)
DOVETAIL_RULE(adaptive, rmsprop_centered)
DOVETAIL_RULE(adaptive, rprop)
DOVETAIL_RULE(adaptive, smorms3)
DOVETAIL_RULE(adaptive, madgrad)

DOVETAIL_RULE(curvature, adahessian)
DOVETAIL_RULE(curvature, sophia)

DOVETAIL_RULE(factored, adafactor)
DOVETAIL_RULE(factored, sm3)
DOVETAIL_RULE(factored, row_wise_adagrad)

DOVETAIL_RULE(layer_wise, novograd)
DOVETAIL_RULE(layer_wise, larc)
DOVETAIL_RULE(layer_wise, lans)
DOVETAIL_RULE(layer_wise, prodigy)
DOVETAIL_RULE(layer_wise, fromage)
DOVETAIL_RULE(layer_wise, percent_delta)

DOVETAIL_RULE(loss_aware, polyak_sgd)
DOVETAIL_RULE(loss_aware, momo)
DOVETAIL_RULE(loss_aware, momo_adam)
DOVETAIL_RULE(loss_aware, eve)

DOVETAIL_RULE(momentum, optimistic_sgd)
DOVETAIL_RULE(momentum, demon)
DOVETAIL_RULE(momentum, entropy_sgd)

DOVETAIL_RULE(online, ftrl)
DOVETAIL_RULE(online, wngrad)
DOVETAIL_RULE(online, adagrad_norm)
DOVETAIL_RULE(online, dog)
DOVETAIL_RULE(online, dowg)
DOVETAIL_RULE(online, dadapt_adamw)
DOVETAIL_RULE(online, cocob)

DOVETAIL_RULE(schedule_free, schedule_free_sgd)
DOVETAIL_RULE(schedule_free, schedule_free_adamw)

DOVETAIL_RULE(sign, sign_sgd)
DOVETAIL_RULE(sign, signum)
DOVETAIL_RULE(sign, lion)
DOVETAIL_RULE(sign, qhm)
#undef DOVETAIL_RULE
