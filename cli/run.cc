#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "cli/engine_setup.h"
#include "cli/run_stats.h"
#include "cli/verbs.h"
#include "core/sampler.h"
#include "core/session.h"
#include "core/stop_strings.h"
#include "core/text_file.h"
#include "core/trace_file.h"

namespace flashelm::cli {
namespace {

Status WriteOut(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() ||
      std::fflush(stdout) != 0) {
    return ResourceExhausted("cannot write to standard output");
  }
  return OkStatus();
}

// Text held back for a stop string is memory that the plan has to know.
constexpr size_t kMaxStopBytes = size_t{4} << 10;

Status CheckStopStrings(const std::vector<std::string>& strings) {
  size_t total = 0;
  for (const std::string& stop : strings) {
    total += stop.size();
    if (stop.empty()) {
      return InvalidArgument("--stop: an empty text appears everywhere");
    }
  }
  if (total > kMaxStopBytes) {
    return InvalidArgument("--stop: ", total,
                           " bytes in all, expected at most ", kMaxStopBytes);
  }
  return OkStatus();
}

// On the command line, in the parser, and held back while it is undecided.
uint64_t StopBytes(const std::vector<std::string>& strings) {
  uint64_t total = 0;
  for (const std::string& stop : strings) total += stop.size();
  return 8 * total;
}

uint64_t ChooseSeed(int64_t seed) {
  if (seed >= 0) return static_cast<uint64_t>(seed);
  std::random_device device;
  return device();
}

// Tokens until one of the reasons to stop; the reason, for the statistics.
class Generator {
 public:
  Generator(const RunArgs& args, Session& session, const Tokenizer& tokenizer,
            Sampler& sampler, RunStats& stats)
      : args_(args),
        session_(session),
        tokenizer_(tokenizer),
        sampler_(sampler),
        stats_(stats),
        stop_(args.stop) {}

  // `prompt` begins with BOS, so it is not empty.
  Status Run(std::span<const TokenId> prompt, const CancelToken& cancel) {
    const Status status = Generate(prompt, cancel);
    if (!status.ok()) {
      stop_reason_ =
          status.code() == StatusCode::kCancelled ? "cancelled" : "error";
    }
    return status;
  }

  const std::string& stop_reason() const { return stop_reason_; }

 private:
  Status Generate(std::span<const TokenId> prompt, const CancelToken& cancel) {
    StreamDecoder decoder(tokenizer_, /*at_start=*/false);
    for (const TokenId token : prompt) sampler_.Accept(token);
    const uint32_t last = static_cast<uint32_t>(prompt.size() - 1);
    FLASHELM_RETURN_IF_ERROR(session_.Run(prompt, {&last, 1}, cancel));
    stats_.PromptDone();
    Status status = Decode(decoder, cancel);
    // What is still held back is shown, however it ended.
    FLASHELM_RETURN_IF_ERROR(WriteOut(stop_.Push(decoder.Finish())));
    FLASHELM_RETURN_IF_ERROR(WriteOut(stop_.Finish()));
    return status;
  }

  Status Decode(StreamDecoder& decoder, const CancelToken& cancel) {
    const TokenId eos = tokenizer_.eos_id();
    for (int64_t n = 0; n != args_.n_predict; ++n) {
      const TokenId token = sampler_.Sample(session_.logits(0));
      if (token == eos && !args_.ignore_eos) {
        stop_reason_ = "eos";
        return OkStatus();
      }
      sampler_.Accept(token);
      FLASHELM_RETURN_IF_ERROR(WriteOut(stop_.Push(decoder.Push(token))));
      stats_.TokenShown();
      if (stop_.stopped()) {
        stop_reason_ = "stop_string";
        return OkStatus();
      }
      // The last token needs no pass: nobody asks what follows it.
      if (n + 1 == args_.n_predict) break;
      if (session_.position() == session_.context()) {
        stop_reason_ = "context_full";
        return OkStatus();
      }
      constexpr uint32_t kOnly = 0;
      const Status status = session_.Run({&token, 1}, {&kOnly, 1}, cancel);
      if (!status.ok()) return status;
    }
    stop_reason_ = "n_predict";
    return OkStatus();
  }

