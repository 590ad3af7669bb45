// What leaving out neurons changes in the output of FFNs, beside the bound that
// predictor/gate_selector.h states for it. Computed from the decoded weights in
// double precision: a measure to compare with, not a way to run a model.
#ifndef FLASHELM_BENCH_FFN_ERROR_H_
#define FLASHELM_BENCH_FFN_ERROR_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/base/status.h"
#include "core/ffn_observer.h"
#include "core/model_file.h"
#include "kernels/activation.h"

namespace flashelm::bench {

// An FFN's weights behind its gates, decoded.
struct FfnRows {
  size_t model_dim = 0;
  std::vector<float> up;    // [ffn_dim, model_dim]
  std::vector<float> down;  // [ffn_dim, model_dim], columns of the matrix.
  std::vector<float> importance;  // [ffn_dim], as NeuronImportance().

  uint32_t num_neurons() const {
    return static_cast<uint32_t>(importance.size());
  }
};

// Of one token in one layer, L2 norms.
struct FfnError {
  double bound = 0;   // |input| * skipped: no smaller than the error.
  double error = 0;   // What was left out of the output.
  double output = 0;  // The output with all neurons.

  // Also where one of them is no number.
  bool is_violation() const { return !(error <= bound); }
};

// Selects with each of `kept_fractions` and compares. A fraction is of the
// layer's neurons, rounded up, by SelectTop(); 0 is SelectPositive(), which
// leaves out what kRelu makes 0, and has a bound of 0.
//   input   [model_dim]
//   gates   [num_neurons]
//   errors  [kept_fractions.size()]
void MeasureFfnError(const FfnRows& rows, Activation activation,
                     const float* input, const float* gates,
                     std::span<const double> kept_fractions, FfnError* errors);

// Measures every token of every layer while a dense model runs. Takes four
// bytes for each weight of the FFNs, and keeps all it finds.
class FfnErrorRecorder final : public FfnObserver {
 public:
  // Reads the weights of the FFNs. `importance_factor` multiplies importances,
  // and so the bounds: below 1 they are wrong, which shows whether that is
  // noticed. kInvalidArgument: a fraction below 0 or above 1, or 0 where the
  // model is not a ReLU one. Other errors as RecordReader::Read().
  static Result<std::unique_ptr<FfnErrorRecorder>> Create(
      const ModelFile& model, std::vector<double> kept_fractions,
      float importance_factor = 1);

  void BeginBatch(size_t num_tokens) override { num_in_batch_ = num_tokens; }
  void OnInputs(uint32_t layer, size_t num_tokens, const float* inputs,
                size_t stride) override;
  void OnGates(uint32_t layer, uint32_t first, size_t count, size_t num_tokens,
               const float* gates, size_t stride) override;
  Status EndLayer(uint32_t layer) override;

  // Of fraction i of those given: every token in every layer.
  std::span<const FfnError> errors(size_t i) const { return errors_[i]; }

 private:
  FfnErrorRecorder() = default;

  Activation activation_ = Activation::kSilu;
  std::vector<double> kept_fractions_;
  std::vector<FfnRows> layers_;
  // Of the batch and the layer.
  size_t num_in_batch_ = 0;
  std::vector<float> inputs_;  // [tokens, model_dim]
  std::vector<float> gates_;   // [tokens, ffn_dim]
  std::vector<std::vector<FfnError>> errors_;
};

}  // namespace flashelm::bench

#endif  // FLASHELM_BENCH_FFN_ERROR_H_
