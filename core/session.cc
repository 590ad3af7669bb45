#include "core/session.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace flashelm {
namespace {

using Clock = std::chrono::steady_clock;

uint64_t NanosecondsSince(Clock::time_point begin) {
  return static_cast<uint64_t>(
      std::chrono::nanoseconds(Clock::now() - begin).count());
}

// Lets a token end what an engine waits for, as long as this lives.
class Cancellable {
 public:
  Cancellable(Engine& engine, const CancelToken& cancel) : engine_(engine) {
    engine_.set_cancel(&cancel);
  }
  ~Cancellable() { engine_.set_cancel(nullptr); }
  Cancellable(const Cancellable&) = delete;
  Cancellable& operator=(const Cancellable&) = delete;

 private:
  Engine& engine_;
};

}  // namespace

Session::Parts::Parts(const Engine& engine, const Engine::Parts& engine_parts,
                      ThreadPool& pool, KvCache& cache, Scratch new_scratch)
    : scratch(std::move(new_scratch)),
      transformer(engine.model(), *engine_parts.store, pool, cache, scratch,
                  engine_parts.sparse_ffn.get()),
      batch(engine_parts.plan.batch) {
  wanted.reserve(batch);
}

Session::Session(Engine& engine, KvCache cache, uint32_t max_logit_rows)
    : engine_(engine),
      cache_(std::move(cache)),
      max_logit_rows_(max_logit_rows) {}

Result<std::unique_ptr<Session>> Session::Create(Engine& engine) {
  const MemoryPlan& plan = engine.plan();
  FLASHELM_ASSIGN_OR_RETURN(
      KvCache cache,
      KvCache::Create(engine.config(), plan.context,
                      engine.plan_options().kv_type, engine.budget()));
  std::unique_ptr<Session> session(
      new Session(engine, std::move(cache), plan.max_logit_rows));
  FLASHELM_ASSIGN_OR_RETURN(auto parts, session->MakeParts(engine.parts()));
  session->ReplaceParts(std::move(parts));
  return session;
}

Result<std::unique_ptr<Session::Parts>> Session::MakeParts(
    const Engine::Parts& engine) {
  const MemoryPlan& plan = engine.plan;
  const ModelFile& model = engine_.model();
  FLASHELM_ASSIGN_OR_RETURN(
      Scratch scratch,
      Scratch::Create(
          model.config(),
          {plan.batch, plan.max_logit_rows, engine_.pool().num_threads(),
           model.has_quantized(), model.has_floats(), plan.context,
           model.has_split_gates() || engine.sparse_ffn != nullptr,
           model.has_rows()},
          engine_.budget()));
  return std::make_unique<Parts>(engine_, engine, engine_.pool(), cache_,
                                 std::move(scratch));
}

void Session::ReplaceParts(std::unique_ptr<Parts> parts) {
  if (parts_ != nullptr) parts->scratch.KeepLogitsOf(parts_->scratch);
  parts_ = std::move(parts);
  // Never written again: whoever looks at logits need not know of new parts.
  if (logits_ == nullptr) logits_ = parts_->scratch.logits;
  parts_->transformer.set_observer(observer_);
}

Status Session::Run(std::span<const TokenId> tokens,
                    std::span<const uint32_t> wanted,
                    const CancelToken& cancel) {
  if (tokens.size() > context() - position_) {
    return InvalidArgument("the context is full: ", tokens.size(),
                           " tokens from position ", position_, " do not fit ",
                           context(), " positions");
  }
  if (wanted.size() > max_logit_rows_) {
    return InvalidArgument("logits of ", wanted.size(),
                           " tokens in one call, planned were ",
                           max_logit_rows_);
  }
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (wanted[i] >= tokens.size() || (i > 0 && wanted[i] <= wanted[i - 1])) {
      return InvalidArgument("logits of token ", wanted[i], " of ",
                             tokens.size(), "; indices have to ascend");
    }
  }
  const uint32_t vocab_size = engine_.config().vocab_size;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= vocab_size) {
      return InvalidArgument("token ", i, " is ", tokens[i],
                             ", the vocabulary has ", vocab_size);
    }
  }

  const auto begin = Clock::now();
  const Cancellable cancellable(engine_, cancel);
  Parts& parts = *parts_;
  const uint32_t batch = parts.batch;
  size_t logit_row = 0;
  Status status;
  uint64_t num_sweeps = 0;
  for (size_t first = 0; first < tokens.size() && status.ok(); first += batch) {
    const size_t count = std::min<size_t>(batch, tokens.size() - first);
    parts.wanted.clear();
    const size_t first_row = logit_row;
    while (logit_row < wanted.size() && wanted[logit_row] < first + count) {
      parts.wanted.push_back(wanted[logit_row++] -
                             static_cast<uint32_t>(first));
    }
    try {
      status = parts.transformer.Forward(
          tokens.subspan(first, count),
          position_ + static_cast<uint32_t>(first), parts.wanted,
          parts.scratch.logits + first_row * vocab_size);
    } catch (...) {
      // No memory for a message. The next call begins a sweep of its own.
      engine_.store().Abort();
      throw;
    }
    ++num_sweeps;
  }
  stats_.total_ns += NanosecondsSince(begin);
  stats_.num_sweeps += num_sweeps;
  stats_.store = engine_.read_stats();
  if (engine_.sparse_ffn() != nullptr) {
    stats_.sparsity = engine_.sparse_ffn()->stats();
  }
  stats_.bundles = engine_.bundles() != nullptr
                       ? engine_.bundles()->stats().bundles
                       : BundleStats();
  if (!status.ok()) return status;
  stats_.num_tokens += tokens.size();
  position_ += static_cast<uint32_t>(tokens.size());
  return OkStatus();
}

std::span<const float> Session::logits(size_t i) const {
  const uint32_t vocab_size = engine_.config().vocab_size;
  return {logits_ + i * vocab_size, vocab_size};
}

Status Session::Truncate(uint32_t position) {
  if (position > position_) {
    return InvalidArgument("cannot truncate to position ", position,
                           ", the sequence ends at ", position_);
  }
  position_ = position;
  return OkStatus();
}

}  // namespace flashelm
