// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/comm/envelope.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/compress/identity.hpp>
#include <dovetail/compress/revocable.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/concepts.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/flat_copy.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/shard.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/core/trace.hpp>
#include <dovetail/optim/optimizer_traits.hpp>
#include <dovetail/optim/step.hpp>
#include <dovetail/sync/agreement.hpp>
#include <dovetail/sync/buckets.hpp>
#include <dovetail/sync/replica.hpp>
#include <dovetail/sync/role.hpp>

namespace dovetail::sync {

/// What a server says of its service.
struct service_report {
  struct lost_worker {
    int rank;
    std::string why;
  };
  std::int64_t updates = 0;       ///< gradients that were applied
  std::int64_t skipped = 0;       ///< and that were not, because they were not finite
  std::vector<lost_worker> lost;  ///< workers that did not come to their end
  std::int64_t most_stale = 0;    ///< updates between the weights that a gradient is of and those it was applied to
  double mean_stale = 0;          ///< of all updates
};

template <optimizer Optimizer, elastic_communicator Communicator, codec Codec>
class parameter_server_session;

/// Asynchronous training with servers: ranks 0 to servers − 1 keep the weights, each some of the tensors, and the
/// optimizer's state; the others train, each at its own speed. A worker fetches weights, computes a gradient, sends it,
/// and goes on; a server applies each gradient as it comes, so that nobody waits for a slow worker, nor for one that is
/// lost. Gradients are of weights that have changed since (staleness): take a smaller learning rate than for as many
/// synchronous ranks.
///
///     auto session = sync::parameter_server{.servers = 1}.join(parameters, optim::adagrad{.lr = 0.05f}, comm);
///     if (session.role() == sync::role::serves) {
///       auto const report = session.serve();     // until all workers have finished, or are lost
///     } else {
///       for (…) { session.begin(); …; session.step(); }
///       session.finish();                        // the weights are those that the training gives
///     }
///
/// `join` is collective. Initial weights are the servers'. With fetch_every and push_every above 1 a worker takes
/// weights, and sends the sum of its gradients, every so many steps only.
///
/// Errors: argument_error if there is no rank left to train, or the ranks' parameters differ; rank_lost, on a worker,
/// when a server is lost.
///
/// Source: Dean et al., "Large Scale Distributed Deep Networks", NIPS 2012, section 4.1 (Downpour SGD).
template <class Codec = compress::identity>
struct parameter_server {
  static_assert(compress::detail::must_be_a_codec<Codec>::holds);
  DOVETAIL_REQUIRE(!compress::codec_traits<Codec>::wants_error_feedback,
                   "loses in every step what it does not send, and wants error feedback: write "
                   "compress::error_feedback{codec}, or compress::without_feedback{codec} if that is meant",
                   Codec);
  DOVETAIL_REQUIRE(compress::rounds_of<Codec> == 1,
                   "a server takes each gradient by itself: codecs of several rounds add "
                   "up ranks' payloads",
                   Codec);
  int servers = 1;
  Codec codec{};
  std::int64_t fetch_every = 1;  ///< steps
  std::int64_t push_every = 1;   ///< steps
  std::uint64_t seed = 0;        ///< of codecs that round or choose at random

  template <optimizer Optimizer, elastic_communicator Communicator>
  auto join(parameter_list& parameters, Optimizer const& opt, Communicator& comm) const {
    using needs = optim::optimizer_traits<Optimizer>;
    DOVETAIL_REQUIRE(!needs::steps_together && !needs::needs.layers && !needs::needs.curvature,
                     "cannot step on a server: it steps with other ranks, or learns from layers or from estimates of "
                     "curvature, which workers do not send",
                     Optimizer);
    require_same_list(parameters, comm, "sync::parameter_server");
    return parameter_server_session<Optimizer, Communicator, Codec>(*this, parameters, opt, comm);
  }
  template <class T, class Space, class Optimizer, class Communicator>
  requires detail::other_list<basic_parameter_list<T, Space>>
  auto join(basic_parameter_list<T, Space>&, Optimizer const&, Communicator&) const {
    static_assert(detail::refuse_list<basic_parameter_list<T, Space>>());
  }
};

/// One rank's end of parameter_server: a server's or a worker's. Refers to the caller's parameters and communicator,
/// which must outlive it. While it lives, messages with tags 0 to 3 of the communicator are its own. Not thread-safe.
template <optimizer Optimizer, elastic_communicator Communicator, codec Codec>
class parameter_server_session {
  using traits = compress::codec_traits<Codec>;

