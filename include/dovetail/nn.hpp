// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// Networks: layers as policies, shapes as types. nn::network needs oneDNN (link dovetail::onednn), nn::basic_network
// with nn::plain a compiler only. For those who name it: nn/gauss_newton.hpp.
#include <dovetail/nn/activation.hpp>
#include <dovetail/nn/batch_norm.hpp>
#include <dovetail/nn/block.hpp>
#include <dovetail/nn/conv.hpp>
#include <dovetail/nn/dense.hpp>
#include <dovetail/nn/dropout.hpp>
#include <dovetail/nn/embedding.hpp>
#include <dovetail/nn/flatten.hpp>
#include <dovetail/nn/gru.hpp>
#include <dovetail/nn/layer.hpp>
#include <dovetail/nn/layer_traits.hpp>
#include <dovetail/nn/loss.hpp>
#include <dovetail/nn/lstm.hpp>
#include <dovetail/nn/max_pool.hpp>
#include <dovetail/nn/network.hpp>
#include <dovetail/nn/plain.hpp>
#include <dovetail/nn/softmax_cross_entropy.hpp>
#include <dovetail/nn/value_losses.hpp>
#include <dovetail/nn/with_loss.hpp>
