#include "core/neuron_frequency.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/base/checked_math.h"
#include "core/base/types.h"
#include "storage/file.h"

namespace flashelm {
Result<NeuronFrequency> NeuronFrequency::Read(const ModelFile& model,
                                              MemoryBudget& budget) {
  const std::vector<LayerWeights>& layers = model.weights().layers;
  NeuronFrequency result;
  uint64_t num_values = 0;
  uint64_t most_bytes = 0;
  for (uint32_t i = 0; i < layers.size(); ++i) {
    if (!layers[i].frequency) return result;
    const uint64_t num_bytes = model.config().layers[i].ffn_dim * sizeof(float);
    num_values += model.config().layers[i].ffn_dim;
    most_bytes = std::max(most_bytes, num_bytes);
  }
  FLASHELM_ASSIGN_OR_RETURN(
      result.values_, AlignedBuffer::Create(num_values * sizeof(float), budget,
                                            "frequencies of neurons"));
  // Begins inside a page, and ends inside another.
  FLASHELM_ASSIGN_OR_RETURN(
      const AlignedBuffer pages,
      AlignedBuffer::Create(RoundUp(most_bytes, kIoAlignment) + kIoAlignment,
                            budget, "frequencies of neurons"));
  const RandomAccessFile& file = model.weight_file().file();
  auto values = result.values_.As<float>();
  for (uint32_t i = 0; i < layers.size(); ++i) {
    const PartRef& part = *layers[i].frequency;
    const Segment& segment = model.weight_file().segments()[part.segment];
    const uint64_t begin = segment.offset_bytes + part.offset_bytes;
    const size_t ffn_dim = model.config().layers[i].ffn_dim;
    const uint64_t first_page = RoundDown(begin, kIoAlignment);
    const uint64_t end = begin + ffn_dim * sizeof(float);
    const auto target =
        pages.bytes().first(RoundUp(end, kIoAlignment) - first_page);
    FLASHELM_RETURN_IF_ERROR(
        ReadExactly(file, first_page, target, "frequencies of neurons"));
    const auto layer = values.first(ffn_dim);
    values = values.subspan(ffn_dim);
    std::memcpy(layer.data(), target.data() + (begin - first_page),
                ffn_dim * sizeof(float));
    for (size_t n = 0; n < ffn_dim; ++n) {
      if (layer[n] >= 0 && layer[n] <= 1) continue;
      return DataLoss(model.path(), ": neuron ", n, " of layer ", i,
                      " was active for ", layer[n],
                      " of the tokens, expected 0 to 1");
    }
    result.layers_.push_back(layer);
  }
  return result;
}

}  // namespace flashelm
