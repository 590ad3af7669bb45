#include "core/session_file.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string_view>
#include <utility>

#include "core/base/format.h"
#include "core/model_config.h"
#include "core/simd.h"
#include "storage/checksum.h"
#include "storage/output_file.h"

namespace flashelm {
namespace {

static_assert(std::endian::native == std::endian::little,
              "the file is little-endian and is used in place");

constexpr std::array<char, 8> kMagic = {'F', 'E', 'L', 'M', 'S', 'E', 'S', 'S'};
constexpr uint32_t kVersion = 1;
// Read and checked at a time.
constexpr size_t kBufferBytes = size_t{64} << 10;

// At the front of the file. After it: tokens, keys and values, kDigestBytes.
struct Header {
  std::array<char, 8> magic;
  uint32_t version;
  uint32_t kv_type;     // As KvTypeCode() says.
  uint64_t model_hash;  // As ModelHash() says.
  uint32_t position;
  uint32_t num_tokens;
  uint64_t file_bytes;
  std::array<char, 80> arithmetic;  // Text, the rest zeros.
  uint64_t checksum;                // XXH3 of all before it.
};
static_assert(sizeof(Header) == 128);
constexpr size_t kChecksumAt = offsetof(Header, checksum);
constexpr uint64_t kDigestBytes = 8;

std::span<const std::byte> BytesOf(const Header& header) {
  return std::as_bytes(std::span(&header, 1));
}

constexpr uint32_t KvTypeCode(KvType type) {
  return type == KvType::kBf16 ? 2 : 1;
}
std::string_view KvTypeName(uint32_t code) {
  return code == 1 ? "f32" : code == 2 ? "bf16" : "unknown";
}

// What the tokens of a sequence and its keys and values mean: configuration,
// tokenizer and the checksums of all weights, wherever the file came from.
uint64_t ModelHash(const ModelFile& model) {
  const FelmHeader& header = model.weight_file().header();
  return Xxh3(std::as_bytes(std::span<const char>(
      fmt::format("{:016x} {:016x} {}", header.sections[kChecksums].checksum,
                  header.sections[kTokenizer].checksum,
                  ConfigToJson(model.config()).dump()))));
}

// What else the bits of keys and values depend on.
std::string Arithmetic(const Engine& engine) {
  const SparsityOptions& sparsity = engine.plan_options().sparsity;
  std::string text = fmt::format("{}, sparsity {}", SimdArithmeticName(),
                                 SelectorName(sparsity.selector));
  if (sparsity.is_on()) {
    if (sparsity.kept_fraction > 0) {
      text += fmt::format(":{}", sparsity.kept_fraction);
    }
    if (sparsity.max_skipped > 0) {
      text += fmt::format(", max-skipped {}", sparsity.max_skipped);
    }
  }
  return text;
}

// Bytes of one position of one head's keys, or values.
uint64_t RowBytes(const Session& session) {
  return session.engine().config().head_dim *
         ElementBytes(session.kv_cache().type());
}

uint64_t FileBytes(const Session& session, uint64_t num_tokens,
                   uint64_t position) {
  uint64_t rows = 0;
  for (const LayerConfig& layer : session.engine().config().layers) {
    rows += 2 * uint64_t{layer.num_kv_heads};
  }
  return sizeof(Header) + num_tokens * sizeof(TokenId) +
         rows * position * RowBytes(session) + kDigestBytes;
}

// Visits keys, then values of every head, in the order of the file: pointers to
// the first position of each.
template <class Visit>
Status ForEachRun(Session& session, const Visit& visit) {
  const ModelConfig& config = session.engine().config();
  KvCache& cache = session.kv_cache();
  for (uint32_t layer = 0; layer < config.num_layers(); ++layer) {
    for (uint32_t head = 0; head < config.layers[layer].num_kv_heads; ++head) {
      FLASHELM_RETURN_IF_ERROR(visit(cache.mutable_keys(layer, head)));
      FLASHELM_RETURN_IF_ERROR(visit(cache.mutable_values(layer, head)));
    }
  }
  return OkStatus();
}

// Reads a file from its begin, all bytes but the digest at its end, which are
// hashed as they come.
class HashedReader {
 public:
  explicit HashedReader(const RandomAccessFile& file)
      : file_(file),
        end_(file.size_bytes() - kDigestBytes),
        buffer_(kBufferBytes) {}

  // kDataLoss: the file has become shorter.
  Status Read(std::span<std::byte> target) {
    return ForEachPiece(target.size(), [&](std::span<const std::byte> piece) {
      std::memcpy(target.data(), piece.data(), piece.size());
      target = target.subspan(piece.size());
    });
  }
  Status Skip(uint64_t num_bytes) {
    return ForEachPiece(num_bytes, [](std::span<const std::byte>) {});
  }
  Status SkipRest() { return Skip(end_ - at_); }
  uint64_t Digest() const { return hash_.Digest64(); }

