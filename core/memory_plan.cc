#include "core/memory_plan.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/base/checked_math.h"
#include "core/base/format.h"
#include "core/base/process_memory.h"
#include "core/base/thread.h"
#include "core/cache_share.h"
#include "core/kv_cache.h"
#include "core/neuron_frequency.h"
#include "core/neuron_selector.h"
#include "core/pins.h"
#include "core/scratch.h"
#include "core/sparse_ffn.h"
#include "core/sparse_switch.h"
#include "storage/planar.h"

namespace flashelm {
namespace {

// The main thread's stack, as deep as this program goes: 44 KiB were seen.
constexpr uint64_t kMainStackBytes = uint64_t{128} << 10;
// Heap of the C++ runtime and of small objects: 270 KiB were seen, the model
// directory included.
constexpr uint64_t kHeapBytes = uint64_t{384} << 10;
// While a manifest is parsed, its tree takes this many times its text: less
// than ten were seen, and an allocator adds up to a half to small blocks.
constexpr uint64_t kManifestFactor = 14;
// Where a platform does not say how large the program is.
constexpr uint64_t kUnknownCodeBytes = uint64_t{12} << 20;

// Page tables: 8 bytes per 4 KiB page, and the kernel's own records of the
// process. Not part of VmHWM, but charged to a memory cgroup.
constexpr uint64_t kPagesRatio = 512;
constexpr uint64_t kKernelBytes = uint64_t{64} << 10;
// What io_uring takes in the kernel: its rings, and 16 bytes for each page of
// memory registered with it.
constexpr uint64_t kUringBytes = uint64_t{128} << 10;
constexpr uint64_t kUringRatio = kIoAlignment / 16;

constexpr uint32_t kMinSlots = 4;
// What is verified at a time where weights are mapped.
constexpr uint64_t kMappedChunkBytes = uint64_t{1} << 20;
struct RingShape {
  uint64_t slot_bytes;
  uint32_t num_slots;
  uint64_t max_share;  // Where one part in so many of the weights streams.
};
// The first that fits is taken. Half as much again as the store reads at a
// time: slots that are used, or wait to be, take nothing from the device. Small
// slots are used sooner after they were read, large ones disturb computing
// less, which is the limit where little streams.
constexpr uint32_t kNumSlots = 24;
constexpr RingShape kRingShapes[] = {
    {uint64_t{1} << 20, kNumSlots / 2, 6},
    {uint64_t{512} << 10, kNumSlots, 1},
    {uint64_t{256} << 10, kNumSlots, 1},
    {uint64_t{128} << 10, kNumSlots, 1},
};
// Twice the slots, and twice as much in flight, are worth a tenth of the rate
// on a device that tells of ends only when it has no request left
// (docs/BENCHMARKS.md, also for what that does not explain). So there are up to
// twice as many, where they are at most one part in so many of what streams,
// and as far as all fixed parts but KV caches stay within what is promised.
constexpr uint32_t kMostTimesSlots = 2;
constexpr uint32_t kSlotSteps = 6;
constexpr uint64_t kLargeRingShare = 16;
constexpr uint64_t kFixedBytes = uint64_t{64} << 20;

// Activations may take one part in kBatchShare of what fixed parts leave, the
// ring one in kRingShare: with little memory, a ring that keeps the device busy
// is worth more than the few weights that could be pinned in its place.
constexpr uint64_t kBatchShare = 8;
constexpr uint64_t kRingShare = 4;

// Reader threads beyond the fewest take one part in so many of what the
// smallest feasible budget leaves.
constexpr uint64_t kThreadsShare = 32;

// Both arrays of a layer's cache of bundles are whole pages.
constexpr uint64_t kCacheRounding = 2 * kIoAlignment;

uint64_t KernelBytes(uint64_t user_bytes) {
  return kKernelBytes + RoundUp(user_bytes / kPagesRatio, kIoAlignment);
}

// The most that may be planned so that its page tables fit the budget, too.
uint64_t WithoutKernelBytes(uint64_t budget) {
  if (budget < KernelBytes(budget)) return 0;
  // Tables for less than the budget are no larger than for the budget.
  return RoundDown(budget - KernelBytes(budget), kIoAlignment);
}

// The smallest budget whose WithoutKernelBytes() is at least `user_bytes`.
uint64_t SmallestBudget(uint64_t user_bytes) {
  uint64_t budget = user_bytes + KernelBytes(user_bytes);
  while (WithoutKernelBytes(budget) < user_bytes) budget += kIoAlignment;
  return budget;
}

// Decides one model's residency, given the bytes there are.
class Planner {
 public:
  // `streamed_layers` as in the plan.
  Planner(const ModelFile& model, const PlanOptions& options,
          const NeuronFrequency& frequency,
          std::vector<bool> streamed_layers = {})
      : model_(model),
        options_(options),
        frequency_(frequency),
        segments_(model.weight_file().segments()) {
    plan_.streamed_layers = std::move(streamed_layers);
    plan_.context =
        options.context == 0 ? model.config().max_context : options.context;
    plan_.num_io_threads = options.num_io_threads;
    plan_.weight_bytes = model.weight_file().weight_bytes();
    ResidencyPlan& residency = plan_.residency;
    residency.resident_records.assign(segments_.size(), 0);
    residency.chunk_records.assign(segments_.size(), 0);
    residency.head = model.weights().embedding.segment;
    PinNorm(model.weights().final_norm);
    for (uint32_t i = 0; i < model.config().num_layers(); ++i) {
      const LayerWeights& layer = model.weights().layers[i];
      PinNorm(layer.attention_norm);
      if (layer.importance) AddPredictor(layer.importance->segment);
      residency.sweep.push_back(layer.qkv.segment);
      residency.sweep.push_back(layer.attention_out.segment);
      if (layer.has_split_gate()) {
        residency.sweep.push_back(layer.gate.segment);
      }
      for (const uint32_t index : layer.neuron_segments()) {
        AddNeurons(index, plan_.streams_neurons(i));
      }
    }
  }

