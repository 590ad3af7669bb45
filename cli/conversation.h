// Messages and answers, one after the other, in one session.
#ifndef FLASHELM_CLI_CONVERSATION_H_
#define FLASHELM_CLI_CONVERSATION_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/chat_template.h"
#include "cli/generator.h"
#include "cli/run_stats.h"
#include "cli/status_line.h"
#include "core/sampler.h"
#include "core/session.h"

namespace flashelm::cli {

// What may be changed between messages.
struct ConversationOptions {
  SamplerOptions sampler;
  int64_t n_predict = 256;
  bool shifts_context = false;
  uint32_t keep = 1;
};
// kInvalidArgument: as CheckSamplerOptions(), or an n_predict below -1.
Status CheckConversationOptions(const ConversationOptions& options);

// Its tokens are those of the session and some that wait to be computed: the
// last one of an answer, and what ends it. One thread.
class Conversation {
 public:
  // What it takes besides the session, with messages of so many bytes at most.
  static uint64_t NumBytes(const ModelConfig& config, uint32_t context,
                           const ChatTemplate& chat_template,
                           size_t max_message_bytes);

  // All but `options` outlive it. `stop`: texts besides those of the template.
  Conversation(Engine& engine, Session& session,
               const ChatTemplate& chat_template,
               const ConversationOptions& options,
               const std::vector<std::string>& stop, StatusLine& status_line);

  // Has the model answer on standard output. kCancelled: the answer, or what
  // there is of it, is part of the conversation; the message is not, where no
  // answer began. kInvalidArgument: there is no room for the message, which
  // changed nothing. Other errors as Session::Run() and WriteOut().
  Status Say(std::string_view message, const CancelToken& cancel);

  // Forgets everything.
  void Reset();
  // kInvalidArgument: there is nothing to save. Errors as SaveSession().
  Status Save(const std::string& path, const CancelToken& cancel);
  // The conversation is then that of the file. Errors as SessionFile has them;
  // what was before goes on then.
  Status Load(const std::string& path);

  ConversationOptions& options() { return options_; }
  const std::vector<TokenId>& tokens() const { return tokens_; }
  // Of the last answer, "" before the first.
  const std::string& stop_reason() const { return stop_reason_; }
  // Tokens that were forgotten for the last message, for room.
  uint64_t num_forgotten() const { return num_forgotten_; }
  // Figures of the last answer; empty before the first.
  std::string Summary() const;

 private:
  Status Answer(std::span<const TokenId> message, const CancelToken& cancel);
  // Forgets tokens so that those left and `num_more` fit; false where nothing
  // that may be forgotten would do.
  bool MakeRoom(uint64_t num_more);
  // Computes all tokens but the last `num_left`.
  Status Compute(size_t num_left, const CancelToken& cancel);
  void Append(std::span<const TokenId> tokens);

  Engine& engine_;
  Session& session_;
  const ChatTemplate& template_;
  ConversationOptions options_;
  StatusLine& status_line_;
  GeneratorOptions generator_options_;
  std::vector<TokenId> tokens_;
  std::optional<Sampler> sampler_;
  std::optional<RunStats> stats_;
  std::string stop_reason_;
  uint64_t num_forgotten_ = 0;
};

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_CONVERSATION_H_