 private:
  template <class Use>
  Status ForEachPiece(uint64_t num_bytes, const Use& use) {
    while (num_bytes > 0) {
      if (ready_.empty()) {
        ready_ = std::span(buffer_).first(
            std::min<uint64_t>(buffer_.size(), end_ - at_));
        FLASHELM_RETURN_IF_ERROR(ReadExactly(file_, at_, ready_, "session"));
        hash_.Update(ready_);
      }
      const auto piece =
          ready_.first(std::min<uint64_t>(num_bytes, ready_.size()));
      use(piece);
      ready_ = ready_.subspan(piece.size());
      at_ += piece.size();
      num_bytes -= piece.size();
    }
    return OkStatus();
  }

  const RandomAccessFile& file_;
  const uint64_t end_;
  uint64_t at_ = 0;
  std::vector<std::byte> buffer_;
  std::span<std::byte> ready_;  // Of buffer_, not asked for yet.
  Xxh3Stream hash_;
};

}  // namespace

uint64_t SessionFile::LoadBytes(uint32_t context) {
  constexpr uint64_t kSmallObjects = 4096;
  return kBufferBytes + kSmallObjects +
         (uint64_t{context} + kMaxPendingTokens) * sizeof(TokenId);
}

uint64_t SessionFile::SaveBytes() {
  constexpr uint64_t kSmallObjects = 4096;
  return OutputFile::kBufferBytes + kSmallObjects;
}

Result<SessionFile> SessionFile::Open(const std::string& path,
                                      const Session& session) {
  SessionFile file;
  FLASHELM_ASSIGN_OR_RETURN(file.file_, OpenFile(path, CacheMode::kDropped));
  FLASHELM_RETURN_IF_ERROR(file.ReadHeader(session));
  FLASHELM_RETURN_IF_ERROR(file.ReadTokens(session));
  return file;
}

Status SessionFile::ReadHeader(const Session& session) {
  const std::string& path = file_->path();
  const uint64_t size = file_->size_bytes();
  if (size < sizeof(Header) + kDigestBytes) {
    return DataLoss(
        path, ": ", size,
        " bytes are too few for a saved session, expected at least ",
        sizeof(Header) + kDigestBytes);
  }
  Header header;
  FLASHELM_RETURN_IF_ERROR(
      ReadExactly(*file_, 0, std::as_writable_bytes(std::span(&header, 1)),
                  "session header"));
  if (header.magic != kMagic) {
    return DataLoss(path, ": this is no saved session; expected \"FELMSESS\" ",
                    "at byte 0");
  }
  if (header.version != kVersion) {
    return Unimplemented(path, ": a saved session of version ", header.version,
                         "; this program reads version ", kVersion);
  }
  if (header.checksum != Xxh3(BytesOf(header).first(kChecksumAt))) {
    return DataLoss(path, ": the header of the saved session is damaged (its ",
                    "checksum differs)");
  }
  if (header.model_hash != ModelHash(session.engine().model())) {
    return InvalidArgument(path, ": was saved with another model than ",
                           session.engine().model().path());
  }
  const uint32_t kv_type = KvTypeCode(session.kv_cache().type());
  if (header.kv_type != kv_type) {
    return InvalidArgument(path, ": was saved with --kv-type ",
                           KvTypeName(header.kv_type), ", expected ",
                           KvTypeName(kv_type));
  }
  const std::string arithmetic = Arithmetic(session.engine());
  // Ends in a zero, as any that SaveSession() wrote.
  header.arithmetic.back() = '\0';
  if (arithmetic != header.arithmetic.data()) {
    return InvalidArgument(path, ": was computed with ",
                           header.arithmetic.data(), ", here it is ",
                           arithmetic, ", which gives other bits");
  }
  if (header.position > header.num_tokens ||
      header.num_tokens - header.position > kMaxPendingTokens) {
    return DataLoss(path, ": ", header.num_tokens, " tokens for ",
                    header.position,
                    " positions, expected as many, or at most ",
                    kMaxPendingTokens, " more");
  }
  const uint64_t expected =
      FileBytes(session, header.num_tokens, header.position);
  if (size != header.file_bytes || size != expected) {
    return DataLoss(path, ": has ", size, " bytes, expected ", expected,
                    " for ", header.position,
                    " positions; it is cut short or has something after it");
  }
  position_ = header.position;
  num_tokens_ = header.num_tokens;
  return OkStatus();
}

// And all that follows them, to compare the checksum.
Status SessionFile::ReadTokens(const Session& session) {
  FLASHELM_RETURN_IF_ERROR(ReadExactly(
      *file_, file_->size_bytes() - kDigestBytes,
      std::as_writable_bytes(std::span(&digest_, 1)), "session checksum"));
  tokens_.resize(std::min<uint64_t>(
      num_tokens_, uint64_t{session.context()} + kMaxPendingTokens));
  HashedReader reader(*file_);
  FLASHELM_RETURN_IF_ERROR(reader.Skip(sizeof(Header)));
  FLASHELM_RETURN_IF_ERROR(
      reader.Read(std::as_writable_bytes(std::span(tokens_))));
  FLASHELM_RETURN_IF_ERROR(reader.SkipRest());
  if (reader.Digest() != digest_) {
    return DataLoss(file_->path(),
                    ": the saved session is damaged (its checksum differs)");
  }
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (tokens_[i] >= session.vocab_size()) {
      return DataLoss(file_->path(), ": token ", i, " is ", tokens_[i],
                      ", the vocabulary has ", session.vocab_size());
    }
  }
  return OkStatus();
}

