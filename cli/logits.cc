#include <algorithm>
#include <cstdio>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "cli/engine_setup.h"
#include "cli/run_stats.h"
#include "cli/verbs.h"
#include "core/npy.h"
#include "core/session.h"
#include "core/text_file.h"

namespace flashelm::cli {

Status RunLogits(const LogitsArgs& args) {
  const CancelToken& cancel = InterruptToken();
  FLASHELM_ASSIGN_OR_RETURN(ModelFile model,
                            ModelFile::Open(args.engine.model));
  std::vector<TokenId> tokens = args.tokens;
  EngineNeeds needs;
  needs.all_logits = true;
  if (tokens.empty()) {
    FLASHELM_ASSIGN_OR_RETURN(const std::string text, ReadText(args.text));
    needs.caller_bytes =
        text.size() + model.tokenizer().EncodeScratchBytes(text);
    tokens = model.tokenizer().Encode(text, /*add_bos=*/true);
  }
  needs.caller_bytes += tokens.size() * sizeof(TokenId) + NpyWriter::kBytes;
  FLASHELM_ASSIGN_OR_RETURN(
      const std::unique_ptr<Engine> engine,
      LoadEngine(std::move(model), args.engine, needs, cancel));
  FLASHELM_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session,
                            Session::Create(*engine));
  if (tokens.size() > session->context()) {
    return InvalidArgument(tokens.size(), " tokens, but the context holds ",
                           session->context());
  }
  FLASHELM_ASSIGN_OR_RETURN(NpyWriter writer,
                            NpyWriter::Create(args.output, tokens.size(),
                                              engine->config().vocab_size));
  std::vector<uint32_t> wanted(session->max_logit_rows());
  std::iota(wanted.begin(), wanted.end(), 0u);
  RunStats stats(*engine, *session, tokens.size(), 0);
  ProgressBar bar;
  for (size_t at = 0; at < tokens.size(); at += wanted.size()) {
    const size_t count = std::min(wanted.size(), tokens.size() - at);
    FLASHELM_RETURN_IF_ERROR(
        session->Run(std::span<const TokenId>(tokens).subspan(at, count),
                     std::span<const uint32_t>(wanted).first(count), cancel));
    for (size_t i = 0; i < count; ++i) {
      FLASHELM_RETURN_IF_ERROR(writer.Append(session->logits(i)));
    }
    bar.Show("computing", at + count, tokens.size());
  }
  bar.Clear();
  FLASHELM_RETURN_IF_ERROR(writer.Commit());
  stats.PromptDone();
  std::fprintf(stderr, "%s\n", stats.Summary().c_str());
  if (args.stats.empty()) return OkStatus();
  return WriteTextFile(args.stats, stats.ToJson(std::nullopt, "done"));
}

}  // namespace flashelm::cli