  Result<MemoryPlan> Make() {
    AddFixedLines();
    const uint64_t fixed = Sum();
    if (IsMapped()) return MakeMapped();
    const uint64_t whole =
        fixed + AllWeightBytes() + OverheadBytes(true) + UringBytes(0);

    const uint64_t ring_floor = ChooseRing(0, kMinSlots);
    uint64_t least =
        fixed + ring_floor + OverheadBytes(false) + ScratchBytes(1);
    if (options_.pins_weights) {
      least = std::min(least, whole + ScratchBytes(1));
    }
    plan_.minimum_bytes = SmallestBudget(least);
    const uint64_t budget =
        std::min(options_.budget_bytes,
                 std::max(plan_.minimum_bytes,
                          SmallestBudget(whole + ScratchBytes(MaxBatch()) +
                                         AllBundleBytes())));
    if (budget < plan_.minimum_bytes) return Infeasible(fixed);

    const uint64_t usable = WithoutKernelBytes(budget);
    if (options_.pins_weights && whole + ScratchBytes(1) <= usable) {
      // Bundles are worth more than a large batch.
      ChooseBatch(HasBundles() ? std::max((usable - whole) / kBatchShare,
                                          ScratchBytes(1))
                               : usable - whole);
      MakeAllResident();
      if (HasBundles()) {
        CacheBundles(usable - whole - ScratchBytes(plan_.batch));
      }
    } else {
      const uint64_t left = usable - fixed - OverheadBytes(false);
      ChooseBatch(std::max(std::min(left / kBatchShare, left - ring_floor),
                           ScratchBytes(1)));
      const uint64_t scratch = ScratchBytes(plan_.batch);
      const uint64_t others = fixed - plan_.kv_cache_bytes +
                              OverheadBytes(false) + scratch +
                              KernelBytes(budget);
      const uint64_t ring = ChooseRingWithin(
          left - scratch, std::min(left / kRingShare, left - scratch),
          kFixedBytes - std::min(kFixedBytes, others));
      if (options_.pins_weights) Pin(left - ring - scratch);
    }
    AddChosenLines();
    return plan_;
  }
  // Of Make(), also where that finds the budget too small.
  uint64_t minimum_bytes() const { return plan_.minimum_bytes; }

 private:
  bool IsMapped() const { return options_.io == IoBackend::kMmap; }
  bool IsSparse() const { return options_.sparsity.is_on(); }
  // Whether any layer's neurons are read one by one.
  bool HasBundles() const { return !plan_.cached_bundles.empty(); }

