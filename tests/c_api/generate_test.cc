// Text through the C interface: that of the reference, from every source.

#include <fcntl.h>

#include <cmath>
#include <cstring>

#include "tests/c_api/fixture.h"
#include "tests/core/checkpoint_builder.h"
#include "tests/core/golden.h"
#include "tests/core/predicted_model.h"
#include "tests/core/test_model.h"
#include "tests/temp_directory.h"

namespace flashelm::test {
namespace {

class CApiGenerateTest : public testing::Test {
 protected:
  CApiGenerateTest()
      : golden_(ReadGolden("tiny-stories")),
        model_(SampleModelDirectory("tiny-stories"), Encoding::kBf16) {}

  // The recorded texts, with everything resident and with nearly nothing.
  void ExpectGolden(const flashelm_source& source) {
    for (const bool at_floor : {false, true}) {
      SCOPED_TRACE(at_floor);
      flashelm_engine_options options = MakeOptions();
      if (at_floor) options.memory_bytes = LeastMemory(source, options);
      const UniqueEngine engine = OpenEngine(source, options);
      ASSERT_NE(engine, nullptr);
      const UniqueSession session = OpenSession(engine.get());
      for (const GoldenPrompt& prompt : golden_.prompts) {
        SCOPED_TRACE(prompt.text);
        ASSERT_EQ(flashelm_truncate(session.get(), 0, nullptr), FLASHELM_OK);
        const Generated generated = Generate(session.get(), prompt.text,
                                             Greedy(prompt.greedy_ids.size()));
        ASSERT_EQ(generated.code, FLASHELM_OK) << generated.message;
        EXPECT_EQ(generated.ids, prompt.greedy_ids);
        EXPECT_EQ(prompt.text + generated.text, prompt.greedy_text);
        EXPECT_EQ(generated.result.num_prompt_tokens, prompt.ids.size());
        EXPECT_EQ(generated.result.num_tokens, prompt.greedy_ids.size());
        EXPECT_EQ(generated.result.stop_reason, FLASHELM_STOP_MAX_TOKENS);
      }
    }
  }

