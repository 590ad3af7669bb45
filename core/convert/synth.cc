#include "core/convert/synth.h"

#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <span>
#include <system_error>
#include <utility>

#include "core/base/checked_math.h"
#include "core/base/format.h"
#include "core/base/processors.h"
#include "core/base/thread_pool.h"
#include "core/convert/hf_config.h"
#include "core/convert/synth_tokenizer.h"
#include "kernels/float_types.h"
#include "storage/json.h"
#include "storage/output_file.h"

namespace flashelm {
namespace {

constexpr double kDefaultActiveFraction = 0.1;
constexpr double kDefaultLocality = 0.3;
constexpr char kNote[] =
    "random weights, made by \"flashelm synth\" for benchmarks; not a trained "
    "model";
// Numbers made at a time: they stay in the caches, and outweigh the start of a
// parallel loop. More than one row of the widest tensor.
constexpr uint64_t kBlockElements = uint64_t{1} << 20;
constexpr uint32_t kMaxDefaultThreads = 8;
// Free space that is left beside the files: directories take some, too.
constexpr uint64_t kSpareDiskBytes = uint64_t{1} << 20;
constexpr uint64_t kProgressBytes = uint64_t{1} << 20;

// As the files spell the type.
const char* DtypeName(ElementType dtype) {
  return dtype == ElementType::kF32 ? "F32" : "BF16";
}

// The bytes of the file in front of its tensors.
std::string Front(const std::vector<SynthTensor>& tensors, ElementType dtype,
                  uint64_t& data_bytes) {
  Json directory = {{"__metadata__", {{"format", "pt"}, {"note", kNote}}}};
  data_bytes = 0;
  for (const SynthTensor& tensor : tensors) {
    const uint64_t begin = data_bytes;
    data_bytes += tensor.num_elements() * ElementBytes(dtype);
    directory[tensor.name] = {{"dtype", DtypeName(dtype)},
                              {"shape", tensor.shape},
                              {"data_offsets", {begin, data_bytes}}};
  }
  std::string text = directory.dump();
  text.resize(RoundUp(text.size(), 8), ' ');  // Aligns what follows.
  std::string out;
  for (int i = 0; i < 8; ++i) {
    out += static_cast<char>(uint64_t{text.size()} >> (8 * i) & 0xFF);
  }
  return out + text;
}

// Fills files in the order of the model; each holds what fits.
void PlanWeights(const SynthOptions& options, SynthPlan& plan) {
  uint64_t shard_bytes = 0;
  for (SynthTensor& tensor : ListTensors(plan.config)) {
    const uint64_t num_bytes =
        tensor.num_elements() * ElementBytes(options.dtype);
    if (plan.weights.empty() ||
        shard_bytes + num_bytes > options.max_shard_bytes) {
      plan.weights.emplace_back();
      shard_bytes = 0;
    }
    shard_bytes += num_bytes;
    plan.tensor_bytes += num_bytes;
    plan.weights.back().tensors.push_back(std::move(tensor));
  }
  const size_t num_files = plan.weights.size();
  Json weight_map = Json::object();
  for (size_t i = 0; i < num_files; ++i) {
    SynthFile& file = plan.weights[i];
    file.name = num_files == 1 ? "model.safetensors"
                               : fmt::format("model-{:05}-of-{:05}.safetensors",
                                             i + 1, num_files);
    std::sort(file.tensors.begin(), file.tensors.end(),
              [](const SynthTensor& a, const SynthTensor& b) {
                return a.name < b.name;
              });
    uint64_t data_bytes = 0;
    file.front = Front(file.tensors, options.dtype, data_bytes);
    file.num_bytes = file.front.size() + data_bytes;
    for (const SynthTensor& tensor : file.tensors) {
      weight_map[tensor.name] = file.name;
    }
  }
  if (num_files > 1) {
    const Json index = {{"metadata", {{"total_size", plan.tensor_bytes}}},
                        {"weight_map", std::move(weight_map)}};
    plan.texts.push_back(
        {"model.safetensors.index.json", index.dump(2) + "\n"});
  }
}

std::string Readme(const SynthOptions& options, const SynthPlan& plan) {
  std::string out = fmt::format(
      "# Random weights\n\n"
      "This is not a trained model. `flashelm synth` made it for benchmarks: "
      "it has the\nfiles, names and dimensions of OpenELM{}{}, {} parameters "
      "as {}, and its weights\nare random numbers (seed {}). What it writes "
      "means nothing. The tokenizer is made\nup as well.\n",
      options.shape_name.empty() ? "" : "-", options.shape_name,
      plan.config.num_params(), DtypeName(options.dtype), options.seed);
  if (plan.gates) {
    out += fmt::format(
        "\nThe activation is ReLU. About {:.4g} of each layer's neurons are "
        "active for a\ntoken, and the active sets of consecutive tokens have "
        "an intersection over union\nof about {:.4g}.\n",
        plan.active_fraction, plan.locality);
  }
  return out;
}

Status SolveActivity(const SynthOptions& options, SynthPlan& plan) {
  if (options.activation != "relu") {
    if (options.active_fraction || options.locality) {
      return InvalidArgument(
          "an active fraction and a locality belong to the activation relu; ",
          options.activation, " has no inactive neurons");
    }
    return OkStatus();
  }
  plan.active_fraction =
      options.active_fraction.value_or(kDefaultActiveFraction);
  const double least = plan.active_fraction / (2 - plan.active_fraction);
  plan.locality = options.locality.value_or(
      least < kDefaultLocality ? kDefaultLocality : (1 + least) / 2);
  FLASHELM_ASSIGN_OR_RETURN(plan.gates,
                            SolveGates(plan.active_fraction, plan.locality));
  return OkStatus();
}

// A directory that goes again, with the files noted, unless it is kept.
class OutputDirectory {
 public:
  static Result<std::unique_ptr<OutputDirectory>> Create(std::string path) {
    if (path.empty()) return InvalidArgument("a directory needs a name");
    const bool is_new = mkdir(path.c_str(), 0755) == 0;
    if (!is_new && errno != EEXIST) {
      const int error = errno;
      return ErrnoStatus(error, StatusMessage::Join("cannot make ", path));
    }
    auto out = std::unique_ptr<OutputDirectory>(
        new OutputDirectory(std::move(path), is_new));
    if (!is_new) FLASHELM_RETURN_IF_ERROR(out->CheckEmpty());
    return out;
  }
  ~OutputDirectory() {
    if (is_kept_) return;
    for (const std::string& name : names_) unlink(PathOf(name).c_str());
    if (is_new_) rmdir(path_.c_str());
  }
  OutputDirectory(const OutputDirectory&) = delete;
  OutputDirectory& operator=(const OutputDirectory&) = delete;