  // The weights are the system's affair, and so no budget is too small.
  Result<MemoryPlan> MakeMapped() {
    ChooseBatch(ScratchBytes(MaxBatch()));
    ChooseRing(kMappedChunkBytes, 0);
    plan_.residency.apart.clear();  // All of the file is mapped.
    MakeAllResident();
    AddChosenLines();
    plan_.minimum_bytes = plan_.total_bytes;
    return std::move(plan_);
  }

  // What is left of a layer's FFN: streamed whole, or read one by one.
  void AddNeurons(uint32_t index, bool is_streamed) {
    ResidencyPlan& residency = plan_.residency;
    if (IsSparse() && !is_streamed) {
      residency.apart.push_back(index);
      residency.chunk_records[index] = segments_[index].num_records;
      plan_.cached_bundles.push_back(0);
    } else {
      residency.sweep.push_back(index);
    }
  }
  // Norm vectors are needed whole and are small: they never stream.
  void PinNorm(const PartRef& part) {
    const Segment& segment = segments_[part.segment];
    plan_.residency.resident_records[part.segment] = segment.num_records;
    norm_bytes_ += RoundUp(segment.num_bytes(), kIoAlignment);
  }
  // With sparsity, what a layer knows of its neurons is needed for every token;
  // else nobody reads it.
  void AddPredictor(uint32_t index) {
    const Segment& segment = segments_[index];
    if (IsSparse()) {
      plan_.residency.resident_records[index] = segment.num_records;
      predictor_bytes_ += RoundUp(segment.num_bytes(), kIoAlignment);
    } else {
      plan_.residency.apart.push_back(index);
      plan_.residency.chunk_records[index] = segment.num_records;
      plan_.weight_bytes -= segment.num_bytes();
    }
  }

  void Add(std::string name, uint64_t bytes) {
    if (bytes > 0) plan_.lines.push_back({std::move(name), bytes});
  }
  void AddKernel(std::string name, uint64_t bytes) {
    Add(std::move(name), bytes);
    plan_.kernel_bytes += bytes;
  }
  uint64_t Sum() const {
    uint64_t total = 0;
    for (const PlanLine& line : plan_.lines) total += line.bytes;
    return total;
  }

  void AddFixedLines() {
    const FelmHeader& header = model_.weight_file().header();
    if (options_.whole_process) {
      Add("code and shared libraries",
          MappedFileBytes().value_or(kUnknownCodeBytes));
      Add("heap and main stack", kHeapBytes + kMainStackBytes);
    }
    Add("model directory",
        RoundUp(kManifestFactor * header.sections[kManifest].raw_bytes,
                kIoAlignment));
    Add("tokenizer", RoundUp(model_.tokenizer().memory_bytes() +
                                 header.sections[kTokenizer].raw_bytes +
                                 header.sections[kTokenizer].stored_bytes,
                             kIoAlignment));
    const bool may_use_pread =
        options_.io == IoBackend::kAuto || options_.io == IoBackend::kPread;
    // Bundles have a reader of their own.
    const uint64_t num_readers = HasBundles() ? 2 : 1;
    Add("threads",
        (uint64_t{options_.num_threads} - 1 +
         (may_use_pread ? options_.num_io_threads * num_readers : 0)) *
            kThreadStackBytes);
    Add("caller", RoundUp(options_.caller_bytes, kIoAlignment));
    plan_.process_bytes = Sum();
    plan_.kv_cache_bytes =
        options_.max_sessions *
        KvCache::NumBytes(model_.config(), plan_.context, options_.kv_type);
    Add("KV cache", plan_.kv_cache_bytes);
    if (!IsMapped()) Add("norm vectors", norm_bytes_);
    if (IsSparse()) {
      Add("importance and predictors", predictor_bytes_);
      // Without the cache: it comes last.
      plan_.sparse_bytes = SparseBytes();
      Add("sparse FFN", plan_.sparse_bytes);
    }
    if (HasBundles()) {
      AddKernel("io_uring of bundles",
                UringBytes(BundleOptions(model_, options_.sparsity,
                                         plan_.cached_bundles)
                               .staging_bytes));
    }
  }