 public:
  DOVETAIL_COLD parameter_server_session(parameter_server<Codec> const& policy, parameter_list& parameters,
                                         Optimizer const& opt, Communicator& comm)
      : policy_(policy), parameters_(&parameters), comm_(&comm) {
    require(policy.servers >= 1 && policy.servers < comm.size(), "sync::parameter_server: ", policy.servers,
            " servers of ", comm.size(), " ranks: there must be at least one, and a rank that trains");
    require(policy.fetch_every >= 1 && policy.push_every >= 1, "sync::parameter_server: fetch_every is ",
            policy.fetch_every, ", push_every ", policy.push_every, ": they are numbers of steps, at least 1");
    require(
        !parameters.has_opaque(),
        "sync::parameter_server: some weights are not in the list but elsewhere, where it cannot send them: give it a "
        "list with their memory");
    auto const n = parameters.flat_size();
    flat_ = buffer<float>(n);
    for (int s = 0; s < policy.servers; ++s) {
      // A tensor is of the server whose even share its middle lies in.
      std::size_t begin = n, end = 0;
      auto const share = dovetail::shard(n, policy.servers, s);
      for (std::size_t i = 0; i < parameters.size(); ++i) {
        std::size_t const middle = parameters.offset(i) + parameters[i].size() / 2;
        bool const last = s + 1 == policy.servers;
        if (middle < share.begin || (middle >= share.end && !last)) continue;
        begin = std::min(begin, parameters.offset(i));
        end = std::max(end, parameters.offset(i) + parameters[i].size());
        if (s == comm.rank()) served_.add_part(parameters[i], {0, parameters[i].size()});
      }
      parts_.push_back({range{std::min(begin, end), end}, {}, {}});
      auto& p = parts_.back();
      p.tensors = tensors_in(parameters, p.at);
    }
    if (role() == sync::role::serves) {
      auto const& own = parts_[static_cast<std::size_t>(comm.rank())];
      replica_.emplace(served_, opt);
      int const states = traits::decodes_with_state ? workers() : 1;
      for (int w = 0; w < states; ++w) own_states_.push_back(state_of(own, w));
    } else {
      for (auto& p : parts_) p.state.emplace(state_of(p, worker()));
    }
  }
  parameter_server_session(parameter_server_session const&) = delete;
  parameter_server_session& operator=(parameter_server_session const&) = delete;

  sync::role role() const { return comm_->rank() < policy_.servers ? sync::role::serves : sync::role::trains; }
  /// Ranks that train, and this one's place among them, or -1.
  int workers() const { return comm_->size() - policy_.servers; }
  int worker() const { return std::max(comm_->rank() - policy_.servers, -1); }
  /// The flat indices that server s keeps.
  range part(int s) const { return parts_[static_cast<std::size_t>(s)].at; }

  /// Applies gradients until every worker has finished or is lost, and gives the last weights to those who have
  /// finished.
  DOVETAIL_COLD service_report serve() {
    require(role() == sync::role::serves, "sync::parameter_server: serve() on rank ", comm_->rank(), ", which trains");
    service_report report;
    double stale = 0;
    std::vector<state_of_worker> now(static_cast<std::size_t>(workers()), state_of_worker::trains);
    auto const all_done = [&] { return std::count(now.begin(), now.end(), state_of_worker::trains) == 0; };
    auto const away = comm_->away();  // a worker that waits for an answer waits for this one's own code
    for (int thrown = comm_->rank(); !all_done();) {
      comm::envelope next;
      try {
        next = comm_->wait_message();
      } catch (rank_lost const& e) {
        if (e.rank < 0) break;  // nobody is left
        // The news of a rank comes once. What is thrown again, or of this rank itself, is the end of the communicator.
        if (e.rank == thrown || e.rank == comm_->rank()) throw;
        thrown = e.rank;
        lose(e, now, report);
        continue;
      }
      thrown = comm_->rank();
      serve_one(next, now, report, stale);
    }
    for (int w = 0; w < workers(); ++w)
      if (now[static_cast<std::size_t>(w)] == state_of_worker::finished) answer(policy_.servers + w, now, report);
    report.mean_stale = report.updates > 0 ? stale / static_cast<double>(report.updates) : 0;
    return report;
  }