  std::string PathOf(const std::string& name) const {
    return path_ + "/" + name;
  }
  // kResourceExhausted: the file system has less for us.
  Status CheckFreeSpace(uint64_t num_bytes) const {
    struct statvfs info {};
    // A system that does not say finds out while writing.
    if (statvfs(path_.c_str(), &info) != 0) return OkStatus();
    const auto free_bytes = CheckedMul(info.f_bavail, info.f_frsize);
    if (free_bytes && *free_bytes < num_bytes) {
      return ResourceExhausted(path_, ": the files take ", num_bytes,
                               " bytes, and the disk has ", *free_bytes,
                               " free");
    }
    return OkStatus();
  }
  // Commits `file`, which is removed should this go. A file is noted first:
  // Commit() may fail when it has its name already.
  Status Commit(OutputFile& file, const std::string& name) {
    names_.push_back(name);
    return file.Commit();
  }
  void Keep() { is_kept_ = true; }

 private:
  OutputDirectory(std::string path, bool is_new)
      : path_(std::move(path)), is_new_(is_new) {}

  Status CheckEmpty() const {
    std::error_code error;
    if (!std::filesystem::is_directory(path_, error)) {
      return InvalidArgument(path_, ": exists and is no directory");
    }
    const bool is_empty = std::filesystem::is_empty(path_, error);
    if (error) {
      return ErrnoStatus(error.value(),
                         StatusMessage::Join("cannot read ", path_));
    }
    if (!is_empty) {
      return InvalidArgument(
          path_,
          ": the directory is not empty, expected an empty one or none; what "
          "is there stays");
    }
    return OkStatus();
  }

  const std::string path_;
  const bool is_new_;
  bool is_kept_ = false;
  std::vector<std::string> names_;
};

// Makes the values of all tensors and hands them to the files.
class WeightWriter {
 public:
  WeightWriter(const SynthOptions& options, const SynthPlan& plan,
               ThreadPool& pool)
      : options_(options), plan_(plan), pool_(pool) {}

  Status Write(const SynthFile& file, OutputFile& out) {
    FLASHELM_RETURN_IF_ERROR(out.Append(std::as_bytes(std::span(file.front))));
    for (const SynthTensor& tensor : file.tensors) {
      FLASHELM_RETURN_IF_ERROR(WriteTensor(tensor, out));
    }
    return OkStatus();
  }

  // kCancelled: as asked.
  Status Poll() const {
    if (options_.cancel != nullptr && options_.cancel->IsCancelled()) {
      return Cancelled("writing random weights was cancelled");
    }
    return OkStatus();
  }

 private:
  Status WriteTensor(const SynthTensor& tensor, OutputFile& out) {
    const SynthTensorValues values(plan_.config, plan_.gates, source_, tensor,
                                   options_.seed);
    const uint64_t columns = tensor.num_cols();
    const uint64_t rows = tensor.num_rows();
    const uint64_t block_rows = std::max<uint64_t>(1, kBlockElements / columns);
    const bool is_narrow = options_.dtype == ElementType::kBf16;
    for (uint64_t first = 0; first < rows; first += block_rows) {
      FLASHELM_RETURN_IF_ERROR(Poll());
      const uint64_t count = std::min(block_rows, rows - first);
      wide_.resize(count * columns);
      if (is_narrow) narrow_.resize(count * columns);
      pool_.ParallelFor(count, 1, [&](size_t begin, size_t end) {
        for (size_t i = begin; i < end; ++i) {
          float* row = wide_.data() + i * columns;
          values.FillRow(first + i, std::span(row, columns));
          if (is_narrow) {
            ConvertF32ToBf16(row, columns, narrow_.data() + i * columns);
          }
        }
      });
      const auto bytes = is_narrow ? std::as_bytes(std::span(narrow_))
                                   : std::as_bytes(std::span(wide_));
      FLASHELM_RETURN_IF_ERROR(out.Append(bytes));
      Report(bytes.size());
    }
    return OkStatus();
  }