  uint64_t SparseBytes() const {
    const uint64_t ffn_bytes =
        SparseFfn::NumBytes(model_, options_.sparsity, options_.num_threads);
    if (!HasBundles()) return ffn_bytes;
    return ffn_bytes +
           BundleStore::NumBytes(
               model_.weight_file(), plan_.residency.apart,
               BundleOptions(model_, options_.sparsity, plan_.cached_bundles));
  }
  // What a cache of all bundles takes, at most.
  uint64_t AllBundleBytes() const {
    uint64_t total = 0;
    for (const uint32_t index : plan_.residency.apart) {
      const Segment& segment = segments_[index];
      total += segment.num_records *
                   BundleCache::NumSlotBytes(segment.stride_bytes) +
               kCacheRounding;
    }
    return total;
  }
  void CacheBundles(uint64_t bytes) {
    if (!HasBundles() || options_.sparsity.window_tokens == 0) return;
    std::vector<LayerBundles> layers;
    for (uint32_t i = 0; i < model_.config().num_layers(); ++i) {
      if (plan_.streams_neurons(i)) continue;
      for (const uint32_t index :
           model_.weights().layers[i].neuron_segments()) {
        const Segment& segment = segments_[index];
        layers.push_back({segment.num_records,
                          BundleCache::NumSlotBytes(segment.stride_bytes),
                          frequency_.of_layer(i)});
      }
    }
    const uint64_t rounding = layers.size() * kCacheRounding;
    plan_.cached_bundles =
        ShareCache(layers, bytes - std::min(bytes, rounding));
    const uint64_t fixed = plan_.sparse_bytes;
    plan_.sparse_bytes = SparseBytes();
    Add("cache of bundles", plan_.sparse_bytes - fixed);
  }

  // Bundles of which all neurons are computed are planar where they can be.
  void ChoosePlanar() {
    if (IsSparse() || IsMapped()) return;
    ResidencyPlan& residency = plan_.residency;
    for (const LayerWeights& layer : model_.weights().layers) {
      if (layer.has_split_down()) continue;
      const uint32_t index = layer.down.segment;
      const Segment& segment = segments_[index];
      // Not those of a file that has more in them.
      const size_t num_parts = layer.has_split_gate() ? 2 : 3;
      if (residency.resident_records[index] == segment.num_records &&
          segment.parts.size() == num_parts && CanBePlanar(segment)) {
        residency.planar.push_back(index);
      }
    }
  }

  void AddChosenLines() {
    ChoosePlanar();
    plan_.activation_bytes = ScratchBytes(plan_.batch);
    Add("activations", plan_.activation_bytes);
    const ResidencyPlan& residency = plan_.residency;
    Add("checksums and row buffer",
        WeightStoreOverheadBytes(model_.weight_file(), residency));
    if (!IsMapped()) {
      Add("read ring", residency.RingBytes());
      AddKernel("io_uring", UringBytes(residency.RingBytes()));
      Add("resident weights",
          residency.ResidentBytes(segments_) - norm_bytes_ - predictor_bytes_);
    }
    AddKernel("page tables and kernel", KernelBytes(Sum()));
    plan_.total_bytes = Sum();
    plan_.streamed_bytes_per_token =
        residency.StreamedBytes(segments_, /*with_head=*/true);
  }

  uint32_t MaxBatch() const {
    return std::max(1u, std::min(options_.max_batch, plan_.context));
  }
  uint32_t LogitRows(uint32_t batch) const {
    return options_.all_logits ? batch : 1;
  }
  uint64_t ScratchBytes(uint32_t batch) const {
    return options_.max_sessions *
           Scratch::NumBytes(
               model_.config(),
               {batch, LogitRows(batch), options_.num_threads,
                model_.has_quantized(), model_.has_floats(), plan_.context,
                model_.has_split_gates() || IsSparse(), model_.has_rows()});
  }
  // The largest batch whose activations fit; 1 fits always.
  void ChooseBatch(uint64_t bytes) {
    plan_.batch = MaxBatch();
    while (plan_.batch > 1 && ScratchBytes(plan_.batch) > bytes) {
      plan_.batch = (plan_.batch + 1) / 2;
    }
    plan_.max_logit_rows = LogitRows(plan_.batch);
  }

  uint64_t OverheadBytes(bool all_resident) const {
    ResidencyPlan residency = plan_.residency;
    residency.resident_records[residency.head] =
        all_resident ? segments_[residency.head].num_records : 0;
    return WeightStoreOverheadBytes(model_.weight_file(), residency);
  }
  template <class Visit>
  void ForEachStreamable(const Visit& visit) const {
    for (const uint32_t index : plan_.residency.sweep) visit(index);
    visit(plan_.residency.head);
  }
  uint64_t AllWeightBytes() const {
    uint64_t total = 0;
    ForEachStreamable([&](uint32_t index) {
      total += RoundUp(segments_[index].num_bytes(), kIoAlignment);
    });
    return total;
  }

