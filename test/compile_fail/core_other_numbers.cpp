// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Parameters in a device's memory, or of doubles, given to what works with floats of the host.
// mistakes: 10
// first error: ranks exchange floats in the host.*s memory
// first error 5: parameters in this memory are stepped by an engine that is not included
// first error 6: this source gives floats, and the parameters are doubles
// first error 7: this tensorwise stage is written for floats
// first error 8: any_optimizer steps floats in the host.*s memory
// first error 9: keeps slots or weights of floats in fewer bits
// first error 10: its `average` gives floats
#include <array>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include <dovetail/comm/threads.hpp>
#include <dovetail/optim/any_optimizer.hpp>
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/low_precision/low_precision_state.hpp>
#include <dovetail/optim/rules/adam.hpp>
#include <dovetail/optim/rules/sgd.hpp>
#include <dovetail/optim/stages/averaging.hpp>
#include <dovetail/sync/all_reduce.hpp>
#include <dovetail/sync/local_sgd.hpp>
#include <dovetail/sync/shard.hpp>

#ifdef FAIL
constexpr int made = FAIL;
#else
constexpr int made = 0;
#endif
struct some_device {};
using here = dovetail::parameter_list;
using there = dovetail::basic_parameter_list<float, some_device>;
using doubles = dovetail::basic_parameter_list<double>;
template <int Mistake, class Right, class Wrong>
using given = std::conditional_t<made == Mistake, Wrong, Right>;

struct of_floats {
  using kind = dovetail::optim::tensorwise;
  static constexpr auto describe() { return dovetail::policy<of_floats>{"of_floats"}; }
  void apply(dovetail::optim::tensor_update const& t) const { t.update[0] = 0; }
};

template <class Comm>
void join(Comm& comm, given<1, here, there>& a, given<2, here, doubles>& b, given<3, here, there>& c,
          given<4, here, doubles>& d) {
  [[maybe_unused]] auto session = dovetail::sync::all_reduce{}.join(a, dovetail::optim::adamw{}, comm);
  dovetail::sync::all_reduce{}.join(b, dovetail::optim::adamw{}, comm);
  dovetail::sync::local_sgd{}.join(c, dovetail::optim::adamw{}, comm);
  dovetail::sync::shard(dovetail::optim::adamw{}, comm).init(d);
}
inline void run(given<1, here, there>& a, given<2, here, doubles>& b, given<3, here, there>& c,
                given<4, here, doubles>& d) {
  dovetail::comm::threads{1}.run([&](auto& comm) { join(comm, a, b, c, d); });
}
inline void init(given<5, here, there>& p) { dovetail::optim::adamw{}.init(p); }
inline void step(given<6, here, doubles>& p, dovetail::optim::basic_state<given<6, float, double>>& s) {
  std::vector<std::span<dovetail::fp16 const>> const halves;
  dovetail::optim::adamw{}.step(p, s, dovetail::optim::gradient::half<dovetail::fp16>{halves});
}
inline void stage(given<7, here, doubles>& p) {
  dovetail::optim::chain{of_floats{}, dovetail::optim::scale_by_learning_rate{0.1f}}.init(p);
}
inline void any(given<8, here, doubles>& p, dovetail::optim::any_optimizer const& rule) {
  [[maybe_unused]] auto s = rule.init(p);
}
inline void packed(given<9, here, doubles>& p) {
  dovetail::optim::low_precision_state{dovetail::optim::adamw{}, dovetail::optim::bf16_slots{}}.init(p);
}
struct of_weights {
  using kind = dovetail::optim::elementwise;
  static constexpr std::array slots{"mean"};
  static constexpr bool after_learning_rate = true;
  static constexpr auto describe() { return dovetail::policy<of_weights>{"of_weights"}; }
  struct kernel {
    template <class T>
    constexpr void advance(T w, T u, T& e) const {
      e = e + 0.5f * (w + u - e);
    }
    template <class T>
    constexpr T emit(T, T u, T) const {
      return u;
    }
  };
  static constexpr kernel prepare(std::int64_t) { return {}; }
  static float average(float, float e) { return e; }
};
inline void average(given<10, here, doubles> const& p, dovetail::optim::basic_state<given<10, float, double>> const& s,
                    std::span<given<10, float, double>> out) {
  dovetail::optim::averaged_weights(dovetail::optim::chain{dovetail::optim::sgd{}, of_weights{}}, p, s, out);
}
