// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A source file of its own: each rule takes a second to compile, and both programs have the same ones.
#include "optimizers.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

#include <dovetail/optim/rules/registry.hpp>

namespace examples {

using namespace dovetail;

namespace {
// A line for each rule: any of docs/rules can be added, and rules of one's own. optim::rules() has all of the
// library's.
optim::registry const& known() {
  static optim::registry const all = optim::registry{}
                                         .add<optim::sgd>()
                                         .add<optim::momentum>()
                                         .add<optim::nesterov>()
                                         .add<optim::adam>()
                                         .add<optim::adamw>()
                                         .add<optim::amsgrad>()
                                         .add<optim::nadam>()
                                         .add<optim::radam>()
                                         .add<optim::adabelief>()
                                         .add<optim::adafactor>()
                                         .add<optim::adagrad>()
                                         .add<optim::rmsprop>()
                                         .add<optim::lars>()
                                         .add<optim::lamb>()
                                         .add<optim::lion>()
                                         .add<optim::prodigy>()
                                         .add<optim::polyak_sgd>()
                                         .add<optim::schedule_free_adamw>();
  return all;
}
}  // namespace

optim::any_optimizer make_optimizer(std::string const& name, optim::settings defaults,
                                    std::vector<std::string> const& set) {
  optim::settings all;
  for (auto const& text : set) all.push_back(optim::parse_setting(text));
  for (auto& d : defaults)
    if (std::none_of(all.begin(), all.end(), [&](auto const& given) { return given.name == d.name; }))
      all.push_back(std::move(d));
  return known().make(name, all);
}

bool wants_list(int argc, char const* const* argv) {
  for (int i = 1; i < argc; ++i) {
    std::string_view const word = argv[i];
    if (word == "--optimizer=list" ||
        (word == "--optimizer" && i + 1 < argc && argv[i + 1] == std::string_view("list")))
      return true;
  }
  return false;
}

std::string list_optimizers() { return known().list(); }

}  // namespace examples
