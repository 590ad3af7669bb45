#include "core/convert/synth_weights.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numbers>
#include <numeric>

namespace flashelm {
namespace {

// What all layers together add to the residual stream's variance, which begins
// at 1. Attention adds that much where it sees one position and less where it
// averages more; the prediction takes half, a few tens of positions.
constexpr double kFfnVariance = 2.0;
constexpr double kAttentionVariance = 0.5;
constexpr double kExpectedAttention = 0.5;
// Of attention scores. With 1, the mix of a long context would be nearly the
// same for all queries; 2 lets each query see some positions above others.
constexpr double kScoreDeviation = 2.0;
constexpr double kLogitDeviation = 2.0;
constexpr double kConstant = 2.0;
constexpr uint32_t kCoordinatesPerConstant = 64;
// E[silu(x)^2] of a standard normal x, by numeric integration.
constexpr double kSiluSecondMoment = 0.355776;

uint64_t NumConstants(const ModelConfig& config,
                      const std::optional<GateStatistics>& gates) {
  if (!gates) return 0;
  return std::max(1u, config.model_dim / kCoordinatesPerConstant);
}

// E[relu(x)^2] of a normal x with mean -threshold and deviation 1.
double ReluSecondMoment(double threshold) {
  return (1 + threshold * threshold) * NormalAbove(threshold) -
         threshold * NormalDensity(threshold);
}

// The residual stream at a layer, as its construction predicts it.
struct Stream {
  double variance;  // Of a random coordinate.
  double rms;       // Of all, constants included.
  double num_random;

