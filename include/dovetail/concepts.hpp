// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// Dovetail on one page. A distributed trainer is made of five kinds of values; each is a concept below, each has one
// folder, and anything that meets the concept is checkpointed, tested and measured like the library's own.
//
//   model         what is trained              nn/        gradients(batch) into named parameters
//   optimizer     gradient -> step             optim/     a chain of stages, fused into the fewest passes over memory
//   codec         gradient -> bytes            compress/  its algebra decides which exchanges are legal
//   communicator  bytes -> other ranks         comm/      collectives on spans, with a deadline and counted bytes
//   synchronizer  when and how replicas agree  sync/      joins the four above and owns their state
//
// What else one of them may have is listed with its default in one header, the only one that looks at its members. What
// has a member of a name that is listed there, and cannot be used as it says, is refused with a line that names both:
//
//   model         core/model_traits.hpp         evaluate, buffers, predictions, masks
//   optimizer     optim/optimizer_traits.hpp    step with a context or source, needs, observe, contribute, check_state, …
//   stage         optim/engine/stage_traits.hpp, described in optim/stage.hpp
//   codec         compress/traits.hpp           rounds, wire_type, wire_size of a bucket, name, encode_with_residual, …
//   communicator  comm/communicator_traits.hpp  about, allow_other_thread, has_spare_core, sums, topology
//   synchronizer  sync/session_traits.hpp       observer, finish, record, measured, role, serve, acquire, release, …
//   dataset       data/dataset.hpp              identity, masks
//   layer         nn/layer_traits.hpp, described in nn/layer.hpp: check, parameters, buffers, scratch, flops, …
//   loss          nn/loss.hpp                   fits, takes_values, ignore_index, curvature, is_log_likelihood
//
// A policy is a small value of hyperparameters; what changes during training is a second value, its state, which lists
// its pieces by name (`tensors(prefix)`) so that it can be saved, loaded, compared and moved between world sizes.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <dovetail/comm/envelope.hpp>
#include <dovetail/comm/operation.hpp>
#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/batch.hpp>
#include <dovetail/core/half.hpp>
#include <dovetail/core/model_traits.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/optim/optimizer_traits.hpp>
#include <dovetail/optim/step.hpp>

