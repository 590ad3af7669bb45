#include "predictor/predictor_file.h"

#include <array>
#include <cmath>
#include <cstring>

#include "core/base/format.h"

namespace flashelm {
namespace {

struct Header {
  uint32_t kind;
  uint32_t width;  // Bits of a weight, or rank.
  uint32_t type;
  float threshold;
};
static_assert(sizeof(Header) == kPredictorHeaderBytes);

std::vector<std::byte> Join(const Header& header,
                            std::span<const std::byte> weights) {
  std::vector<std::byte> bytes(kPredictorHeaderBytes + weights.size());
  std::memcpy(bytes.data(), &header, sizeof(header));
  std::memcpy(bytes.data() + sizeof(header), weights.data(), weights.size());
  return bytes;
}

auto WrongSize(std::string_view name, size_t found, uint64_t expected) {
  return DataLoss(name, ": ", found, " bytes, expected ", expected);
}

}  // namespace

std::string_view PredictorKindName(PredictorKind kind) {
  return kind == PredictorKind::kLowBit ? "low-bit" : "low-rank";
}

std::vector<std::byte> StorePredictor(const LowBitGate::Shape& shape,
                                      float threshold,
                                      std::span<const std::byte> weights) {
  return Join(
      {static_cast<uint32_t>(PredictorKind::kLowBit), shape.bits, 0, threshold},
      weights);
}

std::vector<std::byte> StorePredictor(const LowRankPredictor::Shape& shape,
                                      float threshold,
                                      std::span<const std::byte> weights) {
  return Join({static_cast<uint32_t>(PredictorKind::kLowRank), shape.rank,
               shape.type == WeightType::kBf16 ? 1u : 0u, threshold},
              weights);
}

Result<StoredPredictor> OpenPredictor(std::span<const std::byte> bytes,
                                      uint32_t num_neurons, uint32_t model_dim,
                                      std::string_view name) {
  if (bytes.size() < kPredictorHeaderBytes) {
    return DataLoss(name, ": ", bytes.size(), " bytes, expected at least ",
                    kPredictorHeaderBytes);
  }
  Header header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  const auto weights = bytes.subspan(sizeof(header));
  if (std::isnan(header.threshold)) {
    return DataLoss(name, ": its threshold is no number");
  }
  switch (header.kind) {
    case uint32_t{static_cast<uint8_t>(PredictorKind::kLowBit)}: {
      const LowBitGate::Shape shape = {header.width, num_neurons, model_dim};
      if (header.type != 0 || !LowBitGate::IsValid(shape)) break;
      if (weights.size() != LowBitGate::NumBytes(shape)) {
        return WrongSize(name, weights.size(), LowBitGate::NumBytes(shape));
      }
      return StoredPredictor{
          PredictorKind::kLowBit,
          std::make_unique<LowBitGate>(shape, weights, header.threshold)};
    }
    case uint32_t{static_cast<uint8_t>(PredictorKind::kLowRank)}: {
      const LowRankPredictor::Shape shape = {
          header.type == 1 ? WeightType::kBf16 : WeightType::kF32, num_neurons,
          model_dim, header.width};
      if (header.type > 1 || !LowRankPredictor::IsValid(shape)) break;
      if (weights.size() != LowRankPredictor::NumBytes(shape)) {
        return WrongSize(name, weights.size(),
                         LowRankPredictor::NumBytes(shape));
      }
      return StoredPredictor{
          PredictorKind::kLowRank,
          std::make_unique<LowRankPredictor>(shape, weights, header.threshold)};
    }
  }
  return DataLoss(name, ": a predictor of kind ", header.kind, ", width ",
                  header.width, " and type ", header.type, " for ", num_neurons,
                  " neurons of ", model_dim,
                  " inputs; expected kind 1 of 1 or 2 bits, or kind 2 of a "
                  "rank above 0 and type 0 or 1");
}

}  // namespace flashelm
