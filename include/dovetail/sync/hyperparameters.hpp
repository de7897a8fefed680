// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <dovetail/concepts.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/hyperparameters.hpp>
#include <dovetail/sync/agreement.hpp>

namespace dovetail::sync {

using dovetail::hyperparameter;
using dovetail::hyperparameters_of;

/// Collective. Throws argument_error on every rank, with the name, two ranks and both values, unless all ranks have the
/// same hyperparameters.
template <communicator C>
DOVETAIL_COLD void require_equal_hyperparameters(std::vector<hyperparameter> const& mine, C& comm,
                                                 char const* who = "sync") {
  if (comm.size() == 1) return;
  std::vector<std::uint64_t> words;
  for (auto const& h : mine) words.push_back(std::bit_cast<std::uint64_t>(h.value));
  auto const of_rank = detail::gather_words(words, comm);
  for (auto const& w : of_rank)
    require(w.size() == of_rank.front().size(), who, ": the ranks have optimizers or codecs of different types");
  for (std::size_t i = 0; i < mine.size(); ++i) {
    std::vector<std::uint64_t> values;
    for (auto const& w : of_rank) values.push_back(w[i]);
    auto const [usual, odd] = detail::find_unlike(values);
    if (odd == values.size()) continue;
    throw argument_error(message(who, ": the ranks have different hyperparameters: ", mine[i].name, " is ",
                                 std::bit_cast<double>(values[usual]), " on rank ", usual, " and ",
                                 std::bit_cast<double>(values[odd]), " on rank ", odd, ": give all ranks the same"));
  }
}

}  // namespace dovetail::sync
