#include <algorithm>
#include <charconv>
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
namespace {

// "1,509,491": decimal ids with single commas between them.
Result<std::vector<TokenId>> ParseTokens(std::string_view text) {
  std::vector<TokenId> tokens;
  tokens.reserve(
      static_cast<size_t>(std::count(text.begin(), text.end(), ',')) + 1);
  const char* at = text.data();
  const char* const end = at + text.size();
  while (true) {
    TokenId token = 0;
    const auto [rest, error] = std::from_chars(at, end, token);
    if (error != std::errc() || (rest != end && *rest != ',')) {
      return InvalidArgument("--tokens: found \"",
                             std::string_view(at, end).substr(0, 20),
                             "\", expected token ids like 1,509,491");
    }
    tokens.push_back(token);
    if (rest == end) return tokens;
    at = rest + 1;
  }
}

}  // namespace

Status RunLogits(const LogitsArgs& args) {
  FLASHELM_RETURN_IF_ERROR(CheckIo(args.engine));
  const std::vector<std::string> inputs = {args.engine.model, args.text.file};
  FLASHELM_RETURN_IF_ERROR(CheckOutputPath(args.output, inputs));
  if (!args.stats.empty()) {
    FLASHELM_RETURN_IF_ERROR(CheckOutputPath(args.stats, inputs));
    if (args.stats == args.output) {
      return InvalidArgument("-o and --stats name the same file");
    }
  }
  const CancelToken& cancel = InterruptToken();
  FLASHELM_ASSIGN_OR_RETURN(ModelFile model,
                            ModelFile::Open(args.engine.model));
  const uint32_t context = ContextOf(args.engine, model.config());
  std::vector<TokenId> tokens;
  EngineNeeds needs;
  needs.all_logits = true;
  if (args.has_tokens) {
    FLASHELM_ASSIGN_OR_RETURN(tokens, ParseTokens(args.tokens));
    needs.caller_bytes = kArgumentCopies * args.tokens.size();
  } else {
    FLASHELM_ASSIGN_OR_RETURN(
        const Text text,
        ReadText(args.text, MaxTextBytes(model.tokenizer(), context), cancel));
    needs.caller_bytes =
        text.peak_bytes + model.tokenizer().EncodeScratchBytes(text.bytes);
    tokens = model.tokenizer().Encode(text.bytes, /*add_bos=*/true);
  }
  if (tokens.size() > context) {
    return InvalidArgument(tokens.size(), " tokens, but the context holds ",
                           context);
  }
  needs.caller_bytes += tokens.size() * sizeof(TokenId) + NpyWriter::kBytes;
  FLASHELM_ASSIGN_OR_RETURN(
      const std::unique_ptr<Engine> engine,
      LoadEngine(std::move(model), args.engine, needs, cancel));
  FLASHELM_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session,
                            Session::Create(*engine));
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
  stats.Finish();
  std::fprintf(stderr, "%s\n", stats.Summary().c_str());
  if (args.stats.empty()) return OkStatus();
  return WriteTextFile(args.stats, stats.ToJson(std::nullopt, "done"));
}

}  // namespace flashelm::cli
