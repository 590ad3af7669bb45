#include "core/session_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/simd.h"
#include "storage/checksum.h"
#include "tests/core/test_model.h"
#include "tests/temp_directory.h"

namespace flashelm::test {
namespace {

const CancelToken kNever;
constexpr uint32_t kVocabSize = 2048;
// As docs/FILE_FORMAT.md has them.
constexpr size_t kHeaderBytes = 128;
constexpr size_t kVersionAt = 8;
constexpr size_t kKvTypeAt = 12;
constexpr size_t kModelHashAt = 16;
constexpr size_t kPositionAt = 24;
constexpr size_t kNumTokensAt = 28;
constexpr size_t kArithmeticAt = 40;
constexpr size_t kChecksumAt = 120;

std::string ReadBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void WriteBytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

void Put32(std::string& bytes, size_t at, uint32_t value) {
  std::memcpy(bytes.data() + at, &value, sizeof(value));
}

// As a program that knows the format would write it: both checksums fit.
std::string Resealed(std::string bytes) {
  const auto hash = [&](size_t size) {
    return Xxh3(std::as_bytes(std::span<const char>(bytes).first(size)));
  };
  uint64_t digest = hash(kChecksumAt);
  std::memcpy(bytes.data() + kChecksumAt, &digest, 8);
  digest = hash(bytes.size() - 8);
  std::memcpy(bytes.data() + bytes.size() - 8, &digest, 8);
  return bytes;
}

class SessionFileTest : public testing::Test {
 protected:
  SessionFileTest() : model_(CheckpointOptions{}, Encoding::kF32) {}

  Running StartSmall(uint32_t context = 64, KvType kv_type = KvType::kF32) {
    EngineOptions options;
    options.plan.num_threads = 2;
    options.plan.context = context;
    options.plan.kv_type = kv_type;
    return Start(model_.path(), options);
  }
  void Feed(Session& session, std::span<const TokenId> tokens) {
    const Status status = session.Run(tokens, {}, kNever);
    ASSERT_TRUE(status.ok()) << status.message();
  }
  // Logits after `token`, which takes the session a position further.
  std::vector<float> LogitsAfter(Session& session, TokenId token) {
    constexpr uint32_t kOnly = 0;
    const Status status = session.Run({&token, 1}, {&kOnly, 1}, kNever);
    EXPECT_TRUE(status.ok()) << status.message();
    const auto logits = session.logits(0);
    return {logits.begin(), logits.end()};
  }
  // What Open() and Load() of the whole say, as chat calls them.
  static Status Load(const std::string& path, Session& session) {
    const auto file = SessionFile::Open(path, session);
    if (!file) return file.error();
    const Status fits = file->CheckFits(session);
    return fits.ok() ? file->Load(session, file->position()) : fits;
  }