  // The deviation of weights that read the normalized random coordinates into
  // a value of variance 1.
  double ReadDeviation() const {
    return rms / std::sqrt(variance * num_random);
  }
};

Stream StreamAt(const ModelConfig& config, uint32_t layer,
                uint64_t num_constants) {
  Stream out{};
  out.variance = 1 + (kFfnVariance + kExpectedAttention * kAttentionVariance) *
                         layer / config.num_layers();
  const auto constants = static_cast<double>(num_constants);
  out.num_random = config.model_dim - constants;
  out.rms = std::sqrt(
      (constants * kConstant * kConstant + out.num_random * out.variance) /
      config.model_dim);
  return out;
}

// The bias of each of `count` neurons: quantiles, so that their distribution is
// exact at any width, in an order that `key` chooses.
std::vector<double> Biases(const GateStatistics& gates, size_t count,
                           uint64_t key) {
  std::vector<double> out(count);
  for (size_t i = 0; i < count; ++i) {
    const double z = -NormalThreshold((static_cast<double>(i) + 0.5) /
                                      static_cast<double>(count));
    out[i] = -gates.threshold + std::sqrt(gates.correlation) * z;
  }
  for (size_t i = count; i > 1; --i) {
    std::swap(out[i - 1], out[RandomBits(key, i) % i]);
  }
  return out;
}

}  // namespace

Result<GateStatistics> SolveGates(double active_fraction, double locality) {
  // Written so that NaN fails.
  if (!(active_fraction > 0 && active_fraction < 1)) {
    return InvalidArgument("an active fraction of ", active_fraction,
                           ", expected more than 0 and less than 1");
  }
  const double least = active_fraction / (2 - active_fraction);
  if (!(locality >= least && locality < 1)) {
    return InvalidArgument(
        "a locality of ", locality, " with an active fraction of ",
        active_fraction, ", expected at least ", least,
        ", which unrelated active sets of that size have in common, and less "
        "than 1, which only equal ones have");
  }
  GateStatistics out;
  out.threshold = NormalThreshold(active_fraction);
  const double both = 2 * active_fraction * locality / (1 + locality);
  double low = 0;
  double high = std::numbers::pi / 2;
  for (int i = 0; i < 60; ++i) {
    const double angle = (low + high) / 2;
    (BothAbove(out.threshold, angle) < both ? low : high) = angle;
  }
  out.correlation = std::sin(low);
  return out;
}

std::vector<SynthTensor> ListTensors(const ModelConfig& config) {
  std::vector<SynthTensor> out;
  uint32_t layer = 0;
  const auto add = [&](std::string_view name, std::vector<uint64_t> shape,
                       SynthRole role) {
    out.push_back({StatusMessage::Join("transformer.", name, ".weight"),
                   std::move(shape), role, layer});
  };
  const uint64_t model_dim = config.model_dim;
  const uint64_t head_dim = config.head_dim;
  add("token_embeddings", {config.vocab_size, model_dim},
      SynthRole::kEmbedding);
  for (; layer < config.num_layers(); ++layer) {
    const LayerConfig& widths = config.layers[layer];
    const auto add_of_layer = [&](std::string_view name,
                                  std::vector<uint64_t> shape, SynthRole role) {
      add(StatusMessage::Join("layers.", layer, ".", name), std::move(shape),
          role);
    };
    const uint64_t ffn_dim = widths.ffn_dim;
    add_of_layer("attn.qkv_proj", {config.qkv_dim(widths), model_dim},
                 SynthRole::kQkv);
    add_of_layer("attn.q_norm", {head_dim}, SynthRole::kQueryKeyNorm);
    add_of_layer("attn.k_norm", {head_dim}, SynthRole::kQueryKeyNorm);
    add_of_layer("attn.out_proj", {model_dim, config.query_dim(widths)},
                 SynthRole::kAttentionOut);
    add_of_layer("ffn.proj_1", {2 * ffn_dim, model_dim}, SynthRole::kGateUp);
    add_of_layer("ffn.proj_2", {model_dim, ffn_dim}, SynthRole::kDown);
    add_of_layer("ffn_norm", {model_dim}, SynthRole::kNorm);
    add_of_layer("attn_norm", {model_dim}, SynthRole::kNorm);
  }
  layer = 0;
  add("norm", {model_dim}, SynthRole::kFinalNorm);
  return out;
}

SynthTensorValues::SynthTensorValues(const ModelConfig& config,
                                     const std::optional<GateStatistics>& gates,
                                     const NormalSource& source,
                                     const SynthTensor& tensor, uint64_t seed)
    : source_(source),
      tensor_(tensor),
      key_(RandomKey(seed, tensor.name)),
      num_constants_(NumConstants(config, gates)) {
  const double num_layers = config.num_layers();
  const auto columns = static_cast<double>(tensor.num_cols());
  double deviation = 0;
  switch (tensor.role) {
    case SynthRole::kEmbedding:
      deviation = 1;
      constant_ = static_cast<float>(kConstant);
      break;
    case SynthRole::kQkv:
      deviation =
          StreamAt(config, tensor.layer, num_constants_).ReadDeviation();
      break;
    case SynthRole::kAttentionOut:
      deviation = std::sqrt(kAttentionVariance / num_layers / columns);
      break;
    case SynthRole::kGateUp: {
      const Stream stream = StreamAt(config, tensor.layer, num_constants_);
      deviation = stream.ReadDeviation();
      double transient = 1;
      if (gates) {
        transient = std::sqrt(1 - gates->correlation);
        const double unit =  // The weight of the constants that gives 1.
            stream.rms / (kConstant * static_cast<double>(num_constants_));
        for (const double bias :
             Biases(*gates, tensor.num_rows() / 2,
                    RandomKey(seed, tensor.name + ".bias"))) {
          gate_biases_.push_back(static_cast<float>(bias * unit));
        }
      }
      gate_deviation_ = static_cast<float>(deviation * transient);
      break;
    }
    case SynthRole::kDown: {
      const double moment =
          gates ? ReluSecondMoment(gates->threshold) : kSiluSecondMoment;
      deviation = std::sqrt(kFfnVariance / num_layers / (columns * moment));
      break;
    }
    case SynthRole::kNorm:
      break;
    case SynthRole::kQueryKeyNorm:
      deviation = std::sqrt(kScoreDeviation);
      break;
    case SynthRole::kFinalNorm:
      deviation =
          kLogitDeviation *
          StreamAt(config, config.num_layers(), num_constants_).ReadDeviation();
      break;
  }
  deviation_ = static_cast<float>(deviation);
}

void SynthTensorValues::FillRow(uint64_t row, std::span<float> out) const {
  assert(out.size() == tensor_.num_cols());
  const auto constants = out.first(std::min(num_constants_, out.size()));
  const auto fill = [&](float deviation) {
    source_.Fill(key_, row * out.size(), deviation, out);
  };
  switch (tensor_.role) {
    case SynthRole::kEmbedding:
      fill(deviation_);
      std::fill(constants.begin(), constants.end(), constant_);
      return;
    case SynthRole::kQkv:
      fill(deviation_);
      std::fill(constants.begin(), constants.end(), 0.0f);
      return;
    case SynthRole::kAttentionOut:
    case SynthRole::kDown:
      if (row < num_constants_) {
        std::fill(out.begin(), out.end(), 0.0f);
      } else {
        fill(deviation_);
      }
      return;
    case SynthRole::kGateUp: {
      const bool is_gate = row < tensor_.num_rows() / 2;
      fill(is_gate ? gate_deviation_ : deviation_);
      const bool has_bias = is_gate && row < gate_biases_.size();
      std::fill(constants.begin(), constants.end(),
                has_bias ? gate_biases_[row] : 0.0f);
      return;
    }
    case SynthRole::kNorm:
      std::fill(out.begin(), out.end(), 1.0f);
      return;
    case SynthRole::kQueryKeyNorm:
      std::fill(out.begin(), out.end(), deviation_);
      return;
    case SynthRole::kFinalNorm:
      for (size_t i = 0; i < out.size(); ++i) {
        out[i] = RandomBits(key_, i) % 2 == 0 ? deviation_ : -deviation_;
      }
      std::fill(constants.begin(), constants.end(), 0.0f);
      return;
  }
}

}  // namespace flashelm
