// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "codec_cases.hpp"

#include "on_device.hpp"
#include "report.hpp"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>
#include <string>
#include <type_traits>

#include <dovetail/compress/cuda/codecs.cuh>
#include <dovetail/core/finite.hpp>
#ifdef DOVETAIL_TEST_NCCL
#include <dovetail/comm/nccl.hpp>
#include <dovetail/sync/cuda/bucket_exchange.cuh>
#endif

// Codecs on a device write the bytes that they write on the host, and add the same bits; what is damaged adds nothing.
// One line per case; exit code 1 if one fails, 77 if there is no device.

using namespace dovetail;
using test::report, test::run_case;
namespace gpu = dovetail::cuda;  // CCCL has a global namespace cuda
namespace coding = dovetail::compress::cuda;

namespace {

/// Equal, or NaN on both sides: a device's NaN has other bits than a processor's.
bool same_sums(std::vector<float> const& a, std::vector<float> const& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i]) && !(is_nan(a[i]) && is_nan(b[i])))
      return false;
  return true;
}
std::vector<float> sums_of(std::size_t n) {
  auto x = test::codec_input(0, n);
  for (float& v : x) v *= 3;
  return x;
}

/// An array at `shift` elements behind an address that is aligned to 256 bytes.
template <class T>
struct shifted {
  gpu::device device;
  gpu::device_buffer<T> memory;
  std::size_t shift;
  shifted(std::vector<T> const& x, std::size_t s, gpu::device const& d) : device(d), memory(x.size() + s, d), shift(s) {
    memory.upload(d, x, s);
  }
  gpu::device_span<T> span() { return {memory.data() + shift, memory.size() - shift}; }
  std::vector<T> to_host() const {
    std::vector<T> x(memory.size() - shift);
    memory.download(device, x, shift);
    return x;
  }
};

/// The first byte that differs, as text.
std::string difference(std::vector<std::byte> const& a, std::vector<std::byte> const& b) {
  std::size_t i = 0;
  while (i < a.size() && i < b.size() && a[i] == b[i]) ++i;
  return "byte " + std::to_string(i) + " of " + std::to_string(a.size()) + " differs";
}

template <class Codec>
void check_bytes(std::size_t number, Codec const& codec, gpu::device const& d, std::string const& name) {
  std::string wrong;
  for (std::size_t const n : test::codec_sizes)
    for (std::size_t kind = 0; kind < test::codec_inputs.size(); ++kind) {
      if (n > 5000 && kind > 3) continue;
      auto const x = test::codec_input(kind, n), before = sums_of(n);
      auto const where = test::codec_context(n);
      auto const expected = test::code_on_host(number, x, before);
      // At an address that fits all accesses, and at one that fits none.
      for (std::size_t const shift : {0u, 1u}) {
        if (n > 600 && shift != (n + kind) % 2) continue;
        shifted<float> values(x, shift, d), sum(before, shift, d);
        shifted<std::byte> payload(std::vector<std::byte>(expected.payload.size(), std::byte{0x5a}), shift, d);
        auto state = coding::init(codec, values.span(), d);
        std::size_t const bytes = coding::encode(codec, values.span(), state, payload.span(), where);
        coding::decode_add(codec, payload.span(), sum.span(), test::codec_weight, state, where);
        coding::require_intact(codec, state);
        auto const at = " of " + std::to_string(n) + " elements, " + test::codec_inputs[kind] + ", shift " +
                        std::to_string(shift) + "; ";
        if (bytes != expected.payload.size()) wrong += "size" + at;
        auto const written = payload.to_host();
        if (written != expected.payload) wrong += difference(written, expected.payload) + at;
        if (!same_sums(sum.to_host(), expected.sum)) wrong += "sum" + at;
        if (wrong.size() > 400) return report(false, name, wrong);
      }
    }
  report(wrong.empty(), name + " has the host's bytes and sums", wrong);
}

