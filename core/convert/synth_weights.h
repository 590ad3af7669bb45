// What the random weights of a synthetic checkpoint are.
//
// Of both activations. The embedding has variance 1, and every matrix keeps
// the variance of what it reads, so that all activations are finite and near 1
// at every width and depth: over all layers together, the FFNs add variance 2
// to the residual stream and attention, where it sees a single position, 1/2.
// What one layer adds is random in each coordinate and token, so layers add up
// by variance and the size of the stream at each layer is known beforehand.
// The final norm has random signs: with tied embeddings the likeliest next
// token would otherwise be the current one, forever. What the FFNs add makes
// sure that it is rarely the one before, either. Logits have deviation 2.
//
// ReLU with an active fraction F and a locality L. The first model_dim / 64
// coordinates of the stream are the same constant for every token: 2 in the
// embedding, zero rows in out_proj and proj_2, and read by the gates alone
// (their columns are zero in qkv_proj and in the up half of proj_1). There they
// are a bias per neuron, and the pre-activation of neuron i for a token t is
//
//   g[i, t] = -threshold + sqrt(rho) z[i] + sqrt(1 - rho) e[i, t]
//
// z are the quantiles of the normal distribution in random order; e comes from
// the random part of the hidden state, which is nearly independent from one
// token to another. So P(g > 0) = F fixes the threshold, and for two tokens,
// whose g have correlation rho over the neurons,
//
//   L = |A and B| / |A or B| = P / (2 F - P),  P = P(g[i, t] > 0, g[i, u] > 0)
//
// fixes rho. L lies between F / (2 - F), where rho is 0, and 1, where the
// active set is the same for all tokens. Several constant coordinates instead
// of one keep outliers out of the rows, which quantisation would suffer from.
//
// Measured in the double-precision reference of tests/core, 270M in BF16, on
// English text and on what the model itself goes on to write, per layer:
//
//   F     L     tokens   active         intersection over union
//   0.1   0.3   128      0.098-0.102    0.296-0.317
//   0.05  0.5   96       0.049-0.051    0.488-0.519
//   0.3   0.3   96       0.296-0.304    0.297-0.309
//
// Tokens of a text that are equal have nearly equal active sets, wherever they
// stand: attention adds little to a token's own embedding.
#ifndef FLASHELM_CORE_CONVERT_SYNTH_WEIGHTS_H_
#define FLASHELM_CORE_CONVERT_SYNTH_WEIGHTS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "core/convert/normal_source.h"
#include "core/model_config.h"

namespace flashelm {

// Of a gate's pre-activation, which has deviation 1 over neurons and tokens.
struct GateStatistics {
  double threshold = 0;    // Its mean is minus this.
  double correlation = 0;  // Of one neuron between two tokens: rho above.
};

// kInvalidArgument, with the range: `active_fraction` not between 0 and 1, or
// `locality` impossible with it.
Result<GateStatistics> SolveGates(double active_fraction, double locality);

// What a tensor is for; its name and shape are those of the Hugging Face files.
enum class SynthRole : uint8_t {
  kEmbedding,
  kQkv,
  kAttentionOut,
  kGateUp,
  kDown,
  kNorm,          // Of a layer's input.
  kQueryKeyNorm,  // Before attention.
  kFinalNorm
};
struct SynthTensor {
  std::string name;
  std::vector<uint64_t> shape;
  SynthRole role = SynthRole::kNorm;
  uint32_t layer = 0;  // Of a layer's tensor.

  // A vector is one row.
  uint64_t num_rows() const { return shape.size() == 1 ? 1 : shape[0]; }
  uint64_t num_cols() const { return shape.back(); }
  uint64_t num_elements() const { return num_rows() * num_cols(); }
};

// All tensors in the order of the reference model.
std::vector<SynthTensor> ListTensors(const ModelConfig& config);

// The values of one tensor, row by row. Immutable, so thread-safe.
class SynthTensorValues {
 public:
  // `gates`: for ReLU. `source` and `tensor` outlive this.
  SynthTensorValues(const ModelConfig& config,
                    const std::optional<GateStatistics>& gates,
                    const NormalSource& source, const SynthTensor& tensor,
                    uint64_t seed);

  // Fills `out`, [num_cols], with a row. The same for equal seeds.
  void FillRow(uint64_t row, std::span<float> out) const;

 private:
  const NormalSource& source_;
  const SynthTensor& tensor_;
  const uint64_t key_;
  const uint64_t num_constants_;  // Coordinates of the stream.
  float deviation_ = 0;
  float constant_ = 0;              // In the embedding's first columns.
  float gate_deviation_ = 0;        // Of the gate half of kGateUp.
  std::vector<float> gate_biases_;  // Of its first columns, by neuron.
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_CONVERT_SYNTH_WEIGHTS_H_
