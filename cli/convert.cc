#include "core/convert/convert.h"

#include <cstdio>
#include <string>

#include "cli/conversion.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "core/memory_plan.h"
#include "core/tokenizer.h"

namespace flashelm::cli {
namespace {

// The converter takes a tokenizer only if the engine can use it later.
Status CheckTokenizer(std::string_view bytes, std::string_view name,
                      uint32_t vocab_size) {
  FLASHELM_ASSIGN_OR_RETURN(const Tokenizer tokenizer,
                            Tokenizer::Parse(bytes, name));
  if (tokenizer.vocab_size() != vocab_size) {
    return DataLoss(name, ": ", tokenizer.vocab_size(),
                    " pieces, but the model has a vocabulary of ", vocab_size,
                    ": is it this model's tokenizer?");
  }
  return OkStatus();
}

}  // namespace

ConvertOptions OptionsOf(const EncodingArgs& args) {
  ConvertOptions options;
  // Names that the flags let through.
  options.weights = *EncodingFromName(args.weights);
  options.embedding = EncodingFromName(args.embedding);
  options.attention = EncodingFromName(args.attention);
  options.ffn = EncodingFromName(args.ffn);
  options.rows = args.layout == "rows";
  options.tokenizer_path = args.tokenizer;
  options.converter_version = FLASHELM_VERSION;
  return options;
}

Status RunConvert(const ConvertArgs& args) {
  ConvertOptions options = OptionsOf(args.encodings);
  options.num_threads = args.threads;
  options.allow_nonfinite = args.allow_nonfinite;
  options.cancel = &InterruptToken();
  options.check_tokenizer = CheckTokenizer;
  ProgressBar bar;
  options.progress = [&](std::string_view stage, uint64_t done,
                         uint64_t total) { bar.Show(stage, done, total); };
  const auto converted = Convert(args.source, args.output, options);
  bar.Clear();
  if (!converted) {
    const Status& error = converted.error();
    if (error.code() != StatusCode::kNotFound) return error;
    return NotFound(error.message(),
                    "\nA source is a directory with config.json, "
                    "model.safetensors (or its shards and "
                    "model.safetensors.index.json) and tokenizer.model.");
  }
  const ConvertReport& report = *converted;
  if (report.num_nonfinite > 0) {
    std::fprintf(stderr,
                 "flashelm: warning: %llu weights are NaN or infinite, the "
                 "first in %s\n",
                 static_cast<unsigned long long>(report.num_nonfinite),
                 report.first_nonfinite_tensor.c_str());
  }
  std::fprintf(stderr, "%s: %llu parameters as %s, %s\n", args.output.c_str(),
               static_cast<unsigned long long>(report.num_params),
               args.encodings.weights.c_str(),
               FormatBytes(report.file_bytes).c_str());
  return OkStatus();
}

}  // namespace flashelm::cli
