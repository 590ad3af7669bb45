#include "core/transformer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "core/base/checked_math.h"
#include "kernels/attention.h"
#include "kernels/float_types.h"
#include "kernels/matmul.h"
#include "kernels/norm.h"
#include "kernels/rope.h"

namespace flashelm {
namespace {

// Products of a weight and an activation after which it is asked whether
// anybody still wants them: some 3 ms where two cores make 170 billion a
// second.
constexpr uint64_t kProductsPerStep = uint64_t{1} << 29;

// Parts of a layer's gates after each of which bundles are fetched, unless the
// part is smaller than this.
constexpr uint32_t kGateParts = 8;
constexpr uint64_t kMinGateBytes = uint64_t{512} << 10;

// Part `part` of the record `skip` records into a run.
WeightView ViewOf(const RecordRun& run, uint64_t skip, const PartRef& part,
                  uint64_t stride_bytes) {
  return ViewOfPart(run.data + skip * stride_bytes, part, stride_bytes);
}

}  // namespace

Transformer::Transformer(const ModelFile& model, WeightStore& store,
                         ThreadPool& pool, KvCache& cache, Scratch& scratch,
                         SparseFfn* sparse)
    : config_(model.config()),
      weights_(model.weights()),
      segments_(model.weight_file().segments()),
      store_(store),
      pool_(pool),
      cache_(cache),
      s_(scratch),
      sparse_(sparse),
      product_(pool, scratch),
      dense_(model, store, pool, scratch),
      fetched_(pool.num_threads()),
      first_(pool.num_threads()) {}

Status Transformer::Forward(std::span<const TokenId> tokens, uint32_t position,
                            std::span<const uint32_t> wanted, float* logits) {
  const size_t num_tokens = tokens.size();
  // Before the sweep's reads begin: rows are looked up one by one, and each
  // would wait behind all of them.
  if (observer_ != nullptr) observer_->BeginBatch(num_tokens);
  FLASHELM_RETURN_IF_ERROR(Embed(tokens));
  FLASHELM_RETURN_IF_ERROR(store_.BeginSweep(/*with_head=*/!wanted.empty()));
  const size_t half = config_.head_dim / 2;
  for (size_t t = 0; t < num_tokens; ++t) {
    RopeAngles(position + static_cast<uint32_t>(t), config_.rope_theta,
               config_.head_dim, s_.cos + t * half, s_.sin + t * half);
  }
  for (uint32_t layer = 0; layer < config_.num_layers(); ++layer) {
    FLASHELM_RETURN_IF_ERROR(AttentionBlock(layer, num_tokens, position));
    FLASHELM_RETURN_IF_ERROR(FfnBlock(layer, num_tokens, position));
  }
  if (!wanted.empty()) {
    FLASHELM_RETURN_IF_ERROR(OutputHead(wanted, logits));
  }
  return store_.EndSweep();
}

// x = E[token]
Status Transformer::Embed(std::span<const TokenId> tokens) {
  const size_t model_dim = config_.model_dim;
  for (size_t t = 0; t < tokens.size(); ++t) {
    FLASHELM_ASSIGN_OR_RETURN(const std::byte* record,
                              store_.FindHeadRecord(tokens[t]));
    const std::byte* row = record + weights_.embedding.offset_bytes;
    float* x = s_.x + t * model_dim;
    switch (weights_.embedding.encoding) {
      case Encoding::kF32:
        std::memcpy(x, row, model_dim * sizeof(float));
        break;
      case Encoding::kBf16:
        ConvertBf16ToF32(reinterpret_cast<const Bf16*>(row), model_dim, x);
        break;
      default: {  // Exact: 1 times each weight, added to 0.
        const RecordRun run = {0, 1, record};
        const float one = 1;
        std::fill_n(x, model_dim, 0.0f);
        AddScaledRows(ViewOf(run, 0, weights_.embedding, 0), 1, model_dim, &one,
                      0, 1, x, 0);
      }
    }
  }
  return OkStatus();
}

// run(t) for every token of a batch; each takes a row of activations.
template <class Run>
void Transformer::ForTokens(size_t num_tokens, const Run& run) {
  const uint64_t row_bytes = config_.model_dim * sizeof(float);
  const size_t grain = std::max<uint64_t>(1, kMinBytesPerThread / row_bytes);
  pool_.ParallelFor(num_tokens, grain, [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) run(t);
  });
}

