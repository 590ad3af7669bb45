#include "cli/conversation.h"

#include <algorithm>

#include "core/base/format.h"
#include "core/session_file.h"

namespace flashelm::cli {

Status CheckConversationOptions(const ConversationOptions& options) {
  if (options.n_predict < -1) {
    return InvalidArgument("n-predict is ", options.n_predict,
                           ", expected -1 or more");
  }
  return CheckSamplerOptions(options.sampler);
}

uint64_t Conversation::NumBytes(const ModelConfig& config, uint32_t context,
                                const ChatTemplate& chat_template,
                                size_t max_message_bytes) {
  const uint64_t message_bytes = max_message_bytes + chat_template.num_bytes();
  // A byte may be a token; and the longest word may be all of the text.
  constexpr uint64_t kEncodeBytes = 2 * sizeof(TokenId) + 36 + 3;
  return Sampler::NumBytes(config.vocab_size) + RunStats::NumBytes(context) +
         (uint64_t{context} + SessionFile::kMaxPendingTokens) *
             sizeof(TokenId) +
         kEncodeBytes * message_bytes + 8 * chat_template.num_bytes() +
         std::max(SessionFile::LoadBytes(context), SessionFile::SaveBytes());
}

Conversation::Conversation(Engine& engine, Session& session,
                           const ChatTemplate& chat_template,
                           const ConversationOptions& options,
                           const std::vector<std::string>& stop,
                           StatusLine& status_line)
    : engine_(engine),
      session_(session),
      template_(chat_template),
      options_(options),
      status_line_(status_line) {
  generator_options_.at_start = chat_template.answer_is_apart();
  generator_options_.stop = chat_template.stop();
  generator_options_.stop.insert(generator_options_.stop.end(), stop.begin(),
                                 stop.end());
  tokens_.reserve(session.context() + SessionFile::kMaxPendingTokens);
}

void Conversation::Append(std::span<const TokenId> tokens) {
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
}

Status Conversation::Say(std::string_view message, const CancelToken& cancel) {
  const Tokenizer& tokenizer = engine_.tokenizer();
  std::vector<TokenId> more;
  if (tokens_.empty()) more = template_.Begin(tokenizer);
  const std::vector<TokenId> text = template_.Message(tokenizer, message);
  more.insert(more.end(), text.begin(), text.end());
  num_forgotten_ = 0;
  if (tokens_.size() + more.size() > session_.context() &&
      (!options_.shifts_context || !MakeRoom(more.size()))) {
    return InvalidArgument(
        "the message has ", more.size(), " tokens, and of the ",
        session_.context(), " of the context ",
        session_.context() -
            std::min<size_t>(tokens_.size(), session_.context()),
        " are left: /reset begins anew",
        options_.shifts_context ? "" : ", --ctx-full shift forgets the oldest");
  }
  const Status status = Answer(more, cancel);
  status_line_.End();
  if (stats_) stats_->Finish();
  return status;
}

Status Conversation::Answer(std::span<const TokenId> message,
                            const CancelToken& cancel) {
  const size_t before = tokens_.size();
  Append(message);
  // Each answer begins its own random numbers, so that a conversation that was
  // saved goes on as it would have.
  SamplerOptions sampler_options = options_.sampler;
  sampler_options.seed += before;
  sampler_.reset();
  sampler_.emplace(sampler_options, session_.vocab_size());
  for (const TokenId token : tokens_) sampler_->Accept(token);
  stats_.reset();
  stats_.emplace(engine_, session_, tokens_.size() - session_.position(),
                 session_.context());
  const Status computed = Compute(0, cancel);
  if (!computed.ok()) {
    tokens_.resize(before);
    stop_reason_ = "";
    return computed;
  }
  stats_->PromptDone();

  // Where it would begin, had nothing ever been forgotten.
  const size_t answer_begin = tokens_.size() + num_forgotten_;
  generator_options_.n_predict = options_.n_predict;
  GeneratorHooks hooks;
  hooks.accepted = [this](TokenId token) { tokens_.push_back(token); };
  hooks.shown = [this] {
    stats_->TokenShown();
    if (status_line_.IsDue()) status_line_.Show(stats_->Progress());
  };
  // The last token is not computed yet: the generator does so next.
  hooks.make_room = [this](const CancelToken& asked) -> Result<bool> {
    if (!options_.shifts_context || !MakeRoom(0)) return false;
    FLASHELM_RETURN_IF_ERROR(Compute(1, asked));
    return true;
  };
  Generator generator(generator_options_, session_, engine_.tokenizer(),
                      *sampler_, std::move(hooks));
  const Status status = generator.Run(cancel);
  stop_reason_ = generator.stop_reason();
  if (stop_reason_ == "stop_string") {
    // What stands for the end of an answer is no part of it.
    const size_t clean = answer_begin + generator.num_clean();
    tokens_.resize(std::clamp<size_t>(
        clean - std::min<size_t>(clean, num_forgotten_), 1, tokens_.size()));
    FLASHELM_RETURN_IF_ERROR(session_.Truncate(
        std::min(session_.position(), static_cast<uint32_t>(tokens_.size()))));
  }
  Append(template_.AnswerEnd(engine_.tokenizer()));
  return status;
}

bool Conversation::MakeRoom(uint64_t num_more) {
  const uint64_t context = session_.context();
  const uint64_t keep = std::min<uint64_t>(options_.keep, tokens_.size());
  const uint64_t most = tokens_.size() - keep;
  const uint64_t wanted = tokens_.size() + num_more;
  // Half of what may go, so that this does not happen for every token.
  const uint64_t count =
      std::max(most / 2, wanted > context ? wanted - context : 0);
  if (count == 0 || count > most) return false;
  const auto begin = tokens_.begin() + static_cast<ptrdiff_t>(keep);
  tokens_.erase(begin, begin + static_cast<ptrdiff_t>(count));
  num_forgotten_ += count;
  // What follows stands at other positions now, so it is computed anew.
  const Status truncated = session_.Truncate(
      std::min(session_.position(), static_cast<uint32_t>(keep)));
  return truncated.ok();
}

Status Conversation::Compute(size_t num_left, const CancelToken& cancel) {
  const auto waiting = std::span<const TokenId>(tokens_)
                           .first(tokens_.size() - num_left)
                           .subspan(session_.position());
  if (waiting.empty()) return OkStatus();
  if (waiting.size() > 1) {
    status_line_.Show(fmt::format("reading {} tokens", waiting.size()));
  }
  const auto last = static_cast<uint32_t>(waiting.size() - 1);
  return session_.Run(waiting, {&last, 1}, cancel);
}

void Conversation::Reset() {
  tokens_.clear();
  session_.Restore(0);
  stop_reason_ = "";
  num_forgotten_ = 0;
}

Status Conversation::Save(const std::string& path, const CancelToken& cancel) {
  if (tokens_.empty()) return InvalidArgument("there is nothing to save yet");
  // As after an interrupt while what was left was computed anew.
  if (tokens_.size() - session_.position() > SessionFile::kMaxPendingTokens) {
    FLASHELM_RETURN_IF_ERROR(Compute(1, cancel));
  }
  return SaveSession(session_, tokens_, path);
}

Status Conversation::Load(const std::string& path) {
  FLASHELM_ASSIGN_OR_RETURN(const SessionFile file,
                            SessionFile::Open(path, session_));
  FLASHELM_RETURN_IF_ERROR(file.CheckFits(session_));
  FLASHELM_RETURN_IF_ERROR(file.Load(session_, file.position()));
  tokens_.assign(file.tokens().begin(), file.tokens().end());
  stop_reason_ = "";
  num_forgotten_ = 0;
  return OkStatus();
}

std::string Conversation::Summary() const {
  return stats_ ? stats_->Summary() : "";
}

}  // namespace flashelm::cli