/// The host says what is to be refused.
template <class Codec>
void check_damage(std::size_t number, Codec const& codec, gpu::device const& d, std::string const& name) {
  int refused = 0, taken = 0;
  std::string wrong;
  for (std::size_t const n : {33u, 600u}) {
    auto const before = sums_of(n);
    auto const good = test::code_on_host(number, test::codec_input(0, n), before);
    shifted<float> sum(before, 0, d);
    auto state = coding::init(codec, sum.span(), d);
    for (std::uint32_t trial = 0; trial < 40; ++trial) {
      random_stream const random{.seed = 3, .step = trial};
      auto payload = good.payload;
      // Bits at any place, in the first bytes, in the last.
      std::size_t const at = trial % 4 == 1   ? random.word(0) % 8
                             : trial % 4 == 2 ? payload.size() - 1
                                              : random.word(0) % payload.size();
      payload[at % payload.size()] ^= static_cast<std::byte>(1u << random.word(1) % 8);
      if (trial % 4 == 3) payload[random.word(2) % payload.size()] = std::byte{0xff};
      auto expected = before;
      bool const fits = test::decode_on_host(number, payload, expected);
      shifted<std::byte> damaged(payload, trial % 2, d), intact(good.payload, 0, d);
      sum.memory.upload(d, before);
      bool thrown = false;
      coding::decode_add(codec, damaged.span(), sum.span(), test::codec_weight, state, test::codec_context(n));
      if (!fits)  // nor does what comes behind it
        coding::decode_add(codec, intact.span(), sum.span(), test::codec_weight, state, test::codec_context(n));
      try {
        coding::require_intact(codec, state);
      } catch (input_error const&) {
        thrown = true;
      }
      if (thrown == fits) wrong += "trial " + std::to_string(trial) + (fits ? " was refused; " : " was taken; ");
      if (!same_sums(sum.to_host(), fits ? expected : before)) wrong += "sum of trial " + std::to_string(trial) + "; ";
      ++(fits ? taken : refused);
    }
    // What was said is over.
    sum.memory.upload(d, before);
    shifted<std::byte> intact(good.payload, 0, d);
    coding::decode_add(codec, intact.span(), sum.span(), test::codec_weight, state, test::codec_context(n));
    coding::require_intact(codec, state);
    if (!same_sums(sum.to_host(), good.sum)) wrong += "an intact payload behind damaged ones; ";
  }
  report(wrong.empty(), name + " refuses what the host refuses",
         wrong.empty() ? std::to_string(refused) + " refused, " + std::to_string(taken) + " taken" : wrong);
}

template <class Codec>
void check_feedback(std::size_t number, Codec const& codec, gpu::device const& d, std::string const& name) {
  compress::error_feedback const feedback{codec};
  std::string wrong;
  for (std::size_t const n : {1u, 33u, 5000u}) {
    auto const expected = test::feedback_on_host(number, n);
    gpu::device_buffer<float> x(n, d);
    gpu::device_buffer<std::byte> payload(feedback.wire_size(n), d);
    auto state = coding::init(feedback, x, d);
    for (std::size_t t = 0; t < expected.size(); ++t) {
      x.upload(d, test::feedback_gradient(t, n));
      coding::encode(feedback, x, state, payload, test::feedback_context(t));
      if (test::feedback_steps[t].skipped)
        state.rollback();
      else
        state.commit();
      auto const at = " of step " + std::to_string(t) + ", " + std::to_string(n) + " elements; ";
      auto const written = payload.to_host(d);
      if (written != expected[t].payload) wrong += difference(written, expected[t].payload) + at;
      if (!test::same_bits(state.residual().to_host(d), expected[t].sum)) wrong += "residual" + at;
    }
  }
  report(wrong.empty(), name + " with error feedback", wrong);
}

template <class Error, class F>
bool throws(F const& f) {
  try {
    f();
  } catch (Error const&) {
    return true;
  }
  return false;
}
void check_errors(gpu::device const& d) {
  constexpr std::size_t n = 100;
  compress::int8 const codec;
  gpu::device_buffer<float> x(n, d), other(n + 1, d);
  gpu::device_buffer<std::byte> payload(codec.wire_size(n), d), small(codec.wire_size(n) - 1, d);
  auto state = coding::init(codec, x, d);
  report(throws<argument_error>([&] { coding::encode(codec, x, state, small); }), "a buffer that is too small");
  report(throws<argument_error>([&] { coding::encode(codec, other, state, payload); }), "another bucket's state");
  report(throws<input_error>([&] { coding::decode_add(codec, small, x, 1, state); }), "a truncated payload");
  report(throws<argument_error>([&] { coding::decode_add(codec, payload, other, 1, state); }),
         "another bucket's state, decoding");
  report(throws<argument_error>([&] { coding::encode(compress::int8{.block = 13}, x, state, payload); }),
         "a state of other hyperparameters");
  report(throws<argument_error>([&] { coding::init(compress::fp16{.scale = 0}, x, d); }), "a scale of 0");
  report(throws<argument_error>([&] { coding::init(compress::sign{.block = 17}, x, d); }), "a block of 17 signs");
  test::stream const elsewhere(d.index);
  report(throws<argument_error>([&] { coding::encode(codec, x, state, payload, {.stream = elsewhere.get()}); }),
         "a context of another stream");
}

