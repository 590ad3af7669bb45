// Predictors as bytes of a model file.
#ifndef FLASHELM_PREDICTOR_PREDICTOR_FILE_H_
#define FLASHELM_PREDICTOR_PREDICTOR_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "core/base/status.h"
#include "predictor/low_bit_gate.h"
#include "predictor/low_rank.h"
#include "predictor/predictor.h"

namespace flashelm {

enum class PredictorKind : uint8_t { kLowBit = 1, kLowRank = 2 };
// "low-bit", "low-rank".
std::string_view PredictorKindName(PredictorKind kind);

// A header of 16 bytes, little-endian, and the weights as the class of that
// kind has them:
//   u32  kind
//   u32  bits of a weight (low-bit), or rank (low-rank)
//   u32  type of the matrices (low-rank): 0 f32, 1 bf16, 2 q8, 3 q4; else 0
//   f32  threshold
inline constexpr size_t kPredictorHeaderBytes = 16;

// weights  [LowBitGate::NumBytes(shape)], [LowRankPredictor::NumBytes(shape)]
std::vector<std::byte> StorePredictor(const LowBitGate::Shape& shape,
                                      float threshold,
                                      std::span<const std::byte> weights);
std::vector<std::byte> StorePredictor(const LowRankPredictor::Shape& shape,
                                      float threshold,
                                      std::span<const std::byte> weights);

struct StoredPredictor {
  PredictorKind kind = PredictorKind::kLowBit;
  std::unique_ptr<Predictor> predictor;
};

// What the header of a predictor says that it is; `header` begins with it.
// kDataLoss: too short, or no kind that there is.
Result<PredictorKind> ReadPredictorKind(std::span<const std::byte> header,
                                        std::string_view name);

// Floats that Prepare() of a predictor of so many bytes writes, header
// included: at least as many as for any that OpenPredictor() takes.
uint64_t MaxPreparedFloats(uint64_t num_bytes, uint32_t num_neurons,
                           uint32_t model_dim);

// A view of `bytes`, any at any address, which outlive it: of a predictor for
// so many neurons. Messages begin with `name`. kDataLoss: it is none.
Result<StoredPredictor> OpenPredictor(std::span<const std::byte> bytes,
                                      uint32_t num_neurons, uint32_t model_dim,
                                      std::string_view name);

}  // namespace flashelm

#endif  // FLASHELM_PREDICTOR_PREDICTOR_FILE_H_
