// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <string>
#include <vector>

#include <dovetail/optim/any_optimizer.hpp>
#include <dovetail/optim/settings.hpp>

// The optimizers that both programs know by name. optimizers.cpp has them compiled once, apart from the programs.
namespace examples {

/// What --optimizer and --set ask for: `name` with the hyperparameters that `defaults` has, unless `set` ("key=value")
/// has them too. Throws argument_error that says what there is.
dovetail::optim::any_optimizer make_optimizer(std::string const& name, dovetail::optim::settings defaults,
                                              std::vector<std::string> const& set);

/// A line for each optimizer, with its hyperparameters and their defaults.
std::string list_optimizers();

/// True if the words are there that ask for that list, whatever else is missing: "--optimizer list".
bool wants_list(int argc, char const* const* argv);

}  // namespace examples
