#include "cli/args.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdio>
#include <functional>
#include <string>
#include <string_view>

#include "cli/args_bench.h"
#include "cli/args_common.h"
#include "cli/exit_code.h"
#include "cli/verbs.h"
#include "core/memory_plan.h"
#include "core/simd.h"
#include "core/train_predictor.h"

namespace flashelm::cli {
namespace {

constexpr char kDescription[] =
    "FlashELM runs OpenELM language models on machines whose free RAM is "
    "smaller than the model.";

constexpr char kFooter[] =
    "Sizes: a plain number is bytes; K, M and G are powers of 1024.\n"
    "Exit codes: 0 ok, 2 wrong usage, 3 bad model or input file, 4 memory "
    "budget too\nsmall, 5 a read failed, 6 out of memory or disk, 70 bug, 130 "
    "interrupted.";

void AddModel(CLI::App* app, std::string* model) {
  app->add_option("-m,--model", *model, "Model file (.felm)")
      ->required()
      ->type_name("FILE");
}

// "auto", which stands for its number, or tokens. Returns what is wrong.
std::string WindowFromText(std::string& text) {
  constexpr uint32_t kMax = 65535;
  if (text == "auto") {
    text = std::to_string(UINT32_MAX);
    return {};
  }
  uint32_t tokens = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, tokens);
  if (error == std::errc() && stop == end && tokens <= kMax) return {};
  return "\"" + text + "\" is not auto, nor a number from 0 to " +
         std::to_string(kMax);
}

void AddAllowUnenforced(CLI::App* app, EngineArgs* args) {
  app->add_flag("--allow-unenforced", args->allow_unenforced,
                "Take --io mmap although it holds no memory budget");
}

// "list" is answered while the command line is parsed, as --help is, so that
// nothing else has to be on it.
void AddSimd(CLI::App* app, std::string* simd) {
  app->add_option_function<std::string>(
         "--simd",
         [simd](const std::string& name) {
           *simd = name;
           if (name != "list") return;
           for (const std::string_view target : SimdTargets()) {
             std::printf("%.*s\n", static_cast<int>(target.size()),
                         target.data());
           }
           throw CLI::Success();
         },
         "SIMD instructions to compute with: auto for the best this machine "
         "has, or the name of others, to compare; list: print those there are")
      ->trigger_on_parse()
      ->type_name("NAME")
      ->default_str(*simd);
}

void AddSparsity(CLI::App* app, EngineArgs* args) {
  app->add_option(
         "--sparsity", args->sparsity,
         "Which neurons of each FFN are computed: off: all; gate: those whose "
         "gate is positive, as others are 0 with ReLU; gate:F: the part F "
         "that matters most; low-rank, low-bit, also with :F: those that the "
         "file's predictor of that kind names; random:F, magnitude:F: to "
         "compare with, a part chosen by chance or by the weights alone; auto: "
         "gate where that is exact and the file is calibrated, else off")
      ->type_name("off|auto|gate|low-rank|low-bit|random|magnitude[:F]")
      ->capture_default_str();
  app->add_option("--max-skipped", args->max_skipped,
                  "With --sparsity gate: as few neurons as leave out no more "
                  "of a layer's output than X times the length of its input")
      ->check(CLI::PositiveNumber.description(""))
      ->type_name("X");
  app->add_option("--window", args->window,
                  "With sparsity, tokens whose neurons stay in RAM, as far as "
                  "there is room; 0: none do; auto: as long as there is room")
      ->transform(CLI::Validator(WindowFromText, ""))
      ->type_name("K|auto")
      ->default_str("auto");
  app->add_option("--neuron-reads", args->neuron_reads,
                  "With sparsity, how neurons come from flash: single: those "
                  "that are computed, one by one, and into a cache; streamed: "
                  "all of a layer in order, those that are not computed, too; "
                  "auto: that for as many layers, those first of which most "
                  "neurons are used, as makes a token soonest on this device")
      ->check(CLI::IsMember({"auto", "single", "streamed"}))
      ->capture_default_str();
}

// What calibrate needs to know about predictors.
void AddPredictor(CLI::App* app, CalibrateArgs* args) {
  app->add_option("--selector", args->selector,
                  "What will choose neurons: gate: their gates, exactly; "
                  "low-rank: a trained predictor; low-bit: the gate rows at 1 "
                  "or 2 bits")
      ->check(CLI::IsMember({"gate", "low-rank", "low-bit"}))
      ->capture_default_str();
  app->add_option("--recall", args->recall,
                  "low-rank, low-bit: part of the active neurons that is to be "
                  "found (default 0.95)")
      ->check(CLI::Range(0.5, 1.0).description(""))
      ->type_name("R");
  app->add_option("--bits", args->bits, "low-bit: bits of a weight (default 2)")
      ->check(CLI::Range(1u, 2u).description(""))
      ->type_name("1|2");
  CLI::Option* rank =
      app->add_option("--rank", args->rank,
                      "low-rank: the rank of every layer; by default the "
                      "smallest that is sharp enough, layer by layer")
          ->check(CLI::Range(1u, 65536u).description(""))
          ->type_name("N");
  app->add_option("--max-predictor-bytes", args->max_predictor_percent,
                  "low-rank: percent of a layer's FFN in bf16 that its "
                  "predictor may take (default 5)")
      ->check(CLI::Range(0.01, 100.0).description(""))
      ->type_name("PCT")
      ->excludes(rank);
  app->add_option("--epochs", args->epochs,
                  "low-rank: passes over the samples (default 4)")
      ->check(CLI::Range(0u, 1000u).description(""))
      ->type_name("N");
  app->add_option("--seed", args->seed, "low-rank: of training (default 1)")
      ->type_name("N");
  app->add_option("--kept", args->kept,
                  "low-rank, low-bit with SwiGLU models: part of a token's "
                  "neurons that counts as active (default 0.5)")
      ->check(CLI::Range(0.001, 0.999).description(""))
      ->type_name("F");
  app->add_option("--max-samples", args->max_samples,
                  "low-rank, low-bit: tokens to learn from, spread over the "
                  "text; they wait on disk beside the output (default 4096, "
                  "and with low-rank up to 16384, as many as a gigabyte has)")
      ->check(CLI::Range(kMinTrainingSamples, 1u << 24).description(""))
      ->type_name("N");
  app->add_flag("--json", args->json, "Print JSON");
}

}  // namespace