  // A ring of `most` bytes at most, where it and pinned weights have `room`;
  // the smallest where there is no such ring. With more slots than a shape
  // usually has, of at most `most_larger`. Returns what the ring takes.
  uint64_t ChooseRingWithin(uint64_t room, uint64_t most,
                            uint64_t most_larger) {
    const uint64_t weights = AllWeightBytes();
    const auto streamed = [&](uint64_t ring) {
      const uint64_t pinned = options_.pins_weights ? room - ring : 0;
      return weights - std::min(weights, pinned);
    };
    for (const RingShape& shape : kRingShapes) {
      const uint32_t usual = shape.num_slots;
      for (uint32_t slots = kMostTimesSlots * usual; slots >= usual;
           slots -= usual / kSlotSteps) {
        const uint64_t ring = ChooseRing(shape.slot_bytes, slots);
        const uint64_t left = streamed(ring);
        const uint64_t limit =
            slots == usual
                ? most
                : std::min({most, most_larger, left / kLargeRingShare});
        if (ring <= limit && left <= weights / shape.max_share) return ring;
      }
    }
    return ChooseRing(0, kMinSlots);
  }

  // Slots of about `slot_bytes`, at least of what one unit of any segment
  // takes, and chunks that fill them. Returns what the ring takes.
  uint64_t ChooseRing(uint64_t slot_bytes, uint32_t num_slots) {
    ResidencyPlan& residency = plan_.residency;
    const auto page_bytes = [](const Segment& segment, uint64_t records) {
      return RoundUp(records * segment.stride_bytes, kIoAlignment);
    };
    ForEachStreamable([&](uint32_t index) {
      const Segment& segment = segments_[index];
      slot_bytes = std::max(slot_bytes,
                            page_bytes(segment, std::min(segment.unit_records(),
                                                         segment.num_records)));
    });
    residency.num_slots = num_slots;
    residency.slot_bytes = 0;
    ForEachStreamable([&](uint32_t index) {
      const Segment& segment = segments_[index];
      const uint64_t unit = segment.unit_records();
      const uint64_t units =
          std::max<uint64_t>(1, slot_bytes / segment.stride_bytes / unit);
      const uint64_t chunk = std::min(segment.num_records, unit * units);
      residency.chunk_records[index] = chunk;
      residency.slot_bytes =
          std::max(residency.slot_bytes, page_bytes(segment, chunk));
    });
    return residency.RingBytes() + UringBytes(residency.RingBytes());
  }

  // What the kernel takes for a ring of that size.
  uint64_t UringBytes(uint64_t ring_bytes) const {
    if (options_.io == IoBackend::kPread || IsMapped()) return 0;
    return kUringBytes + RoundUp(ring_bytes / kUringRatio, kIoAlignment);
  }

  void MakeAllResident() {
    ResidencyPlan& residency = plan_.residency;
    ForEachStreamable([&](uint32_t index) {
      residency.resident_records[index] = segments_[index].num_records;
    });
    residency.num_slots = 0;
    residency.slot_bytes = 0;
  }

  void Pin(uint64_t bytes) {
    std::vector<uint32_t> order = plan_.residency.sweep;
    order.push_back(plan_.residency.head);
    PinEvenly(segments_, order, bytes, plan_.residency);
  }

  Result<MemoryPlan> Infeasible(uint64_t fixed) const {
    std::string parts;
    for (const PlanLine& line : plan_.lines) {
      parts += StatusMessage::Join(parts.empty() ? "" : ", ", line.name, " ",
                                   FormatBytes(line.bytes));
    }
    return BudgetInfeasible(
        model_.path(), ": a memory budget of ", options_.budget_bytes,
        " bytes (", FormatBytes(options_.budget_bytes),
        ") is too small: the smallest feasible one is ", plan_.minimum_bytes,
        " bytes (", FormatBytes(plan_.minimum_bytes), ") with a context of ",
        plan_.context, " positions and ", options_.num_threads,
        " threads; a smaller context, a bf16 KV cache or fewer threads need "
        "less.\nFixed parts take ",
        FormatBytes(fixed), ": ", parts, ".");
  }

