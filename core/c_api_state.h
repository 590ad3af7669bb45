// What the handles of the C interface stand for.
#ifndef FLASHELM_CORE_C_API_STATE_H_
#define FLASHELM_CORE_C_API_STATE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/base/cancel.h"
#include "core/base/status.h"
#include "core/engine.h"
#include "core/session.h"
#include "core/turn_queue.h"
#include "include/flashelm/flashelm.h"

namespace flashelm {

// An engine and what its sessions share. Sessions may outlive the handle of
// their engine, so they hold this as well.
struct EngineState {
  // Writes a line, where anyone wants it.
  void Log(int32_t level, const std::string& message);

  flashelm_log_callback log = nullptr;
  void* log_user = nullptr;
  std::recursive_mutex log_mutex;  // A callback may call what logs.

  TurnQueue turns;

  std::mutex mutex;
  // Guarded by `mutex`. The engine itself is used without it, by those who are
  // counted in num_calls or hold the engine's handle.
  std::unique_ptr<Engine> engine;  // Null once it is closed.
  uint32_t num_calls = 0;          // In which sessions are.
  std::vector<flashelm_session*> sessions;
};

// A call of a session: one at a time, and only while the engine is open.
class SessionCall {
 public:
  explicit SessionCall(flashelm_session* session) : session_(session) {}
  ~SessionCall();
  SessionCall(const SessionCall&) = delete;
  SessionCall& operator=(const SessionCall&) = delete;

  // kInvalidArgument: null, in another call, or its engine was closed.
  Status Begin();

 private:
  flashelm_session* const session_;
  bool has_begun_ = false;
};

// Computes what has not been computed of the session's text, at least its last
// token, so that there are logits: batch by batch, taking turns. After an error
// as much is computed as before. `progress` may be null.
Status ComputeText(flashelm_session& session,
                   flashelm_progress_callback progress, void* progress_user);

// Appends ids and computes them; after an error the text is as before.
Status AppendTokens(flashelm_session& session, std::span<const TokenId> ids,
                    flashelm_progress_callback progress, void* progress_user);

}  // namespace flashelm

struct flashelm_engine {
  std::shared_ptr<flashelm::EngineState> state;
};

struct flashelm_session {
  std::shared_ptr<flashelm::EngineState> state;
  std::atomic<bool> is_in_call{false};
  flashelm::CancelToken cancel;
  // Null once the engine is closed. Used by the one call.
  std::unique_ptr<flashelm::Session> session;
  // The text, of which the session has computed the beginning. Has room for the
  // whole context.
  std::vector<flashelm::TokenId> tokens;
  bool has_logits = false;               // Of what follows the last token.
  flashelm::SharedByteCount left_bytes;  // Of the engine.
  mutable std::mutex stats_mutex;
  flashelm_stats stats{};  // Guarded by stats_mutex.
};

#endif  // FLASHELM_CORE_C_API_STATE_H_
