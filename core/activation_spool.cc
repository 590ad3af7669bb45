#include "core/activation_spool.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <utility>

#include "core/base/checked_math.h"
#include "core/base/types.h"
#include "kernels/float_types.h"
#include "predictor/gate_selector.h"

namespace flashelm {
namespace {

constexpr uint64_t kReadBytes = uint64_t{256} << 10;

uint64_t InputBytes(const ModelConfig& config) {
  return uint64_t{config.model_dim} * sizeof(Bf16);
}

// Input and bits of a sample, in whole words.
uint64_t RecordBytes(const ModelConfig& config, uint32_t layer) {
  return RoundUp(InputBytes(config) + CeilDiv(config.layers[layer].ffn_dim, 8),
                 8);
}

uint32_t MaxFfnDim(const ModelConfig& config) {
  uint32_t most = 0;
  for (const LayerConfig& layer : config.layers) {
    most = std::max(most, layer.ffn_dim);
  }
  return most;
}

uint64_t MaxRecordBytes(const ModelConfig& config) {
  return RoundUp(InputBytes(config) + CeilDiv(MaxFfnDim(config), 8), 8);
}

// Numbers without a pattern (splitmix64).
uint64_t Mix(uint64_t value) {
  value += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

}  // namespace

uint32_t ActivationSpool::NumSamples(const SpoolOptions& options) {
  return static_cast<uint32_t>(
      std::min<uint64_t>(options.num_tokens, options.max_samples));
}

uint64_t ActivationSpool::MaxBatchSamples(const SpoolOptions& options) {
  const uint64_t num_samples = std::max(1u, NumSamples(options));
  const uint64_t least_distance =
      std::max<uint64_t>(1, options.num_tokens / num_samples);
  return std::min<uint64_t>(options.max_batch,
                            options.max_batch / least_distance + 2);
}

uint64_t ActivationSpool::NumBytes(const ModelConfig& config,
                                   const SpoolOptions& options) {
  const uint64_t samples = MaxBatchSamples(options);
  uint64_t floats = (samples + 3) * MaxFfnDim(config);
  for (const auto& layer : options.importance) floats += layer.size();
  return RoundUp(floats * sizeof(float) +
                     samples * (MaxRecordBytes(config) + sizeof(uint32_t)),
                 kIoAlignment);
}

uint64_t ActivationSpool::FileBytes(const ModelConfig& config,
                                    const SpoolOptions& options) {
  uint64_t total = 0;
  for (uint32_t i = 0; i < config.num_layers(); ++i) {
    total += NumSamples(options) * RecordBytes(config, i);
  }
  return total;
}

uint32_t ActivationSpool::TrainingSamples(const ModelConfig& config) {
  constexpr uint64_t kMost = 16384;
  constexpr uint64_t kFileBytes = uint64_t{1} << 30;
  const uint64_t least = SpoolOptions().max_samples;
  SpoolOptions one;
  one.num_tokens = one.max_samples = 1;
  return static_cast<uint32_t>(
      std::clamp(kFileBytes / FileBytes(config, one), least, kMost));
}

ActivationSpool::ActivationSpool(const ModelConfig& config,
                                 SpoolOptions options, ScratchFile file)
    : config_(config),
      options_(std::move(options)),
      num_samples_(NumSamples(options_)),
      file_(std::move(file)) {
  uint64_t offset = 0;
  for (uint32_t i = 0; i < config_.num_layers(); ++i) {
    offset_bytes_.push_back(offset);
    offset += num_samples_ * RecordBytes(config_, i);
  }
}

Result<std::unique_ptr<ActivationSpool>> ActivationSpool::Create(
    const ModelConfig& config, SpoolOptions options, MemoryBudget& budget) {
  if (NumSamples(options) == 0 || options.max_batch == 0) {
    return InvalidArgument("keeping ", options.max_samples, " samples of ",
                           options.num_tokens, " tokens, in batches of ",
                           options.max_batch, ": expected at least one");
  }
  FLASHELM_ASSIGN_OR_RETURN(
      ScratchFile file,
      ScratchFile::Create(options.beside, FileBytes(config, options)));
  std::unique_ptr<ActivationSpool> spool(
      new ActivationSpool(config, std::move(options), std::move(file)));
  FLASHELM_ASSIGN_OR_RETURN(
      spool->buffer_, AlignedBuffer::Create(NumBytes(config, spool->options_),
                                            budget, "samples of a batch"));
  const uint64_t samples = MaxBatchSamples(spool->options_);
  spool->records_ = spool->buffer_.data();
  spool->gates_ = reinterpret_cast<float*>(spool->records_ +
                                           samples * MaxRecordBytes(config));
  spool->scratch_ = spool->gates_ + samples * MaxFfnDim(config);
  spool->batch_tokens_.reserve(samples);
  return spool;
}

uint64_t ActivationSpool::TokenOf(uint32_t sample) const {
  // One of every stretch of the text, anywhere in there: an even step might
  // meet the same place of every window.
  const uint64_t begin = sample * options_.num_tokens / num_samples_;
  const uint64_t end =
      (uint64_t{sample} + 1) * options_.num_tokens / num_samples_;
  return begin + Mix(sample) % (end - begin);
}

void ActivationSpool::BeginBatch(size_t num_tokens) {
  first_token_ += num_in_batch_;
  first_sample_ += static_cast<uint32_t>(batch_tokens_.size());
  num_in_batch_ = num_tokens;
  batch_tokens_.clear();
  for (uint32_t i = first_sample_; i < num_samples_; ++i) {
    const uint64_t token = TokenOf(i) - first_token_;
    if (token >= num_tokens) break;
    batch_tokens_.push_back(static_cast<uint32_t>(token));
  }
  assert(batch_tokens_.size() <= MaxBatchSamples(options_));
}

void ActivationSpool::OnInputs(uint32_t layer, size_t /*num_tokens*/,
                               const float* inputs, size_t stride) {
  std::byte* record = records_;
  for (const uint32_t token : batch_tokens_) {
    ConvertF32ToBf16(inputs + token * stride, config_.model_dim,
                     reinterpret_cast<Bf16*>(record));
    record += RecordBytes(config_, layer);
  }
}

void ActivationSpool::OnGates(uint32_t layer, uint32_t first, size_t count,
                              size_t /*num_tokens*/, const float* gates,
                              size_t stride) {
  const size_t ffn_dim = config_.layers[layer].ffn_dim;
  for (size_t i = 0; i < batch_tokens_.size(); ++i) {
    std::copy_n(gates + batch_tokens_[i] * stride, count,
                gates_ + i * ffn_dim + first);
  }
}

void ActivationSpool::FindActive(uint32_t layer, const float* gates,
                                 std::byte* bits) {
  const uint32_t ffn_dim = config_.layers[layer].ffn_dim;
  auto* active = reinterpret_cast<uint32_t*>(scratch_ + 2 * size_t{ffn_dim});
  size_t num_active = 0;
  if (options_.kept_fraction > 0) {
    const auto num_kept = static_cast<size_t>(
        std::ceil(options_.kept_fraction * static_cast<double>(ffn_dim)));
    num_active =
        SelectTop(gates, options_.importance[layer].data(), Activation::kSilu,
                  ffn_dim, num_kept, scratch_, active, nullptr);
  } else {
    num_active = SelectPositive(gates, ffn_dim, active);
  }
  for (size_t i = 0; i < num_active; ++i) {
    bits[active[i] / 8] |= std::byte{1} << (active[i] % 8);
  }
}

Status ActivationSpool::EndLayer(uint32_t layer) {
  if (batch_tokens_.empty()) return OkStatus();
  const uint64_t record_bytes = RecordBytes(config_, layer);
  const uint64_t input_bytes = InputBytes(config_);
  for (size_t i = 0; i < batch_tokens_.size(); ++i) {
    std::byte* bits = records_ + i * record_bytes + input_bytes;
    std::fill_n(bits, record_bytes - input_bytes, std::byte{0});
    FindActive(layer, gates_ + i * config_.layers[layer].ffn_dim, bits);
  }
  return file_.WriteAt(offset_bytes_[layer] + first_sample_ * record_bytes,
                       {records_, batch_tokens_.size() * record_bytes});
}

Status ActivationSpool::Finish() {
  const uint64_t found = first_sample_ + batch_tokens_.size();
  if (found != num_samples_) {
    return Internal("a text gave ", found, " samples, expected ", num_samples_);
  }
  buffer_ = AlignedBuffer();
  return OkStatus();
}

Status ActivationSpool::Read(uint32_t layer, uint32_t first, uint32_t count,
                             float* x, uint8_t* labels) const {
  const uint64_t record_bytes = RecordBytes(config_, layer);
  const uint64_t input_bytes = InputBytes(config_);
  const uint32_t ffn_dim = config_.layers[layer].ffn_dim;
  const uint64_t step =
      std::clamp<uint64_t>(kReadBytes / record_bytes, 1, std::max(1u, count));
  std::vector<std::byte> records(step * record_bytes);
  for (uint64_t begin = 0; begin < count; begin += step) {
    const uint64_t num_read = std::min<uint64_t>(step, count - begin);
    FLASHELM_RETURN_IF_ERROR(
        file_.ReadAt(offset_bytes_[layer] + (first + begin) * record_bytes,
                     std::span(records).first(num_read * record_bytes)));
    for (uint64_t i = 0; i < num_read; ++i) {
      const std::byte* record = records.data() + i * record_bytes;
      ConvertBf16ToF32(reinterpret_cast<const Bf16*>(record), config_.model_dim,
                       x + (begin + i) * config_.model_dim);
      const std::byte* bits = record + input_bytes;
      uint8_t* out = labels + (begin + i) * ffn_dim;
      for (uint32_t n = 0; n < ffn_dim; ++n) {
        out[n] = static_cast<uint8_t>((bits[n / 8] >> (n % 8)) & std::byte{1});
      }
    }
  }
  return OkStatus();
}

}  // namespace flashelm