namespace dovetail {

/// State that can be listed by name, and so saved and loaded.
template <class S>
concept listable_state = requires(S& state, std::string const& prefix) {
  { state.tensors(prefix) } -> std::convertible_to<std::vector<named_tensor>>;
};

/// What is trained: names its parameters and computes loss and gradients for a batch. `gradients` writes (or, if
/// pass.accumulate, adds) pass.scale × d(sum of losses)/dw and may call pass.ready while it goes.
/// Copyable, because every rank of `comm::threads` trains its own replica; train::trainer also assigns to it.
/// Parameters are listed in forward order, so that backward finishes them from the end. May also have
///   evaluate(batch, threads)   see evaluable                                      default: it is trained only
///   buffers()                  what it keeps and does not train, by name          default: nothing
///   predictions(batch)         how many of a batch count                          default: as many as data say
template <class M, class Batch = data::batch>
concept model = std::copy_constructible<M> && requires(M& m, Batch const& b, gradient_pass const& pass) {
  { m.parameters() } -> std::convertible_to<parameter_list&>;
  { m.gradients(b, pass) } -> std::convertible_to<loss_sums>;
};

/// The same without gradients and without noise, on `threads` cores: what evaluation needs.
template <class M, class Batch = data::batch>
concept evaluable = model<M, Batch> && model_traits<M, Batch>::evaluates;

/// Turns gradients into a change of the weights. A plain value; `init` makes its state, `step` changes weights and
/// state. A step is skipped, and says so, when the rule knows before its first write that a gradient is not finite
/// (skip_non_finite or a norm in front); others apply it. Under sync::all_reduce such a step never reaches the rule.
/// What else one may have, threads, gradients in other formats, loss, layers, parts, stands in
/// optim/optimizer_traits.hpp; a member of those names that cannot be called as it must be is refused.
template <class O>
concept optimizer = std::copyable<O> && requires(O const opt, parameter_list& p) {
  { opt.init(p) } -> std::copyable;
  requires requires(decltype(opt.init(p))& state) {
    requires listable_state<std::remove_reference_t<decltype(state)>>;
    { opt.step(p, state) } -> std::convertible_to<optim::step_result>;
  };
};

/// Turns a bucket of gradients into bytes and back. Its algebra, as constants:
///   summable              payloads are arrays of `wire_type` that may be added on the wire: all-reduce is legal
///   fixed_size            a payload of n elements has exactly wire_size(n) bytes; otherwise at most
///   unbiased              E[decode(encode(x))] = x
///   wants_error_feedback  what was lost must be added to the next input, or training suffers
/// `encode(bucket, state, out)` returns the bytes that it wrote; `decode_add(payload, out, weight)` adds weight × the
/// decoded values and throws input_error on a payload that it did not write. Both may take a `compress::context const&`
/// last: step, rank, place, learning rate, random numbers. A codec may also have (compress/traits.hpp)
///   contraction                what error feedback needs                   default: false
///   rounds                     exchanges of one bucket (PowerSGD: two)     default: 1
///   wire_size(bucket)          where shapes matter, or (bucket, round)     default: wire_size(n)
///   name()                     for messages and tables                     default: "codec"
///   count, read_entries, write_entries   what exchange::merge_tree merges  default: it is not
///   encode_with_residual(…)    error feedback in passes of its own         default: encode, then decode_add
///   decode_add(…, state, context)   where the receiver keeps something     default: decode_add as above
///   commit(state), rollback(state)   when the step was made, or not        default: a copy of the state is kept
/// A codec of several rounds finds the round in the context; between them `absorb(payload, state, context)` takes in
/// what the ranks' payloads of that round added up to. Only exchange::all_reduce makes more than one.
template <class C>
concept codec = std::copyable<C> && requires(C const c, std::size_t n) {
  typename std::bool_constant<bool{C::summable}>;
  typename std::bool_constant<bool{C::fixed_size}>;
  typename std::bool_constant<bool{C::unbiased}>;
  typename std::bool_constant<bool{C::wants_error_feedback}>;
  { c.wire_size(n) } -> std::same_as<std::size_t>;
  requires std::copyable<typename compress::codec_traits<C>::state_type>;
  requires listable_state<typename compress::codec_traits<C>::state_type>;
  requires compress::codec_traits<C>::encodes && compress::codec_traits<C>::decodes;
  requires !C::summable || requires { typename C::wire_type; };
};

/// One rank's end of a group of ranks. Every rank calls the same operations in the same order; a rank that does not
/// (dead, late, another operation or size) makes the others throw rank_lost or rank_diverged with its number.
/// In-place collectives use shard(n, size(), rank) as rank's part of an array. All sums run in rank order, unless the
/// communicator's `sums` says otherwise.
/// Sums are of float, double, fp16 and bf16 (a codec with another wire_type needs its sum as well), gathers of float
/// and bytes, broadcasts of float, chunks and messages of bytes: what every synchronizer and the trainer call, and no
/// more. comm::endpoint has them all, of all types. A communicator may also have (comm/communicator_traits.hpp)
///   about(comm::subject const&)     of what the next operations are, so that ranks that are not in the same step
///                                   notice
///   allow_other_thread()            throws if no other thread may use it, which comm::async is about to do
///   has_spare_core()                whether a thread beside those that compute finds a core: comm::async has one then
///   sums                            a static constexpr comm::sum_order: what it promises   default: rank_order
///   topology()                      which ranks share a host                               default: all do
template <class C>
concept communicator = requires(C& c, C const& cc, std::span<float> f, std::span<float const> in, std::span<double> d,
                                std::span<std::int64_t> count, std::span<fp16> h, std::span<bf16> b,
                                std::span<std::byte> bytes, std::span<std::byte const> cbytes,
                                std::vector<std::byte>& all, int r) {
  { cc.rank() } -> std::same_as<int>;
  { cc.size() } -> std::same_as<int>;
  c.all_reduce(f, comm::reduction::sum);  // every rank gets the reduction
  c.all_reduce(d, comm::reduction::sum);
  c.all_reduce(h, comm::reduction::sum);
  c.all_reduce(b, comm::reduction::sum);
  c.reduce_scatter(f);  // the own shard gets the sum, the rest is unspecified
  c.all_gather(f);      // in place: own shard in, all shards out
  c.all_gather(in, f);  // f.size() == size() × in.size()
  c.all_gather(cbytes, bytes);
  { c.all_gather_v(cbytes, all) } -> std::same_as<std::vector<std::size_t>>;  // size() + 1 offsets into `all`
  c.all_to_all(cbytes, bytes);                                                // size() equal chunks each way
  c.broadcast(f, r);
  c.broadcast(count, r);
  c.send(cbytes, r, /*tag*/ 0);
  c.recv(bytes, r, /*tag*/ 0);
  c.barrier();
  {c.split(/*color*/ 0, /*key*/ 0)};  // a communicator of the ranks with the same color, ordered by (key, rank)
  { cc.traffic() } -> std::convertible_to<comm::traffic>;
  {c.away()};  // a guard: while it lives the others wait for this rank, which is in code of its own
};

/// A communicator for servers and for groups that lose ranks: messages of whomever and of any length, and a
/// communicator of those who are left. A lost rank makes collectives throw, and messages only where they are to it or
/// from it.
template <class C>
concept elastic_communicator = communicator<C> &&
    requires(C& c, C const& cc, std::span<std::byte const> in, std::span<std::byte> out, std::vector<std::byte>& data,
             int r, std::string const& why) {
  { c.probe(r, /*tag*/ 0) } -> std::same_as<std::optional<comm::envelope>>;
  { c.wait_message(r, 0) } -> std::same_as<comm::envelope>;  // no deadline; r and tag may be comm::any_rank, any_tag
  { c.recv(data, r, 0) } -> std::same_as<comm::envelope>;
  c.sendrecv(in, r, out, r, 0);
  {c.duplicate()};
  { cc.lost_ranks() } -> std::same_as<std::vector<int>>;
  {c.shrink()};  // called by all who are left
  c.abort(why);  // ends it for all
};

/// Where ranks come from: runs a function once per rank that lives in this process, and rethrows what it threw.
template <class W>
concept world = requires(W& w, void (*f)(int)) {
  w.run([](auto& /*communicator*/) {});
};

/// When and how replicas agree. `join` binds a policy to one rank's parameters, optimizer and communicator; the session
/// it returns drives every step of that rank and owns optimizer state, codec state and buckets:
///   begin()                        before forward (weights are fetched here from a server)
///   gradient_scale(local, global)  what gradient_pass::scale must be: 1/global when gradients are summed over ranks,
///                                  1/local when weights are averaged; predictions of the whole step, on this rank and
///                                  on all
///   observer()                     what gradient_pass::observe must be; may be missing
///   ready(first)                   gradients with flat index >= first are final: exchange them while backward goes on;
///                                  nobody else touches them until step() returns
///   step(context)                  completes the exchange and applies the optimizer, in this policy's own order; says
///                                  `skipped`, and changes nothing, if a gradient of any rank is not finite
///   replicated(prefix)             state that is equal on all ranks (here: the optimizer's), by name
///   own(prefix)                    state that only this rank has (here: residuals), by name
///   finish()                       where replicas differ: collective, makes the weights what the training gives, equal
///                                  on all ranks, until the next begin(); may be missing
///   role(), serve()                what this rank does, and what one that serves does in place of a loop
///                                  (sync/role.hpp); may be missing: all train
///   acquire(range), release(range) what gradient_pass::acquire and release must be, where weights are divided among
///                                  ranks; may be missing: they are all there
///   independent                    true if ranks train apart: each has all data in an order of its own, and may skip a
///                                  step alone; may be missing
/// Between step() and the next begin() the communicator is the caller's.
template <class S, class Optimizer, class Communicator>
concept synchronizer = std::copyable<S> && requires(S const s, parameter_list& p, Optimizer const& o, Communicator& c) {
  s.join(p, o, c);
  requires requires(decltype(s.join(p, o, c))& session, std::int64_t n, std::size_t first, std::string const& prefix,
                    optim::step_context const& context) {
    session.begin();
    { session.gradient_scale(n, n) } -> std::convertible_to<float>;
    session.ready(first);
    { session.step(context) } -> std::convertible_to<optim::step_result>;
    { session.replicated(prefix) } -> std::convertible_to<std::vector<named_tensor>>;
    { session.own(prefix) } -> std::convertible_to<std::vector<named_tensor>>;
  };
};

}  // namespace dovetail