void AddThreads(CLI::App* app, uint32_t* threads) {
  app->add_option(
         "-t,--threads", *threads,
         "Threads of computation; 0: one for each physical core it may "
         "use")
      ->check(CLI::Range(0u, kMaxThreads).description(""))
      ->type_name("N")
      ->capture_default_str();
}

void AddEncodings(CLI::App* app, EncodingArgs* args) {
  const CLI::IsMember encodings({"bf16", "f32", "q8", "q4"});
  app->add_option("--weights", args->weights,
                  "Encoding of the matrices: as they are, or in 8 or 4 bits "
                  "and a scale for every 32")
      ->check(encodings)
      ->capture_default_str();
  app->add_option("--embedding", args->embedding,
                  "Encoding of the embedding, which is the output head, too "
                  "[as --weights, but q8 where that is q4]")
      ->check(encodings);
  app->add_option("--attention", args->attention,
                  "Encoding of the attention's matrices [as --weights]")
      ->check(encodings);
  app->add_option("--ffn", args->ffn,
                  "Encoding of the FFN's matrices [as --weights]")
      ->check(encodings);
  app->add_option("--layout", args->layout,
                  "Of the FFN: bundles, all of a neuron side by side; or rows, "
                  "gate rows, up rows and down columns each by themselves, the "
                  "baseline that bundles are measured against")
      ->check(CLI::IsMember({"bundles", "rows"}))
      ->capture_default_str();
  app->add_option("--tokenizer", args->tokenizer,
                  "SentencePiece model, if not the source's tokenizer.model")
      ->type_name("FILE");
}

void AddEngine(CLI::App* app, EngineArgs* args) {
  AddModel(app, &args->model);
  app->add_option("--mem-budget", args->mem_budget,
                  "RAM that the whole process may take: 900M, 1.5G, 40% of "
                  "the model file, or auto for what is free less a reserve of "
                  "a tenth, at least 64M")
      ->capture_default_str()
      ->type_name("SIZE");
  app->add_option("-c,--ctx-size", args->context,
                  "Positions to hold, prompt included; 0: the model's own "
                  "limit")
      ->capture_default_str();
  AddThreads(app, &args->threads);
  app->add_option("-b,--batch-size", args->batch,
                  "Most prompt tokens that share one sweep through the "
                  "weights; fewer are used where RAM is short")
      ->check(CLI::Range(1u, UINT32_MAX).description(""))
      ->type_name("N")
      ->capture_default_str();
  app->add_option("--io", args->io,
                  "How the file is read: uring, pread, auto for the best there "
                  "is, or mmap, the baseline, which holds no budget")
      ->type_name("auto|uring|pread|mmap")
      ->capture_default_str();
  AddAllowUnenforced(app, args);
  app->add_option("--device-profile", args->device_profile,
                  "What bench io --save or doctor -o wrote: reads are shaped "
                  "as was fastest "
                  "then, instead of finding that out")
      ->type_name("FILE");
  app->add_option("--kv-type", args->kv_type,
                  "Numbers of the KV cache: f32, or bf16 for half the RAM at "
                  "a cost in precision")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();
  AddSparsity(app, args);
  AddSimd(app, &args->simd);
}