// x += W_out . concat_h softmax(q_h K^T / sqrt(head_dim)) V
Status Transformer::AttentionBlock(uint32_t layer, size_t num_tokens,
                                   uint32_t position) {
  const LayerConfig& layer_config = config_.layers[layer];
  const LayerWeights& weights = weights_.layers[layer];
  const size_t model_dim = config_.model_dim;

  NormTokens(weights.attention_norm, num_tokens);
  SetNextMatrix(weights.attention_out, model_dim, num_tokens);
  FLASHELM_RETURN_IF_ERROR(MatMulAll(weights.qkv, config_.qkv_dim(layer_config),
                                     model_dim, s_.normed, model_dim,
                                     num_tokens, s_.qkv, s_.qkv_stride));
  RotateAndStoreKeys(layer, num_tokens, position);
  AttendToCache(layer, num_tokens, position);
  SetNextFfn(layer, num_tokens);
  FLASHELM_RETURN_IF_ERROR(MatMulAll(
      weights.attention_out, model_dim, config_.query_dim(layer_config),
      s_.attention, s_.attention_stride, num_tokens, s_.partial, model_dim));
  AddPartialToResidual(num_tokens);
  return OkStatus();
}

// Per head: RMSNorm over its head_dim values, then rotation to its position.
// Queries stay in the scratch; keys and values go to the cache.
void Transformer::RotateAndStoreKeys(uint32_t layer, size_t num_tokens,
                                     uint32_t position) {
  const LayerConfig& layer_config = config_.layers[layer];
  const float* query_norm = Norm(weights_.layers[layer].query_norm);
  const float* key_norm = Norm(weights_.layers[layer].key_norm);
  const size_t head_dim = config_.head_dim;
  const size_t grain =
      GrainFor(num_tokens, config_.qkv_dim(layer_config) * sizeof(float), 1,
               pool_.num_threads());
  pool_.ParallelFor(num_tokens, grain, [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      float* queries = s_.qkv + t * s_.qkv_stride;
      float* keys = queries + config_.query_dim(layer_config);
      const float* values = keys + config_.kv_dim(layer_config);
      const float* cos = s_.cos + t * (head_dim / 2);
      const float* sin = s_.sin + t * (head_dim / 2);
      for (uint32_t h = 0; h < layer_config.num_heads; ++h) {
        float* q = queries + h * head_dim;
        RmsNorm(q, query_norm, head_dim, kNormEpsilon, q);
        Rope(cos, sin, head_dim, q);
      }
      for (uint32_t h = 0; h < layer_config.num_kv_heads; ++h) {
        float* k = keys + h * head_dim;
        RmsNorm(k, key_norm, head_dim, kNormEpsilon, k);
        Rope(cos, sin, head_dim, k);
        cache_.Store(layer, h, position + static_cast<uint32_t>(t), k,
                     values + h * head_dim);
      }
    }
  });
}

// Query head h uses kv head floor(h / num_gqa_groups); a position sees itself
// and all before it. A kv head's tokens follow each other, so that its keys and
// values stay in a core's caches.
void Transformer::AttendToCache(uint32_t layer, size_t num_tokens,
                                uint32_t position) {
  const size_t head_dim = config_.head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  if (num_tokens == 1) return AttendOfOneToken(layer, position, scale);
  const size_t group_dim = config_.num_gqa_groups * head_dim;
  pool_.ParallelFor(
      config_.layers[layer].num_kv_heads * num_tokens, 1,
      [&](size_t begin, size_t end, uint32_t part) {
        float* parts = s_.attention_parts + part * s_.attention_head_floats;
        for (size_t i = begin; i < end; ++i) {
          const size_t t = i % num_tokens;
          const auto kv_head = static_cast<uint32_t>(i / num_tokens);
          Attend(s_.qkv + t * s_.qkv_stride + kv_head * group_dim,
                 config_.num_gqa_groups, cache_.type(),
                 cache_.keys(layer, kv_head), cache_.values(layer, kv_head),
                 position + t + 1, head_dim, scale, parts,
                 s_.attention + t * s_.attention_stride + kv_head * group_dim);
        }
      });
}

