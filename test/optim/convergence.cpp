// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Rules that need no library reach known minima in a bounded number of steps.
#include "convergence.hpp"

using namespace convergence;

namespace {

// Rates are steady ones of a coarse grid: a tenth more or less changes the number of steps by less than two fifths.
// Rules whose steps do not shrink with the gradient, such as signs, get a rate that fades.
// clang-format off
std::vector<line> const table{
    CONVERGES(rosenbrock, 1e-4, 14000, sgd, .lr = 0.001f),
    CONVERGES(beale, 1e-4, 1300, sgd, .lr = 0.01f),
    CONVERGES(booth, 1e-4, 60, sgd, .lr = 0.05f),
    CONVERGES(himmelblau, 1e-4, 35, sgd, .lr = 0.01f),
    CONVERGES(styblinski_tang, 1e-3, 60, sgd, .lr = 0.005f),
    CONVERGES(ackley, 1e-2, 110, sgd, .lr = 0.001f),
    CONVERGES(levy, 1e-4, 70, sgd, .lr = 0.5f),
    CONVERGES(rastrigin, 1e-3, 35, sgd, .lr = 0.0005f),
    CONVERGES(logistic_regression, 1e-4, 110, sgd, .lr = 2),
    CONVERGES(network, 0.1, 430, sgd, .lr = 1),

    CONVERGES(rosenbrock, 1e-4, 2700, momentum, .lr = 0.0005f),
    CONVERGES(beale, 1e-4, 240, momentum, .lr = 0.005f),
    CONVERGES(booth, 1e-4, 260, momentum, .lr = 0.001f),
    CONVERGES(himmelblau, 1e-4, 310, momentum, .lr = 0.0001f),
    CONVERGES(styblinski_tang, 1e-3, 240, momentum, .lr = 0.0001f),
    CONVERGES(ackley, 1e-2, 180, momentum, .lr = 0.0001f),
    CONVERGES(levy, 1e-4, 140, momentum, .lr = 0.02f),
    CONVERGES(rastrigin, 1e-3, 130, momentum, .lr = 0.0001f),
    CONVERGES(logistic_regression, 1e-4, 170, momentum, .lr = 0.1f),
    CONVERGES(network, 0.1, 100, momentum, .lr = 0.5f),

    CONVERGES(rosenbrock, 1e-4, 1300, nesterov, .lr = 0.001f),
    CONVERGES(beale, 1e-4, 190, nesterov, .lr = 0.01f),
    CONVERGES(booth, 1e-4, 120, nesterov, .lr = 0.005f),
    CONVERGES(himmelblau, 1e-4, 80, nesterov, .lr = 0.005f),
    CONVERGES(styblinski_tang, 1e-3, 60, nesterov, .lr = 0.005f),
    CONVERGES(ackley, 1e-2, 75, nesterov, .lr = 0.0005f),
    CONVERGES(levy, 1e-4, 110, nesterov, .lr = 0.02f),
    CONVERGES(rastrigin, 1e-3, 45, nesterov, .lr = 0.0005f),
    CONVERGES(logistic_regression, 1e-4, 110, nesterov, .lr = 0.2f),
    CONVERGES(network, 0.1, 110, nesterov, .lr = 0.5f),

    CONVERGES(rosenbrock, 1e-4, 1300, adam, .lr = 0.1f),
    CONVERGES(beale, 1e-4, 210, adam, .lr = 0.1f),
    CONVERGES(booth, 1e-4, 390, adam, .lr = 0.2f),
    CONVERGES(himmelblau, 1e-4, 410, adam, .lr = 0.02f),
    CONVERGES(styblinski_tang, 1e-3, 230, adam, .lr = 0.02f),
    CONVERGES(ackley, 1e-2, 150, adam, .lr = 0.005f),
    CONVERGES(levy, 1e-4, 190, adam, .lr = 0.02f),
    CONVERGES(rastrigin, 1e-3, 170, adam, .lr = 0.005f),
    CONVERGES(logistic_regression, 1e-4, 160, adam, .lr = 0.05f),
    CONVERGES(network, 0.1, 65, adam, .lr = 0.1f),

    CONVERGES(rosenbrock, 1e-4, 1300, adamw, .lr = 0.1f, .weight_decay = 0),
    CONVERGES(beale, 1e-4, 210, adamw, .lr = 0.1f, .weight_decay = 0),
    CONVERGES(booth, 1e-4, 390, adamw, .lr = 0.2f, .weight_decay = 0),
    CONVERGES(himmelblau, 1e-4, 410, adamw, .lr = 0.02f, .weight_decay = 0),
    CONVERGES(styblinski_tang, 1e-3, 230, adamw, .lr = 0.02f, .weight_decay = 0),
    CONVERGES(ackley, 1e-2, 150, adamw, .lr = 0.005f, .weight_decay = 0),
    CONVERGES(levy, 1e-4, 190, adamw, .lr = 0.02f, .weight_decay = 0),
    CONVERGES(rastrigin, 1e-3, 170, adamw, .lr = 0.005f, .weight_decay = 0),
    CONVERGES(logistic_regression, 1e-4, 160, adamw, .lr = 0.05f, .weight_decay = 0),
    CONVERGES(network, 0.1, 65, adamw, .lr = 0.1f, .weight_decay = 0),

    CONVERGES(logistic_regression, 1e-4, 160, lars, .lr = 5, .weight_decay = 0),
    CONVERGES(network, 0.1, 130, lars, .lr = 5, .weight_decay = 0),

    CONVERGES(logistic_regression, 1e-4, 230, lamb, .lr = fading(0.05f, 0.99f), .weight_decay = 0),
    CONVERGES(network, 0.1, 100, lamb, .lr = 0.05f, .weight_decay = 0),

    CONVERGES(rosenbrock, 1e-4, 9000, sign_sgd, .lr = fading(0.005f, 0.999f)),
    CONVERGES(beale, 1e-4, 650, sign_sgd, .lr = fading(0.05f, 0.99f)),
    CONVERGES(booth, 1e-4, 160, sign_sgd, .lr = fading(0.5f, 0.95f)),
    CONVERGES(himmelblau, 1e-4, 140, sign_sgd, .lr = fading(0.2f, 0.95f)),
    CONVERGES(styblinski_tang, 1e-3, 110, sign_sgd, .lr = fading(0.2f, 0.95f)),
    CONVERGES(ackley, 1e-2, 180, sign_sgd, .lr = fading(0.01f, 0.99f)),
    CONVERGES(levy, 1e-4, 50, sign_sgd, .lr = fading(0.1f, 0.95f)),
    CONVERGES(rastrigin, 1e-3, 160, sign_sgd, .lr = fading(0.005f, 0.99f)),
    CONVERGES(logistic_regression, 1e-4, 65, sign_sgd, .lr = fading(0.1f, 0.95f)),
    CONVERGES(network, 0.1, 210, sign_sgd, .lr = fading(1, 0.99f)),

    CONVERGES(rosenbrock, 1e-4, 4200, signum, .lr = fading(0.005f, 0.999f)),
    CONVERGES(beale, 1e-4, 480, signum, .lr = fading(0.05f, 0.99f)),
    CONVERGES(booth, 1e-4, 220, signum, .lr = fading(1, 0.95f)),
    CONVERGES(himmelblau, 1e-4, 200, signum, .lr = fading(0.2f, 0.95f)),
    CONVERGES(styblinski_tang, 1e-3, 390, signum, .lr = fading(0.05f, 0.99f)),
    CONVERGES(ackley, 1e-2, 120, signum, .lr = fading(0.05f, 0.95f)),
    CONVERGES(levy, 1e-4, 230, signum, .lr = fading(0.02f, 0.99f)),
    CONVERGES(rastrigin, 1e-3, 230, signum, .lr = fading(0.005f, 0.99f)),
    CONVERGES(logistic_regression, 1e-4, 200, signum, .lr = fading(0.02f, 0.99f)),
    CONVERGES(network, 0.1, 80, signum, .lr = 0.05f),

    CONVERGES(rosenbrock, 1e-4, 4500, lion, .lr = fading(0.005f, 0.999f)),
    CONVERGES(beale, 1e-4, 550, lion, .lr = fading(0.1f, 0.99f)),
    CONVERGES(booth, 1e-4, 170, lion, .lr = fading(1, 0.95f)),
    CONVERGES(himmelblau, 1e-4, 180, lion, .lr = fading(0.5f, 0.95f)),
    CONVERGES(styblinski_tang, 1e-3, 110, lion, .lr = fading(0.2f, 0.95f)),
    CONVERGES(ackley, 1e-2, 200, lion, .lr = fading(0.01f, 0.99f)),
    CONVERGES(levy, 1e-4, 180, lion, .lr = fading(0.05f, 0.99f)),
    CONVERGES(rastrigin, 1e-3, 95, lion, .lr = fading(0.05f, 0.95f)),
    CONVERGES(logistic_regression, 1e-4, 110, lion, .lr = fading(0.2f, 0.95f)),
    CONVERGES(network, 0.1, 160, lion, .lr = 0.02f),

    CONVERGES(rosenbrock, 1e-4, 3600, qhm, .lr = 0.002f),
    CONVERGES(beale, 1e-4, 170, qhm, .lr = 0.1f),
    CONVERGES(booth, 1e-4, 750, qhm, .lr = 0.2f),
    CONVERGES(himmelblau, 1e-4, 690, qhm, .lr = 0.05f),
    CONVERGES(styblinski_tang, 1e-3, 580, qhm, .lr = 0.02f),
    CONVERGES(ackley, 1e-2, 95, qhm, .lr = fading(0.005f, 0.99f)),
    CONVERGES(levy, 1e-4, 85, qhm, .lr = 1),
    CONVERGES(rastrigin, 1e-3, 220, qhm, .lr = 0.002f),
    CONVERGES(logistic_regression, 1e-4, 60, qhm, .lr = 10),
    CONVERGES(network, 0.1, 65, qhm, .lr = fading(20, 0.99f)),

    CONVERGES(rosenbrock, 1e-4, 9700, adagrad, .lr = 0.2f),
    CONVERGES(beale, 1e-4, 280, adagrad, .lr = 0.5f),
    CONVERGES(booth, 1e-4, 65, adagrad, .lr = 5),
    CONVERGES(himmelblau, 1e-4, 60, adagrad, .lr = 0.5f),
    CONVERGES(styblinski_tang, 1e-3, 25, adagrad, .lr = 0.5f),
    CONVERGES(ackley, 1e-2, 80, adagrad, .lr = 0.05f),
    CONVERGES(levy, 1e-4, 90, adagrad, .lr = 0.2f),
    CONVERGES(rastrigin, 1e-3, 60, adagrad, .lr = 0.05f),
    CONVERGES(logistic_regression, 1e-4, 65, adagrad, .lr = 0.5f),
    CONVERGES(network, 0.1, 30, adagrad, .lr = 2),

    CONVERGES(rosenbrock, 1e-4, 6900, adadelta, .lr = fading(0.5f, 0.999f)),
    CONVERGES(beale, 1e-4, 420, adadelta, .lr = fading(5, 0.99f)),
    CONVERGES(booth, 1e-4, 310, adadelta, .lr = 20),
    CONVERGES(himmelblau, 1e-4, 35, adadelta, .lr = 50),
    CONVERGES(styblinski_tang, 1e-3, 40, adadelta, .lr = 50),
    CONVERGES(ackley, 1e-2, 110, adadelta, .lr = 1),
    CONVERGES(levy, 1e-4, 60, adadelta, .lr = 20),
    CONVERGES(rastrigin, 1e-3, 55, adadelta, .lr = 5),
    CONVERGES(logistic_regression, 1e-4, 260, adadelta, .lr = 5),
    CONVERGES(network, 0.1, 400, adadelta, .lr = 2),

    CONVERGES(rosenbrock, 1e-4, 11400, rmsprop, .lr = 0.0005f),
    CONVERGES(beale, 1e-4, 200, rmsprop, .lr = 0.05f),
    CONVERGES(booth, 1e-4, 55, rmsprop, .lr = 0.5f),
    CONVERGES(himmelblau, 1e-4, 55, rmsprop, .lr = 0.05f),
    CONVERGES(styblinski_tang, 1e-3, 20, rmsprop, .lr = 0.05f),
    CONVERGES(ackley, 1e-2, 140, rmsprop, .lr = 0.002f),
    CONVERGES(levy, 1e-4, 80, rmsprop, .lr = 0.02f),
    CONVERGES(rastrigin, 1e-3, 55, rmsprop, .lr = 0.005f),
    CONVERGES(logistic_regression, 1e-4, 60, rmsprop, .lr = 0.05f),
    CONVERGES(network, 0.1, 30, rmsprop, .lr = 0.2f),

    CONVERGES(rosenbrock, 1e-4, 1500, rmsprop_momentum, .lr = 0.001f),
    CONVERGES(beale, 1e-4, 320, rmsprop_momentum, .lr = 0.005f),
    CONVERGES(booth, 1e-4, 410, rmsprop_momentum, .lr = 0.01f),
    CONVERGES(himmelblau, 1e-4, 220, rmsprop_momentum, .lr = 0.002f),
    CONVERGES(styblinski_tang, 1e-3, 240, rmsprop_momentum, .lr = 0.001f),
    CONVERGES(ackley, 1e-2, 160, rmsprop_momentum, .lr = 0.0002f),
    CONVERGES(levy, 1e-4, 180, rmsprop_momentum, .lr = 0.001f),
    CONVERGES(rastrigin, 1e-3, 200, rmsprop_momentum, .lr = 0.0002f),
    CONVERGES(logistic_regression, 1e-4, 240, rmsprop_momentum, .lr = 0.002f),
    CONVERGES(network, 0.1, 80, rmsprop_momentum, .lr = 0.005f),

    CONVERGES(rosenbrock, 1e-4, 9400, rmsprop_centered, .lr = 0.0001f),
    CONVERGES(beale, 1e-4, 190, rmsprop_centered, .lr = 0.05f),
    CONVERGES(booth, 1e-4, 55, rmsprop_centered, .lr = 0.5f),
    CONVERGES(himmelblau, 1e-4, 50, rmsprop_centered, .lr = 0.05f),
    CONVERGES(styblinski_tang, 1e-3, 20, rmsprop_centered, .lr = 0.05f),
    CONVERGES(ackley, 1e-2, 110, rmsprop_centered, .lr = 0.002f),
    CONVERGES(levy, 1e-4, 75, rmsprop_centered, .lr = 0.02f),
    CONVERGES(rastrigin, 1e-3, 50, rmsprop_centered, .lr = 0.005f),
    CONVERGES(logistic_regression, 1e-4, 60, rmsprop_centered, .lr = 0.05f),
    CONVERGES(network, 0.1, 30, rmsprop_centered, .lr = 0.2f),

    CONVERGES(rosenbrock, 1e-4, 3700, rprop, .lr = 0.0001f),
    CONVERGES(beale, 1e-4, 150, rprop, .lr = 0.001f),
    CONVERGES(booth, 1e-4, 120, rprop, .lr = 0.02f),
    CONVERGES(himmelblau, 1e-4, 110, rprop, .lr = 0.005f),
    CONVERGES(styblinski_tang, 1e-3, 70, rprop, .lr = 0.1f),
    CONVERGES(ackley, 1e-2, 75, rprop, .lr = 0.005f),
    CONVERGES(levy, 1e-4, 60, rprop, .lr = 0.2f),
    CONVERGES(rastrigin, 1e-3, 75, rprop, .lr = 0.005f),
    CONVERGES(logistic_regression, 1e-4, 80, rprop, .lr = 0.2f),
    CONVERGES(network, 0.1, 120, rprop, .lr = 0.002f),

    CONVERGES(rosenbrock, 1e-4, 4700, adamax, .lr = 0.05f),
    CONVERGES(beale, 1e-4, 380, adamax, .lr = 0.2f),
    CONVERGES(booth, 1e-4, 230, adamax, .lr = 1),
    CONVERGES(himmelblau, 1e-4, 250, adamax, .lr = 0.05f),
    CONVERGES(styblinski_tang, 1e-3, 160, adamax, .lr = 0.05f),
    CONVERGES(ackley, 1e-2, 160, adamax, .lr = 0.005f),
    CONVERGES(levy, 1e-4, 110, adamax, .lr = 0.05f),
    CONVERGES(rastrigin, 1e-3, 150, adamax, .lr = 0.005f),
    CONVERGES(logistic_regression, 1e-4, 140, adamax, .lr = 0.2f),
    CONVERGES(network, 0.1, 85, adamax, .lr = 0.2f),

    CONVERGES(rosenbrock, 1e-4, 5500, nadam, .lr = 0.01f),
    CONVERGES(beale, 1e-4, 230, nadam, .lr = 0.1f),
    CONVERGES(booth, 1e-4, 170, nadam, .lr = 0.5f),
    CONVERGES(himmelblau, 1e-4, 75, nadam, .lr = 0.2f),
    CONVERGES(styblinski_tang, 1e-3, 75, nadam, .lr = 0.1f),
    CONVERGES(ackley, 1e-2, 110, nadam, .lr = 0.005f),
    CONVERGES(levy, 1e-4, 45, nadam, .lr = 0.2f),
    CONVERGES(rastrigin, 1e-3, 70, nadam, .lr = 0.02f),
    CONVERGES(logistic_regression, 1e-4, 140, nadam, .lr = fading(0.1f, 0.99f)),
    CONVERGES(network, 0.1, 130, nadam, .lr = 0.05f),

    CONVERGES(rosenbrock, 1e-4, 1600, amsgrad, .lr = 0.1f),
    CONVERGES(beale, 1e-4, 210, amsgrad, .lr = 0.1f),
    CONVERGES(booth, 1e-4, 410, amsgrad, .lr = 0.2f),
    CONVERGES(himmelblau, 1e-4, 420, amsgrad, .lr = 0.02f),
    CONVERGES(styblinski_tang, 1e-3, 230, amsgrad, .lr = 0.02f),
    CONVERGES(ackley, 1e-2, 150, amsgrad, .lr = 0.005f),
    CONVERGES(levy, 1e-4, 190, amsgrad, .lr = 0.02f),
    CONVERGES(rastrigin, 1e-3, 170, amsgrad, .lr = 0.005f),
    CONVERGES(logistic_regression, 1e-4, 160, amsgrad, .lr = 0.05f),
    CONVERGES(network, 0.1, 65, amsgrad, .lr = 0.1f),

    CONVERGES(rosenbrock, 1e-4, 13800, radam, .lr = 0.001f),
    CONVERGES(beale, 1e-4, 1700, radam, .lr = 0.02f),
    CONVERGES(booth, 1e-4, 2100, radam, .lr = 0.02f),
    CONVERGES(himmelblau, 1e-4, 770, radam, .lr = 0.02f),
    CONVERGES(styblinski_tang, 1e-3, 900, radam, .lr = 0.01f),
    CONVERGES(ackley, 1e-2, 110, radam, .lr = 0.02f),
    CONVERGES(levy, 1e-4, 210, radam, .lr = 0.1f),
    CONVERGES(rastrigin, 1e-3, 390, radam, .lr = 0.001f),
    CONVERGES(logistic_regression, 1e-4, 180, radam, .lr = 0.2f),
    CONVERGES(network, 0.1, 100, radam, .lr = 0.5f),

    CONVERGES(rosenbrock, 1e-4, 1100, adabound, .lr = 0.0005f),
    CONVERGES(beale, 1e-4, 440, adabound, .lr = 0.002f),
    CONVERGES(booth, 1e-4, 430, adabound, .lr = 0.0005f),
    CONVERGES(himmelblau, 1e-4, 360, adabound, .lr = 0.0001f),
    CONVERGES(styblinski_tang, 1e-3, 320, adabound, .lr = 0.0001f),
    CONVERGES(ackley, 1e-2, 250, adabound, .lr = 0.0001f),
    CONVERGES(levy, 1e-4, 170, adabound, .lr = 0.02f),
    CONVERGES(rastrigin, 1e-3, 160, adabound, .lr = 0.0001f),
    CONVERGES(logistic_regression, 1e-4, 160, adabound, .lr = 0.05f),
    CONVERGES(network, 0.1, 65, adabound, .lr = 0.1f),

    CONVERGES(rosenbrock, 1e-4, 1300, adabelief, .lr = 0.1f),
    CONVERGES(beale, 1e-4, 320, adabelief, .lr = 0.05f),
    CONVERGES(booth, 1e-4, 450, adabelief, .lr = 0.1f),
    CONVERGES(himmelblau, 1e-4, 430, adabelief, .lr = 0.002f),
    CONVERGES(styblinski_tang, 1e-3, 200, adabelief, .lr = 0.01f),
    CONVERGES(ackley, 1e-2, 190, adabelief, .lr = 0.001f),
    CONVERGES(levy, 1e-4, 160, adabelief, .lr = 0.01f),
    CONVERGES(rastrigin, 1e-3, 220, adabelief, .lr = 0.001f),
    CONVERGES(logistic_regression, 1e-4, 140, adabelief, .lr = 0.05f),
    CONVERGES(network, 0.1, 90, adabelief, .lr = 0.05f),

    CONVERGES(rosenbrock, 1e-4, 1600, yogi, .lr = 0.1f),
    CONVERGES(beale, 1e-4, 210, yogi, .lr = 0.1f),
    CONVERGES(booth, 1e-4, 410, yogi, .lr = 0.2f),
    CONVERGES(himmelblau, 1e-4, 430, yogi, .lr = 0.02f),
    CONVERGES(styblinski_tang, 1e-3, 230, yogi, .lr = 0.02f),
    CONVERGES(ackley, 1e-2, 150, yogi, .lr = 0.005f),
    CONVERGES(levy, 1e-4, 190, yogi, .lr = 0.02f),
    CONVERGES(rastrigin, 1e-3, 170, yogi, .lr = 0.005f),
    CONVERGES(logistic_regression, 1e-4, 160, yogi, .lr = 0.05f),
    CONVERGES(network, 0.1, 80, yogi, .lr = 0.1f),

    CONVERGES(rosenbrock, 1e-4, 900, qhadam, .lr = 0.05f),
    CONVERGES(beale, 1e-4, 710, qhadam, .lr = 0.02f),
    CONVERGES(booth, 1e-4, 90, qhadam, .lr = 5),
    CONVERGES(himmelblau, 1e-4, 80, qhadam, .lr = 0.5f),
    CONVERGES(styblinski_tang, 1e-3, 55, qhadam, .lr = 0.5f),
    CONVERGES(ackley, 1e-2, 80, qhadam, .lr = fading(0.02f, 0.99f)),
    CONVERGES(levy, 1e-4, 40, qhadam, .lr = 0.5f),
    CONVERGES(rastrigin, 1e-3, 35, qhadam, .lr = 0.1f),
    CONVERGES(logistic_regression, 1e-4, 150, qhadam, .lr = 0.2f),
    CONVERGES(network, 0.1, 45, qhadam, .lr = 0.5f),

    CONVERGES(rosenbrock, 1e-4, 890, ademamix, .lr = 0.1f),
    CONVERGES(beale, 1e-4, 330, ademamix, .lr = 0.05f),
    CONVERGES(booth, 1e-4, 210, ademamix, .lr = 2),
    CONVERGES(himmelblau, 1e-4, 210, ademamix, .lr = 0.5f),
    CONVERGES(styblinski_tang, 1e-3, 150, ademamix, .lr = 0.1f),
    CONVERGES(ackley, 1e-2, 150, ademamix, .lr = 0.005f),
    CONVERGES(levy, 1e-4, 150, ademamix, .lr = 0.05f),
    CONVERGES(rastrigin, 1e-3, 170, ademamix, .lr = 0.01f),
    CONVERGES(logistic_regression, 1e-4, 170, ademamix, .lr = 0.05f),
    CONVERGES(network, 0.1, 65, ademamix, .lr = 0.1f),

    CONVERGES(rosenbrock, 1e-4, 1600, adopt, .lr = 1),
    CONVERGES(beale, 1e-4, 350, adopt, .lr = 0.1f),
    CONVERGES(booth, 1e-4, 270, adopt, .lr = 1),
    CONVERGES(himmelblau, 1e-4, 300, adopt, .lr = 0.02f),
    CONVERGES(styblinski_tang, 1e-3, 160, adopt, .lr = 0.05f),
    CONVERGES(ackley, 1e-2, 150, adopt, .lr = 0.005f),
    CONVERGES(levy, 1e-4, 210, adopt, .lr = 0.02f),
    CONVERGES(rastrigin, 1e-3, 170, adopt, .lr = 0.005f),
    CONVERGES(logistic_regression, 1e-4, 160, adopt, .lr = 0.2f),
    CONVERGES(network, 0.1, 65, adopt, .lr = 0.2f),

    CONVERGES(rosenbrock, 1e-4, 1400, adan, .lr = 0.01f),
    CONVERGES(beale, 1e-4, 440, adan, .lr = 0.1f),
    CONVERGES(booth, 1e-4, 420, adan, .lr = 1),
    CONVERGES(himmelblau, 1e-4, 220, adan, .lr = 0.5f),
    CONVERGES(styblinski_tang, 1e-3, 80, adan, .lr = 0.5f),
    CONVERGES(ackley, 1e-2, 65, adan, .lr = 0.05f),
    CONVERGES(levy, 1e-4, 95, adan, .lr = 0.5f),
    CONVERGES(rastrigin, 1e-3, 60, adan, .lr = 0.1f),
    CONVERGES(logistic_regression, 1e-4, 140, adan, .lr = 0.5f),
    CONVERGES(network, 0.1, 65, adan, .lr = 0.2f),

    CONVERGES(rosenbrock, 1e-4, 1800, schedule_free_sgd, .lr = 0.005f),
    CONVERGES(beale, 1e-4, 110, schedule_free_sgd, .lr = 0.05f),
    CONVERGES(booth, 1e-4, 20, schedule_free_sgd, .lr = 0.5f),
    CONVERGES(himmelblau, 1e-4, 85, schedule_free_sgd, .lr = 0.05f),
    CONVERGES(styblinski_tang, 1e-3, 110, schedule_free_sgd, .lr = 0.02f),
    CONVERGES(ackley, 1e-2, 45, schedule_free_sgd, .lr = 0.01f),
    CONVERGES(levy, 1e-4, 150, schedule_free_sgd, .lr = 0.2f),
    CONVERGES(rastrigin, 1e-3, 50, schedule_free_sgd, .lr = 0.002f),
    CONVERGES(logistic_regression, 1e-4, 130, schedule_free_sgd, .lr = 5),
    CONVERGES(network, 0.1, 35, schedule_free_sgd, .lr = 10),

    CONVERGES(rosenbrock, 1e-4, 10900, schedule_free_adamw, .lr = 0.02f),
    CONVERGES(beale, 1e-4, 140, schedule_free_adamw, .lr = 0.2f),
    CONVERGES(booth, 1e-4, 140, schedule_free_adamw, .lr = 2),
    CONVERGES(himmelblau, 1e-4, 55, schedule_free_adamw, .lr = 1),
    CONVERGES(styblinski_tang, 1e-3, 50, schedule_free_adamw, .lr = 0.5f),
    CONVERGES(ackley, 1e-2, 40, schedule_free_adamw, .lr = 0.05f),
    CONVERGES(levy, 1e-4, 30, schedule_free_adamw, .lr = 0.5f),
    CONVERGES(rastrigin, 1e-3, 40, schedule_free_adamw, .lr = 0.1f),
    CONVERGES(logistic_regression, 1e-4, 45, schedule_free_adamw, .lr = 0.5f),
    CONVERGES(network, 0.1, 45, schedule_free_adamw, .lr = 1),

    CONVERGES(logistic_regression, 1e-4, 320, novograd, .lr = 0.005f),
    CONVERGES(network, 0.1, 110, novograd, .lr = 0.05f),

    CONVERGES(logistic_regression, 1e-4, 190, lans, .lr = fading(0.05f, 0.99f), .weight_decay = 0),
    CONVERGES(network, 0.1, 95, lans, .lr = 0.05f, .weight_decay = 0),

    CONVERGES(logistic_regression, 1e-4, 200, larc, .lr = 0.1f),
    CONVERGES(network, 0.1, 100, larc, .lr = 0.5f),

    CONVERGES(rosenbrock, 1e-4, 1600, prodigy, .lr = 0.02f),
    CONVERGES(beale, 1e-4, 310, prodigy, .lr = 0.05f),
    CONVERGES(booth, 1e-4, 520, prodigy, .lr = 0.02f),
    CONVERGES(himmelblau, 1e-4, 450, prodigy, .lr = 0.02f),
    CONVERGES(styblinski_tang, 1e-3, 250, prodigy, .lr = 0.05f),
    CONVERGES(ackley, 1e-2, 250, prodigy, .lr = 0.05f),
    CONVERGES(levy, 1e-4, 230, prodigy, .lr = 0.05f),
    CONVERGES(rastrigin, 1e-3, 220, prodigy, .lr = 0.05f),
    CONVERGES(logistic_regression, 1e-4, 210, prodigy, .lr = 0.05f),
    CONVERGES(network, 0.1, 110, prodigy, .lr = 0.2f),

    CONVERGES(logistic_regression, 1e-4, 40, adafactor, .lr = fading(0.5f, 0.95f)),
    CONVERGES(network, 0.1, 300, adafactor, .lr = 0.02f),

    CONVERGES(logistic_regression, 1e-4, 210, sm3, .lr = 0.5f),
    CONVERGES(network, 0.1, 55, sm3, .lr = 1),

    CONVERGES(logistic_regression, 1e-4, 65, row_wise_adagrad, .lr = 0.5f),
    CONVERGES(network, 0.1, 30, row_wise_adagrad, .lr = 5),
};
// clang-format on

}  // namespace