  /// Begins a step: fetches weights if it is time.
  void begin() {
    require(role() == sync::role::trains, "sync::parameter_server: begin() on rank ", comm_->rank(),
            ", which serves: call serve()");
    if (steps_ % policy_.fetch_every == 0) fetch();
  }
  /// Each worker's loss is a mean over its own predictions.
  float gradient_scale(std::int64_t local, std::int64_t /*global*/) const {
    return 1.f / static_cast<float>(std::max<std::int64_t>(local, 1));
  }
  void ready(std::size_t /*first*/) {}
  /// Sends the gradients, or adds them to what is sent later. They are not applied here: the step that is told is the
  /// number of updates that the weights had, and the rate the one of then.
  optim::step_result step(optim::step_context const& context = {}) {
    trace_span const sending(trace_, "send gradients", "comm", comm_->rank());
    ++steps_;
    bool const finite = std::all_of(parameters_->begin(), parameters_->end(),
                                    [](parameter const& p) { return all_finite(p.gradient); });
    if (finite) {
      if (collected_ == 0) std::fill(flat_.begin(), flat_.end(), 0.0f);
      for (std::size_t i = 0; i < parameters_->size(); ++i) {
        auto const gradient = (*parameters_)[i].gradient;
        float* const to = flat_.data() + parameters_->offset(i);
        for (std::size_t k = 0; k < gradient.size(); ++k) to[k] += context.gradient_factor * gradient[k];
      }
      ++collected_;
      loss_ += context.loss.value_or(0);
    }
    if (collected_ > 0 && steps_ % policy_.push_every == 0) push();
    return {.skipped = !finite, .step = version_, .lr = rate_, .gradient_norm = -1};
  }
  /// Tells the servers that this worker has finished, and waits until all have: the parameters are then what the
  /// training gives.
  DOVETAIL_COLD void finish() {
    if (role() == sync::role::serves || finished_) return;
    if (collected_ > 0) push();
    finished_ = true;
    for (int s = 0; s < policy_.servers; ++s) comm_->send({}, s, done);
    auto const away = comm_->away();
    for (int s = 0; s < policy_.servers; ++s) {
      comm_->wait_message(s, weights);  // for the slowest worker, however long it takes
      receive_weights(s);
    }
  }

  DOVETAIL_COLD std::vector<named_tensor> replicated(std::string const&) { return {}; }
  /// A server's: its optimizer's state, and what codecs keep of workers. A worker's: what codecs keep, and its counts.
  DOVETAIL_COLD std::vector<named_tensor> own(std::string const& prefix) {
    std::vector<named_tensor> all;
    auto const add = [&](std::vector<named_tensor> list) {
      for (auto& t : list) all.push_back(std::move(t));
    };
    if (role() == sync::role::serves) {
      add(replica_->state().tensors(prefix + "optimizer."));
      for (std::size_t w = 0; traits::decodes_with_state && w < own_states_.size(); ++w)
        add(own_states_[w].state().tensors(message(prefix, "worker", w, '.')));
      all.push_back(make_named_count(prefix + "updates", version_));
    } else {
      for (std::size_t s = 0; s < parts_.size(); ++s)
        add(parts_[s].state->state().tensors(message(prefix, "server", s, '.')));
      all.push_back(make_named_count(prefix + "steps", steps_));
      all.push_back(make_named_count(prefix + "pushes", pushes_));
    }
    for (auto& t : all) t.kind = state_kind::own;
    return all;
  }
  void record(trace* to) { trace_ = to; }