  const ConvertedModel model_;
  const TempDirectory directory_;
  const std::string path_ = directory_.File("session");
  const std::vector<TokenId> tokens_ = SomeTokens(40, kVocabSize);
};

TEST_F(SessionFileTest, LoadedGoesOnToTheBitAsTheSaved) {
  for (const KvType kv_type : {KvType::kF32, KvType::kBf16}) {
    std::vector<float> expected;
    {
      Running saved = StartSmall(64, kv_type);
      Feed(*saved.session, std::span(tokens_).first(30));
      // With tokens that wait for their turn.
      const Status status =
          SaveSession(*saved.session, std::span(tokens_).first(32), path_);
      ASSERT_TRUE(status.ok()) << status.message();
      EXPECT_EQ(saved.session->position(), 30u);
      expected = LogitsAfter(*saved.session, tokens_[30]);
    }
    // Of another context: the file knows nothing of it.
    Running loaded = StartSmall(48, kv_type);
    Feed(*loaded.session, SomeTokens(41, kVocabSize));
    const auto file = SessionFile::Open(path_, *loaded.session);
    ASSERT_TRUE(file) << file.error().message();
    EXPECT_EQ(loaded.session->position(), 41u);
    EXPECT_EQ(file->position(), 30u);
    EXPECT_TRUE(std::equal(file->tokens().begin(), file->tokens().end(),
                           tokens_.begin(), tokens_.begin() + 32));
    ASSERT_TRUE(file->Load(*loaded.session, 30).ok());
    EXPECT_EQ(loaded.session->position(), 30u);
    EXPECT_EQ(LogitsAfter(*loaded.session, tokens_[30]), expected);
  }
  EXPECT_EQ(directory_.List(), std::vector<std::string>{"session"});
}

TEST_F(SessionFileTest, APrefixIsLoadedAlone) {
  Running saved = StartSmall();
  Feed(*saved.session, tokens_);
  ASSERT_TRUE(SaveSession(*saved.session, tokens_, path_).ok());
  ASSERT_TRUE(saved.session->Truncate(11).ok());
  const auto expected = LogitsAfter(*saved.session, 5);

  Running loaded = StartSmall(16);
  const auto file = SessionFile::Open(path_, *loaded.session);
  ASSERT_TRUE(file) << file.error().message();
  EXPECT_EQ(file->CheckFits(*loaded.session).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(file->Load(*loaded.session, 17).code(),
            StatusCode::kInvalidArgument);
  ASSERT_TRUE(file->Load(*loaded.session, 11).ok());
  EXPECT_EQ(LogitsAfter(*loaded.session, 5), expected);
}

TEST_F(SessionFileTest, OnlyTokensOfItsPositionsAndAFewMoreAreSaved) {
  Running running = StartSmall();
  Feed(*running.session, tokens_);
  const std::vector<TokenId> many(tokens_.size() +
                                  SessionFile::kMaxPendingTokens + 1);
  for (const auto tokens :
       {std::span(tokens_).first(39), std::span<const TokenId>(many)}) {
    EXPECT_EQ(SaveSession(*running.session, tokens, path_).code(),
              StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(directory_.List().empty());
}

TEST_F(SessionFileTest, DamagedFilesAreRefusedAndChangeNothing) {
  {
    Running saved = StartSmall();
    Feed(*saved.session, tokens_);
    ASSERT_TRUE(SaveSession(*saved.session, tokens_, path_).ok());
  }
  const std::string good = ReadBytes(path_);
  ASSERT_EQ(Resealed(good), good);

  struct Case {
    std::string what;
    std::string bytes;
    StatusCode code;
  };
  std::vector<Case> cases;
  const auto add = [&](std::string what, StatusCode code, auto change) {
    std::string bytes = good;
    change(bytes);
    cases.push_back({std::move(what), std::move(bytes), code});
  };
  // One bit, everywhere: each field of the header, tokens, keys and values, the
  // digest.
  for (const size_t at :
       {size_t{0},          size_t{7},           kVersionAt,
        kKvTypeAt,          kModelHashAt,        kPositionAt,
        kNumTokensAt,       size_t{32},          size_t{39},
        kArithmeticAt,      size_t{119},         kChecksumAt,
        size_t{127},        kHeaderBytes,        kHeaderBytes + 80,
        kHeaderBytes + 159, kHeaderBytes + 160,  good.size() / 4,
        good.size() / 2,    good.size() / 4 * 3, good.size() - 9,
        good.size() - 8,    good.size() - 1}) {
    add("bit at " + std::to_string(at),
        at == kVersionAt ? StatusCode::kUnimplemented : StatusCode::kDataLoss,
        [&](std::string& bytes) { bytes[at] ^= 0x10; });
  }
  for (const size_t size :
       {size_t{0}, size_t{5}, kHeaderBytes - 1, kHeaderBytes, kHeaderBytes + 8,
        kHeaderBytes + 100, good.size() / 2, good.size() - 8,
        good.size() - 1}) {
    add("cut to " + std::to_string(size), StatusCode::kDataLoss,
        [&](std::string& bytes) { bytes.resize(size); });
  }
  add("longer", StatusCode::kDataLoss,
      [](std::string& bytes) { bytes += 'x'; });
  add("page swapped", StatusCode::kDataLoss, [](std::string& bytes) {
    std::swap_ranges(bytes.begin() + 4096, bytes.begin() + 8192,
                     bytes.begin() + 8192);
  });
  // Whole, but not for this session.
  const auto add_sealed = [&](std::string what, StatusCode code, auto change) {
    add(std::move(what), code, [&](std::string& bytes) {
      change(bytes);
      bytes = Resealed(std::move(bytes));
    });
  };
  add_sealed("version", StatusCode::kUnimplemented,
             [](std::string& bytes) { Put32(bytes, kVersionAt, 2); });
  add_sealed("model", StatusCode::kInvalidArgument,
             [](std::string& bytes) { bytes[kModelHashAt] ^= 1; });
  add_sealed("kv type", StatusCode::kInvalidArgument,
             [](std::string& bytes) { Put32(bytes, kKvTypeAt, 2); });
  add_sealed("unknown kv type", StatusCode::kInvalidArgument,
             [](std::string& bytes) { Put32(bytes, kKvTypeAt, 77); });
  add_sealed("arithmetic", StatusCode::kInvalidArgument,
             [](std::string& bytes) { bytes[kArithmeticAt] ^= 1; });
  add_sealed(
      "arithmetic without an end", StatusCode::kInvalidArgument,
      [](std::string& bytes) { bytes.replace(kArithmeticAt, 80, 80, 'a'); });
  add_sealed("position beyond the tokens", StatusCode::kDataLoss,
             [](std::string& bytes) { Put32(bytes, kPositionAt, 41); });
  add_sealed("huge position", StatusCode::kDataLoss,
             [](std::string& bytes) { Put32(bytes, kPositionAt, UINT32_MAX); });
  add_sealed("huge counts", StatusCode::kDataLoss, [](std::string& bytes) {
    Put32(bytes, kPositionAt, UINT32_MAX);
    Put32(bytes, kNumTokensAt, UINT32_MAX);
  });
  add_sealed("too many pending", StatusCode::kDataLoss, [](std::string& bytes) {
    Put32(bytes, kNumTokensAt, 40 + SessionFile::kMaxPendingTokens + 1);
  });
  add_sealed("token", StatusCode::kDataLoss, [](std::string& bytes) {
    Put32(bytes, kHeaderBytes + 4, kVocabSize);
  });
  ASSERT_GE(cases.size(), 30u);

  Running running = StartSmall();
  const std::vector<TokenId> other = SomeTokens(20, kVocabSize);
  Feed(*running.session, other);
  const auto expected = LogitsAfter(*running.session, 9);
  ASSERT_TRUE(running.session->Truncate(20).ok());
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    WriteBytes(path_, c.bytes);
    const Status status = Load(path_, *running.session);
    EXPECT_EQ(status.code(), c.code) << status.message();
    EXPECT_NE(status.message().find(path_), std::string::npos)
        << status.message();
    ASSERT_EQ(running.session->position(), 20u);
    ASSERT_EQ(LogitsAfter(*running.session, 9), expected);
    ASSERT_TRUE(running.session->Truncate(20).ok());
  }
  EXPECT_EQ(Load(directory_.File("absent"), *running.session).code(),
            StatusCode::kNotFound);
  WriteBytes(path_, good);
  EXPECT_TRUE(Load(path_, *running.session).ok());
}

TEST_F(SessionFileTest, IsBoundToModelContextAndKvType) {
  Running saved = StartSmall();
  Feed(*saved.session, tokens_);
  ASSERT_TRUE(SaveSession(*saved.session, tokens_, path_).ok());
  saved.session.reset();  // Before its engine.
  saved.engine.reset();

  Running small = StartSmall(39);
  EXPECT_EQ(Load(path_, *small.session).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(small.session->position(), 0u);
  Running bf16 = StartSmall(64, KvType::kBf16);
  const Status other_type = Load(path_, *bf16.session);
  EXPECT_EQ(other_type.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(other_type.message().find("--kv-type f32"), std::string::npos);

  // The same model in another encoding, and another model in the same.
  CheckpointOptions other;
  other.seed = 77;
  const ConvertedModel quantized(CheckpointOptions{}, Encoding::kQ8);
  const ConvertedModel another(other, Encoding::kF32);
  for (const ConvertedModel* model : {&quantized, &another}) {
    EngineOptions options;
    options.plan.context = 64;
    Running running = Start(model->path(), options);
    const Status status = Load(path_, *running.session);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find("another model"), std::string::npos)
        << status.message();
  }
}

// Both forms of NEON give the same bits; no other two targets are held to.
TEST_F(SessionFileTest, IsBoundToTheArithmetic) {
  {
    Running saved = StartSmall();
    Feed(*saved.session, tokens_);
    ASSERT_TRUE(SaveSession(*saved.session, tokens_, path_).ok());
  }
  const std::string_view arithmetic = SimdArithmeticName();
  for (const std::string_view target : SimdTargets()) {
    SCOPED_TRACE(target);
    ASSERT_TRUE(UseSimdTarget(target));
    Running loaded = StartSmall();
    const Status status = Load(path_, *loaded.session);
    EXPECT_EQ(status.ok(), SimdArithmeticName() == arithmetic)
        << status.message();
    if (!status.ok()) {
      EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
      EXPECT_NE(status.message().find("which gives other bits"),
                std::string::npos)
          << status.message();
    }
    UseSimdTarget("");
  }
}

TEST_F(SessionFileTest, AFileThatChangesAfterItWasOpenedEmptiesTheSession) {
  Running running = StartSmall();
  Feed(*running.session, tokens_);
  ASSERT_TRUE(SaveSession(*running.session, tokens_, path_).ok());
  const auto file = SessionFile::Open(path_, *running.session);
  ASSERT_TRUE(file) << file.error().message();
  std::string bytes = ReadBytes(path_);
  bytes[bytes.size() / 2] ^= 1;
  // In place: the open file is this one.
  std::fstream(path_, std::ios::binary | std::ios::in | std::ios::out) << bytes;
  EXPECT_EQ(file->Load(*running.session, 40).code(), StatusCode::kUnavailable);
  EXPECT_EQ(running.session->position(), 0u);
}

}  // namespace
}  // namespace flashelm::test
