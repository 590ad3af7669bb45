#include "core/perplexity.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/engine_setup.h"
#include "cli/record.h"
#include "cli/verbs.h"

namespace flashelm::cli {
namespace {

constexpr uint64_t kSmallTextBytes = uint64_t{1} << 20;
// Longer texts take hours and show no more.
constexpr uint64_t kMaxTextBytes = uint64_t{256} << 20;

void PrintJson(const Engine& engine, const Session& session,
               const PerplexityResult& result, uint32_t n_ctx) {
  Json json;
  AddEngineKeys(engine, json);
  AddSparsityKeys(session.stats().sparsity, json);
  json["perplexity"] = result.perplexity;
  json["mean_nll"] = result.mean_nll;
  json["stderr_nll"] = result.stderr_nll;
  json["n_tokens"] = result.num_tokens;
  json["n_ctx"] = n_ctx;
  if (result.divergence) {
    json["mean_kl"] = result.divergence->mean_kl;
    json["stderr_kl"] = result.divergence->stderr_kl;
    json["same_top"] = result.divergence->same_top;
    json["reference_perplexity"] = result.divergence->reference_perplexity;
    json["reference_mean_nll"] = result.divergence->reference_mean_nll;
  }
  std::printf("%s\n", Dump(json, 2).c_str());
}

}  // namespace

Status RunPerplexity(const PerplexityArgs& args) {
  FLASHELM_RETURN_IF_ERROR(CheckIo(args.engine));
  const CancelToken& cancel = InterruptToken();
  FLASHELM_ASSIGN_OR_RETURN(ModelFile model,
                            ModelFile::Open(args.engine.model));
  EngineArgs engine_args = args.engine;
  engine_args.context = args.n_ctx;
  EngineNeeds needs;
  needs.all_logits = true;
  std::optional<ModelFile> reference;
  const bool is_against_dense = !args.against.empty();
  const std::string& reference_path =
      is_against_dense ? args.engine.model : args.reference;
  if (!reference_path.empty()) {
    FLASHELM_ASSIGN_OR_RETURN(reference, ModelFile::Open(reference_path));
  }
  EngineArgs reference_args = engine_args;
  // They change no result, and the reference may compute all neurons.
  reference_args.window = EngineArgs().window;
  reference_args.neuron_reads = EngineArgs().neuron_reads;
  if (is_against_dense) {
    reference_args.sparsity = "off";
    reference_args.max_skipped = 0;
  }
  std::vector<TokenId> tokens;
  {
    // A text that would fill the budget alone is refused before it is read; a
    // small one is read first, so that the plan can say what it needs.
    FLASHELM_ASSIGN_OR_RETURN(
        const uint64_t budget,
        ResolveBudget(args.engine.mem_budget, model.file_bytes()));
    TextArgs source;
    source.file = args.file;
    FLASHELM_ASSIGN_OR_RETURN(
        const Text text,
        ReadText(source, std::clamp(budget / 4, kSmallTextBytes, kMaxTextBytes),
                 cancel));
    needs.caller_bytes =
        text.peak_bytes + model.tokenizer().EncodeScratchBytes(text.bytes);
    tokens = model.tokenizer().Encode(text.bytes, /*add_bos=*/false);
    if (reference && reference->tokenizer().Encode(
                         text.bytes, /*add_bos=*/false) != tokens) {
      return InvalidArgument(args.reference, ": its tokenizer is not that of ",
                             args.engine.model,
                             ", so the two cannot be compared");
    }
  }
  if (tokens.empty()) {
    return InvalidArgument(args.file, ": the text has no tokens");
  }
  needs.caller_bytes += tokens.size() * sizeof(TokenId);
  needs.measures = &cancel;
  FLASHELM_ASSIGN_OR_RETURN(EngineSetup setup,
                            SetUpEngine(model, engine_args, needs));
  EngineSetup reference_setup;
  if (reference) {
    EngineNeeds reference_needs;
    reference_needs.all_logits = true;
    FLASHELM_ASSIGN_OR_RETURN(
        reference_setup,
        SetUpEngine(*reference, reference_args, reference_needs));
    FLASHELM_RETURN_IF_ERROR(
        ShareBudget(model, setup.options, *reference, reference_setup.options));
  }
  FLASHELM_ASSIGN_OR_RETURN(
      const std::unique_ptr<Engine> engine,
      LoadEngine(std::move(model), std::move(setup.options), cancel));
  FLASHELM_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session,
                            Session::Create(*engine));
  std::unique_ptr<Engine> reference_engine;
  std::unique_ptr<Session> reference_session;
  if (reference) {
    FLASHELM_ASSIGN_OR_RETURN(
        reference_engine,
        LoadEngine(std::move(*reference), std::move(reference_setup.options),
                   cancel));
    FLASHELM_ASSIGN_OR_RETURN(reference_session,
                              Session::Create(*reference_engine));
  }
  ProgressBar bar;
  FLASHELM_ASSIGN_OR_RETURN(
      const PerplexityResult result,
      MeasurePerplexity(
          *session, tokens, engine->config().bos_id, args.n_ctx, cancel,
          [&](uint64_t done) { bar.Show("scoring", done, tokens.size()); },
          reference_session.get()));
  bar.Clear();
  if (args.json) {
    PrintJson(*engine, *session, result, args.n_ctx);
  } else {
    std::printf(
        "perplexity %.4f (mean NLL %.6f +- %.6f nats, %llu tokens, windows of "
        "%u positions)\n",
        result.perplexity, result.mean_nll, result.stderr_nll,
        static_cast<unsigned long long>(result.num_tokens), args.n_ctx);
    if (result.divergence) {
      std::printf(
          "%s: perplexity %.4f; KL divergence from it %.6f +- %.6f nats, the "
          "same likeliest token for %.2f %%\n",
          is_against_dense ? "with all neurons" : args.reference.c_str(),
          result.divergence->reference_perplexity, result.divergence->mean_kl,
          result.divergence->stderr_kl, 100 * result.divergence->same_top);
    }
  }
  return OkStatus();
}

}  // namespace flashelm::cli