  const ModelFile& model_;
  const PlanOptions& options_;
  const NeuronFrequency& frequency_;
  const std::vector<Segment>& segments_;
  MemoryPlan plan_;
  uint64_t norm_bytes_ = 0;
  uint64_t predictor_bytes_ = 0;
};

Result<MemoryPlan> MakeSparsePlan(const ModelFile& model,
                                  const PlanOptions& options) {
  FLASHELM_RETURN_IF_ERROR(NeuronSelector::Check(model, options.sparsity));
  if (options.io == IoBackend::kMmap) {
    return InvalidArgument(
        "with sparsity the budget is held, which --io mmap does not; take "
        "uring, pread or auto");
  }
  MemoryBudget unlimited(kUnlimitedBytes);  // For what is not kept.
  NeuronFrequency frequency;
  // Of others, gates above 0 say little of which neurons are kept.
  if (model.config().activation == "relu") {
    FLASHELM_ASSIGN_OR_RETURN(frequency,
                              NeuronFrequency::Read(model, unlimited));
  }
  if (options.sparsity.reads != NeuronReads::kAuto) {
    const bool streams = options.sparsity.reads == NeuronReads::kStreamed;
    return Planner(model, options, frequency,
                   std::vector<bool>(model.config().num_layers(), streams))
        .Make();
  }
  // Whatever is chosen, there remains the one that needs least.
  uint64_t least = UINT64_MAX;
  Status infeasible;
  Result<MemoryPlan> plan = ChooseStreamedLayers(
      model, options, frequency, [&](const std::vector<bool>& streamed) {
        Planner planner(model, options, frequency, streamed);
        Result<MemoryPlan> made = planner.Make();
        if (planner.minimum_bytes() < least) {
          least = planner.minimum_bytes();
          if (!made) infeasible = made.error();
        }
        return made;
      });
  if (!plan) return Unexpected(std::move(infeasible));
  plan->minimum_bytes = least;
  return plan;
}

}  // namespace

Result<MemoryPlan> MakePlan(const ModelFile& model,
                            const PlanOptions& options) {
  const uint32_t most = model.config().max_context;
  if (options.context > most) {
    return InvalidArgument(model.path(), ": a context of ", options.context,
                           " positions, but the model was made for ", most);
  }
  if (options.num_threads == 0 || options.num_threads > kMaxThreads ||
      options.num_io_threads == 0 || options.num_io_threads > kMaxThreads) {
    return InvalidArgument(options.num_threads, " threads and ",
                           options.num_io_threads,
                           " reader threads, expected 1 to ", kMaxThreads);
  }
  if (options.max_sessions == 0 || options.max_sessions > kMaxSessions) {
    return InvalidArgument(options.max_sessions, " sessions, expected 1 to ",
                           kMaxSessions);
  }
  if (options.max_batch == 0) {
    return InvalidArgument("a batch of 0 tokens, expected at least 1");
  }
  const auto make = [&model](const PlanOptions& with) {
    return with.sparsity.is_on()
               ? MakeSparsePlan(model, with)
               : Planner(model, with, NeuronFrequency()).Make();
  };
  // Where memory is short, the ring has hardly any work for more threads.
  PlanOptions few_threads = options;
  few_threads.num_io_threads = std::min(options.num_io_threads, kMinSlots);
  FLASHELM_ASSIGN_OR_RETURN(MemoryPlan least, make(few_threads));
  const uint64_t stack_bytes =
      (options.num_io_threads - few_threads.num_io_threads) * kThreadStackBytes;
  if (stack_bytes == 0 || options.budget_bytes - least.minimum_bytes <
                              kThreadsShare * stack_bytes) {
    return least;
  }
  FLASHELM_ASSIGN_OR_RETURN(MemoryPlan plan, make(options));
  plan.minimum_bytes = least.minimum_bytes;
  return plan;
}

std::string FormatBytes(uint64_t bytes) {
  constexpr double kKib = 1024;
  const double value = static_cast<double>(bytes);
  if (bytes < 1024) return fmt::format("{} B", bytes);
  if (value < kKib * kKib) return fmt::format("{:.1f} KiB", value / kKib);
  if (value < kKib * kKib * kKib) {
    return fmt::format("{:.2f} MiB", value / (kKib * kKib));
  }
  return fmt::format("{:.2f} GiB", value / (kKib * kKib * kKib));
}

}  // namespace flashelm