TEST_CASE("gradients by hand are those of finite differences") {
  for (auto const* p : all_problems) {
    CAPTURE(p->name);
    random_stream const random{31};
    std::uint64_t n = 0;
    std::vector<double> g(p->start.size()), unused(g.size());
    for (int point = 0; point < 5; ++point) {
      auto w = p->start;
      for (double& x : w) x += static_cast<double>(random.uniform(n++)) - 0.5;
      p->evaluate(w, g);
      for (std::size_t k = 0; k < w.size(); ++k) {
        CAPTURE(k);
        double const at = w[k], h = 1e-5;
        w[k] = at + h;
        double const above = p->evaluate(w, unused);
        w[k] = at - h;
        double const below = p->evaluate(w, unused);
        w[k] = at;
        CHECK(g[k] == doctest::Approx((above - below) / (2 * h)).epsilon(1e-6).scale(1));
      }
    }
  }
}

TEST_CASE("minima are where they are said to be, and Newton's method has found that of the regression") {
  std::vector<double> const tang(3, -2.903534027771177);
  for (auto const& [p, at] : {std::pair{&rosenbrock, std::vector<double>{1, 1}},
                              {&beale, {3, 0.5}},
                              {&booth, {1, 3}},
                              {&himmelblau, {3, 2}},
                              {&styblinski_tang, tang},
                              {&ackley, {0, 0}},
                              {&levy, {1, 1}},
                              {&rastrigin, {0, 0}},
                              {&logistic_regression, logistic_loss{}.solve()}}) {
    CAPTURE(p->name);
    std::vector<double> g(at.size());
    CHECK(std::abs(p->evaluate(at, g) - p->minimum) < 1e-12);
    for (double x : g) CHECK(std::abs(x) < 1e-12);
  }
}

TEST_CASE("every rule has lines in the table") {
  check_complete(table, DOVETAIL_CONFORMANCE,
                 {"lars", "lamb", "lans", "novograd", "adafactor", "sm3", "row_wise_adagrad"});
}

TEST_CASE("down a bent valley: Rosenbrock") { check(table, rosenbrock); }
TEST_CASE("over plains and walls: Beale") { check(table, beale); }
TEST_CASE("down a narrow bowl: Booth") { check(table, booth); }
TEST_CASE("to one of four minima: Himmelblau") { check(table, himmelblau); }
TEST_CASE("to the lowest of eight minima, in its basin: Styblinski and Tang") { check(table, styblinski_tang); }
TEST_CASE("to the tip of a funnel, in its basin: Ackley") { check(table, ackley); }
TEST_CASE("among waves, in the basin of the lowest: Levy") { check(table, levy); }
TEST_CASE("among dents, in the deepest: Rastrigin") { check(table, rastrigin); }
TEST_CASE("to the optimum of logistic regression") { check(table, logistic_regression); }
TEST_CASE("a network learns a spiral") { check(table, network); }