/// Nothing is allocated and nothing waits: encoding and decoding can be captured.
template <class Codec>
void check_graph(Codec const& codec, gpu::device const& d) {
  constexpr std::size_t n = 5000;
  auto const where = test::codec_context(n);
  shifted<float> x(test::codec_input(0, n), 0, d), sum(std::vector<float>(n), 0, d), twice(std::vector<float>(n), 0, d);
  gpu::device_buffer<std::byte> payload(codec.wire_size(n), d);
  auto state = coding::init(codec, x.span(), d);
  auto const queue = [&](auto& to) {
    coding::encode(codec, x.span(), state, payload, where);
    coding::decode_add(codec, payload, to.span(), 1, state, where);
  };
  cudaGraph_t graph{};
  cudaGraphExec_t runs{};
  gpu::check(cudaStreamBeginCapture(d.stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  queue(sum);
  gpu::check(cudaStreamEndCapture(d.stream, &graph), "cudaStreamEndCapture");
  gpu::check(cudaGraphInstantiate(&runs, graph, 0), "cudaGraphInstantiate");
  for (int i = 0; i < 2; ++i) {
    gpu::check(cudaGraphLaunch(runs, d.stream), "cudaGraphLaunch");
    queue(twice);
  }
  coding::require_intact(codec, state);
  report(same_sums(sum.to_host(), twice.to_host()), std::string("a graph of ") + codec.name());
  static_cast<void>(cudaGraphExecDestroy(runs));
  static_cast<void>(cudaGraphDestroy(graph));
}

#ifdef DOVETAIL_TEST_NCCL
/// The bits of the host's exchange. Two ranks add their payloads in one order only; of three, which NCCL adds in an
/// order of its own, payloads are gathered.
template <class Codec>
void check_exchange(std::size_t number, Codec const& codec, std::string const& name) {
#ifdef DOVETAIL_EMULATED_CUDA
  int const devices = 3;  // ranks may share one
#else
  int const devices = gpu::device_count();
#endif
  int const ranks = std::min(devices, Codec::summable ? 2 : 3);
  comm::threads{ranks}.run([&](auto& control) {
    comm::nccl c{control};
    for (std::size_t const n : {0u, 1u, 33u, 5000u})
      for (std::size_t const kind : {0u, 1u}) {
        auto x = test::codec_input(kind, n + static_cast<std::size_t>(c.rank()));
        x.resize(n);
        auto const expected = test::exchange_on_host(number, control, x);
        gpu::device_buffer<float> values(x, c.device());
        sync::cuda::bucket_exchange exchange(codec, values, c);
        exchange.run(c, values, test::codec_context(n));
        exchange.wait();
        if (!same_sums(values.to_host(c.device()), expected))
          throw error(message(name, ": ", n, " elements, ", test::codec_inputs[kind], ", rank ", c.rank()));
      }
  });
  report(true, message("exchange of ", name, " by ", ranks, " ranks"));
}
#endif

void check_all(gpu::device const& d) {
  test::each_codec([&](std::size_t number, char const* name, auto const& codec) {
    run_case(name, [&] {
      check_bytes(number, codec, d, name);
      check_damage(number, codec, d, name);
      if constexpr (compress::codec_traits<std::remove_cvref_t<decltype(codec)>>::contraction)
        check_feedback(number, codec, d, name);
    });
#ifdef DOVETAIL_TEST_NCCL
    run_case(std::string("exchange_") + name, [&] { check_exchange(number, codec, name); });
#endif
  });
}

int run() {
  test::stream const own(0);
  gpu::device const d{.index = 0, .stream = own.get()};
  check_all(d);
  run_case("errors", [&] { check_errors(d); });
  run_case("graphs", [&] {
    check_graph(compress::fp16{}, d);
    check_graph(compress::sign{}, d);
    check_graph(compress::int8{}, d);
    check_graph(compress::top_k{}, d);
    check_graph(compress::random_k{}, d);
  });
  run_case("second_device", [&] {
    if (gpu::device_count() < 2) return report(true, "a second device", "there is none");
    test::stream const there(1);
    check_bytes(1, compress::fp16{}, {.index = 1, .stream = there.get()}, "fp16 on a second device");
  });
  return test::conclude();
}

}  // namespace

int main(int argc, char** argv) {
  test::choose(argc, argv);
  return on_device(run);
}