 private:
  enum tags : int { push_tag, fetch_tag, weights, done };
  enum class state_of_worker : std::uint8_t { trains, finished, lost };
  struct head {
    std::int64_t version = 0;  ///< updates that the weights have had
    std::int64_t step = 0;     ///< of the worker: what its codec is told
    double loss = 0;
    float rate = 0;
    std::int32_t unused = 0;  ///< so that no byte is unknown
  };
  struct part_of_server {
    range at;
    std::vector<compress::bucket_tensor> tensors;
    std::optional<compress::revocable<Codec>> state;  ///< on a worker
  };

  compress::context where(range at, int w, std::int64_t step, float rate) const {
    compress::context c{.step = step, .seed = policy_.seed, .rank = w, .ranks = workers()};
    c.offset = at.begin;
    c.rate = rate;
    return c;
  }
  compress::revocable<Codec> state_of(part_of_server const& p, int w) const {
    compress::bucket const b{flat_.span().subspan(p.at.begin, p.at.size()), p.tensors};
    return compress::revocable<Codec>(compress::init(policy_.codec, b, where(p.at, w, 0, 0)));
  }

  void lose(rank_lost const& e, std::vector<state_of_worker>& now, service_report& report) {
    int const w = e.rank - policy_.servers;
    if (w < 0 || now[static_cast<std::size_t>(w)] != state_of_worker::trains) return;
    now[static_cast<std::size_t>(w)] = state_of_worker::lost;
    report.lost.push_back({e.rank, e.what()});
  }
  void serve_one(comm::envelope const& m, std::vector<state_of_worker>& now, service_report& report, double& stale) {
    comm_->recv(message_, m.from, m.tag);
    int const w = m.from - policy_.servers;
    require<input_error>(w >= 0 && m.tag >= push_tag && m.tag <= done, "sync::parameter_server: a message of rank ",
                         m.from, " with tag ", m.tag, ", which no worker sends");
    if (m.tag == done) now[static_cast<std::size_t>(w)] = state_of_worker::finished;
    if (m.tag == fetch_tag) answer(m.from, now, report);
    if (m.tag == push_tag) apply(w, report, stale);
  }
  /// A worker that is lost needs no answer.
  void answer(int to, std::vector<state_of_worker>& now, service_report& report) {
    try {
      send_weights(to);
    } catch (rank_lost const& e) {
      if (e.rank != to) throw;
      lose(e, now, report);
    }
  }
  void apply(int w, service_report& report, double& stale) {
    auto& part = parts_[static_cast<std::size_t>(comm_->rank())];
    auto const gradient = flat_.span().subspan(part.at.begin, part.at.size());
    compress::bucket const b{gradient, part.tensors};
    std::size_t const most = compress::wire_size(policy_.codec, b);
    bool const fits = message_.size() >= sizeof(head) && (traits::fixed_size ? message_.size() == sizeof(head) + most
                                                                             : message_.size() <= sizeof(head) + most);
    require<input_error>(fits, "sync::parameter_server: a gradient of ", message_.size(), " bytes from rank ",
                         policy_.servers + w, ", where ", sizeof(head) + most,
                         " are sent: its parameters or its codec are ", "not this rank's");
    head h;
    std::memcpy(&h, message_.data(), sizeof h);
    std::fill(gradient.begin(), gradient.end(), 0.0f);
    auto& state = own_states_[traits::decodes_with_state ? static_cast<std::size_t>(w) : 0];
    state.begin(policy_.codec);
    compress::decode_add(policy_.codec, std::span<std::byte const>(message_).subspan(sizeof h), gradient, 1.f,
                         state.state(), where(part.at, w, h.step, h.rate));
    state.commit(policy_.codec);  // as the worker has, whatever becomes of the gradient
    if (!all_finite(std::span<float const>(gradient))) {
      ++report.skipped;
      return;
    }
    copy_from_flat(gradient, served_, &parameter::gradient);
    auto const r = replica_->step({.loss = h.loss}, trace_, comm_->rank());
    if (r.skipped) {
      ++report.skipped;
      return;
    }
    rate_ = r.lr;
    ++report.updates;
    report.most_stale = std::max(report.most_stale, version_ - h.version);
    stale += static_cast<double>(version_ - h.version);
    ++version_;
  }
  void send_weights(int to) {
    auto const& part = parts_[static_cast<std::size_t>(comm_->rank())];
    reply_.resize(sizeof(head) + part.at.size() * sizeof(float));
    head const h{.version = version_, .rate = rate_};
    std::memcpy(reply_.data(), &h, sizeof h);
    for (std::size_t i = 0; i < served_.size(); ++i)
      if (served_[i].size() > 0)
        std::memcpy(reply_.data() + sizeof h + served_.offset(i) * sizeof(float), served_[i].weight.data(),
                    served_[i].size() * sizeof(float));
    comm_->send(std::span<std::byte const>(reply_), to, weights);
  }

