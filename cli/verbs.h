// One struct of options and one function per verb.
#ifndef FLASHELM_CLI_VERBS_H_
#define FLASHELM_CLI_VERBS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "core/sampler.h"

namespace flashelm::cli {

// What a model file is to be made of.
struct EncodingArgs {
  std::string weights = "bf16";
  // Empty: as the converter chooses.
  std::string embedding;
  std::string attention;
  std::string ffn;
  std::string layout = "bundles";  // "rows"
  std::string tokenizer;  // Empty: tokenizer.model in the source directory.
};

struct ConvertArgs {
  std::string source;
  std::string output;
  EncodingArgs encodings;
  uint32_t threads = 0;  // 0: one for each fast core.
  bool allow_nonfinite = false;
};

struct InspectArgs {
  std::string model;
  bool json = false;
};

struct VerifyArgs {
  std::string model;
  bool json = false;
};

// What every verb that computes with a model takes.
struct EngineArgs {
  std::string model;
  std::string mem_budget = "auto";
  uint32_t context = 0;  // 0: the model's.
  uint32_t threads = 0;  // 0: one for each core to be used.
  uint32_t batch = 512;
  std::string io = "auto";
  bool allow_unenforced = false;
  std::string kv_type = "f32";
  std::string simd = "auto";
  std::string device_profile;     // A file; empty: the reader finds out.
  std::string sparsity = "auto";  // "off", "gate", "gate:0.5", ...
  double max_skipped = 0;         // With gate; 0: no bound.
  // Tokens whose neurons stay in RAM; UINT32_MAX: as long as there is room.
  uint32_t window = UINT32_MAX;
  std::string neuron_reads = "auto";
  // Of rows of bench --ablation, as PlanOptions and SparsityOptions have them.
  bool pins_weights = true;
  bool merges_reads = true;
};

// Where a text comes from; exactly one of the two is set.
struct TextArgs {
  std::string prompt;  // "-" is standard input.
  bool has_prompt = false;
  std::string file;
};

struct RunArgs {
  EngineArgs engine;
  TextArgs text;
  int64_t n_predict = 256;  // -1: until the context is full.
  SamplerOptions sampler;
  int64_t seed = -1;  // -1: a random one.
  std::vector<std::string> stop;
  bool ignore_eos = false;
  bool echo = false;
  bool no_status = false;
  std::string prompt_cache;  // Empty: none.
  std::string stats;
  std::string trace;
};

struct ChatArgs {
  EngineArgs engine;
  std::string chat_template = "raw";  // A name, or else a file.
  int64_t n_predict = 256;            // Of an answer; -1: as many as fit.
  SamplerOptions sampler;
  int64_t seed = -1;
  std::vector<std::string> stop;
  std::string ctx_full = "stop";  // Or "shift".
  uint32_t keep = 1;              // Tokens that a shift leaves at the begin.
  bool no_status = false;
};

struct LogitsArgs {
  EngineArgs engine;
  TextArgs text;
  std::string tokens;  // "1,509,491"
  bool has_tokens = false;
  std::string output;
  std::string stats;
};

struct PerplexityArgs {
  EngineArgs engine;
  std::string file;
  std::string reference;  // Another model file to compare with; may be empty.
  std::string against;    // "dense": the same file without sparsity.
  uint32_t n_ctx = 256;
  bool json = false;
};

struct PlanArgs {
  // Its model may be a checkpoint's config.json or directory, and its budget a
  // list.
  EngineArgs engine;
  bool has_budget = false;
  std::string shape;       // Instead of a model, a published one: "3B".
  EncodingArgs encodings;  // Of the file that is to be made of those two.
  bool has_encodings = false;
  std::string storage;  // "sd"; empty: as measured.
  bool json = false;
};

struct DoctorArgs {
  std::string path = ".";
  std::string output;  // Where the device profile goes; empty: nowhere.
  uint32_t time_ms = 100;
  uint32_t context = 0;  // As of EngineArgs.
  uint32_t threads = 0;
  bool json = false;
};

struct CalibrateArgs {
  EngineArgs engine;
  std::string file;
  std::string output;
  std::string order = "co-activation";
  uint32_t n_ctx = 256;
  uint64_t max_tokens = 32768;  // 0: all of the text.
  std::string selector = "gate";
  // What only some selectors take; nothing where it was not given.
  std::optional<uint32_t> bits;
  std::optional<uint32_t> rank;
  std::optional<double> recall;
  std::optional<double> kept;
  std::optional<double> max_predictor_percent;
  std::optional<uint32_t> max_samples;
  std::optional<uint32_t> epochs;
  std::optional<uint64_t> seed;
  bool json = false;
};

struct BenchArgs {
  EngineArgs engine;  // What rows share; the rest is in the lists.
  std::vector<std::string> models;
  // "1G,2G"; every combination is measured.
  std::string mem_budgets = "auto";
  std::string ios = "auto";
  std::string contexts = "0";
  std::string threads = "0";
  std::string batches = "512";
  std::string kv_types = "f32";
  std::string sparsities = "auto";
  std::string windows = "auto";
  // Tests of a combination: prompts, generations, and "512,128": both.
  std::string n_prompts = "128";
  std::string n_gens = "32";
  std::vector<std::string> prompt_gens;
  uint32_t repetitions = 3;
  std::vector<std::string> outputs;  // "md", "json=FILE"
  std::string cache_state;           // "cold", "warm"; empty: as it is.
  bool no_warmup = false;
  bool interleave = false;
  bool cgroup = false;
  bool ablation = false;
  std::string html;               // Where the report goes; empty: none.
  std::vector<std::string> from;  // Records to report on; empty: measures.
  std::string command;            // That this was called with, for a shell.
  std::string rows_model;         // Empty: rows that need it are left out.
  std::string file_order_model;   // The same.
};

struct BenchIoArgs {
  std::string file;
  std::string save;  // Where the profile goes; empty: nowhere.
  uint32_t time_ms = 150;
  std::string format = "md";
};

struct SynthArgs {
  std::string shape;
  std::string output;
  std::string dtype = "bf16";
  uint64_t seed = 1;
  std::string activation = "swish";
  std::optional<double> active_fraction;
  std::optional<double> locality;
};

Status RunConvert(const ConvertArgs& args);
Status RunInspect(const InspectArgs& args);
Status RunVerify(const VerifyArgs& args);
Status RunRun(const RunArgs& args);
Status RunChat(const ChatArgs& args);
Status RunLogits(const LogitsArgs& args);
Status RunPerplexity(const PerplexityArgs& args);
Status RunCalibrate(const CalibrateArgs& args);
Status RunPlan(const PlanArgs& args);
Status RunDoctor(const DoctorArgs& args);
Status RunBench(const BenchArgs& args);
Status RunBenchFrom(const BenchArgs& args);
Status RunAblation(const BenchArgs& args);
Status RunBenchIo(const BenchIoArgs& args);
Status RunSynth(const SynthArgs& args);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_VERBS_H_
