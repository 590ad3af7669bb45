// Sessions of the C interface, step by step.
#include <algorithm>
#include <chrono>
#include <utility>

#include "core/c_api_state.h"
#include "core/c_api_support.h"

namespace flashelm {
namespace {

using Clock = std::chrono::steady_clock;

uint64_t NanosecondsSince(Clock::time_point begin) {
  return static_cast<uint64_t>(
      std::chrono::nanoseconds(Clock::now() - begin).count());
}

// The next batch of what has not been computed of `tokens`, in one turn; with
// the last one, logits.
Status RunInTurn(flashelm_session& session, std::span<const TokenId> tokens) {
  EngineState& state = *session.state;
  const auto begin = Clock::now();
  FLASHELM_ASSIGN_OR_RETURN(const TurnQueue::Turn turn,
                            state.turns.Wait(session.cancel));
  const uint64_t wait_ns = NanosecondsSince(begin);
  // Between two turns the plan may become another.
  const size_t batch = state.engine->plan().batch;
  const auto next = tokens.first(std::min(batch, tokens.size()));
  const auto last = static_cast<uint32_t>(next.size() - 1);
  const bool is_end = next.size() == tokens.size();
  Status status = session.session->Run(
      next, std::span<const uint32_t>(&last, is_end ? 1 : 0), session.cancel);
  const SessionStats& stats = session.session->stats();
  std::lock_guard lock(session.stats_mutex);
  flashelm_stats& out = session.stats;
  out.num_tokens = stats.num_tokens;
  out.compute_ns = stats.total_ns;
  out.wait_ns += wait_ns;
  out.used_bytes = state.engine->budget().used_bytes();
  out.flash_bytes = stats.store.stream_bytes;
  out.num_reads = stats.store.num_reads;
  out.read_wait_ns = stats.store.io_wait_ns;
  out.read_busy_ns = stats.store.io_busy_ns;
  out.unanswered_bytes = stats.store.unanswered_bytes;
  return status;
}

// Makes a text what it was, unless it is dismissed.
class TextRestorer {
 public:
  explicit TextRestorer(flashelm_session& session)
      : session_(session), size_(session.tokens.size()) {}
  ~TextRestorer() {
    if (is_dismissed_) return;
    session_.tokens.resize(size_);
    session_.has_logits = false;
    if (session_.session->position() > size_) {
      session_.session->Restore(static_cast<uint32_t>(size_));
    }
  }
  TextRestorer(const TextRestorer&) = delete;
  TextRestorer& operator=(const TextRestorer&) = delete;

  void Dismiss() { is_dismissed_ = true; }

 private:
  flashelm_session& session_;
  const size_t size_;
  bool is_dismissed_ = false;
};

}  // namespace

Status SessionCall::Begin() {
  FLASHELM_RETURN_IF_ERROR(CheckNotNull(session_, "session"));
  if (session_->is_in_call.exchange(true, std::memory_order_acquire)) {
    return InvalidArgument("the session is in another call already");
  }
  EngineState& state = *session_->state;
  std::lock_guard lock(state.mutex);
  if (state.engine == nullptr) {
    session_->is_in_call.store(false, std::memory_order_release);
    return InvalidArgument("the session's engine was closed");
  }
  ++state.num_calls;
  has_begun_ = true;
  return OkStatus();
}

SessionCall::~SessionCall() {
  if (!has_begun_) return;
  EngineState& state = *session_->state;
  {
    std::lock_guard lock(state.mutex);
    --state.num_calls;
  }
  // Last: from here on, another thread may close it.
  session_->is_in_call.store(false, std::memory_order_release);
}

Status ComputeText(flashelm_session& session,
                   flashelm_progress_callback progress, void* progress_user) {
  if (session.has_logits) return OkStatus();
  Session& ours = *session.session;
  const std::span<const TokenId> tokens = session.tokens;
  const uint32_t computed = ours.position();
  // The last token once more where there are no logits of it any longer.
  if (computed == tokens.size()) {
    FLASHELM_RETURN_IF_ERROR(ours.Truncate(computed - 1));
  }
  const uint32_t begin = ours.position();
  Status status;
  while (ours.position() < tokens.size() && status.ok()) {
    status = RunInTurn(session, tokens.subspan(ours.position()));
    if (status.ok() && progress != nullptr &&
        progress(progress_user, ours.position() - begin,
                 tokens.size() - begin) != 0) {
      status = Cancelled("stopped by the progress callback");
    }
  }
  if (!status.ok()) {
    FLASHELM_RETURN_IF_ERROR(ours.Truncate(begin));
    if (status.code() == StatusCode::kUnavailable) {
      session.state->Log(FLASHELM_LOG_WARNING, status.message());
    }
    return status;
  }
  session.has_logits = true;
  return OkStatus();
}

Status AppendTokens(flashelm_session& session, std::span<const TokenId> ids,
                    flashelm_progress_callback progress, void* progress_user) {
  const Session& ours = *session.session;
  const size_t old_size = session.tokens.size();
  if (ids.size() > ours.context() - old_size) {
    return InvalidArgument("the context is full: ", ids.size(),
                           " tokens from position ", old_size, " do not fit ",
                           ours.context(), " positions");
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= ours.vocab_size()) {
      return InvalidArgument("token ", i, " is ", ids[i],
                             ", the vocabulary has ", ours.vocab_size());
    }
  }
  TextRestorer restorer(session);
  session.tokens.insert(session.tokens.end(), ids.begin(), ids.end());
  session.has_logits = false;
  FLASHELM_RETURN_IF_ERROR(ComputeText(session, progress, progress_user));
  restorer.Dismiss();
  return OkStatus();
}

}  // namespace flashelm

