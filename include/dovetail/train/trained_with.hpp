// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <dovetail/compress/traits.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/hyperparameters.hpp>
#include <dovetail/sync/session_traits.hpp>

// What a run trained with, as words: in its checkpoints, in its logs, and compared when it goes on.
namespace dovetail::train {

namespace detail {
inline constexpr std::string_view hyperparameter_prefix = "hyperparameter.";

/// Two policies of one kind have hyperparameters of one name: the second one's gets a number.
DOVETAIL_COLD inline void note_hyperparameters(std::map<std::string, std::string>& notes,
                                               std::vector<hyperparameter> const& all) {
  for (auto const& h : all) {
    auto const name = message(hyperparameter_prefix, h.name);
    auto key = name;
    for (int n = 2; notes.contains(key); ++n) key = message(name, " #", n);
    notes[key] = h.word.empty() ? dovetail::detail::number_text(h.value) : h.word;
  }
}
}  // namespace detail

/// Names of optimizer, synchronizer and codec, and all hyperparameters that they describe (core/ranges.hpp):
/// {"optimizer": "adamw", "synchronizer": "all_reduce", "codec": "identity", "hyperparameter.adamw.beta1": "0.9", …}.
template <class Optimizer, class Sync>
DOVETAIL_COLD std::map<std::string, std::string> trained_with(Optimizer const& optimizer, Sync const& policy) {
  std::map<std::string, std::string> notes{{"optimizer", policy_name(optimizer)},
                                           {"synchronizer", policy_name(policy)}};
  if constexpr (sync::synchronizer_traits<Sync>::has_codec) notes["codec"] = compress::name_of(policy.codec);
  detail::note_hyperparameters(notes, hyperparameters_of(optimizer, policy));
  return notes;
}

/// What of trained_with is not what a saved run had, one sentence each: "adamw.beta1 was 0.9 and is 0.95". Empty for a
/// state that does not say what it was trained with. Hyperparameters that only one of two optimizers, synchronizers or
/// codecs has are left out: the sentence about these says enough.
DOVETAIL_COLD inline std::vector<std::string> differences(std::map<std::string, std::string> const& saved,
                                                          std::map<std::string, std::string> const& now) {
  std::vector<std::string> all;
  if (!saved.contains("optimizer")) return all;
  bool same_policies = true, rates_differ = false;
  auto const text = [](std::map<std::string, std::string> const& of, std::string const& key) {
    auto const found = of.find(key);
    return found == of.end() ? std::string("not there") : found->second;
  };
  for (auto const* key : {"optimizer", "synchronizer", "codec"})
    if (saved.contains(key) != now.contains(key) || text(saved, key) != text(now, key)) {
      same_policies = false;
      all.push_back(message("the ", key, " was ", text(saved, key), " and is ", text(now, key)));
    }
  auto keys = saved;
  keys.insert(now.begin(), now.end());
  for (auto const& [key, value] : keys) {
    bool const both = saved.contains(key) && now.contains(key);
    if (!key.starts_with(detail::hyperparameter_prefix) || (!both && !same_policies)) continue;
    bool const is_rate = key.starts_with(message(detail::hyperparameter_prefix, "learning rate."));
    if (is_rate && rates_differ) continue;  // one step of a schedule is enough to say so
    rates_differ = rates_differ || (is_rate && text(saved, key) != text(now, key));
    if (!both || text(saved, key) != text(now, key))
      all.push_back(message(key.substr(detail::hyperparameter_prefix.size()), " was ", text(saved, key), " and is ",
                            text(now, key)));
  }
  return all;
}

}  // namespace dovetail::train