// The same for the token at `position`. There are fewer kv heads than would
// keep threads equally busy, so these share the segments of the past.
void Transformer::AttendOfOneToken(uint32_t layer, uint32_t position,
                                   float scale) {
  const size_t head_dim = config_.head_dim;
  const size_t num_heads = config_.num_gqa_groups;
  const size_t num_kv_heads = config_.layers[layer].num_kv_heads;
  const size_t num_positions = size_t{position} + 1;
  const size_t num_segments = NumAttentionSegments(num_positions);
  const size_t row_bytes = head_dim * ElementBytes(cache_.type());
  const uint64_t segment_bytes =
      2 * std::min(num_positions, kAttentionSegment) * row_bytes;
  const size_t grain =
      std::max<uint64_t>(1, kMinBytesPerThread / segment_bytes);
  pool_.ParallelFor(
      num_kv_heads * num_segments, grain, [&](size_t begin, size_t end) {
        for (size_t i = begin; i < end; ++i) {
          const auto kv_head = static_cast<uint32_t>(i / num_segments);
          const size_t segment = i % num_segments;
          const size_t first = segment * kAttentionSegment;
          AttendSegment(
              s_.qkv + kv_head * num_heads * head_dim, num_heads, cache_.type(),
              cache_.keys(layer, kv_head) + first * row_bytes,
              cache_.values(layer, kv_head) + first * row_bytes,
              std::min(num_positions - first, kAttentionSegment), head_dim,
              scale,
              s_.attention_parts + kv_head * s_.attention_head_floats +
                  segment * s_.attention_part_floats);
        }
      });
  for (size_t kv_head = 0; kv_head < num_kv_heads; ++kv_head) {
    MergeSegments(num_heads, head_dim, num_segments,
                  s_.attention_parts + kv_head * s_.attention_head_floats,
                  s_.attention + kv_head * num_heads * head_dim);
  }
}

// x += sum over neurons i of act(g_i . b) (u_i . b) d_i, with b = RMSNorm(x).
Status Transformer::FfnBlock(uint32_t layer, size_t num_tokens,
                             uint32_t position) {
  NormTokens(weights_.layers[layer].ffn_norm, num_tokens);
  if (sparse_ == nullptr) return DenseFfnBlock(layer, num_tokens);
  Status status = SparseFfnBlock(layer, num_tokens, position);
  if (!status.ok()) store_.Abort(status.code());
  return status;
}

Status Transformer::DenseFfnBlock(uint32_t layer, size_t num_tokens) {
  const LayerWeights& weights = weights_.layers[layer];
  const uint32_t ffn_dim = config_.layers[layer].ffn_dim;
  const size_t model_dim = config_.model_dim;
  if (weights.has_split_gate()) {
    SetNext();
    FLASHELM_RETURN_IF_ERROR(MatMulAll(weights.gate, ffn_dim, model_dim,
                                       s_.normed, model_dim, num_tokens,
                                       s_.gates, s_.gates_stride));
  }
  if (weights.has_split_down()) {
    FLASHELM_RETURN_IF_ERROR(MatMulAll(weights.up, ffn_dim, model_dim,
                                       s_.normed, model_dim, num_tokens, s_.ups,
                                       s_.gates_stride));
  }
  SetNeuronTokens(weights, num_tokens);
  if (observer_ != nullptr) {
    observer_->OnInputs(layer, num_tokens, s_.normed, model_dim);
  }
  if (observer_ != nullptr || !dense_.FetchesNext(layer)) {
    SetNext();
  } else if (layer + 1 < config_.num_layers()) {
    SetNextMatrix(weights_.layers[layer + 1].qkv,
                  config_.qkv_dim(config_.layers[layer + 1]), num_tokens);
  } else {
    SetNextMatrix(weights_.embedding, config_.vocab_size, num_tokens);
  }
  FLASHELM_RETURN_IF_ERROR(dense_.Add(layer, product_, observer_, first_));
  if (observer_ == nullptr) return OkStatus();
  Status status = observer_->EndLayer(layer);
  if (!status.ok()) store_.Abort(status.code());
  return status;
}