using namespace flashelm;  // NOLINT: the functions of the C interface follow.

flashelm_session* flashelm_session_open(flashelm_engine* engine,
                                        flashelm_error* error) {
  flashelm_session* opened = nullptr;
  ReportCall(error, [&]() -> Status {
    FLASHELM_RETURN_IF_ERROR(CheckNotNull(engine, "engine"));
    EngineState& state = *engine->state;
    auto session = std::make_unique<flashelm_session>();
    session->state = engine->state;
    std::lock_guard lock(state.mutex);
    const uint32_t max_sessions = state.engine->plan_options().max_sessions;
    if (state.sessions.size() == max_sessions) {
      return ResourceExhausted(max_sessions,
                               " sessions are open, as many as were planned");
    }
    session->left_bytes = state.engine->left_bytes();
    FLASHELM_ASSIGN_OR_RETURN(session->session, Session::Create(*state.engine));
    session->tokens.reserve(session->session->context());
    session->stats.used_bytes = state.engine->budget().used_bytes();
    state.sessions.push_back(session.get());
    opened = session.release();
    return OkStatus();
  });
  return opened;
}

flashelm_code flashelm_session_close(flashelm_session* session) {
  return ReportCall(nullptr, [&]() -> Status {
    if (session == nullptr) return OkStatus();
    if (session->is_in_call.exchange(true, std::memory_order_acquire)) {
      return InvalidArgument("the session is in a call");
    }
    const std::shared_ptr<EngineState> state = session->state;
    std::lock_guard lock(state->mutex);
    std::erase(state->sessions, session);
    delete session;
    return OkStatus();
  });
}

flashelm_code flashelm_prefill(flashelm_session* session, const uint32_t* ids,
                               size_t num_ids,
                               flashelm_progress_callback progress,
                               void* progress_user, flashelm_error* error) {
  return ReportCall(error, [&]() -> Status {
    SessionCall call(session);
    FLASHELM_RETURN_IF_ERROR(call.Begin());
    FLASHELM_RETURN_IF_ERROR(CheckNotNull(ids, "ids"));
    if (num_ids == 0) return InvalidArgument("no ids, expected at least one");
    return AppendTokens(*session, {ids, num_ids}, progress, progress_user);
  });
}

flashelm_code flashelm_decode(flashelm_session* session, uint32_t id,
                              flashelm_error* error) {
  return flashelm_prefill(session, &id, 1, nullptr, nullptr, error);
}

flashelm_code flashelm_logits(flashelm_session* session, float* logits,
                              size_t capacity, flashelm_error* error) {
  return ReportCall(error, [&]() -> Status {
    SessionCall call(session);
    FLASHELM_RETURN_IF_ERROR(call.Begin());
    FLASHELM_RETURN_IF_ERROR(CheckNotNull(logits, "logits"));
    if (!session->has_logits) {
      return InvalidArgument(
          "the text's last token has not been computed, so there are no logits "
          "of what follows it");
    }
    const auto ours = session->session->logits(0);
    if (capacity < ours.size()) {
      return InvalidArgument("room for ", capacity, " logits, there are ",
                             ours.size());
    }
    std::copy(ours.begin(), ours.end(), logits);
    return OkStatus();
  });
}

flashelm_code flashelm_truncate(flashelm_session* session, uint32_t position,
                                flashelm_error* error) {
  return ReportCall(error, [&]() -> Status {
    SessionCall call(session);
    FLASHELM_RETURN_IF_ERROR(call.Begin());
    if (position > session->tokens.size()) {
      return InvalidArgument("cannot cut to position ", position,
                             ", the text ends at ", session->tokens.size());
    }
    if (position == session->tokens.size()) return OkStatus();
    session->tokens.resize(position);
    session->has_logits = false;
    return session->session->Truncate(
        std::min(position, session->session->position()));
  });
}

flashelm_code flashelm_position(flashelm_session* session, uint32_t* position,
                                flashelm_error* error) {
  return ReportCall(error, [&]() -> Status {
    SessionCall call(session);
    FLASHELM_RETURN_IF_ERROR(call.Begin());
    FLASHELM_RETURN_IF_ERROR(CheckNotNull(position, "position"));
    *position = static_cast<uint32_t>(session->tokens.size());
    return OkStatus();
  });
}

void flashelm_cancel(flashelm_session* session) {
  if (session != nullptr) session->cancel.Cancel();
}

void flashelm_clear_cancel(flashelm_session* session) {
  if (session != nullptr) session->cancel.Reset();
}

flashelm_code flashelm_session_get_stats(const flashelm_session* session,
                                         flashelm_stats* stats,
                                         flashelm_error* error) {
  return ReportCall(error, [&]() -> Status {
    FLASHELM_RETURN_IF_ERROR(CheckNotNull(session, "session"));
    FLASHELM_RETURN_IF_ERROR(CheckStructSize(stats, "stats"));
    std::lock_guard lock(session->stats_mutex);
    flashelm_stats now = session->stats;
    now.unanswered_bytes += *session->left_bytes;
    WriteStruct(now, stats);
    return OkStatus();
  });
}