namespace {

// Returns the -p option, so that a verb can say what excludes it.
CLI::Option* AddText(CLI::App* app, TextArgs* args) {
  CLI::Option* prompt =
      app->add_option("-p,--prompt", args->prompt,
                      "The prompt; \"-\" reads standard input")
          ->type_name("TEXT")
          ->each([args](const std::string&) { args->has_prompt = true; });
  app->add_option("-f,--file", args->file,
                  "Read the prompt from a file; \"-\" reads standard input")
      ->type_name("FILE")
      ->excludes(prompt);
  return prompt;
}

void AddStats(CLI::App* app, std::string* path) {
  app->add_option("--stats", *path,
                  "Write a JSON object about the run to this file")
      ->type_name("FILE");
}

}  // namespace

void AddSampling(CLI::App* app, SamplerOptions* sampler, int64_t* seed) {
  const std::string group = "Sampling";
  app->add_option("--temp", sampler->temperature,
                  "Temperature; 0 takes the most likely token always")
      ->capture_default_str()
      ->group(group);
  app->add_option("--top-k", sampler->top_k,
                  "Sample from the K most likely tokens; 0: all")
      ->capture_default_str()
      ->group(group);
  app->add_option("--top-p", sampler->top_p,
                  "Sample from the fewest tokens whose probability reaches P; "
                  "1: all")
      ->capture_default_str()
      ->group(group);
  app->add_option("--min-p", sampler->min_p,
                  "Leave out tokens below this part of the likeliest one's "
                  "probability; 0: none")
      ->capture_default_str()
      ->group(group);
  app->add_option("--repeat-penalty", sampler->repeat_penalty,
                  "Makes every token of the context less likely again; 1: "
                  "off; Apple's examples use 1.2")
      ->capture_default_str()
      ->group(group);
  app->add_option("-s,--seed", *seed, "Random seed; -1: a new one")
      ->check(CLI::Range(int64_t{-1}, INT64_MAX).description(""))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
}

void AddGeneration(CLI::App* app, int64_t* n_predict,
                   std::vector<std::string>* stop, bool* no_status) {
  app->add_option("-n,--n-predict", *n_predict,
                  "Most tokens to generate; -1: until the context is full")
      ->check(CLI::Range(int64_t{-1}, INT64_MAX).description(""))
      ->type_name("N")
      ->capture_default_str();
  app->add_option("--stop", *stop,
                  "End generation where this text appears; may be repeated")
      ->type_name("TEXT")
      ->take_all()
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app->add_flag("--no-status", *no_status,
                "Without the line of figures at the bottom of the terminal");
}

namespace {

// An empty path, as of a variable that is not set, would mean that the flag was
// not given.
std::string CheckPath(std::string& path) {
  return path.empty() ? "the path is empty" : "";
}

// To all options of a verb, and of those below it, that take a path.
void CheckPaths(CLI::App* app) {
  for (CLI::Option* option : app->get_options({})) {
    const std::string type = option->get_type_name();
    if (type.find("FILE") != std::string::npos || type == "DIR" ||
        type == "SRC") {
      option->check(CLI::Validator(CheckPath, ""));
    }
  }
  for (CLI::App* below : app->get_subcommands({})) CheckPaths(below);
}

// What is wrong with the command line, and where to look.
void PrintUsageError(const CLI::App& app, const CLI::ParseError& error,
                     const char* first_argument) {
  const bool has_verb = !app.get_subcommands().empty();
  if (!has_verb && first_argument != nullptr && first_argument[0] != '-') {
    std::fprintf(stderr, "flashelm: there is no verb \"%s\"; there are",
                 first_argument);
    for (const CLI::App* verb : app.get_subcommands({})) {
      std::fprintf(stderr, " %s", verb->get_name().c_str());
    }
    std::fputs("\n", stderr);
    return;
  }
  const std::string verb =
      has_verb ? " " + app.get_subcommands().front()->get_name() : "";
  std::fprintf(stderr, "flashelm%s: %s\nSee flashelm%s --help.\n", verb.c_str(),
               error.what(), verb.c_str());
}

}  // namespace

