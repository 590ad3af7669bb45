#include "core/convert/synth.h"

#include <cstdio>
#include <string>

#include "cli/terminal.h"
#include "cli/verbs.h"
#include "core/memory_plan.h"

namespace flashelm::cli {

Status RunSynth(const SynthArgs& args) {
  SynthOptions options;
  FLASHELM_ASSIGN_OR_RETURN(options.shape, PublishedShape(args.shape));
  options.shape_name = args.shape;
  options.dtype = args.dtype == "f32" ? ElementType::kF32 : ElementType::kBf16;
  options.seed = args.seed;
  options.activation = args.activation;
  options.active_fraction = args.active_fraction;
  options.locality = args.locality;
  options.cancel = &InterruptToken();
  ProgressBar bar;
  options.progress = [&](uint64_t done, uint64_t total) {
    bar.Show("write", done, total);
  };
  const auto written = WriteSynth(args.output, options);
  bar.Clear();
  if (!written) return written.error();
  std::fprintf(
      stderr,
      "%s: OpenELM-%s with %llu RANDOM weights as %s, %s in %zu file%s; for "
      "benchmarks, it was never trained\n",
      args.output.c_str(), args.shape.c_str(),
      static_cast<unsigned long long>(written->config.num_params()),
      args.dtype.c_str(), FormatBytes(written->total_bytes()).c_str(),
      written->weights.size(), written->weights.size() == 1 ? "" : "s");
  if (written->gates) {
    std::fprintf(stderr,
                 "About %g of each layer's neurons are active for a token; "
                 "consecutive tokens share %g of theirs.\n",
                 written->active_fraction, written->locality);
  }
  return OkStatus();
}

}  // namespace flashelm::cli
