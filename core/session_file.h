// A sequence on disk: its tokens, and the keys and values of their positions.
#ifndef FLASHELM_CORE_SESSION_FILE_H_
#define FLASHELM_CORE_SESSION_FILE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/session.h"
#include "storage/file.h"

namespace flashelm {

// A file that SaveSession() wrote, and that was found whole and made for the
// session it was opened for. docs/FILE_FORMAT.md has its layout. Move-only.
class SessionFile {
 public:
  // Tokens that may follow the last position, not computed yet: an answer's
  // last one, the end of a turn.
  static constexpr uint32_t kMaxPendingTokens = 128;

  // What Open() and Load() take together, for the plan.
  static uint64_t LoadBytes(uint32_t context);
  // What SaveSession() takes.
  static uint64_t SaveBytes();

  // Reads all of the file and compares its checksum; the session stays as it
  // is. kNotFound: no such file. kDataLoss: no session file, or a damaged one.
  // kUnimplemented: another version. kInvalidArgument: of another model, KV
  // type, SIMD target or sparsity, which would give other bits. kUnavailable: a
  // read failed.
  static Result<SessionFile> Open(const std::string& path,
                                  const Session& session);

  // Positions that were computed, and tokens, which are at least as many. Of a
  // file with more tokens than the session's context and kMaxPendingTokens
  // hold, the first ones.
  uint32_t position() const { return position_; }
  std::span<const TokenId> tokens() const { return tokens_; }
  // Whether the session has room for all of it. kInvalidArgument: it has not.
  Status CheckFits(const Session& session) const;

  // Makes the session one of the file's first `num_positions` positions, which
  // then go on as they would have where they were computed. `session` is one of
  // the engine that the file was opened for. kInvalidArgument: more than
  // position() or than the session's context; nothing was changed.
  // kUnavailable: a read failed, or the file is no longer what was opened; the
  // session is empty then.
  Status Load(Session& session, uint32_t num_positions) const;

 private:
  SessionFile() = default;
  Status ReadHeader(const Session& session);
  Status ReadTokens(const Session& session);
  Status ReadPositions(Session& session, uint32_t num_positions) const;

  std::unique_ptr<RandomAccessFile> file_;
  uint32_t position_ = 0;
  uint32_t num_tokens_ = 0;
  std::vector<TokenId> tokens_;
  uint64_t digest_ = 0;  // As the end of the file has it.
};

// Writes the session to `path`, whole or not at all. `tokens` are those of its
// positions and at most kMaxPendingTokens more. kInvalidArgument: fewer or more
// than that. Other errors as OutputFile.
Status SaveSession(Session& session, std::span<const TokenId> tokens,
                   const std::string& path);

}  // namespace flashelm

#endif  // FLASHELM_CORE_SESSION_FILE_H_