int WithCommand(CommandUse use) {
  CLI::App app(kDescription, "flashelm");
  app.set_version_flag("--version", "flashelm " FLASHELM_VERSION);
  app.require_subcommand(1);
  app.footer(kFooter);
  VerbFunction verb;

  ConvertArgs convert;
  CLI::App* sub = app.add_subcommand(
      "convert", "Turn a Hugging Face OpenELM directory into a model file");
  sub->add_option("source", convert.source,
                  "Directory with config.json, model.safetensors (or its "
                  "shards and their index) and tokenizer.model")
      ->required()
      ->type_name("SRC");
  sub->add_option("-o,--output", convert.output, "Model file to write (.felm)")
      ->required()
      ->type_name("FILE");
  AddEncodings(sub, &convert.encodings);
  AddThreads(sub, &convert.threads);
  sub->add_flag("--allow-nonfinite", convert.allow_nonfinite,
                "Convert although weights are NaN or infinite");
  sub->callback([&] { verb = [&] { return RunConvert(convert); }; });

  InspectArgs inspect;
  sub = app.add_subcommand("inspect", "Print what a model file holds");
  AddModel(sub, &inspect.model);
  sub->add_flag("--json", inspect.json, "Print JSON");
  sub->callback([&] { verb = [&] { return RunInspect(inspect); }; });

  VerifyArgs verify;
  sub = app.add_subcommand("verify", "Check every checksum of a model file");
  AddModel(sub, &verify.model);
  sub->add_flag("--json", verify.json, "Print JSON");
  sub->callback([&] { verb = [&] { return RunVerify(verify); }; });

  RunArgs run;
  sub = app.add_subcommand("run", "Generate text");
  AddEngine(sub, &run.engine);
  AddText(sub, &run.text);
  AddGeneration(sub, &run.n_predict, &run.stop, &run.no_status);
  AddSampling(sub, &run.sampler, &run.seed);
  sub->add_flag("--ignore-eos", run.ignore_eos,
                "Go on after the end-of-text token");
  sub->add_flag("--echo", run.echo, "Print the prompt, too");
  sub->add_option("--prompt-cache", run.prompt_cache,
                  "Keep what was computed of the prompt in this file, and "
                  "compute only what differs from the prompt that it holds")
      ->type_name("FILE");
  AddStats(sub, &run.stats);
  sub->add_option("--trace", run.trace,
                  "Write a timeline of reads and computing to this file, for "
                  "chrome://tracing or ui.perfetto.dev: the first 64 sweeps "
                  "through the weights, a row for each layer")
      ->type_name("FILE");
  sub->callback([&] { verb = [&] { return RunRun(run); }; });

  AddChat(&app, &verb);

  LogitsArgs logits;
  sub = app.add_subcommand(
      "logits", "Write the logits of every position as a NumPy array");
  AddEngine(sub, &logits.engine);
  CLI::Option* prompt = AddText(sub, &logits.text);
  sub->add_option("--tokens", logits.tokens,
                  "Token ids, taken as they are (no BOS is added)")
      ->type_name("ID,...")
      ->each([&](const std::string&) { logits.has_tokens = true; })
      ->excludes(prompt)
      ->excludes("--file");
  sub->add_option("-o,--output", logits.output,
                  "NPY file to write: float32 [n_tokens, vocab]")
      ->required()
      ->type_name("FILE");
  AddStats(sub, &logits.stats);
  sub->callback([&] { verb = [&] { return RunLogits(logits); }; });

  PerplexityArgs perplexity;
  sub = app.add_subcommand("perplexity",
                           "Measure how well a model predicts a text");
  AddEngine(sub, &perplexity.engine);
  sub->remove_option(sub->get_option("--ctx-size"));
  sub->add_option("-c,--ctx-size", perplexity.n_ctx,
                  "Positions per window, BOS included")
      ->check(CLI::Range(2u, UINT32_MAX).description(""))
      ->type_name("N")
      ->capture_default_str();
  sub->add_option("-f,--file", perplexity.file,
                  "The text; \"-\" reads standard input")
      ->required()
      ->type_name("FILE");
  sub->add_option("--reference", perplexity.reference,
                  "Another file of the same model, such as one in f32: also "
                  "print the Kullback-Leibler divergence from it. Both run at "
                  "once, within the one budget")
      ->type_name("FILE");
  sub->add_option("--against", perplexity.against,
                  "dense: also print how far --sparsity takes the model from "
                  "itself with all neurons, as --reference does")
      ->check(CLI::IsMember({"dense"}))
      ->excludes("--reference");
  sub->add_flag("--json", perplexity.json, "Print JSON");
  sub->callback([&] { verb = [&] { return RunPerplexity(perplexity); }; });

  AddPlan(&app, &verb);
  AddDoctor(&app, &verb);

  CalibrateArgs calibrate;
  sub = app.add_subcommand(
      "calibrate",
      "Run a model over a text and write it anew for sparse decoding");
  AddEngine(sub, &calibrate.engine);
  sub->remove_option(sub->get_option("--sparsity"));
  sub->remove_option(sub->get_option("--max-skipped"));
  sub->remove_option(sub->get_option("--window"));
  sub->remove_option(sub->get_option("--neuron-reads"));
  sub->remove_option(sub->get_option("--ctx-size"));
  sub->add_option("-c,--ctx-size", calibrate.n_ctx,
                  "Positions per window of the text, BOS included")
      ->check(CLI::Range(2u, UINT32_MAX).description(""))
      ->type_name("N")
      ->capture_default_str();
  sub->add_option("-f,--file", calibrate.file,
                  "The text; \"-\" reads standard input")
      ->required()
      ->type_name("FILE");
  sub->add_option("-o,--output", calibrate.output,
                  "Model file to write (.felm)")
      ->required()
      ->type_name("FILE");
  sub->add_option("--order", calibrate.order,
                  "Order of a layer's neurons in the file: those side by side "
                  "that are active together, the most active first, or as in "
                  "the model")
      ->check(CLI::IsMember({"co-activation", "frequency", "file"}))
      ->capture_default_str();
  sub->add_option("--max-tokens", calibrate.max_tokens,
                  "Tokens of the text that are looked at; 0: all")
      ->type_name("N")
      ->capture_default_str();
  AddPredictor(sub, &calibrate);
  sub->callback([&] { verb = [&] { return RunCalibrate(calibrate); }; });

  BenchArgs bench;
  bench.command = CommandText(use.argc, use.argv);
  BenchIoArgs bench_io;
  sub = app.add_subcommand(
      "bench",
      "Measure speed, memory and reading for every combination of parameters");
  AddEngine(sub, &bench.engine);
  AddBench(sub, &bench, &bench_io, &verb);

  SynthArgs synth;
  sub = app.add_subcommand(
      "synth", "Write a checkpoint with random weights, for benchmarks");
  sub->add_option("--shape", synth.shape,
                  "The OpenELM model whose shape it has")
      ->required()
      ->check(CLI::IsMember({"270M", "450M", "1.1B", "3B"}));
  sub->add_option("-o,--output", synth.output,
                  "Directory to write; must be empty or not exist")
      ->required()
      ->type_name("DIR");
  sub->add_option("--dtype", synth.dtype, "Type of the weights")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
  sub->add_option("-s,--seed", synth.seed, "Random seed")
      // What is too large for the type is read as its greatest value.
      ->check(CLI::Range(int64_t{0}, INT64_MAX - 1).description(""))
      ->type_name("N")
      ->capture_default_str();
  sub->add_option("--activation", synth.activation,
                  "Activation of the FFN; OpenELM's is swish")
      ->check(CLI::IsMember({"swish", "relu"}))
      ->capture_default_str();
  sub->add_option("--active-fraction", synth.active_fraction,
                  "With relu: part of each layer's neurons that is active for "
                  "a token [0.1]")
      ->check(CLI::Number.description(""))  // Empty text would mean none.
      ->type_name("F");
  sub->add_option("--locality", synth.locality,
                  "With relu: intersection over union of the active sets of "
                  "consecutive tokens, at least F / (2 - F) [0.3]")
      ->check(CLI::Number.description(""))
      ->type_name("L");
  sub->callback([&] { verb = [&] { return RunSynth(synth); }; });

  for (CLI::App* one : app.get_subcommands({})) CheckPaths(one);
  return use.function(app, verb, use.argc, use.argv);
}

namespace {

// Parses into `app`, which sets `verb`, and runs that.
int ParseInto(CLI::App& app, const VerbFunction& verb, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // Help and version are "errors" of exit code 0 here.
    if (error.get_exit_code() == 0) return app.exit(error);
    PrintUsageError(app, error, argc > 1 ? argv[1] : nullptr);
    return kExitUsage;
  }
  Status status = verb();
  // Output is buffered: a full disk may show only here.
  if (status.ok() && (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)) {
    status = ResourceExhausted("cannot write to standard output");
  }
  if (!status.ok()) {
    std::fprintf(stderr, "flashelm: %s\n", status.message().c_str());
  }
  return ExitCode(status);
}

}  // namespace

int ParseAndRun(int argc, char** argv) {
  return WithCommand({ParseInto, argc, argv});
}

}  // namespace flashelm::cli