// The same with some of the neurons. Bundles are read while more gates are
// computed.
Status Transformer::SparseFfnBlock(uint32_t layer, size_t num_tokens,
                                   uint32_t position) {
  const LayerWeights& weights = weights_.layers[layer];
  const uint32_t ffn_dim = config_.layers[layer].ffn_dim;
  const size_t model_dim = config_.model_dim;
  SetNext();
  FLASHELM_RETURN_IF_ERROR(sparse_->Begin(layer, position, num_tokens));
  if (weights.has_split_gate()) {
    const uint64_t stride = segments_[weights.gate.segment].stride_bytes;
    FLASHELM_RETURN_IF_ERROR(
        MatMulRuns(weights.gate, ffn_dim, model_dim, s_.normed, model_dim,
                   num_tokens, s_.gates, s_.gates_stride,
                   std::max<uint64_t>(CeilDiv(kMinGateBytes, stride),
                                      CeilDiv(ffn_dim, kGateParts)),
                   [&](uint64_t first, uint64_t count) {
                     return sparse_->AddGates(first, count, s_);
                   }));
  }
  SetNeuronTokens(weights, num_tokens);
  return sparse_->Finish(product_, s_);
}

// For the rows of neurons: ups, and gates that do not lie apart.
void Transformer::SetNeuronTokens(const LayerWeights& weights,
                                  size_t num_tokens) {
  const size_t model_dim = config_.model_dim;
  const auto set = [&](std::initializer_list<WeightType> types) {
    product_.SetTokens(types, s_.normed, model_dim, model_dim, num_tokens);
  };
  const WeightType up = WeightTypeOf(weights.up.encoding);
  if (weights.has_split_gate()) {
    set({up});
  } else {
    set({WeightTypeOf(weights.gate.encoding), up});
  }
}

// normed = RMSNorm(x)
void Transformer::NormTokens(const PartRef& weights, size_t num_tokens) {
  const float* norm = Norm(weights);
  ForTokens(num_tokens, [&](size_t t) {
    RmsNorm(s_.x + t * config_.model_dim, norm, config_.model_dim, kNormEpsilon,
            s_.normed + t * config_.model_dim);
  });
}

void Transformer::AddPartialToResidual(size_t num_tokens) {
  ForTokens(num_tokens, [&](size_t t) {
    AddInPlace(s_.partial + t * config_.model_dim, config_.model_dim,
               s_.x + t * config_.model_dim);
  });
}

// logits = E . RMSNorm(x), for the wanted tokens.
Status Transformer::OutputHead(std::span<const uint32_t> wanted,
                               float* logits) {
  const size_t model_dim = config_.model_dim;
  const float* norm = Norm(weights_.final_norm);
  for (size_t i = 0; i < wanted.size(); ++i) {
    RmsNorm(s_.x + wanted[i] * model_dim, norm, model_dim, kNormEpsilon,
            s_.normed + i * model_dim);
  }
  // Of the next token.
  SetNextMatrix(weights_.layers[0].qkv, config_.qkv_dim(config_.layers[0]),
                wanted.size());
  return MatMulAll(weights_.embedding, config_.vocab_size, model_dim, s_.normed,
                   model_dim, wanted.size(), logits, config_.vocab_size);
}

