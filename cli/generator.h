// Tokens until there is a reason to stop, as text on standard output.
#ifndef FLASHELM_CLI_GENERATOR_H_
#define FLASHELM_CLI_GENERATOR_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/cancel.h"
#include "core/base/status.h"
#include "core/sampler.h"
#include "core/session.h"
#include "core/stop_strings.h"
#include "core/tokenizer.h"

namespace flashelm::cli {

// Writes all of `text` to standard output, now. kResourceExhausted: it is full.
Status WriteOut(std::string_view text);

// Text held back for a stop string is memory that the plan has to know.
inline constexpr size_t kMaxStopBytes = size_t{4} << 10;
// kInvalidArgument, for --stop: an empty text, or more than kMaxStopBytes.
Status CheckStopStrings(const std::vector<std::string>& strings);
// On the command line, in the parser, and held back while it is undecided.
uint64_t StopBytes(const std::vector<std::string>& strings);

// What --seed means: itself, or a random one for -1.
uint64_t ChooseSeed(int64_t seed);

struct GeneratorOptions {
  int64_t n_predict = 256;  // -1: until the context is full.
  bool ignore_eos = false;
  // The text is one of its own, so that its first space is dropped.
  bool at_start = false;
  std::vector<std::string> stop;
};

// What a caller has to do with each token; each may be empty.
struct GeneratorHooks {
  // The token joined the text; it is computed before the next one, if any.
  std::function<void(TokenId)> accepted;
  // Its text, as far as it is decided, was written.
  std::function<void()> shown;
  // The context is full: makes room for a token or more, or returns false.
  std::function<Result<bool>(const CancelToken& cancel)> make_room;
};

// One piece of text. What it is given outlives it. One thread.
class Generator {
 public:
  Generator(const GeneratorOptions& options, Session& session,
            const Tokenizer& tokenizer, Sampler& sampler, GeneratorHooks hooks)
      : options_(options),
        session_(session),
        tokenizer_(tokenizer),
        sampler_(sampler),
        hooks_(std::move(hooks)),
        stop_(options.stop) {}

  // Goes on from the logits of the session's last position. Errors as
  // Session::Run(), WriteOut() and make_room(); what was undecided is shown
  // before.
  Status Run(const CancelToken& cancel);

  // "eos", "stop_string", "context_full", "n_predict", "cancelled", "error".
  const std::string& stop_reason() const { return stop_reason_; }
  // Of the accepted tokens, those whose text is before any stop string.
  uint64_t num_clean() const { return num_clean_; }

 private:
  Status Decode(StreamDecoder& decoder, const CancelToken& cancel);

  const GeneratorOptions& options_;
  Session& session_;
  const Tokenizer& tokenizer_;
  Sampler& sampler_;
  const GeneratorHooks hooks_;
  StopStrings stop_;
  std::string stop_reason_;
  uint64_t num_clean_ = 0;
};

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_GENERATOR_H_
