// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The Gauss-Newton matrix is the Fisher information of likelihoods only.
// first error gcc: the loss is no negative log-likelihood in natural parameters: use gauss_newton.*hinge
// first error clang: hinge.*the loss is no negative log-likelihood in natural parameters: use gauss_newton
#include <dovetail/nn/activation.hpp>
#include <dovetail/nn/dense.hpp>
#include <dovetail/nn/gauss_newton.hpp>
#include <dovetail/nn/plain.hpp>
#include <dovetail/nn/softmax_cross_entropy.hpp>

using namespace dovetail;
struct hinge {
  loss_sums operator()(nn::predictions const&, float) const { return {}; }
  static void curvature(nn::predictions const&, float, float const*, float*) {}
};
using net = nn::basic_network<nn::plain, nn::shape{2}, nn::dense<2>>;
#ifdef FAIL
using classifier = nn::with_loss<net, hinge>;
#else
using classifier = nn::with_loss<net, nn::softmax_cross_entropy>;
#endif
static_assert(sizeof(nn::fisher<classifier>) > 0);
