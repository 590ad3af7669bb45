#include "kernels/packed_matmul.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/packed_matmul.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu.h"
#include "kernels/dot-inl.h"

HWY_BEFORE_NAMESPACE();
namespace flashelm::HWY_NAMESPACE {

// Rows and tokens of a tile: their sums and operands fill the 32 registers of
// AVX3 and NEON, or the 16 of the others. The fewer loads for each product the
// better: with 7 for 12 a core of the Zen 4 kind makes 51 GMAC/s of 58, with 10
// for 24 it makes 55.
#if HWY_TARGET <= HWY_AVX3 || HWY_TARGET == HWY_NEON
constexpr size_t kTileRows = 4;
constexpr size_t kTileTokens = 6;
#else
constexpr size_t kTileRows = 2;
constexpr size_t kTileTokens = 4;
#endif

// Tokens of the tile that comes next, of so many that are left. Two tiles of 4
// are faster than one of 6 and two of 1.
constexpr size_t NextTile(size_t num_tokens) {
  const bool are_twice_4 = num_tokens == 8 || num_tokens == 9;
  if (num_tokens >= kTileTokens && !are_twice_4) return kTileTokens;
  return num_tokens >= 4 ? 4 : 1;
}

// Packed tokens are tiles, a tile is chunks of its columns, a chunk is
// kNumVectors planes, and a plane has a vector of every token for each 32
// columns: of f32, plane p has their vector p; of bf16, where two elements are
// loaded as one of 32 bits, planes p and p + 1, p even, have the even and the
// odd columns of vectors p and p + 1. So a tile reads a plane from one end to
// the other, and of a chunk nothing is driven from the nearest cache by another
// token's columns, which lie 4 KiB apart in most models.
//
// A chunk and what is multiplied with it stay in the nearest cache: of 6
// tokens, 4 rows of bf16 and their sums 35 KiB with 1,024 columns, 27 KiB with
// 768, which are 2 % slower. Of f32 it is a few KiB more.
size_t ChunkCols(size_t num_cols, size_t num_tokens) {
  // Few tokens wait for DRAM, where a tile's rows are fetched while the one
  // before is multiplied: whole rows give it the time.
  constexpr size_t kFewTokens = 8;
  if (num_tokens <= kFewTokens) return num_cols;
  static const size_t chunk_cols =
      NearestCacheBytes() >= size_t{48} << 10 ? 1024 : 768;
  return std::min(chunk_cols, num_cols);
}

// Whether a plane has the even or the odd columns of two vectors.
template <class W>
constexpr bool kHasPairs = std::is_same_v<W, Bf16>;

// Tokens [first, last) of a tile.
template <class W>
HWY_INLINE void PackTile(const float* HWY_RESTRICT x, size_t x_stride,
                         size_t num_cols, size_t chunk_cols, size_t first,
                         size_t last, size_t tile_tokens,
                         float* HWY_RESTRICT out) {
  const VectorTag d;
  for (size_t begin = 0; begin < num_cols; begin += chunk_cols) {
    const size_t cols = std::min(chunk_cols, num_cols - begin);
    const size_t plane_floats = cols / kNumVectors * tile_tokens;
    for (size_t t = first; t < last; ++t) {
      const float* from = x + t * x_stride + begin;
      float* to = out + begin * tile_tokens + t * kLanes;
      for (size_t k = 0; k < cols; k += kNumPartials) {
        HWY_UNROLL(1)
        for (size_t p = 0; p < kNumVectors; p += 2) {
          const float* at = from + k + p * kLanes;
          Vector low;
          Vector high;
          if constexpr (kHasPairs<W>) {
            hn::LoadInterleaved2(d, at, low, high);
          } else {
            low = hn::LoadU(d, at);
            high = hn::LoadU(d, at + kLanes);
          }
          hn::Store(low, d, to + p * plane_floats);
          hn::Store(high, d, to + (p + 1) * plane_floats);
        }
        to += tile_tokens * kLanes;
      }
    }
  }
}

template <class W>
HWY_NOINLINE void PackTokensOf(const float* x, size_t x_stride, size_t num_cols,
                               size_t first, size_t last, size_t num_tokens,
                               float* out) {
  const size_t chunk_cols = ChunkCols(num_cols, num_tokens);
  for (size_t t = 0; t < last;) {
    const size_t tile_tokens = NextTile(num_tokens - t);
    if (t + tile_tokens > first) {
      PackTile<W>(x + t * x_stride, x_stride, num_cols, chunk_cols,
                  std::max(first, t) - t, std::min(last - t, tile_tokens),
                  tile_tokens, out + t * num_cols);
    }
    t += tile_tokens;
  }
}

void PackTokens(WeightType type, const float* x, size_t x_stride,
                size_t num_cols, size_t first, size_t last, size_t num_tokens,
                float* out) {
  if (type == WeightType::kBf16) {
    PackTokensOf<Bf16>(x, x_stride, num_cols, first, last, num_tokens, out);
  } else {
    PackTokensOf<float>(x, x_stride, num_cols, first, last, num_tokens, out);
  }
}

// A row's vector of a plane, from where its vector or two of 32 columns begin.
template <class W, bool kIsOdd>
HWY_INLINE Vector LoadForPlane(const std::byte* at) {
  const VectorTag d;
  if constexpr (kHasPairs<W>) {
    // Half the work of making floats of the elements as they lie: no widening,
    // and the odd ones have their place already.
    const hn::RebindToUnsigned<VectorTag> d32;
#if HWY_TARGET == HWY_SCALAR
    uint32_t pair;
    std::memcpy(&pair, at, sizeof(pair));
    const auto pairs = hn::Set(d32, pair);
#else
    const hn::Repartition<uint8_t, VectorTag> d8;
    const auto pairs =
        hn::BitCast(d32, hn::LoadU(d8, reinterpret_cast<const uint8_t*>(at)));
#endif
    return hn::BitCast(d, kIsOdd ? hn::And(pairs, hn::Set(d32, 0xFFFF0000u))
                                 : hn::ShiftLeft<16>(pairs));
  } else {
    return LoadElements<W>(d, at);
  }
}

// Fetches the rows that are multiplied after those of a panel, evenly while it
// is: at once they would take three times as long as their products with the
// first tile of tokens.
class PanelFetcher {
 public:
  // Rows of `row_bytes`; calls of Advance() add up to `work` or a little more.
  PanelFetcher(const std::byte* rows, size_t stride_bytes, size_t row_bytes,
               size_t num_rows, size_t work)
      : row_(rows),
        stride_bytes_(stride_bytes),
        row_bytes_(row_bytes),
        rows_left_(num_rows),
        rate_(CeilDiv(num_rows * CeilDiv(row_bytes, kCacheLine) * kRateUnit,
                      work)) {}