Status SessionFile::CheckFits(const Session& session) const {
  if (position_ > session.context()) {
    return InvalidArgument(file_->path(), ": has ", position_,
                           " positions, but the context holds ",
                           session.context(), "; raise -c");
  }
  return OkStatus();
}

Status SessionFile::Load(Session& session, uint32_t num_positions) const {
  if (num_positions > position_ || num_positions > session.context()) {
    return InvalidArgument(file_->path(), ": asked for ", num_positions,
                           " positions, it has ", position_,
                           " and the context holds ", session.context());
  }
  session.Restore(0);
  const Status status = ReadPositions(session, num_positions);
  if (status.code() == StatusCode::kDataLoss) {
    return Unavailable(status.message(), "; the file was whole a moment ago");
  }
  if (status.ok()) session.Restore(num_positions);
  return status;
}

Status SessionFile::ReadPositions(Session& session,
                                  uint32_t num_positions) const {
  const uint64_t row_bytes = RowBytes(session);
  HashedReader reader(*file_);
  FLASHELM_RETURN_IF_ERROR(
      reader.Skip(sizeof(Header) + uint64_t{num_tokens_} * sizeof(TokenId)));
  const auto read = [&](std::byte* run) {
    const Status status = reader.Read({run, num_positions * row_bytes});
    if (!status.ok()) return status;
    return reader.Skip((position_ - num_positions) * row_bytes);
  };
  FLASHELM_RETURN_IF_ERROR(ForEachRun(session, read));
  if (reader.Digest() != digest_) {
    return DataLoss(file_->path(), ": its checksum differs");
  }
  return OkStatus();
}

Status SaveSession(Session& session, std::span<const TokenId> tokens,
                   const std::string& path) {
  const uint32_t position = session.position();
  if (tokens.size() < position ||
      tokens.size() - position > SessionFile::kMaxPendingTokens) {
    return InvalidArgument("cannot save ", position, " positions with ",
                           tokens.size(), " tokens, expected as many, or at ",
                           "most ", SessionFile::kMaxPendingTokens, " more");
  }
  Header header = {};
  header.magic = kMagic;
  header.version = kVersion;
  header.kv_type = KvTypeCode(session.kv_cache().type());
  header.model_hash = ModelHash(session.engine().model());
  header.position = position;
  header.num_tokens = static_cast<uint32_t>(tokens.size());
  header.file_bytes = FileBytes(session, tokens.size(), position);
  const std::string arithmetic = Arithmetic(session.engine());
  if (arithmetic.size() >= header.arithmetic.size()) {
    return Internal("\"", arithmetic, "\" is too long for a session file");
  }
  std::copy(arithmetic.begin(), arithmetic.end(), header.arithmetic.begin());
  header.checksum = Xxh3(BytesOf(header).first(kChecksumAt));

  FLASHELM_ASSIGN_OR_RETURN(OutputFile out,
                            OutputFile::Create(path, header.file_bytes));
  Xxh3Stream hash;
  const auto append = [&](std::span<const std::byte> bytes) {
    hash.Update(bytes);
    return out.Append(bytes);
  };
  FLASHELM_RETURN_IF_ERROR(append(BytesOf(header)));
  FLASHELM_RETURN_IF_ERROR(append(std::as_bytes(tokens)));
  const uint64_t run_bytes = position * RowBytes(session);
  const auto append_run = [&](const std::byte* run) {
    return append({run, run_bytes});
  };
  FLASHELM_RETURN_IF_ERROR(ForEachRun(session, append_run));
  const uint64_t digest = hash.Digest64();
  FLASHELM_RETURN_IF_ERROR(out.Append(std::as_bytes(std::span(&digest, 1))));
  return out.Commit();
}

}  // namespace flashelm
