// The FFN of all neurons.
#ifndef FLASHELM_CORE_DENSE_FFN_H_
#define FLASHELM_CORE_DENSE_FFN_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/base/status.h"
#include "core/base/thread_pool.h"
#include "core/batch_product.h"
#include "core/down_columns.h"
#include "core/ffn_observer.h"
#include "core/model_file.h"
#include "core/scratch.h"
#include "kernels/activation.h"
#include "kernels/bundle_steps.h"
#include "kernels/prefetch.h"
#include "kernels/weight_view.h"
#include "storage/weight_store.h"

namespace flashelm {

// Neurons are divided into ranges (kFfnRanges), each of which is summed from
// zero with its neurons in order, and ranges are added to x in order: so the
// bits are the same for one token and for many, for any number of threads, and
// however bundles arrive. Owns nothing; all that it refers to outlives it. Used
// by one thread, which the pool's workers help.
class DenseFfn {
 public:
  DenseFfn(const ModelFile& model, WeightStore& store, ThreadPool& pool,
           Scratch& scratch);

  // x += sum over neurons i of act(g_i . b) (u_i . b) d_i, with b = normed, for
  // the tokens of `product`, inside a sweep of the weights that has come to the
  // layer's neurons. Where the file has gates or ups apart from the bundles,
  // the scratch has them for all neurons. `observer`: whom to tell of gates;
  // may be null. `first`: of the loop that follows. Errors as
  // WeightStore::Next().
  Status Add(uint32_t layer, const BatchProduct& product, FfnObserver* observer,
             FirstWeights first);

  // Whether Add() fetches `first` for a single token: of layers whose neurons
  // are all in DRAM, and planar.
  bool FetchesNext(uint32_t layer) const;

  // Where each thread of the pool begins in the neurons of such a layer, for a
  // single token; of another, `first` is left as it is.
  void FindFirst(uint32_t layer, std::span<std::span<const std::byte>> first);

 private:
  void SetLayer(uint32_t layer);
  Result<uint32_t> AddSome(const RecordRun& run, uint32_t neuron);
  uint32_t NeuronsPerPiece() const;

  void AddPiece(const RecordRun& run, uint32_t first, uint32_t count);
  void Activate(const RecordRun& run, uint32_t first, size_t begin, size_t end,
                uint32_t part);
  void AddDown(const RecordRun& run, uint32_t first, uint32_t count);

  BundleSteps steps() const;
  size_t RangeGrain() const;
  uint32_t WholeRanges(uint32_t neuron, uint32_t end) const;
  Result<uint32_t> AddRangesOfOneToken(const RecordRun& run, uint32_t neuron,
                                       uint32_t num_ranges);
  void AddNeuronsOfOneToken(const RecordRun& run, size_t first, size_t count,
                            uint32_t part, FetchCursor& ahead, float* sum);
  void ActivateForOneToken(const RecordRun& run, size_t first, size_t count,
                           uint32_t part, uint64_t share, FetchCursor& ahead,
                           float* gate, float* up);

  void AddPlanarOfOneToken(const RecordRun& run, size_t first, size_t last,
                           size_t end, uint32_t part, float* sum);

  // Part `part` of the bundles of a run, from its i-th on, as many as lie
  // together.
  WeightView View(const RecordRun& run, size_t i, const PartRef& part) const;
  uint64_t PartOffset(const RecordRun& run, size_t i,
                      const PartRef& part) const;
  // A single token whose gates nobody is told passes once through memory.
  bool IsOneToken() const { return num_tokens_ == 1 && observer_ == nullptr; }

  const ModelConfig& config_;
  const ModelWeights& weights_;
  const std::vector<Segment>& segments_;
  WeightStore& store_;
  ThreadPool& pool_;
  Scratch& s_;
  DownColumns down_columns_;
  const Activation activation_;

  // Of the call.
  uint32_t layer_ = 0;
  uint32_t ffn_dim_ = 0;
  uint64_t stride_bytes_ = 0;  // Of bundles.
  uint64_t part_bytes_ = 0;    // Of each part where they are planar.
  size_t num_tokens_ = 0;
  const BatchProduct* product_ = nullptr;
  FfnObserver* observer_ = nullptr;
  FirstWeights first_;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_DENSE_FFN_H_
