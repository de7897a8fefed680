// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstdint>

#include <dovetail/nn/layer.hpp>

// What lstm and gru share.
namespace dovetail::nn::detail {

/// Tensors of one recurrent layer of `gates` gates, as PyTorch names and starts them.
constexpr std::array<tensor_plan, 4> recurrent_tensors(std::int64_t gates, std::int64_t features, std::int64_t h) {
  return {tensor_plan{"weight_ih_l0", {gates * h, features}, initial::uniform, h},
          tensor_plan{"weight_hh_l0", {gates * h, h}, initial::uniform, h},
          tensor_plan{"bias_ih_l0", {gates * h}, initial::uniform, h},
          tensor_plan{"bias_hh_l0", {gates * h}, initial::uniform, h}};
}

/// Where those tensors begin in the layer's memory.
struct recurrent_offsets {
  std::int64_t w_ih, w_hh, b_ih, b_hh;
  recurrent_offsets(std::int64_t gates, std::int64_t features, std::int64_t h)
      : w_ih(0), w_hh(gates * h * features), b_ih(w_hh + gates * h * h), b_hh(b_ih + gates * h) {}
};

}  // namespace dovetail::nn::detail
