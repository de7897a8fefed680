// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/comm/operation.hpp>
#include <dovetail/concepts.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/flat_copy.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/sync/agreement.hpp>

namespace dovetail::sync {

/// The sum over ranks of a function of the weights, each rank's on its part of the data, as a function that all of them
/// call alike: an `objective` (optim/second_order/minimize.hpp) gives the sum of losses and of gradients, a
/// `hvp` (optim/second_order/hvp.hpp) the sum of products. Sums run in rank order, so all
/// ranks get the same bits and decide alike. Weigh losses by the count of all ranks' data, and start from equal weights
/// (sync::make_equal). The first call throws argument_error if the ranks' parameters differ; one rank that calls more
/// often than another: rank_diverged.
///
///     auto f = sync::summed(loss_of_my_data, comm);    // comm must outlive it
///     optim::minimize(f, parameters, optim::lbfgs{});
template <class Function, communicator Communicator>
class summed_function {
 public:
  summed_function(Function f, Communicator& comm) : f_(std::move(f)), comm_(&comm) {}

  template <class T>
  requires requires(Function& f, basic_parameter_list<T>& p) { f(p); }
  double operator()(basic_parameter_list<T>& p) {
    if (calls_ == 0) require_same_list(p, *comm_, "sync::summed");
    double loss = f_(p);
    comm::subject const about{++calls_, 0};
    detail::with_subject(*comm_, about, [&] {
      comm_->all_reduce(std::span<double>(&loss, 1), comm::reduction::sum);
      add_up_gradients(p);
    });
    return loss;
  }
  void operator()(std::span<float const> v, std::span<float> out) { add_up_product(v, out); }
  template <class In, class Out>
  requires(std::is_convertible_v<In, std::span<double const>>&& std::is_convertible_v<Out, std::span<double>>)  //
      void
      operator()(In&& v, Out&& out) {
    add_up_product(std::span<double const>(v), std::span<double>(out));
  }

  /// A product that gains by it learns its own part of the gradient; what is given is the sum.
  void hold_gradient(std::span<float const>) requires requires(Function& f) { f.hold_gradient(); }
  { f_.hold_gradient(); }
  void hold_gradient(std::span<double const>) requires requires(Function& f) { f.hold_gradient(); }
  { f_.hold_gradient(); }
  void release_gradient() requires requires(Function& f) { f.release_gradient(); }
  { f_.release_gradient(); }

 private:
  template <class T>
  void add_up_product(std::span<T const> v, std::span<T> out) {
    f_(v, out);
    comm::subject const about{++calls_, 1};
    detail::with_subject(*comm_, about, [&] { comm_->all_reduce(out, comm::reduction::sum); });
  }
  template <class T>
  void add_up_gradients(basic_parameter_list<T>& p) {
    if (auto const flat = p.flat_gradients(); !flat.empty() || !p.flat_size()) {
      comm_->all_reduce(flat, comm::reduction::sum);
      return;
    }
    require(!p.has_opaque(),
            "sync::summed: some gradients are not in the list but elsewhere, where it cannot add them up: give it a "
            "list with their memory");
    auto& staging = std::get<std::vector<T>>(staging_);  // tensors that lie apart from each other
    staging.resize(p.flat_size());
    copy_to_flat(p, &basic_parameter<T>::gradient, staging);
    comm_->all_reduce(std::span<T>(staging), comm::reduction::sum);
    copy_from_flat(staging, p, &basic_parameter<T>::gradient);
  }

  Function f_;
  Communicator* comm_;
  std::tuple<std::vector<float>, std::vector<double>> staging_;
  std::int64_t calls_ = 0;  ///< what exchanges say that they are of
};

/// See summed_function.
template <class Function, communicator Communicator>
auto summed(Function f, Communicator& comm) {
  return summed_function<Function, Communicator>(std::move(f), comm);
}

}  // namespace dovetail::sync
