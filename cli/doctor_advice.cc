#include "cli/doctor_advice.h"

#include <algorithm>
#include <utility>

#include "core/base/format.h"
#include "core/memory_plan.h"

namespace flashelm::cli {
namespace {

constexpr uint64_t kMib = uint64_t{1} << 20;
// Below this, models that do not fit are slow whatever else is done.
constexpr uint64_t kSlowBytesPerSecond = 300'000'000;
// As much as a ring has at most: 16 slots of a MiB, and some more.
constexpr uint64_t kRingBytes = 20 * kMib;
constexpr uint64_t kFewOpenFiles = 64;
constexpr double kHotCelsius = 85;

const ModelOutlook* Find(const Examination& found, std::string_view shape,
                         std::string_view weights) {
  for (const ModelOutlook& model : found.models) {
    if (model.shape == shape && model.weights == weights) return &model;
  }
  return nullptr;
}

class Adviser {
 public:
  explicit Adviser(const Examination& found) : found_(found) {}

  std::vector<Advice> Take() {
    AdviseOnMemory();
    AdviseOnStorage();
    AdviseOnProcessor();
    AdviseOnLimits();
    return std::move(advice_);
  }

 private:
  template <class... Args>
  void Add(const char* key, const char* text, const Args&... args) {
    advice_.push_back({key, fmt::format(fmt::runtime(text), args...)});
  }

  void AdviseOnMemory() {
    const MemoryFacts& memory = found_.memory;
    // The largest that q4 would bring into RAM.
    for (const char* shape : {"3B", "1.1B", "450M", "270M"}) {
      const ModelOutlook* bf16 = Find(found_, shape, "bf16");
      const ModelOutlook* q4 = Find(found_, shape, "q4");
      if (bf16 == nullptr || q4 == nullptr || !q4->fits_whole()) continue;
      if (!bf16->fits_whole()) {
        Add("use-q4",
            "convert {} with --weights q4: then all of it is in RAM ({}, where "
            "bf16 would need {})",
            shape, FormatBytes(q4->whole_bytes),
            FormatBytes(bf16->whole_bytes));
      }
      break;
    }
    if (memory.cgroup_limit_bytes && memory.available_bytes &&
        *memory.cgroup_limit_bytes < *memory.available_bytes) {
      Add("cgroup-limit",
          "raise the memory limit of this container or service ({} of its "
          "cgroup): it may take {}, and the machine has {} free",
          memory.cgroup_version == uint64_t{1} ? "memory.limit_in_bytes"
                                               : "memory.max",
          FormatBytes(*memory.cgroup_limit_bytes),
          FormatBytes(*memory.available_bytes));
    }
    if (memory.total_bytes && memory.available_bytes &&
        *memory.available_bytes < *memory.total_bytes / 2) {
      Add("close-programs",
          "close other programs: they hold {} of the {} of RAM that this "
          "machine has",
          FormatBytes(*memory.total_bytes - *memory.available_bytes),
          FormatBytes(*memory.total_bytes));
    }
    if (memory.swap_bytes && memory.swap_free_bytes &&
        *memory.swap_bytes -
                std::min(*memory.swap_bytes, *memory.swap_free_bytes) >
            64 * kMib) {
      Add("swap",
          "the system has moved {} to swap, so RAM was short already: name a "
          "--mem-budget instead of auto, and leave some",
          FormatBytes(*memory.swap_bytes - *memory.swap_free_bytes));
    }
  }

  void AdviseOnStorage() {
    const StorageFacts& storage = found_.storage;
    if (storage.kind == "RAM") {
      Add("model-in-ram",
          "keep models on a disk or on flash: {} is RAM, of which a model "
          "there takes its size from itself",
          found_.path);
    } else if (storage.kind == "network") {
      Add("move-model",
          "keep models on a device of this machine: {} is a network or shared "
          "file system ({})",
          found_.path, storage.fs_type.value_or("unknown"));
    } else if (storage.kind == "hard disk") {
      Add("move-model",
          "move models to flash: a rotating disk is slow where single neurons "
          "are read, and slower towards its end");
    }
    if (!found_.profile) {
      Add("measure-storage",
          "name a directory that can be written to, or a model file, as PATH, "
          "so that the storage can be measured: {}",
          found_.storage_error);
      if (storage.uring_disabled.value_or(0) > 0) AdviseOnUring();
      return;
    }
    const auto best =
        FastestRate(*found_.profile, IoBackend::kAuto, UINT64_MAX);
    if (best && best->bytes_per_second < kSlowBytesPerSecond) {
      Add("slow-storage",
          "move models to faster storage (internal flash, a UFS or NVMe drive, "
          "USB 3 instead of USB 2), or take one that fits in RAM: {:.0f} MB/s "
          "is what a model that does not fit waits for",
          static_cast<double>(best->bytes_per_second) / 1e6);
    }
    if (!found_.profile->direct_io && storage.kind != "RAM") {
      Add("direct-io",
          "put models on a file system with O_DIRECT (ext4, xfs, btrfs, f2fs): "
          "here reads go through the system's cache, which takes RAM and time");
    }
    if (!found_.profile->uring_refusal.empty()) AdviseOnUring();
  }