  const Golden golden_;
  const ConvertedModel model_;
};

TEST_F(CApiGenerateTest, AModelByPathGivesTheRecordedText) {
  ExpectGolden(PathSource(model_.path()));
}

TEST_F(CApiGenerateTest, APartOfAFileGivesTheRecordedText) {
  const std::string model = ReadFile(model_.path());
  const TempDirectory directory;
  const std::string path = directory.File("package");
  for (const size_t offset : {size_t{0}, size_t{8192}, size_t{12345}}) {
    SCOPED_TRACE(offset);
    const std::string behind = offset == 0 ? "" : "what lies behind it";
    WriteFile(path, std::string(offset, 'x') + model + behind);
    UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    auto source = Sized<flashelm_source>();
    source.kind = FLASHELM_SOURCE_FD;
    source.fd = fd.get();
    source.offset_bytes = offset;
    source.size_bytes = offset == 0 ? 0 : model.size();
    ExpectGolden(source);
  }
}

TEST_F(CApiGenerateTest, AReadCallbackGivesTheRecordedText) {
  CallbackReader reader(model_.path());
  ExpectGolden(reader.source());
  EXPECT_GT(reader.num_calls(), 100);
  // An estimate and two engines.
  EXPECT_EQ(reader.num_released(), 3);
}

TEST_F(CApiGenerateTest, StepByStepItIsTheSame) {
  const UniqueEngine engine =
      OpenEngine(PathSource(model_.path()), MakeOptions());
  const UniqueSession session = OpenSession(engine.get());
  auto info = Sized<flashelm_model_info>();
  ASSERT_EQ(flashelm_engine_get_info(engine.get(), &info, nullptr),
            FLASHELM_OK);
  EXPECT_STREQ(info.weights, "bf16");
  const GoldenPrompt& prompt = golden_.prompts[0];
  size_t num_ids = 0;
  ASSERT_EQ(
      flashelm_tokenize(engine.get(), prompt.text.data(), prompt.text.size(), 1,
                        nullptr, 0, &num_ids, nullptr),
      FLASHELM_OK);
  std::vector<uint32_t> ids(num_ids);
  ASSERT_EQ(
      flashelm_tokenize(engine.get(), prompt.text.data(), prompt.text.size(), 1,
                        ids.data(), ids.size(), &num_ids, nullptr),
      FLASHELM_OK);
  EXPECT_EQ(ids, prompt.ids);

  std::vector<float> logits(info.vocab_size);
  EXPECT_EQ(
      flashelm_logits(session.get(), logits.data(), logits.size(), nullptr),
      FLASHELM_INVALID_ARGUMENT)
      << "nothing was computed";
  ASSERT_EQ(flashelm_prefill(session.get(), ids.data(), ids.size(), nullptr,
                             nullptr, nullptr),
            FLASHELM_OK);
  float worst = 0;
  for (const uint32_t expected : prompt.greedy_ids) {
    ASSERT_EQ(
        flashelm_logits(session.get(), logits.data(), logits.size(), nullptr),
        FLASHELM_OK);
    if (ids.size() == num_ids) {
      const float* const recorded =
          prompt.logits.data() + (num_ids - 1) * info.vocab_size;
      for (size_t i = 0; i < logits.size(); ++i) {
        worst = std::max(worst, std::abs(logits[i] - recorded[i]));
      }
    }
    const auto best = static_cast<uint32_t>(
        std::max_element(logits.begin(), logits.end()) - logits.begin());
    ASSERT_EQ(best, expected);
    ids.push_back(best);
    ASSERT_EQ(flashelm_decode(session.get(), best, nullptr), FLASHELM_OK);
  }
  EXPECT_LE(worst, 2e-3f);
  EXPECT_GT(worst, 0.0f);

  size_t text_bytes = 0;
  std::vector<char> text(4096);
  ASSERT_EQ(flashelm_detokenize(engine.get(), ids.data(), ids.size(),
                                text.data(), text.size(), &text_bytes, nullptr),
            FLASHELM_OK);
  EXPECT_EQ(std::string(text.data(), text_bytes), prompt.greedy_text);
  EXPECT_EQ(std::strlen(text.data()), text_bytes);
}

TEST_F(CApiGenerateTest, ATextGoesOnWhereItStopped) {
  const UniqueEngine engine =
      OpenEngine(PathSource(model_.path()), MakeOptions());
  const UniqueSession session = OpenSession(engine.get());
  const GoldenPrompt& prompt = golden_.prompts[0];
  Generated all = Generate(session.get(), prompt.text, Greedy(3));
  while (all.ids.size() < prompt.greedy_ids.size()) {
    const size_t most = prompt.greedy_ids.size() - all.ids.size();
    const Generated more =
        Generate(session.get(), "", Greedy(std::min<size_t>(5, most)));
    ASSERT_EQ(more.code, FLASHELM_OK);
    EXPECT_EQ(more.result.num_prompt_tokens, 0u);
    all.ids.insert(all.ids.end(), more.ids.begin(), more.ids.end());
  }
  EXPECT_EQ(all.ids, prompt.greedy_ids);
  // Back, and the same again.
  ASSERT_EQ(
      flashelm_truncate(session.get(),
                        static_cast<uint32_t>(prompt.ids.size()) + 4, nullptr),
      FLASHELM_OK);
  EXPECT_EQ(Generate(session.get(), "", Greedy(1)).ids,
            std::vector<uint32_t>{prompt.greedy_ids[4]});
}

TEST_F(CApiGenerateTest, EachReasonToStopIsNamed) {
  flashelm_engine_options engine_options = MakeOptions();
  engine_options.context = 32;
  const UniqueEngine engine =
      OpenEngine(PathSource(model_.path()), engine_options);
  const UniqueSession session = OpenSession(engine.get());
  const GoldenPrompt& prompt = golden_.prompts[0];
  const std::string continuation =
      prompt.greedy_text.substr(prompt.text.size());
  ASSERT_GT(continuation.size(), 12u);

  flashelm_generate_options options = Greedy(0);
  const std::string stop = continuation.substr(5, 4);
  const char* const stop_strings[] = {"not in there", stop.c_str()};
  options.stop_strings = stop_strings;
  options.num_stop_strings = 2;
  Generated generated = Generate(session.get(), prompt.text, options);
  EXPECT_EQ(generated.result.stop_reason, FLASHELM_STOP_STRING);
  EXPECT_EQ(generated.text, continuation.substr(0, continuation.find(stop)));

  ASSERT_EQ(flashelm_truncate(session.get(), 0, nullptr), FLASHELM_OK);
  generated = Generate(session.get(), prompt.text, Greedy(0));
  EXPECT_EQ(generated.result.stop_reason, FLASHELM_STOP_CONTEXT_FULL);
  uint32_t position = 0;
  ASSERT_EQ(flashelm_position(session.get(), &position, nullptr), FLASHELM_OK);
  EXPECT_EQ(position, 32u);
  EXPECT_EQ(Generate(session.get(), "", Greedy(1)).result.stop_reason,
            FLASHELM_STOP_CONTEXT_FULL);
  EXPECT_EQ(Generate(session.get(), "more", Greedy(1)).code,
            FLASHELM_INVALID_ARGUMENT);

  ASSERT_EQ(flashelm_truncate(session.get(), 0, nullptr), FLASHELM_OK);
  options = Greedy(0);
  int num_tokens = 0;
  options.token_user = &num_tokens;
  options.token = [](void* user, uint32_t, const char*, size_t) {
    return ++*static_cast<int*>(user) == 3 ? 1 : 0;
  };
  auto result = Sized<flashelm_generate_result>();
  ASSERT_EQ(flashelm_generate(session.get(), prompt.text.data(),
                              prompt.text.size(), &options, &result, nullptr),
            FLASHELM_OK);
  EXPECT_EQ(result.stop_reason, FLASHELM_STOP_CALLBACK);
  EXPECT_EQ(result.num_tokens, 3u);
  EXPECT_EQ(num_tokens, 3);
}

TEST_F(CApiGenerateTest, TheModelEndsItsText) {
  const UniqueEngine engine =
      OpenEngine(PathSource(model_.path()), MakeOptions());
  const UniqueSession session = OpenSession(engine.get());
  auto options = Sized<flashelm_generate_options>();
  options.temperature = 0.8f;
  bool has_ended = false;
  for (; options.seed < 50 && !has_ended; ++options.seed) {
    ASSERT_EQ(flashelm_truncate(session.get(), 0, nullptr), FLASHELM_OK);
    const Generated generated = Generate(session.get(), "", options);
    ASSERT_EQ(generated.code, FLASHELM_OK) << generated.message;
    EXPECT_EQ(generated.result.num_prompt_tokens, 1u) << "BOS";
    EXPECT_NE(generated.text.at(0), ' ');
    has_ended = generated.result.stop_reason == FLASHELM_STOP_EOS;
    uint32_t position = 0;
    ASSERT_EQ(flashelm_position(session.get(), &position, nullptr),
              FLASHELM_OK);
    EXPECT_EQ(position, 1 + generated.ids.size()) << "EOS is no text";
  }
  EXPECT_TRUE(has_ended);
}

TEST_F(CApiGenerateTest, SamplingDependsOnItsSeedAlone) {
  const UniqueEngine engine =
      OpenEngine(PathSource(model_.path()), MakeOptions());
  const UniqueSession session = OpenSession(engine.get());
  const auto text = [&](uint64_t seed) {
    EXPECT_EQ(flashelm_truncate(session.get(), 0, nullptr), FLASHELM_OK);
    flashelm_generate_options options = Greedy(20);
    options.temperature = 1;
    options.top_k = 40;
    options.top_p = 0.95f;
    options.min_p = 0.01f;
    options.repeat_penalty = 1.1f;
    options.seed = seed;
    return Generate(session.get(), "Once", options).text;
  };
  EXPECT_EQ(text(1), text(1));
  EXPECT_NE(text(1), text(2));
}

TEST_F(CApiGenerateTest, ProgressAndLogComeWhenAskedFor) {
  struct Seen {
    std::vector<std::pair<uint64_t, uint64_t>> progress;
    std::vector<std::string> lines;
    uint64_t abort_at = UINT64_MAX;
  } seen;
  flashelm_engine_options options = MakeOptions();
  options.max_batch = 4;
  const flashelm_progress_callback progress = [](void* user, uint64_t done,
                                                 uint64_t total) {
    auto& to = *static_cast<Seen*>(user);
    to.progress.emplace_back(done, total);
    return done >= to.abort_at ? 1 : 0;
  };
  options.progress = progress;
  options.progress_user = &seen;
  options.log = [](void* user, int32_t, const char* line) {
    static_cast<Seen*>(user)->lines.emplace_back(line);
  };
  options.log_user = &seen;
  const UniqueEngine engine = OpenEngine(PathSource(model_.path()), options);
  ASSERT_FALSE(seen.progress.empty());
  EXPECT_EQ(seen.progress.back().first, seen.progress.back().second);
  ASSERT_FALSE(seen.lines.empty());
  EXPECT_NE(seen.lines[0].find(model_.path()), std::string::npos);

  const UniqueSession session = OpenSession(engine.get());
  const std::vector<uint32_t>& ids = golden_.prompts[0].ids;
  seen.progress.clear();
  ASSERT_EQ(flashelm_prefill(session.get(), ids.data(), ids.size(), progress,
                             &seen, nullptr),
            FLASHELM_OK);
  ASSERT_GT(seen.progress.size(), 1u);
  EXPECT_EQ(seen.progress.front(),
            (std::pair<uint64_t, uint64_t>(4, ids.size())));
  EXPECT_EQ(seen.progress.back().first, ids.size());

  // An abort leaves the text as it was.
  seen.abort_at = 4;
  uint32_t position = 0;
  EXPECT_EQ(flashelm_prefill(session.get(), ids.data(), ids.size(), progress,
                             &seen, nullptr),
            FLASHELM_CANCELLED);
  ASSERT_EQ(flashelm_position(session.get(), &position, nullptr), FLASHELM_OK);
  EXPECT_EQ(position, ids.size());
  EXPECT_EQ(Generate(session.get(), "", Greedy(1)).ids,
            std::vector<uint32_t>{golden_.prompts[0].greedy_ids[0]});

  seen.abort_at = 1;
  flashelm_error error;
  EXPECT_EQ(flashelm_engine_open(model_.path().c_str(), &options, &error),
            nullptr);
  EXPECT_EQ(error.code, FLASHELM_CANCELLED) << error.message;
}

TEST(CApiSparsityTest, GatesOfAReluModelLeaveOutNothing) {
  const std::vector<uint32_t> prompt = SomeTokens(6, 256);
  const auto logits = [&](const std::string& path, uint32_t sparsity,
                          double kept_fraction, flashelm_code expected_code) {
    flashelm_engine_options options = MakeOptions();
    options.sparsity = sparsity;
    options.kept_fraction = kept_fraction;
    flashelm_error error;
    const UniqueEngine engine(
        flashelm_engine_open(path.c_str(), &options, &error));
    EXPECT_EQ(error.code, expected_code) << error.message;
    std::vector<float> all;
    if (engine == nullptr) return all;
    const UniqueSession session = OpenSession(engine.get());
    EXPECT_EQ(flashelm_prefill(session.get(), prompt.data(), prompt.size(),
                               nullptr, nullptr, nullptr),
              FLASHELM_OK);
    auto info = Sized<flashelm_model_info>();
    EXPECT_EQ(flashelm_engine_get_info(engine.get(), &info, nullptr),
              FLASHELM_OK);
    all.resize(info.vocab_size);
    EXPECT_EQ(flashelm_logits(session.get(), all.data(), all.size(), nullptr),
              FLASHELM_OK);
    return all;
  };
  PredictedModelOptions options;
  options.split_gate = true;
  const PredictedModel model(options);
  const auto dense =
      logits(model.path(), FLASHELM_SPARSITY_OFF, 0, FLASHELM_OK);
  EXPECT_EQ(logits(model.path(), FLASHELM_SPARSITY_GATE, 0, FLASHELM_OK),
            dense);
  EXPECT_NE(logits(model.path(), FLASHELM_SPARSITY_GATE, 0.02, FLASHELM_OK),
            dense);
  EXPECT_NE(logits(model.path(), FLASHELM_SPARSITY_LOW_BIT, 0.02, FLASHELM_OK),
            dense);
  // The file's predictors are of the other kind, or there are none.
  logits(model.path(), FLASHELM_SPARSITY_LOW_RANK, 0.9,
         FLASHELM_INVALID_ARGUMENT);
  logits(model.uncalibrated_path(), FLASHELM_SPARSITY_GATE, 0,
         FLASHELM_INVALID_ARGUMENT);
}

TEST_F(CApiGenerateTest, StatisticsCountWhatWasRead) {
  const flashelm_source source = PathSource(model_.path());
  flashelm_engine_options options = MakeOptions();
  options.memory_bytes = LeastMemory(source, options);
  const UniqueEngine engine = OpenEngine(source, options);
  const UniqueSession session = OpenSession(engine.get());
  ASSERT_EQ(Generate(session.get(), "Once", Greedy(5)).code, FLASHELM_OK);
  auto stats = Sized<flashelm_stats>();
  ASSERT_EQ(flashelm_session_get_stats(session.get(), &stats, nullptr),
            FLASHELM_OK);
  auto plan = Sized<flashelm_plan>();
  ASSERT_EQ(flashelm_engine_get_plan(engine.get(), &plan, nullptr),
            FLASHELM_OK);
  // BOS and a prompt of some tokens in one batch, four tokens in one each.
  EXPECT_GE(stats.num_tokens, 6u);
  EXPECT_GE(stats.flash_bytes, 5 * plan.streamed_bytes_per_token * 9 / 10);
  EXPECT_GT(stats.num_reads, 0u);
  EXPECT_GT(stats.compute_ns, 0u);
  EXPECT_GT(stats.read_busy_ns, 0u);
  EXPECT_LE(stats.used_bytes, options.memory_bytes);
  EXPECT_GT(stats.used_bytes, options.memory_bytes / 2);
}

}  // namespace
}  // namespace flashelm::test
