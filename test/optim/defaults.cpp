// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a rule does when nothing is said: the paper's values, or, where the paper leaves them open or practice has
// settled on others, those of the library that is named.
#include <limits>

#include <dovetail/optim.hpp>

#include <doctest/doctest.h>

namespace optim_defaults {

using namespace dovetail::optim;

namespace {
template <class Rule>
float rate(Rule const& r) {
  return r.stages().learning_rate(1);
}
}  // namespace

TEST_CASE("defaults: SGD and signs") {
  sgd const s;  // torch.optim.SGD
  CHECK(rate(s) == 1e-3f);
  CHECK(s.weight_decay == 0);
  momentum const m;  // Krizhevsky et al., 2012: 0.9; PyTorch leaves it open
  CHECK(rate(m) == 1e-3f);
  CHECK(m.momentum == 0.9f);
  CHECK(m.dampening == 0);
  nesterov const n;
  CHECK(n.momentum == 0.9f);
  signum const g;  // Bernstein et al., 2018, section 5: momentum 0.9
  CHECK(g.momentum == 0.9f);
  lion const l;  // Chen et al., 2023, program 1; rates are a third to a tenth of Adam's
  CHECK(rate(l) == 1e-4f);
  CHECK((l.beta1 == 0.9f && l.beta2 == 0.99f));
  qhm const q;  // Ma & Yarats, 2019: nu 0.7, beta 0.999
  CHECK((q.nu == 0.7f && q.beta == 0.999f));
}

TEST_CASE("defaults: scaled by the gradients of before") {
  adagrad const a;  // torch.optim.Adagrad
  CHECK(rate(a) == 1e-2f);
  CHECK((a.epsilon == 1e-10f && a.initial_accumulator == 0));
  adadelta const d;  // torch.optim.Adadelta; Zeiler, 2012, table 2: rho 0.95, epsilon 1e-6
  CHECK(rate(d) == 1);
  CHECK((d.rho == 0.9f && d.epsilon == 1e-6f));
  rmsprop const r;  // torch.optim.RMSprop
  CHECK(rate(r) == 1e-2f);
  CHECK((r.alpha == 0.99f && r.epsilon == 1e-8f));
  CHECK((rmsprop_momentum{}.momentum == 0.9f && rmsprop_centered{}.momentum == 0));
  rprop const p;  // Riedmiller & Braun, 1993: 1.2 and 0.5, steps of 1e-6 to 50
  CHECK((p.shrink == 0.5f && p.grow == 1.2f && p.smallest_step == 1e-6f && p.largest_step == 50));
  row_wise_adagrad const w;
  CHECK(rate(w) == 1e-2f);
}

TEST_CASE("defaults: Adam and its relatives") {
  adam const a;  // Kingma & Ba, 2015, algorithm 1
  CHECK(rate(a) == 1e-3f);
  CHECK((a.beta1 == 0.9f && a.beta2 == 0.999f && a.epsilon == 1e-8f && a.weight_decay == 0));
  CHECK(adamw{}.weight_decay == 0.01f);  // torch.optim.AdamW
  CHECK(rate(adamax{}) == 2e-3f);        // Kingma & Ba, 2015, algorithm 2
  nadam const n;                         // torch.optim.NAdam; Dozat, 2016: 0.004
  CHECK(rate(n) == 2e-3f);
  CHECK(n.momentum_decay == 4e-3f);
  amsgrad const g;
  CHECK((rate(g) == 1e-3f && g.beta2 == 0.999f));
  CHECK(rate(radam{}) == 1e-3f);
  adabound const b;  // Luo et al., 2019, section 4: final rate 0.1 beside 1e-3, gamma 1e-3
  CHECK(rate(b) == 1e-3f);
  CHECK((b.final_ratio == 100 && b.gamma == 1e-3f));
  CHECK(adabelief{}.epsilon == 1e-16f);  // the authors' program, version 0.2
  yogi const y;                          // Zaheer et al., 2018, section 5
  CHECK(rate(y) == 1e-2f);
  CHECK((y.epsilon == 1e-3f && y.initial_accumulator == 1e-6f));
  qhadam const q;  // Ma & Yarats, 2019: nu 0.7 and 1, beta 0.995 and 0.999
  CHECK((q.nu1 == 0.7f && q.nu2 == 1 && q.beta1 == 0.995f && q.beta2 == 0.999f));
  ademamix const m;  // Pagliardini et al., 2025: beta3 0.9999, alpha 5 to 10
  CHECK((m.beta3 == 0.9999f && m.alpha == 5));
  adopt const o;  // Taniguchi et al., 2024, algorithm 2
  CHECK((o.beta1 == 0.9f && o.beta2 == 0.9999f && o.epsilon == 1e-6f));
  adan const x;  // Xie et al., 2024: 0.02, 0.08, 0.01 as shares of what is new
  CHECK((x.beta1 == 0.98f && x.beta2 == 0.92f && x.beta3 == 0.99f && x.epsilon == 1e-8f));
  schedule_free_adamw const f;  // Defazio et al., 2024
  CHECK(f.beta1 == 0.9f);
}

TEST_CASE("defaults: per tensor, and factored") {
  lars const l;  // You et al., 2017: eta 0.001, momentum 0.9, decay 5e-4
  CHECK((l.trust_coefficient == 1e-3f && l.momentum == 0.9f && l.weight_decay == 5e-4f));
  lamb const m;  // You et al., 2020, section 4: epsilon 1e-6, decay 0.01
  CHECK((m.beta1 == 0.9f && m.beta2 == 0.999f && m.epsilon == 1e-6f && m.weight_decay == 0.01f));
  CHECK((m.min_norm == 0 && m.max_norm == std::numeric_limits<float>::max()));
  CHECK(larc{}.trust_coefficient == 0.02f);  // apex.parallel.LARC
  novograd const n;                          // Ginsburg et al., 2019, section 4: betas 0.95 and 0.98
  CHECK((n.beta1 == 0.95f && n.beta2 == 0.98f && n.epsilon == 1e-8f));
  lans const s;  // Zheng et al., 2020
  CHECK((s.beta1 == 0.9f && s.beta2 == 0.999f && s.epsilon == 1e-6f && s.weight_decay == 0.01f));
  prodigy const p;  // Mishchenko & Defazio, 2024
  CHECK((rate(p) == 1 && p.initial_d == 1e-6f && p.coefficient == 1 && p.beta2 == 0.999f && !p.bias_correction));
  adafactor const f;  // torch.optim.Adafactor; Shazeer & Stern, 2018, section 9
  CHECK((rate(f) == 1e-2f && f.decay == -0.8f && f.smallest_rms == 1e-3f && f.clipping == 1));
  sm3 const t;  // Anil et al., 2019: momentum 0.9
  CHECK(t.momentum == 0.9f);
  clip_adaptively const c;  // Brock et al., 2021: 0.01, epsilon 1e-3
  CHECK((c.clipping == 0.01f && c.epsilon == 1e-3f));
}

TEST_CASE("defaults: more of Adam's relatives") {
  padam const p;  // Chen et al., 2020: rate 0.1, power 1/8
  CHECK((rate(p) == 0.1f && p.power == 0.125f));
  amsbound const b;  // as AdaBound
  CHECK((rate(b) == adabound{}.lr(0) && b.final_ratio == adabound{}.final_ratio && b.gamma == adabound{}.gamma));
  nadamax const n;  // ensmallen's NadaMax
  CHECK((rate(n) == 1e-3f && n.momentum_decay == 4e-3f));
  simplified_ademamix const m;  // optax.contrib.simplified_ademamix, which leaves the rate open
  CHECK((m.beta1 == 0.99f && m.beta2 == 0.95f && m.alpha == 0));
  acprop const a;  // optax.contrib.acprop; the authors' program: rate 1e-3
  CHECK((rate(a) == 1e-3f && a.epsilon == 1e-16f && a.beta1 == 0.9f && a.beta2 == 0.999f));
  optimistic_adam const o;
  CHECK((rate(o) == 1e-3f && o.optimism == 1));
  ftml const f;  // Zheng & Kwok, 2017: beta1 0.6; Keras' FTML: rate 0.0025
  CHECK((rate(f) == 2.5e-3f && f.beta1 == 0.6f && f.beta2 == 0.999f));
  swats const s;  // Keskar & Socher, 2017, algorithm 1
  CHECK((rate(s) == 1e-3f && s.epsilon == 1e-9f && s.tolerance == 1e-9f && s.beta2 == 0.999f));
  smorms3 const r;  // ensmallen's SMORMS3
  CHECK((rate(r) == 1e-3f && r.epsilon == 1e-16f));
}

TEST_CASE("defaults: other memories, online learning, and the loss") {
  optimistic_sgd const o;  // optax.optimistic_gradient_descent
  CHECK((o.alpha == 1 && o.beta == 1));
  CHECK(demon{}.momentum == 0.9f);
  entropy_sgd const e;  // Chaudhari et al., 2017: 20 steps, rate 0.1, scope 1e-4 growing by 1e-3, alpha 0.75
  CHECK((rate(e) == 0.1f && e.steps == 20 && e.scope == 1e-4f && e.scope_growth == 1e-3f && e.alpha == 0.75f));
  ftrl const f;  // McMahan et al., 2013, section 3.1: beta 1
  CHECK((f.beta == 1 && f.l1 == 0 && f.l2 == 0));
  CHECK(wngrad{}.initial == 1);  // ensmallen's WNGrad
  dog const d;                   // Ivgi et al., 2023; optax.contrib.dog
  CHECK((rate(d) == 1 && d.reach == 1e-6f && d.epsilon == 1e-8f));
  dowg const w;  // optax.contrib.dowg
  CHECK((rate(w) == 1 && w.initial_square == 1e-4f && w.epsilon == 1e-4f));
  dadapt_adamw const r;  // optax.contrib.dadapt_adamw
  CHECK((rate(r) == 1 && r.initial_d == 1e-6f && r.beta1 == 0.9f && r.beta2 == 0.999f && r.weight_decay == 0));
  cocob const c;  // Orabona & Tommasi, 2017: alpha 100; optax.contrib.cocob
  CHECK((c.alpha == 100 && c.epsilon == 1e-8f));
  CHECK(fromage{}.lr == 0.01f);  // Bernstein et al., 2020: 0.01 for most of its networks
  polyak_sgd const p;            // optax.polyak_sgd
  CHECK((rate(p) == 1 && p.largest == 1 && p.lower_bound == 0 && p.epsilon == 0));
  momo const m;  // Schaipp et al., 2024; optax.contrib.momo
  CHECK((rate(m) == 1 && m.beta == 0.9f && m.lower_bound == 0 && m.weight_decay == 0));
  momo_adam const a;  // optax.contrib.momo_adam
  CHECK((rate(a) == 1e-2f && a.beta1 == 0.9f && a.beta2 == 0.999f));
  eve const v;  // Hayashi et al., 2016: beta3 0.999, clipped at 10
  CHECK((rate(v) == 1e-3f && v.beta3 == 0.999f && v.clipping == 10));
  CHECK(adahessian{}.power == 1);  // Yao et al., 2021, algorithm 1
}

}  // namespace optim_defaults