  void AdviseOnUring() {
    const uint64_t disabled = found_.storage.uring_disabled.value_or(0);
    if (disabled > 0) {
      Add("io-uring",
          "allow io_uring (sysctl kernel.io_uring_disabled=0; it is {}): "
          "without, threads read, which costs processor time",
          disabled);
    } else {
      Add("io-uring",
          "io_uring is not to be had ({}): a kernel of 5.6 or later has it, "
          "and containers often forbid it (seccomp); threads read instead",
          found_.profile ? found_.profile->uring_refusal : "");
    }
  }

  void AdviseOnProcessor() {
    const ClockFacts& clock = found_.clock;
    // Of intel_pstate, powersave is a governor that goes with the load.
    if (clock.governor == "powersave" && clock.driver != "intel_pstate" &&
        clock.driver != "amd-pstate-epp") {
      Add("governor",
          "set the clock's governor to schedutil or performance (cpupower "
          "frequency-set -g performance): powersave keeps the lowest clock");
    }
    if (clock.celsius.value_or(0) >= kHotCelsius) {
      Add("cooling", "cool the machine: {:.0f} degrees Celsius now",
          *clock.celsius);
    } else if (clock.num_throttled.value_or(0) > 0) {
      Add("cooling",
          "see to the cooling: since it was started, heat has slowed the "
          "processor {} times",
          *clock.num_throttled);
    }
    if (found_.num_processors < found_.num_online) {
      Add("cpu-quota",
          "this process may use {} of {} processors, by a quota or an affinity "
          "mask; more of them compute faster what is in RAM",
          found_.num_processors, found_.num_online);
    }
    if (found_.simd == "SCALAR" || found_.simd == "EMU128" ||
        found_.simd == "SSE2") {
      Add("simd",
          "computing will be slow: this processor has none of the SIMD "
          "instructions that matter (AVX2, NEON); virtual machines can often "
          "be given them");
    }
  }

  void AdviseOnLimits() {
    const LimitFacts& limits = found_.limits;
    if (limits.address_space_bytes.value_or(kNoLimit) != kNoLimit) {
      Add("address-space",
          "take the limit on address space away (ulimit -v unlimited): {} is "
          "less than a process may map, and no protection",
          FormatBytes(*limits.address_space_bytes));
    }
    if (!limits.may_lock &&
        limits.locked_bytes.value_or(kNoLimit) < kRingBytes) {
      Add("memlock",
          "raise the limit on locked memory (ulimit -l 65536, or memlock in "
          "/etc/security/limits.conf): with {} io_uring may not keep the "
          "buffers of reads, and each read looks its pages up anew",
          FormatBytes(*limits.locked_bytes));
    }
    if (limits.open_files.value_or(kNoLimit) < kFewOpenFiles) {
      Add("open-files", "raise the limit on open files (ulimit -n 1024): {}",
          *limits.open_files);
    }
  }

  const Examination& found_;
  std::vector<Advice> advice_;
};

std::string Speed(const ModelOutlook& model) {
  return model.gen_tps
             ? fmt::format(", at best {:.3g} tokens/s", *model.gen_tps)
             : "";
}

}  // namespace

std::vector<Advice> Advise(const Examination& found) {
  return Adviser(found).Take();
}

std::string DescribeShape(const std::vector<ModelOutlook>& models,
                          std::string_view shape) {
  // Those that come first have more bits.
  const ModelOutlook* whole = nullptr;
  const ModelOutlook* streamed = nullptr;
  const ModelOutlook* smallest = nullptr;
  for (const ModelOutlook& model : models) {
    if (model.shape != shape) continue;
    smallest = &model;
    if (model.fits_whole()) {
      if (whole == nullptr) whole = &model;
    } else if (model.planned_bytes) {
      streamed = &model;
    }
  }
  if (smallest == nullptr) return "";
  std::string text;
  if (whole != nullptr) {
    text = fmt::format("fits in RAM whole with {} weights{}", whole->weights,
                       Speed(*whole));
  }
  if (streamed != nullptr) {
    text += fmt::format(
        "{} with {} weights {} of {} come from flash for each token{}",
        text.empty() ? "does not fit in RAM whole:" : ";", streamed->weights,
        FormatBytes(*streamed->flash_bytes_per_token),
        FormatBytes(streamed->file_bytes), Speed(*streamed));
  }
  if (text.empty()) {
    text = fmt::format("does not run: it needs {} of RAM at least",
                       FormatBytes(smallest->minimum_bytes));
  }
  return text;
}

}  // namespace flashelm::cli
