#include "predictor/predictor_file.h"

#include <algorithm>
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

// Their indices are what a file has.
constexpr std::array kMatrixTypes = {WeightType::kF32, WeightType::kBf16,
                                     WeightType::kQ8, WeightType::kQ4};

uint32_t CodeOf(WeightType type) {
  return static_cast<uint32_t>(
      std::find(kMatrixTypes.begin(), kMatrixTypes.end(), type) -
      kMatrixTypes.begin());
}

std::vector<std::byte> Join(const Header& header,
                            std::span<const std::byte> weights) {
  std::vector<std::byte> bytes(kPredictorHeaderBytes + weights.size());
  std::memcpy(bytes.data(), &header, sizeof(header));
  std::memcpy(bytes.data() + sizeof(header), weights.data(), weights.size());
  return bytes;
}

auto TooShort(std::string_view name, size_t found) {
  return DataLoss(name, ": ", found, " bytes, expected at least ",
                  kPredictorHeaderBytes);
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
               CodeOf(shape.type), threshold},
              weights);
}

Result<PredictorKind> ReadPredictorKind(std::span<const std::byte> header,
                                        std::string_view name) {
  if (header.size() < kPredictorHeaderBytes) {
    return TooShort(name, header.size());
  }
  uint32_t kind = 0;
  std::memcpy(&kind, header.data(), sizeof(kind));
  for (const PredictorKind known :
       {PredictorKind::kLowBit, PredictorKind::kLowRank}) {
    if (kind == static_cast<uint32_t>(known)) return known;
  }
  return DataLoss(name, ": a predictor of kind ", kind, ", expected 1 or 2");
}

uint64_t MaxPreparedFloats(uint64_t num_bytes, uint32_t num_neurons,
                           uint32_t model_dim) {
  uint64_t most = 0;
  for (const unsigned bits : {1u, 2u}) {
    most = std::max<uint64_t>(
        most, LowBitGate::PreparedFloats({bits, num_neurons, model_dim}));
  }
  // The rank is largest where numbers are smallest.
  const uint64_t bytes_per_group =
      RowBytes(WeightType::kQ4, kQuantGroup) *
      std::max<uint64_t>(1, uint64_t{num_neurons} + uint64_t{model_dim});
  const auto rank = static_cast<uint32_t>(
      std::min<uint64_t>((num_bytes / bytes_per_group + 1) * kQuantGroup,
                         LowRankPredictor::kMaxDim));
  return std::max<uint64_t>(
      most, LowRankPredictor::PreparedFloats(
                {WeightType::kQ4, num_neurons, model_dim, rank}));
}

Result<StoredPredictor> OpenPredictor(std::span<const std::byte> bytes,
                                      uint32_t num_neurons, uint32_t model_dim,
                                      std::string_view name) {
  if (bytes.size() < kPredictorHeaderBytes) {
    return TooShort(name, bytes.size());
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
      if (header.type >= kMatrixTypes.size()) break;
      const LowRankPredictor::Shape shape = {
          kMatrixTypes.at(header.type), num_neurons, model_dim, header.width};
      if (!LowRankPredictor::IsValid(shape)) break;
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
                  "rank above 0 and type 0 to 3, of whole groups of ",
                  kQuantGroup, " where it is quantized");
}

}  // namespace flashelm
