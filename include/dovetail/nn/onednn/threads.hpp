// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>

#if __has_include(<omp.h>)
#include <omp.h>
#else  // Clang without libomp's header still links the runtime that oneDNN brings
extern "C" {
void omp_set_num_threads(int);
int omp_get_max_threads();
int omp_get_thread_num();
int omp_get_num_threads();
int omp_get_thread_limit();
void omp_set_dynamic(int);
int omp_get_dynamic();
}
#endif

namespace dovetail::nn::onednn {

/// oneDNN's threads are OpenMP's. Their number belongs to the calling thread, so every rank of a process has its own;
/// the caller's is put back at the end of the scope. oneDNN cuts its work for as many as it asks for, and where fewer
/// come the rest is not done, without an error: so never more than OMP_THREAD_LIMIT allows, and OMP_DYNAMIC, which
/// gives fewer on a busy machine, does not count here.
class thread_scope {
 public:
  explicit thread_scope(int threads) : before_(omp_get_max_threads()), dynamic_(omp_get_dynamic()) {
    int const most = std::min(threads, omp_get_thread_limit());
    if (most != before_) omp_set_num_threads(most);
    if (dynamic_) omp_set_dynamic(0);
  }
  ~thread_scope() {
    if (omp_get_max_threads() != before_) omp_set_num_threads(before_);
    if (dynamic_) omp_set_dynamic(dynamic_);
  }
  thread_scope(thread_scope const&) = delete;
  thread_scope& operator=(thread_scope const&) = delete;

 private:
  int before_, dynamic_;
};

/// f(begin, end) over [0, n) in at most omp_get_max_threads() pieces whose bounds are multiples of 16 (or of 1 when an
/// item is large); serial when a piece would be less work than waking a thread.
template <class F>
void parallel(std::size_t n, std::size_t floats_per_item, F const& f) {
  std::size_t const grain = floats_per_item > 1 ? 1 : 16;
  std::size_t const least = std::max<std::size_t>(16384 / std::max<std::size_t>(floats_per_item, 1), 1);
  auto const pieces = std::min(static_cast<std::size_t>(omp_get_max_threads()), n / least);
  if (pieces <= 1) return n ? f(std::size_t{0}, n) : void();
#if defined(_OPENMP)
#pragma omp parallel for num_threads(static_cast <int>(pieces)) schedule(static, 1)
#endif
  for (std::size_t i = 0; i < pieces; ++i) {
    auto const bound = [&](std::size_t k) { return k == pieces ? n : n * k / pieces / grain * grain; };
    f(bound(i), bound(i + 1));
  }
}

}  // namespace dovetail::nn::onednn