  HWY_INLINE void Advance(size_t work) {
    due_ += work * rate_;
    for (; due_ >= kRateUnit && rows_left_ > 0; due_ -= kRateUnit) {
      FetchLine(row_ + offset_);
      offset_ += kCacheLine;
      if (offset_ < row_bytes_) continue;
      offset_ = 0;
      row_ += stride_bytes_;
      --rows_left_;
    }
  }

 private:
  static constexpr uint64_t CeilDiv(uint64_t a, uint64_t b) {
    return (a + b - 1) / b;
  }
  // Fine enough for a line to be fetched once in a million products.
  static constexpr uint64_t kRateUnit = uint64_t{1} << 20;

  const std::byte* row_;
  size_t stride_bytes_;
  size_t row_bytes_;
  size_t rows_left_;
  uint64_t rate_;  // Lines per unit of work, times kRateUnit.
  uint64_t due_ = 0;
  size_t offset_ = 0;
};

// The partial sums of one product, in the order of planes.
using Partials = float[kNumPartials];

// The rows of a matrix, `stride_bytes` apart or, unless it is null, at `at`.
struct Rows {
  const std::byte* data;
  size_t stride_bytes;
  const std::byte* const* at;

  HWY_INLINE const std::byte* operator[](size_t r) const {
    return at != nullptr ? at[r] : data + r * stride_bytes;
  }
};

// Those of a tile, at the first column of a chunk.
struct TileRows {
  const std::byte* at[kTileRows];
};

// Rows from `first` on, as far as there are any before `end`, and the last one
// in place of others.
HWY_NOINLINE TileRows TileOf(const Rows& rows, size_t first, size_t end,
                             size_t offset_bytes) {
  TileRows tile;
  for (size_t i = 0; i < kTileRows; ++i) {
    tile.at[i] = rows[std::min(first + i, end - 1)] + offset_bytes;
  }
  return tile;
}

// Adds the products of plane p of a tile's rows and kTokens tokens to their
// partial sums, or begins with these. Only one vector of the partial sums of
// each product is in registers at a time, so that more products share a load.
//   num_cols  of the chunk
//   tokens    [num_cols / 32][kTokens][kLanes], the plane
//   partials  [kTileRows][kTokens]
//   fetched   rows that are fetched meanwhile, unless it is null
template <class W, bool kIsOdd, size_t kTokens>
HWY_INLINE void MultiplyPlane(size_t p, const TileRows& rows, size_t num_cols,
                              const float* HWY_RESTRICT tokens, bool is_first,
                              const TileRows* fetched,
                              Partials* HWY_RESTRICT partials) {
  const VectorTag d;
  const size_t first_lane = p * kLanes;
  const size_t first_byte = (p - kIsOdd) * kLanes * sizeof(W);
  Vector sums[kTileRows][kTokens];
  HWY_UNROLL(4)
  for (size_t r = 0; r < kTileRows; ++r) {
    HWY_UNROLL(6)
    for (size_t t = 0; t < kTokens; ++t) {
      sums[r][t] = is_first
                       ? hn::Zero(d)
                       : hn::Load(d, partials[r * kTokens + t] + first_lane);
    }
  }
  HWY_UNROLL(2)
  for (size_t k = 0; k < num_cols; k += kNumPartials) {
    const size_t offset = k * sizeof(W);
    if (fetched != nullptr) {
      HWY_UNROLL(4)
      for (size_t r = 0; r < kTileRows; ++r) {
        for (size_t b = 0; b < kNumPartials * sizeof(W); b += kCacheLine) {
          FetchLine(fetched->at[r] + offset + b);
        }
      }
    }
    Vector weights[kTileRows];
    HWY_UNROLL(4)
    for (size_t r = 0; r < kTileRows; ++r) {
      weights[r] = LoadForPlane<W, kIsOdd>(rows.at[r] + offset + first_byte);
    }
    HWY_UNROLL(6)
    for (size_t t = 0; t < kTokens; ++t) {
      const Vector xs = hn::Load(d, tokens + t * kLanes);
      HWY_UNROLL(4)
      for (size_t r = 0; r < kTileRows; ++r) {
        sums[r][t] = hn::MulAdd(weights[r], xs, sums[r][t]);
      }
    }
    tokens += kTokens * kLanes;
  }
  HWY_UNROLL(4)
  for (size_t r = 0; r < kTileRows; ++r) {
    HWY_UNROLL(6)
    for (size_t t = 0; t < kTokens; ++t) {
      hn::Store(sums[r][t], d, partials[r * kTokens + t] + first_lane);
    }
  }
}

// All planes of a chunk.
template <class W, size_t kTokens>
HWY_INLINE void MultiplyTile(const TileRows& rows, size_t num_cols,
                             const float* tokens, bool is_first,
                             const TileRows* fetched, PanelFetcher& next,
                             Partials* partials) {
  const size_t plane_floats = num_cols / kNumVectors * kTokens;
  const auto multiply = [&](auto is_odd, size_t p) HWY_ATTR {
    next.Advance(kTileRows * plane_floats);
    MultiplyPlane<W, is_odd(), kTokens>(p, rows, num_cols,
                                        tokens + p * plane_floats, is_first,
                                        p == 0 ? fetched : nullptr, partials);
  };
  HWY_UNROLL(1)
  for (size_t p = 0; p < kNumVectors; p += kHasPairs<W> ? 2 : 1) {
    multiply(std::false_type(), p);
    if constexpr (kHasPairs<W>) multiply(std::true_type(), p + 1);
  }
}

// The tree's last step adds the odd columns to the even ones. Where planes have
// these, all steps before it are taken for each of the two.
template <class W>
constexpr size_t kNumTrees = kHasPairs<W> ? 2 : 1;

// The steps of a tree that add up whole vectors.
template <class W>
HWY_INLINE Vector AddPlanes(const Partials& partials, size_t tree) {
  constexpr size_t kVectors = kNumVectors / kNumTrees<W>;
  Vector sums[kVectors];
  HWY_UNROLL(32)
  for (size_t i = 0; i < kVectors; ++i) {
    sums[i] =
        hn::Load(VectorTag(), partials + (i * kNumTrees<W> + tree) * kLanes);
  }
  return AddVectors(sums);
}

template <class W>
HWY_INLINE float Reduce(const Partials& partials) {
  const VectorTag d;
  float sum = ReduceLanes(d, AddPlanes<W>(partials, 0));
  if constexpr (kNumTrees<W> == 2) {
    sum += ReduceLanes(d, AddPlanes<W>(partials, 1));
  }
  return sum;
}

// One step of ReduceLanes() for two vectors at once: lanes whose number has the
// bit kHalf are sums of b's, others of a's.
template <size_t kHalf>
HWY_INLINE Vector AddHalves(Vector a, Vector b) {
  const VectorTag d;
#if HWY_TARGET == HWY_SCALAR
  return hn::Add(a, b);
#else
  if constexpr (kHalf == 8) {
    return hn::Add(hn::ConcatLowerLower(d, b, a),
                   hn::ConcatUpperUpper(d, b, a));
  } else if constexpr (kHalf == 4) {
    return hn::Add(hn::OddEvenBlocks(hn::SwapAdjacentBlocks(b), a),
                   hn::OddEvenBlocks(b, hn::SwapAdjacentBlocks(a)));
  } else if constexpr (kHalf == 2) {
    const hn::Repartition<uint64_t, VectorTag> d64;
    const auto a64 = hn::BitCast(d64, a);
    const auto b64 = hn::BitCast(d64, b);
    return hn::Add(hn::BitCast(d, hn::InterleaveLower(d64, a64, b64)),
                   hn::BitCast(d, hn::InterleaveUpper(d64, a64, b64)));
  } else {
    return hn::Add(hn::OddEven(hn::Shuffle2301(b), a),
                   hn::OddEven(b, hn::Shuffle2301(a)));
  }
#endif
}

// Lane n of the result is what ReduceLanes() makes of vector n.
template <size_t kHalf = kLanes / 2>
HWY_INLINE Vector ReduceEach(Vector (&vectors)[kLanes]) {
  if constexpr (kHalf == 0) {
    return vectors[0];
  } else {
    HWY_UNROLL(8)
    for (size_t n = 0; n < kHalf; ++n) {
      vectors[n] = AddHalves<kHalf>(vectors[n], vectors[n + kHalf]);
    }
    return ReduceEach<kHalf / 2>(vectors);
  }
}

// Reduce() of kLanes products that are `step` apart: one by one they would take
// a twentieth of the time.
template <class W>
HWY_INLINE Vector ReduceVector(const Partials* partials, size_t step) {
  Vector results[kNumTrees<W>];
  HWY_UNROLL(2)
  for (size_t tree = 0; tree < kNumTrees<W>; ++tree) {
    Vector sums[kLanes];
    HWY_UNROLL(16)
    for (size_t n = 0; n < kLanes; ++n) {
      sums[n] = AddPlanes<W>(partials[n * step], tree);
    }
    results[tree] = ReduceEach(sums);
  }
  if constexpr (kNumTrees<W> == 2) results[0] = hn::Add(results[0], results[1]);
  return results[0];
}

// out[t * out_stride + r] = the sum of the partial sums [num_rows][num_tokens].
template <class W>
HWY_NOINLINE void ReduceBlock(const Partials* partials, size_t num_rows,
                              size_t num_tokens, float* out,
                              size_t out_stride) {
  for (size_t t = 0; t < num_tokens; ++t) {
    float* to = out + t * out_stride;
    size_t r = 0;
    for (; num_rows - r >= kLanes; r += kLanes) {
      hn::StoreU(ReduceVector<W>(partials + r * num_tokens + t, num_tokens),
                 VectorTag(), to + r);
    }
    for (; r < num_rows; ++r) to[r] = Reduce<W>(partials[r * num_tokens + t]);
  }
}

// Rows whose partial sums are kept while chunks are multiplied: 24 KiB.
constexpr size_t kBlockRows = 32;
static_assert(kBlockRows % kTileRows == 0);

// Rows [first, first + num_rows) of those before `end`. `fetch`: each tile's
// rows while the one before is multiplied.
template <class W, size_t kTokens>
HWY_NOINLINE void MultiplyBlock(const Rows& rows, size_t first, size_t num_rows,
                                size_t end, size_t num_cols, size_t chunk_cols,
                                const float* tokens, bool fetch,
                                PanelFetcher& next, float* out,
                                size_t out_stride) {
  PanelFetcher fetcher = next;  // In registers.
  alignas(kCacheLine) Partials partials[kBlockRows * kTokens];
  for (size_t begin = 0; begin < num_cols; begin += chunk_cols) {
    const size_t cols = std::min(chunk_cols, num_cols - begin);
    const size_t offset = begin * sizeof(W);
    for (size_t r = 0; r < num_rows; r += kTileRows) {
      const size_t after = first + r + kTileRows;
      const bool fetch_now = fetch && after < end;
      TileRows fetched;
      if (fetch_now) fetched = TileOf(rows, after, end, offset);
      MultiplyTile<W, kTokens>(
          TileOf(rows, first + r, first + num_rows, offset), cols,
          tokens + begin * kTokens, begin == 0, fetch_now ? &fetched : nullptr,
          fetcher, partials + r * kTokens);
    }
  }
  next = fetcher;
  ReduceBlock<W>(partials, num_rows, kTokens, out, out_stride);
}

// Weights that stay in the second-level cache while all tokens of a batch are
// multiplied with them; where it has a MiB, beside those that are fetched
// meanwhile.
constexpr size_t kPanelBytes = size_t{384} << 10;
constexpr size_t kTwoPanelsCacheBytes = size_t{1} << 20;
// Tokens that are multiplied with a panel for as long as the next one takes to
// come from DRAM while nobody waits for it.
constexpr size_t kManyTokens = 32;

bool FetchesPanels(size_t num_tokens) {
  static const bool has_room = SecondCacheBytes() >= kTwoPanelsCacheBytes;
  return has_room && num_tokens >= kManyTokens;
}

size_t PanelRows(size_t row_bytes) {
  const size_t rows = kPanelBytes / row_bytes;
  const size_t unit = rows < kBlockRows ? kTileRows : kBlockRows;
  return std::max(rows / unit * unit, kTileRows);
}

using MultiplyBlockFunction = decltype(&MultiplyBlock<float, 1>);

template <class W>
MultiplyBlockFunction MultiplyBlockOf(size_t tile_tokens) {
  if (tile_tokens == kTileTokens) return &MultiplyBlock<W, kTileTokens>;
  return tile_tokens == 4 ? &MultiplyBlock<W, 4> : &MultiplyBlock<W, 1>;
}

void MultiplyPanels(const Rows& rows, WeightType type, size_t num_rows,
                    size_t num_cols, const float* tokens, size_t num_tokens,
                    float* out, size_t out_stride) {
  const size_t row_bytes = RowBytes(type, num_cols);
  const size_t panel_rows = PanelRows(row_bytes);
  const size_t chunk_cols = ChunkCols(num_cols, num_tokens);
  const bool fetches_panels = rows.at == nullptr && FetchesPanels(num_tokens);
  for (size_t panel = 0; panel < num_rows; panel += panel_rows) {
    const size_t panel_end = std::min(panel + panel_rows, num_rows);
    const size_t next_rows =
        fetches_panels ? std::min(panel_rows, num_rows - panel_end) : 0;
    PanelFetcher next(next_rows > 0 ? rows[panel_end] : nullptr,
                      rows.stride_bytes, row_bytes, next_rows,
                      (panel_end - panel) * num_cols * num_tokens);
    for (size_t t = 0; t < num_tokens;) {
      const size_t tile_tokens = NextTile(num_tokens - t);
      const MultiplyBlockFunction multiply =
          type == WeightType::kBf16 ? MultiplyBlockOf<Bf16>(tile_tokens)
                                    : MultiplyBlockOf<float>(tile_tokens);
      for (size_t r = panel; r < panel_end; r += kBlockRows) {
        multiply(rows, r, std::min(kBlockRows, panel_end - r), num_rows,
                 num_cols, chunk_cols, tokens + t * num_cols, /*fetch=*/t == 0,
                 next, out + t * out_stride + r, out_stride);
      }
      t += tile_tokens;
    }
  }
}

void PackedMatMul(const WeightView& w, size_t num_rows, size_t num_cols,
                  const float* tokens, size_t num_tokens, float* out,
                  size_t out_stride) {
  MultiplyPanels({w.data, w.stride_bytes, nullptr}, w.type, num_rows, num_cols,
                 tokens, num_tokens, out, out_stride);
}

void PackedMatMulAt(const std::byte* const* rows, WeightType type,
                    size_t num_rows, size_t num_cols, const float* tokens,
                    size_t num_tokens, float* out, size_t out_stride) {
  MultiplyPanels({nullptr, 0, rows}, type, num_rows, num_cols, tokens,
                 num_tokens, out, out_stride);
}

}  // namespace flashelm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace flashelm {

HWY_EXPORT(PackTokens);
HWY_EXPORT(PackedMatMul);
HWY_EXPORT(PackedMatMulAt);

void PackTokens(WeightType type, const float* x, size_t x_stride,
                size_t num_cols, size_t first, size_t last, size_t num_tokens,
                float* out) {
  HWY_DYNAMIC_DISPATCH(PackTokens)
  (type, x, x_stride, num_cols, first, last, num_tokens, out);
}

void PackedMatMul(const WeightView& w, size_t num_rows, size_t num_cols,
                  const float* tokens, size_t num_tokens, float* out,
                  size_t out_stride) {
  HWY_DYNAMIC_DISPATCH(PackedMatMul)
  (w, num_rows, num_cols, tokens, num_tokens, out, out_stride);
}

void PackedMatMulAt(const std::byte* const* rows, WeightType type,
                    size_t num_rows, size_t num_cols, const float* tokens,
                    size_t num_tokens, float* out, size_t out_stride) {
  HWY_DYNAMIC_DISPATCH(PackedMatMulAt)
  (rows, type, num_rows, num_cols, tokens, num_tokens, out, out_stride);
}

}  // namespace flashelm
#endif  // HWY_ONCE
