#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/engine_setup.h"
#include "cli/generator.h"
#include "cli/prompt_cache.h"
#include "cli/run_stats.h"
#include "cli/status_line.h"
#include "cli/verbs.h"
#include "core/base/format.h"
#include "core/sampler.h"
#include "core/session.h"
#include "core/session_file.h"
#include "core/text_file.h"
#include "core/trace_file.h"

namespace flashelm::cli {
namespace {

// The prompt, as far as no cache has it, and then the text.
class Run {
 public:
  Run(const RunArgs& args, Session& session, const Tokenizer& tokenizer,
      Sampler& sampler, RunStats& stats)
      : args_(args),
        session_(session),
        sampler_(sampler),
        stats_(stats),
        status_line_(!args.no_status),
        options_{args.n_predict, args.ignore_eos, /*at_start=*/false,
                 args.stop},
        generator_(options_, session, tokenizer, sampler,
                   {{}, [this] { TokenShown(); }, {}}) {}

  // `prompt` begins with BOS, so it is not empty.
  Status Generate(std::span<const TokenId> prompt, const CancelToken& cancel) {
    const Status status = RunPrompt(prompt, cancel);
    if (!status.ok()) {
      stop_reason_ =
          status.code() == StatusCode::kCancelled ? "cancelled" : "error";
      status_line_.End();
      return status;
    }
    const Status generated = generator_.Run(cancel);
    stop_reason_ = generator_.stop_reason();
    status_line_.End();
    return generated;
  }

  const std::string& stop_reason() const { return stop_reason_; }
  // Tokens that the cache had; nothing without one.
  std::optional<uint64_t> reused() const { return reused_; }

 private:
  Status RunPrompt(std::span<const TokenId> prompt, const CancelToken& cancel) {
    for (const TokenId token : prompt) sampler_.Accept(token);
    bool is_saved = true;
    if (!args_.prompt_cache.empty()) {
      FLASHELM_ASSIGN_OR_RETURN(
          reused_,
          LoadPromptPrefix(args_.prompt_cache, prompt, session_, &is_saved));
    }
    const auto rest = prompt.subspan(session_.position());
    status_line_.Show(fmt::format("reading {} tokens", rest.size()));
    const auto last = static_cast<uint32_t>(rest.size() - 1);
    FLASHELM_RETURN_IF_ERROR(session_.Run(rest, {&last, 1}, cancel));
    if (!is_saved) {
      FLASHELM_RETURN_IF_ERROR(
          SaveSession(session_, prompt, args_.prompt_cache));
    }
    stats_.PromptDone();
    return OkStatus();
  }

  void TokenShown() {
    stats_.TokenShown();
    if (status_line_.IsDue()) status_line_.Show(stats_.Progress());
  }

  const RunArgs& args_;
  Session& session_;
  Sampler& sampler_;
  RunStats& stats_;
  StatusLine status_line_;
  const GeneratorOptions options_;
  Generator generator_;
  std::string stop_reason_;
  std::optional<uint64_t> reused_;
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
  if (!args.prompt_cache.empty()) {
    FLASHELM_RETURN_IF_ERROR(CheckOutputPath(
        args.prompt_cache,
        {args.engine.model, args.text.file, args.stats, args.trace}));
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
  if (!args.prompt_cache.empty()) {
    needs.caller_bytes += PromptCacheBytes(context);
  }
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
  Run run(args, *session, engine->tokenizer(), sampler, stats);

  if (args.echo) FLASHELM_RETURN_IF_ERROR(WriteOut(text.bytes));
  const Status status = run.Generate(prompt, cancel);
  stats.Finish();
  FLASHELM_RETURN_IF_ERROR(WriteOut("\n"));
  if (const auto reused = run.reused()) {
    std::fprintf(stderr,
                 "flashelm: %s had %llu of the %zu tokens of the prompt\n",
                 args.prompt_cache.c_str(),
                 static_cast<unsigned long long>(*reused), prompt.size());
  }
  if (run.stop_reason() == "context_full") {
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
        stats.ToJson(sampler_options.seed, run.stop_reason(), run.reused())));
  }
  if (!args.trace.empty()) {
    FLASHELM_RETURN_IF_ERROR(WriteTrace(*engine, args.trace));
  }
  return status;
}

}  // namespace flashelm::cli
