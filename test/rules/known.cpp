// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "known.hpp"

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include <dovetail/core/error.hpp>
#include <dovetail/optim/rules/adafactor.hpp>
#include <dovetail/optim/schedules.hpp>

#include "parts.hpp"

namespace known {

namespace {
float number(std::string const& text) {
  char* end = nullptr;
  float const x = std::strtof(text.c_str(), &end);
  require(!text.empty() && *end == '\0', "'", text, "' is no number");
  return x;
}

/// The numbers of "name(1,2)", if the text is that; otherwise none.
std::vector<float> arguments(std::string const& text, std::string const& name) {
  std::vector<float> numbers;
  if (!text.starts_with(name + '(') || !text.ends_with(')')) return numbers;
  std::istringstream in(text.substr(name.size() + 1, text.size() - name.size() - 2));
  for (std::string one; std::getline(in, one, ',');) numbers.push_back(number(one));
  return numbers;
}

optim::setting setting_of(std::string const& text) {
  auto s = optim::parse_setting(text);
  std::string const value = *s.value.text();
  if (auto const times = value.find('*'); times != value.npos) {  // 0.1*0.99^t
    require(value.ends_with("^t"), text, ": a rate that fades is initial*factor^t");
    s.value = optim::exponential{.initial = number(value.substr(0, times)),
                                 .factor = number(value.substr(times + 1, value.size() - times - 3))};
  } else if (auto const c = arguments(value, "cosine"); c.size() == 2) {
    s.value = optim::cosine{.initial = c[0], .steps = static_cast<std::int64_t>(c[1])};
  } else if (auto const r = arguments(value, "relative_step"); r.size() == 1) {
    s.value = optim::relative_step{r[0]};
  }
  return s;
}
}  // namespace

optim::settings settings_of(std::string_view text) {
  optim::settings all;
  std::istringstream words{std::string(text)};
  for (std::string word; words >> word;) all.push_back(setting_of(word));
  return all;
}

std::vector<std::unique_ptr<rule const>> const& all() {
  static auto const list = [] {
    parts p;
    add_part<0>(p);
    add_part<1>(p);
    add_part<2>(p);
    add_part<3>(p);
    std::vector<std::unique_ptr<rule const>> rules;
    for (auto& [place, r] : p) rules.push_back(std::move(r));
    return rules;
  }();
  return list;
}

rule const& find(std::string_view name) {
  for (auto const& r : all())
    if (r->name == name) return *r;
  throw argument_error(message("there is no rule '", name, "' in optim/rules/list.inc.hpp"));
}

}  // namespace known
