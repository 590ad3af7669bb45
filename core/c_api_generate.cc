// Text from a session of the C interface.
#include <chrono>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/c_api_state.h"
#include "core/c_api_support.h"
#include "core/sampler.h"
#include "core/stop_strings.h"
#include "core/tokenizer.h"

namespace flashelm {
namespace {

using Clock = std::chrono::steady_clock;

// These strings, and text that is held back, are memory that the plan has to
// know.
constexpr size_t kMaxStopStrings = 64;
constexpr size_t kMaxStopBytes = size_t{4} << 10;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

Result<std::vector<std::string>> StopStringsOf(
    const flashelm_generate_options& options) {
  std::vector<std::string> strings;
  if (options.num_stop_strings == 0) return strings;
  FLASHELM_RETURN_IF_ERROR(
      CheckNotNull(options.stop_strings, "options: stop_strings"));
  if (options.num_stop_strings > kMaxStopStrings) {
    return InvalidArgument("options: ", options.num_stop_strings,
                           " stop strings, expected at most ", kMaxStopStrings);
  }
  size_t total = 0;
  for (size_t i = 0; i < options.num_stop_strings; ++i) {
    const char* const text = options.stop_strings[i];
    if (text == nullptr || *text == '\0') {
      return InvalidArgument("options: stop string ", i, " is ",
                             text == nullptr ? "NULL" : "empty");
    }
    const std::string_view view(text);
    total += view.size();
    if (total > kMaxStopBytes) {
      return InvalidArgument("options: stop strings of ", total,
                             " bytes, expected at most ", kMaxStopBytes);
    }
    strings.emplace_back(view);
  }
  return strings;
}

Result<SamplerOptions> SamplerOptionsOf(
    const flashelm_generate_options& options) {
  SamplerOptions ours;
  ours.temperature = options.temperature;
  ours.top_k = options.top_k;
  ours.top_p = options.top_p == 0 ? 1 : options.top_p;
  ours.min_p = options.min_p;
  ours.repeat_penalty =
      options.repeat_penalty == 0 ? 1 : options.repeat_penalty;
  ours.seed = options.seed;
  FLASHELM_RETURN_IF_ERROR(CheckSamplerOptions(ours));
  return ours;
}

// What follows a text, token by token.
class Continuation {
 public:
  Continuation(flashelm_session& session,
               const flashelm_generate_options& options,
               const SamplerOptions& sampling, std::vector<std::string> stop,
               flashelm_generate_result& result)
      : session_(session),
        options_(options),
        tokenizer_(session.state->engine->tokenizer()),
        sampler_(sampling, session.session->vocab_size()),
        // A text of nothing but BOS has not begun.
        decoder_(tokenizer_, session.tokens.size() == 1 &&
                                 tokenizer_.IsControl(session.tokens[0])),
        stop_(std::move(stop)),
        result_(result) {
    for (const TokenId token : session.tokens) sampler_.Accept(token);
    // What may be held back, and what comes next.
    const size_t max_bytes = kMaxStopBytes + decoder_.max_text_bytes();
    stop_.Reserve(max_bytes);
    shown_.reserve(max_bytes);
  }

  Status Run() {
    Status status = Decode();
    if (result_.stop_reason != FLASHELM_STOP_CALLBACK) {
      // What is still held back is shown, however it ended.
      shown_.assign(stop_.Push(decoder_.Finish()));
      shown_.append(stop_.Finish());
      if (!shown_.empty()) Show(FLASHELM_NO_TOKEN);
    }
    return status;
  }

 private:
  Status Decode() {
    std::vector<TokenId>& tokens = session_.tokens;
    const TokenId eos = tokenizer_.eos_id();
    while (true) {
      // Also where nothing has to be computed.
      if (session_.cancel.IsCancelled()) {
        return Cancelled("stopped before a token");
      }
      if (options_.max_tokens != 0 &&
          result_.num_tokens == options_.max_tokens) {
        return Stop(FLASHELM_STOP_MAX_TOKENS);
      }
      if (tokens.size() == session_.session->context()) {
        return Stop(FLASHELM_STOP_CONTEXT_FULL);
      }
      FLASHELM_RETURN_IF_ERROR(ComputeText(session_, nullptr, nullptr));
      const TokenId token = sampler_.Sample(session_.session->logits(0));
      if (token == eos && options_.ignore_eos == 0) {
        return Stop(FLASHELM_STOP_EOS);
      }
      sampler_.Accept(token);
      tokens.push_back(token);
      session_.has_logits = false;
      ++result_.num_tokens;
      shown_.assign(stop_.Push(decoder_.Push(token)));
      const bool goes_on = Show(token);
      if (stop_.stopped()) return Stop(FLASHELM_STOP_STRING);
      if (!goes_on) return Stop(FLASHELM_STOP_CALLBACK);
    }
  }