  void fetch() {
    trace_span const fetching(trace_, "fetch weights", "comm", comm_->rank());
    for (int s = 0; s < policy_.servers; ++s) comm_->send({}, s, fetch_tag);
    for (int s = 0; s < policy_.servers; ++s) receive_weights(s);
  }
  void receive_weights(int s) {
    auto const& part = parts_[static_cast<std::size_t>(s)];
    comm_->recv(message_, s, weights);
    require<input_error>(message_.size() == sizeof(head) + part.at.size() * sizeof(float),
                         "sync::parameter_server: weights of ", message_.size(), " bytes from server ", s, ", where ",
                         sizeof(head) + part.at.size() * sizeof(float), " are expected");
    head h;
    std::memcpy(&h, message_.data(), sizeof h);
    versions_.resize(parts_.size());
    versions_[static_cast<std::size_t>(s)] = version_ = h.version;
    rate_ = h.rate;
    for (std::size_t i = 0; i < parameters_->size(); ++i) {
      auto& p = (*parameters_)[i];
      auto const at = parameters_->offset(i);
      if (p.size() == 0 || at < part.at.begin || at >= part.at.end) continue;
      std::memcpy(p.weight.data(), message_.data() + sizeof h + (at - part.at.begin) * sizeof(float),
                  p.size() * sizeof(float));
    }
  }
  void push() {
    collected_ = 0;
    versions_.resize(parts_.size());
    for (std::size_t s = 0; s < parts_.size(); ++s) {
      auto& part = parts_[s];
      compress::bucket const b{flat_.span().subspan(part.at.begin, part.at.size()), part.tensors};
      message_.resize(sizeof(head) + compress::wire_size(policy_.codec, b));
      head const h{.version = versions_[s], .step = pushes_, .loss = loss_, .rate = rate_};
      std::memcpy(message_.data(), &h, sizeof h);
      part.state->begin(policy_.codec);
      std::size_t const bytes =
          compress::encode(policy_.codec, b, part.state->state(), std::span<std::byte>(message_).subspan(sizeof h),
                           where(part.at, worker(), pushes_, rate_));
      comm_->send(std::span<std::byte const>(message_).first(sizeof h + bytes), static_cast<int>(s), push_tag);
      part.state->commit(policy_.codec);
    }
    ++pushes_;
    loss_ = 0;
  }

  parameter_server<Codec> policy_;
  parameter_list* parameters_;
  Communicator* comm_;
  std::vector<part_of_server> parts_;
  parameter_list served_;                               ///< a server's own tensors
  std::optional<replica<Optimizer>> replica_;           ///< a server's
  std::vector<compress::revocable<Codec>> own_states_;  ///< a server's: of each worker's codec
  buffer<float> flat_;
  std::vector<std::byte> message_, reply_;
  std::vector<std::int64_t> versions_;  ///< of each server's weights, as they were fetched
  std::int64_t version_ = 0, steps_ = 0, pushes_ = 0, collected_ = 0;
  double loss_ = 0;
  float rate_ = 0;
  bool finished_ = false;
  trace* trace_ = nullptr;
};

}  // namespace dovetail::sync