  void Report(uint64_t num_bytes) {
    done_bytes_ += num_bytes;
    if (!options_.progress) return;
    if (done_bytes_ - reported_bytes_ >= kProgressBytes ||
        done_bytes_ == plan_.tensor_bytes) {
      reported_bytes_ = done_bytes_;
      options_.progress(done_bytes_, plan_.tensor_bytes);
    }
  }

  const SynthOptions& options_;
  const SynthPlan& plan_;
  ThreadPool& pool_;
  const NormalSource source_;
  std::vector<float> wide_;
  std::vector<Bf16> narrow_;
  uint64_t done_bytes_ = 0;
  uint64_t reported_bytes_ = 0;
};

}  // namespace

uint64_t SynthPlan::total_bytes() const {
  uint64_t total = 0;
  for (const SynthFile& file : weights) total += file.num_bytes;
  for (const TextFile& file : texts) total += file.text.size();
  return total;
}

Result<SynthPlan> PlanSynth(const SynthOptions& options) {
  if (options.dtype != ElementType::kBf16 &&
      options.dtype != ElementType::kF32) {
    return InvalidArgument("random weights are made as BF16 or F32");
  }
  if (options.activation != "swish" && options.activation != "relu") {
    return InvalidArgument("activation \"", options.activation,
                           "\", expected \"swish\" or \"relu\"");
  }
  SynthPlan plan;
  FLASHELM_ASSIGN_OR_RETURN(
      Json config,
      MakeHfConfig(
          options.shape, options.activation,
          options.dtype == ElementType::kF32 ? "float32" : "bfloat16"));
  FLASHELM_ASSIGN_OR_RETURN(plan.config, ParseHfConfig(config.dump(), "shape"));
  FLASHELM_RETURN_IF_ERROR(SolveActivity(options, plan));
  config["flashelm_synth"] = {{"note", kNote}, {"seed", options.seed}};
  if (plan.gates) {
    config["flashelm_synth"]["active_fraction"] = plan.active_fraction;
    config["flashelm_synth"]["locality"] = plan.locality;
  }
  PlanWeights(options, plan);
  FLASHELM_ASSIGN_OR_RETURN(std::string tokenizer,
                            MakeTokenizerModel(options.shape.vocab_size));
  plan.texts.push_back({"tokenizer.model", std::move(tokenizer)});
  plan.texts.push_back({"README.md", Readme(options, plan)});
  // Last, so that a directory with it is complete.
  plan.texts.push_back({"config.json", config.dump(2) + "\n"});
  return plan;
}

Result<SynthPlan> WriteSynth(const std::string& directory,
                             const SynthOptions& options) {
  FLASHELM_ASSIGN_OR_RETURN(SynthPlan plan, PlanSynth(options));
  const uint32_t num_threads =
      options.num_threads > 0
          ? options.num_threads
          : std::min(kMaxDefaultThreads, FindUsableProcessors().num_processors);
  FLASHELM_ASSIGN_OR_RETURN(const auto pool, ThreadPool::Create(num_threads));
  FLASHELM_ASSIGN_OR_RETURN(const auto target,
                            OutputDirectory::Create(directory));
  FLASHELM_RETURN_IF_ERROR(
      target->CheckFreeSpace(plan.total_bytes() + kSpareDiskBytes));

  // All at once, so that others cannot take the room for the last on the way.
  std::vector<OutputFile> files;
  for (const SynthFile& file : plan.weights) {
    FLASHELM_ASSIGN_OR_RETURN(
        OutputFile out,
        OutputFile::Create(target->PathOf(file.name), file.num_bytes));
    files.push_back(std::move(out));
  }
  WeightWriter writer(options, plan, *pool);
  for (size_t i = 0; i < files.size(); ++i) {
    FLASHELM_RETURN_IF_ERROR(writer.Write(plan.weights[i], files[i]));
    FLASHELM_RETURN_IF_ERROR(target->Commit(files[i], plan.weights[i].name));
  }
  for (const SynthPlan::TextFile& file : plan.texts) {
    FLASHELM_RETURN_IF_ERROR(writer.Poll());
    FLASHELM_ASSIGN_OR_RETURN(
        OutputFile out,
        OutputFile::Create(target->PathOf(file.name), file.text.size()));
    FLASHELM_RETURN_IF_ERROR(out.Append(std::as_bytes(std::span(file.text))));
    FLASHELM_RETURN_IF_ERROR(target->Commit(out, file.name));
  }
  target->Keep();
  return plan;
}

}  // namespace flashelm