  const RunArgs& args_;
  Session& session_;
  const Tokenizer& tokenizer_;
  Sampler& sampler_;
  RunStats& stats_;
  StopStrings stop_;
  std::string stop_reason_;
};

}  // namespace

Status RunRun(const RunArgs& args) {
  FLASHELM_RETURN_IF_ERROR(CheckIo(args.engine));
  FLASHELM_RETURN_IF_ERROR(CheckSamplerOptions(args.sampler));
  FLASHELM_RETURN_IF_ERROR(CheckStopStrings(args.stop));
  if (!args.stats.empty()) {
    FLASHELM_RETURN_IF_ERROR(
        CheckOutputPath(args.stats, {args.engine.model, args.text.file}));
  }
  if (!args.trace.empty()) {
    FLASHELM_RETURN_IF_ERROR(CheckOutputPath(
        args.trace, {args.engine.model, args.text.file, args.stats}));
  }
  const CancelToken& cancel = InterruptToken();
  FLASHELM_ASSIGN_OR_RETURN(ModelFile model,
                            ModelFile::Open(args.engine.model));
  const Tokenizer& tokenizer = model.tokenizer();
  const uint32_t context = ContextOf(args.engine, model.config());
  FLASHELM_ASSIGN_OR_RETURN(
      const Text text,
      ReadText(args.text, MaxTextBytes(tokenizer, context), cancel));
  const uint64_t encode_bytes = tokenizer.EncodeScratchBytes(text.bytes);
  const std::vector<TokenId> prompt =
      tokenizer.Encode(text.bytes, /*add_bos=*/true);
  if (prompt.size() > context) {
    return InvalidArgument("the prompt has ", prompt.size(),
                           " tokens, BOS included, but the context holds ",
                           context,
                           ": shorten it, or raise -c (the model "
                           "allows ",
                           model.config().max_context, ")");
  }
  const uint64_t room = context - prompt.size() + 1;
  const uint64_t max_tokens =
      args.n_predict < 0
          ? room
          : std::min<uint64_t>(room, static_cast<uint64_t>(args.n_predict));
  const uint32_t vocab_size = model.config().vocab_size;
  EngineNeeds needs;
  needs.caller_bytes = text.peak_bytes + encode_bytes +
                       prompt.size() * sizeof(TokenId) + StopBytes(args.stop) +
                       Sampler::NumBytes(vocab_size) +
                       RunStats::NumBytes(max_tokens);
  if (!args.trace.empty()) {
    needs.max_trace_sweeps = kMaxTraceSweeps;
    needs.caller_bytes += TraceBytes(model.config());
  }
  FLASHELM_ASSIGN_OR_RETURN(
      const std::unique_ptr<Engine> engine,
      LoadEngine(std::move(model), args.engine, needs, cancel));
  FLASHELM_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session,
                            Session::Create(*engine));

  SamplerOptions sampler_options = args.sampler;
  sampler_options.seed = ChooseSeed(args.seed);
  Sampler sampler(sampler_options, vocab_size);
  RunStats stats(*engine, *session, prompt.size(), max_tokens);
  Generator generator(args, *session, engine->tokenizer(), sampler, stats);

  if (args.echo) FLASHELM_RETURN_IF_ERROR(WriteOut(text.bytes));
  const Status status = generator.Run(prompt, cancel);
  stats.Finish();
  FLASHELM_RETURN_IF_ERROR(WriteOut("\n"));
  if (generator.stop_reason() == "context_full") {
    std::fprintf(stderr,
                 "flashelm: stopped: the context of %u positions is full\n",
                 session->context());
  }
  const std::string seed =
      sampler_options.temperature > 0
          ? StatusMessage::Join(", seed ", sampler_options.seed)
          : "";
  std::fprintf(stderr, "%s%s\n", stats.Summary().c_str(), seed.c_str());
  if (!args.stats.empty()) {
    FLASHELM_RETURN_IF_ERROR(WriteTextFile(
        args.stats,
        stats.ToJson(sampler_options.seed, generator.stop_reason())));
  }
  if (!args.trace.empty()) {
    FLASHELM_RETURN_IF_ERROR(WriteTrace(*engine, args.trace));
  }
  return status;
}

}  // namespace flashelm::cli
