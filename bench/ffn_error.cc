#include "bench/ffn_error.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "core/base/memory.h"
#include "core/record_reader.h"
#include "predictor/gate_selector.h"

namespace flashelm::bench {
namespace {

double Activate(Activation activation, double gate) {
  if (activation == Activation::kRelu) return std::max(gate, 0.0);
  return gate / (1 + std::exp(-gate));
}

double Norm(std::span<const double> values) {
  double sum = 0;
  for (const double value : values) sum += value * value;
  return std::sqrt(sum);
}

// In several sums, which do not wait for each other.
double Dot(const float* a, const float* b, size_t n) {
  std::array<double, 8> sums{};
  size_t i = 0;
  for (; i + sums.size() <= n; i += sums.size()) {
    for (size_t k = 0; k < sums.size(); ++k) {
      sums[k] += static_cast<double>(a[i + k]) * b[i + k];
    }
  }
  double sum = 0;
  for (; i < n; ++i) sum += static_cast<double>(a[i]) * b[i];
  for (const double part : sums) sum += part;
  return sum;
}

// All rows of a matrix, decoded.
Result<std::vector<float>> ReadRows(const ModelFile& model, const PartRef& part,
                                    RecordReader& reader) {
  const Segment& segment = model.weight_file().segments()[part.segment];
  const size_t model_dim = model.config().model_dim;
  std::vector<float> rows(segment.num_records * model_dim);
  FLASHELM_RETURN_IF_ERROR(ForEachRecord(
      segment, reader, nullptr, [&](uint32_t index, const std::byte* record) {
        DecodeRow(part, record,
                  std::span(rows).subspan(index * model_dim, model_dim));
      }));
  return rows;
}

}  // namespace

void MeasureFfnError(const FfnRows& rows, Activation activation,
                     const float* input, const float* gates,
                     std::span<const double> kept_fractions, FfnError* errors) {
  const size_t model_dim = rows.model_dim;
  const uint32_t num_neurons = rows.num_neurons();
  // Neuron i adds terms[i] times its down column.
  std::vector<double> terms(num_neurons);
  for (uint32_t i = 0; i < num_neurons; ++i) {
    terms[i] = Activate(activation, gates[i]) *
               Dot(&rows.up[i * model_dim], input, model_dim);
  }
  std::vector<double> sum(model_dim);
  const auto add = [&](uint32_t i) {
    const float* down = &rows.down[i * model_dim];
    for (size_t k = 0; k < model_dim; ++k) sum[k] += terms[i] * down[k];
  };
  for (uint32_t i = 0; i < num_neurons; ++i) add(i);
  const double output = Norm(sum);
  const double input_norm = std::sqrt(Dot(input, input, model_dim));

  std::vector<float> scratch(2 * size_t{num_neurons});
  std::vector<uint32_t> active(num_neurons);
  for (size_t f = 0; f < kept_fractions.size(); ++f) {
    size_t num_active = 0;
    float skipped = 0;
    if (kept_fractions[f] == 0) {
      num_active = SelectPositive(gates, num_neurons, active.data());
    } else {
      const auto num_kept =
          static_cast<size_t>(std::ceil(kept_fractions[f] * num_neurons));
      num_active =
          SelectTop(gates, rows.importance.data(), activation, num_neurons,
                    num_kept, scratch.data(), active.data(), &skipped);
    }
    std::fill(sum.begin(), sum.end(), 0.0);
    for (uint32_t i = 0, next = 0; i < num_neurons; ++i) {
      if (next < num_active && active[next] == i) {
        ++next;
      } else {
        add(i);
      }
    }
    errors[f] = {input_norm * skipped, Norm(sum), output};
  }
}

Result<std::unique_ptr<FfnErrorRecorder>> FfnErrorRecorder::Create(
    const ModelFile& model, std::vector<double> kept_fractions,
    float importance_factor) {
  const ModelConfig& config = model.config();
  const bool is_relu = config.activation == "relu";
  for (const double fraction : kept_fractions) {
    if (!(fraction >= 0 && fraction <= 1)) {
      return InvalidArgument("keeping the part ", fraction,
                             " of the neurons, expected 0 to 1");
    }
    if (fraction == 0 && !is_relu) {
      return InvalidArgument(model.path(), ": keeping the neurons with a gate ",
                             "above 0 is for ReLU models, and it has ",
                             config.activation);
    }
  }
  std::unique_ptr<FfnErrorRecorder> recorder(new FfnErrorRecorder());
  recorder->activation_ = is_relu ? Activation::kRelu : Activation::kSilu;
  recorder->errors_.resize(kept_fractions.size());
  recorder->kept_fractions_ = std::move(kept_fractions);
  MemoryBudget unlimited(UINT64_MAX);
  FLASHELM_ASSIGN_OR_RETURN(
      RecordReader reader,
      RecordReader::Create(model.weight_file(), unlimited));
  for (uint32_t layer = 0; layer < config.num_layers(); ++layer) {
    const LayerWeights& weights = model.weights().layers[layer];
    FfnRows& rows = recorder->layers_.emplace_back();
    rows.model_dim = config.model_dim;
    FLASHELM_ASSIGN_OR_RETURN(rows.up, ReadRows(model, weights.up, reader));
    FLASHELM_ASSIGN_OR_RETURN(rows.down, ReadRows(model, weights.down, reader));
    for (size_t i = 0; i < config.layers[layer].ffn_dim; ++i) {
      rows.importance.push_back(importance_factor *
                                NeuronImportance(&rows.up[i * rows.model_dim],
                                                 &rows.down[i * rows.model_dim],
                                                 rows.model_dim));
    }
  }
  return recorder;
}

void FfnErrorRecorder::OnInputs(uint32_t layer, size_t num_tokens,
                                const float* inputs, size_t stride) {
  const FfnRows& rows = layers_[layer];
  inputs_.resize(num_tokens * rows.model_dim);
  gates_.resize(num_tokens * rows.num_neurons());
  for (size_t t = 0; t < num_tokens; ++t) {
    std::copy_n(inputs + t * stride, rows.model_dim,
                &inputs_[t * rows.model_dim]);
  }
}

void FfnErrorRecorder::OnGates(uint32_t layer, uint32_t first, size_t count,
                               size_t num_tokens, const float* gates,
                               size_t stride) {
  const size_t num_neurons = layers_[layer].num_neurons();
  for (size_t t = 0; t < num_tokens; ++t) {
    std::copy_n(gates + t * stride, count, &gates_[t * num_neurons + first]);
  }
}

Status FfnErrorRecorder::EndLayer(uint32_t layer) {
  const FfnRows& rows = layers_[layer];
  std::vector<FfnError> errors(kept_fractions_.size());
  for (size_t t = 0; t < num_in_batch_; ++t) {
    MeasureFfnError(rows, activation_, &inputs_[t * rows.model_dim],
                    &gates_[t * rows.num_neurons()], kept_fractions_,
                    errors.data());
    for (size_t f = 0; f < errors.size(); ++f) errors_[f].push_back(errors[f]);
  }
  return OkStatus();
}

}  // namespace flashelm::bench
