#include "core/convert/normal_source.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace flashelm {
namespace {

// A number is made of 32 bits: 12 choose a piece between two nodes, 20 the
// place in it, more than a float's 24 bits of significand can tell apart.
constexpr uint32_t kFractionBits = 20;
constexpr size_t kNumPieces = size_t{1} << (32 - kFractionBits);

float Interpolate(const float* nodes, uint32_t bits) {
  constexpr uint32_t kFractionMask = (uint32_t{1} << kFractionBits) - 1;
  const float* low = nodes + (bits >> kFractionBits);
  // Signed: its conversion to float is one instruction.
  const auto steps = static_cast<int32_t>(bits & kFractionMask);
  return low[0] + (low[1] - low[0]) * (static_cast<float>(steps) * 0x1p-20f);
}

}  // namespace

double NormalDensity(double x) {
  return std::exp(-0.5 * x * x) / std::sqrt(2 * std::numbers::pi);
}

double NormalAbove(double x) {
  return 0.5 * std::erfc(x / std::numbers::sqrt2);
}

double NormalThreshold(double p) {
  if (p > 0.5) return -NormalThreshold(1 - p);
  // Newton from the middle: the tail is convex there, so every step falls
  // short of the root and none overshoots.
  double x = 0;
  for (int i = 0; i < 1000; ++i) {
    const double step = (NormalAbove(x) - p) / NormalDensity(x);
    x += step;
    if (std::abs(step) < 1e-13) break;
  }
  return x;
}

double BothAbove(double threshold, double angle) {
  // d/dr P = density of the pair at (threshold, threshold) (Plackett 1954); in
  // terms of the angle its square root cancels and the integrand is smooth.
  constexpr int kSteps = 256;  // Of Simpson's rule.
  const auto density = [&](double a) {
    return std::exp(-threshold * threshold / (1 + std::sin(a)));
  };
  double sum = density(0) + density(angle);
  for (int i = 1; i < kSteps; ++i) {
    sum += density(angle * i / kSteps) * (i % 2 == 1 ? 4 : 2);
  }
  const double independent = NormalAbove(threshold);
  return independent * independent +
         sum * angle / (3 * kSteps) / (2 * std::numbers::pi);
}

uint64_t RandomBits(uint64_t key, uint64_t counter) {
  // SplitMix64 (Steele, Lea and Flood 2014) with its state computed directly.
  uint64_t z = key + (counter + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

uint64_t RandomKey(uint64_t seed, std::string_view name) {
  uint64_t key = RandomBits(seed, 0);
  for (const char c : name) {
    key = RandomBits(key, static_cast<unsigned char>(c));
  }
  return key;
}

NormalSource::NormalSource() : nodes_(kNumPieces + 1) {
  std::vector<double> nodes(nodes_.size());
  for (size_t i = 0; i < nodes.size(); ++i) {
    nodes[i] = -NormalThreshold((static_cast<double>(i) + 0.5) /
                                static_cast<double>(nodes.size()));
  }
  double variance = 0;  // Of one uniformly chosen place of one piece.
  for (size_t i = 0; i < kNumPieces; ++i) {
    const double a = nodes[i];
    const double b = nodes[i + 1];
    variance += (a * a + a * b + b * b) / 3 / static_cast<double>(kNumPieces);
  }
  const double scale = 1 / std::sqrt(variance);
  std::transform(nodes.begin(), nodes.end(), nodes_.begin(),
                 [&](double node) { return static_cast<float>(node * scale); });
}

void NormalSource::Fill(uint64_t key, uint64_t first, float deviation,
                        std::span<float> out) const {
  const float* nodes = nodes_.data();
  const auto low = [&](uint64_t bits) {
    return deviation * Interpolate(nodes, static_cast<uint32_t>(bits));
  };
  const auto high = [&](uint64_t bits) {
    return deviation * Interpolate(nodes, static_cast<uint32_t>(bits >> 32));
  };
  // Two numbers of one hash.
  size_t i = 0;
  if (first % 2 == 1 && !out.empty()) {
    out[i++] = high(RandomBits(key, first / 2));
  }
  for (; i + 2 <= out.size(); i += 2) {
    const uint64_t bits = RandomBits(key, (first + i) / 2);
    out[i] = low(bits);
    out[i + 1] = high(bits);
  }
  if (i < out.size()) out[i] = low(RandomBits(key, (first + i) / 2));
}

}  // namespace flashelm