Status Transformer::MatMulAll(const PartRef& matrix, uint64_t num_rows,
                              uint64_t num_cols, const float* x,
                              uint64_t x_stride, size_t num_tokens, float* out,
                              uint64_t out_stride) {
  return MatMulRuns(matrix, num_rows, num_cols, x, x_stride, num_tokens, out,
                    out_stride, num_rows,
                    [](uint64_t, uint64_t) { return OkStatus(); });
}

template <class Done>
Status Transformer::MatMulRuns(const PartRef& matrix, uint64_t num_rows,
                               uint64_t num_cols, const float* x,
                               uint64_t x_stride, size_t num_tokens, float* out,
                               uint64_t out_stride, uint64_t max_rows,
                               const Done& done) {
  const uint64_t stride = segments_[matrix.segment].stride_bytes;
  product_.SetTokens({WeightTypeOf(matrix.encoding)}, x, x_stride, num_cols,
                     num_tokens);
  const uint64_t step =
      RoundUp(CeilDiv(kProductsPerStep, num_cols * num_tokens), kMinGrain);
  for (uint64_t row = 0; row < num_rows;) {
    FLASHELM_ASSIGN_OR_RETURN(const RecordRun run,
                              store_.Next(matrix.segment, row));
    for (uint64_t first = 0; first < run.num_records;) {
      const uint64_t last = first + std::min(max_rows, run.num_records - first);
      const uint64_t done_from = first;
      while (first < last) {
        FLASHELM_RETURN_IF_ERROR(store_.CheckCancelled());
        const uint64_t count = std::min(step, last - first);
        const bool is_last = row + first + count == num_rows;
        pool_.ParallelFor(
            count,
            GrainFor(count, stride, num_tokens, pool_.num_threads(),
                     MinGrain(num_tokens)),
            [&](size_t begin, size_t end, uint32_t part) {
              const WeightView rows =
                  ViewOf(run, first + begin, matrix, stride);
              float* to = out + row + first + begin;
              std::span<const std::byte> next;
              if (is_last) next = first_[part];
              const bool is_fetched =
                  fetched_[part].data() == rows.data - matrix.offset_bytes;
              if (num_tokens == 1 && (is_fetched || !next.empty())) {
                product_.RowsOfOneToken(rows, end - begin, part, to, is_fetched,
                                        next);
              } else {
                product_.Rows(rows, end - begin, part, to, out_stride);
              }
            });
        first += count;
      }
      FLASHELM_RETURN_IF_ERROR(done(row + done_from, last - done_from));
    }
    row += run.num_records;
  }
  return OkStatus();
}

void Transformer::SetNext() {
  std::swap(fetched_, first_);
  std::fill(first_.begin(), first_.end(), std::span<const std::byte>());
}

void Transformer::SetNextMatrix(const PartRef& matrix, uint64_t num_rows,
                                size_t num_tokens) {
  SetNext();
  const auto run = store_.FindResident(matrix.segment);
  if (num_tokens > 1 || !run) return;
  const uint64_t stride = segments_[matrix.segment].stride_bytes;
  const size_t grain = GrainFor(num_rows, stride, num_tokens,
                                pool_.num_threads(), MinGrain(num_tokens));
  for (uint32_t part = 0; part < first_.size(); ++part) {
    const uint64_t begin = pool_.PartBegin(num_rows, grain, part);
    first_[part] = {
        run->data + begin * stride,
        std::min<uint64_t>((num_rows - begin) * stride, kFirstBytes)};
  }
}

void Transformer::SetNextFfn(uint32_t layer, size_t num_tokens) {
  SetNext();
  if (num_tokens == 1 && sparse_ == nullptr) dense_.FindFirst(layer, first_);
}

const float* Transformer::Norm(const PartRef& part) const {
  return reinterpret_cast<const float*>(store_.ResidentRecord(part.segment, 0) +
                                        part.offset_bytes);
}

}  // namespace flashelm