  Status Stop(uint32_t reason) {
    result_.stop_reason = reason;
    return OkStatus();
  }

  // Whether the caller wants more.
  bool Show(TokenId token) {
    return options_.token == nullptr ||
           options_.token(options_.token_user, token, shown_.c_str(),
                          shown_.size()) == 0;
  }

  flashelm_session& session_;
  const flashelm_generate_options& options_;
  const Tokenizer& tokenizer_;
  Sampler sampler_;
  StreamDecoder decoder_;
  StopStrings stop_;
  std::string shown_;
  flashelm_generate_result& result_;
};

Status ReadPrompt(flashelm_session& session, std::string_view prompt,
                  const flashelm_generate_options& options,
                  flashelm_generate_result& result) {
  const Tokenizer& tokenizer = session.state->engine->tokenizer();
  // What cannot fit is not taken apart first.
  const uint64_t context = session.session->context();
  if (prompt.size() / tokenizer.longest_piece_bytes() > context) {
    return InvalidArgument("a prompt of ", prompt.size(),
                           " bytes has more tokens than the context of ",
                           context, " positions");
  }
  const std::vector<TokenId> ids =
      tokenizer.Encode(prompt, /*add_bos=*/session.tokens.empty());
  if (ids.empty()) {
    return ComputeText(session, options.progress, options.progress_user);
  }
  FLASHELM_RETURN_IF_ERROR(
      AppendTokens(session, ids, options.progress, options.progress_user));
  result.num_prompt_tokens = ids.size();
  return OkStatus();
}

Status Generate(flashelm_session& session, std::string_view prompt,
                const flashelm_generate_options& options,
                flashelm_generate_result& result) {
  FLASHELM_ASSIGN_OR_RETURN(const SamplerOptions sampling,
                            SamplerOptionsOf(options));
  FLASHELM_ASSIGN_OR_RETURN(std::vector<std::string> stop,
                            StopStringsOf(options));
  if (options.ignore_eos > 1) {
    return InvalidArgument("options: ignore_eos is ", options.ignore_eos,
                           ", expected 0 or 1");
  }
  const auto begin = Clock::now();
  const Status status = ReadPrompt(session, prompt, options, result);
  result.prompt_seconds = SecondsSince(begin);
  if (!status.ok()) return status;
  const auto decode_begin = Clock::now();
  Continuation continuation(session, options, sampling, std::move(stop),
                            result);
  Status decoded = continuation.Run();
  result.decode_seconds = SecondsSince(decode_begin);
  return decoded;
}

// Fills the caller's result, which may be null, however the call ends.
class ResultWriter {
 public:
  explicit ResultWriter(flashelm_generate_result* caller) : caller_(caller) {}
  ~ResultWriter() {
    if (caller_ != nullptr) WriteStruct(result_, caller_);
  }
  ResultWriter(const ResultWriter&) = delete;
  ResultWriter& operator=(const ResultWriter&) = delete;

  flashelm_generate_result& result() { return result_; }

 private:
  flashelm_generate_result* const caller_;
  flashelm_generate_result result_{};
};

}  // namespace
}  // namespace flashelm

using namespace flashelm;  // NOLINT: the function of the C interface follows.

flashelm_code flashelm_generate(flashelm_session* session, const char* prompt,
                                size_t prompt_bytes,
                                const flashelm_generate_options* options,
                                flashelm_generate_result* result,
                                flashelm_error* error) {
  return ReportCall(error, [&]() -> Status {
    if (result != nullptr) {
      FLASHELM_RETURN_IF_ERROR(CheckStructSize(result, "result"));
    }
    ResultWriter writer(result);
    SessionCall call(session);
    FLASHELM_RETURN_IF_ERROR(call.Begin());
    if (prompt_bytes > 0) {
      FLASHELM_RETURN_IF_ERROR(CheckNotNull(prompt, "prompt"));
    }
    flashelm_generate_options ours{};
    if (options != nullptr) {
      FLASHELM_RETURN_IF_ERROR(ReadStruct(options, "options", ours));
    }
    return Generate(
        *session,
        std::string_view(prompt_bytes > 0 ? prompt : "", prompt_bytes), ours,
        writer.result());
  });
}
