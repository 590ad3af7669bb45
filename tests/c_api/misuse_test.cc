// Wrong calls of the C interface, each of which says so and changes nothing.

#include <cstring>
#include <functional>
#include <thread>

#include "tests/c_api/fixture.h"
#include "tests/core/test_model.h"
#include "tests/temp_directory.h"

namespace flashelm::test {
namespace {

class CApiMisuseTest : public testing::Test {
 protected:
  CApiMisuseTest()
      : model_(CheckpointOptions{}, Encoding::kBf16),
        engine_(OpenEngine(PathSource(model_.path()), MakeOptions())),
        session_(OpenSession(engine_.get())) {}

  const std::vector<uint32_t> ids_ = SomeTokens(5, 2048);
  const ConvertedModel model_;
  UniqueEngine engine_;
  UniqueSession session_;
};

TEST_F(CApiMisuseTest, EveryWrongCallIsRefusedByName) {
  flashelm_engine* const engine = engine_.get();
  flashelm_session* const session = session_.get();
  ASSERT_EQ(flashelm_prefill(session, ids_.data(), ids_.size(), nullptr,
                             nullptr, nullptr),
            FLASHELM_OK);
  auto plan = Sized<flashelm_plan>();
  auto info = Sized<flashelm_model_info>();
  auto stats = Sized<flashelm_stats>();
  auto source = PathSource(model_.path());
  auto options = MakeOptions();
  auto generate = Greedy(1);
  const char* const no_string[] = {nullptr};
  const char* const empty_string[] = {""};
  uint32_t position = 0;
  uint32_t id = 5;
  const uint32_t unknown = 1u << 30;
  size_t size = 0;
  float logit = 0;
  char text[8];
  flashelm_error error;

  const auto opens = [&](auto change) {
    auto changed_source = source;
    auto changed = options;
    change(changed_source, changed);
    flashelm_engine* const opened =
        flashelm_engine_open_source(&changed_source, &changed, &error);
    EXPECT_EQ(flashelm_estimate(&changed_source, &changed, &plan, nullptr),
              error.code)
        << "an estimate refuses the same";
    EXPECT_EQ(opened, nullptr);
    return static_cast<flashelm_code>(error.code);
  };
  const auto generates = [&](auto change) {
    auto changed = generate;
    change(changed);
    return flashelm_generate(session, "a", 1, &changed, nullptr, &error);
  };
  using Source = flashelm_source;
  using Options = flashelm_engine_options;
  using Generating = flashelm_generate_options;

  struct Case {
    const char* name;  // Appears in the message.
    std::function<flashelm_code()> call;
  };
  const Case cases[] = {
      {"source is NULL",
       [&] { return flashelm_estimate(nullptr, &options, &plan, &error); }},
      {"plan is NULL",
       [&] { return flashelm_estimate(&source, &options, nullptr, &error); }},
      {"path is NULL",
       [&] { return opens([](Source& s, Options&) { s.path = nullptr; }); }},
      {"kind is 3",
       [&] { return opens([](Source& s, Options&) { s.kind = 3; }); }},
      {"source: struct_size is 0",
       [&] { return opens([](Source& s, Options&) { s.struct_size = 0; }); }},
      {"read is NULL",
       [&] {
         return opens(
             [](Source& s, Options&) { s.kind = FLASHELM_SOURCE_READ; });
       }},
      {"descriptor -1",
       [&] {
         return opens([](Source& s, Options&) {
           s.kind = FLASHELM_SOURCE_FD;
           s.fd = -1;
         });
       }},
      {"options: struct_size is 7",
       [&] { return opens([](Source&, Options& o) { o.struct_size = 7; }); }},
      {"options: struct_size is 5000",
       [&] {
         return opens([](Source&, Options& o) { o.struct_size = 5000; });
       }},
      {"kv_type is 2",
       [&] { return opens([](Source&, Options& o) { o.kv_type = 2; }); }},
      {"io is 3", [&] { return opens([](Source&, Options& o) { o.io = 3; }); }},
      {"sparsity is 4",
       [&] { return opens([](Source&, Options& o) { o.sparsity = 4; }); }},
      {"kept_fraction",
       [&] {
         return opens([](Source&, Options& o) { o.kept_fraction = 1.5; });
       }},
      {"context of 1000000",
       [&] { return opens([](Source&, Options& o) { o.context = 1000000; }); }},
      {"2000 sessions",
       [&] {
         return opens([](Source&, Options& o) { o.max_sessions = 2000; });
       }},
      {"5000 threads",
       [&] {
         return opens([](Source&, Options& o) { o.num_threads = 5000; });
       }},
      {"reserved is 1",
       [&] { return opens([](Source&, Options& o) { o.reserved = 1; }); }},
      {"engine is NULL",
       [&] { return flashelm_engine_get_plan(nullptr, &plan, &error); }},
      {"info is NULL",
       [&] { return flashelm_engine_get_info(engine, nullptr, &error); }},
      {"engine is NULL",
       [&] { return flashelm_engine_get_info(nullptr, &info, &error); }},
      {"engine is NULL",
       [&] {
         return flashelm_tokenize(nullptr, "a", 1, 0, nullptr, 0, &size,
                                  &error);
       }},
      {"text is NULL",
       [&] {
         return flashelm_tokenize(engine, nullptr, 1, 0, nullptr, 0, &size,
                                  &error);
       }},
      {"num_ids is NULL",
       [&] {
         return flashelm_tokenize(engine, "a", 1, 0, nullptr, 0, nullptr,
                                  &error);
       }},
      {"room for 1 ids",
       [&] {
         return flashelm_tokenize(engine, "a b c", 5, 1, &id, 1, &size, &error);
       }},
      {"ids is NULL",
       [&] {
         return flashelm_detokenize(engine, nullptr, 1, text, 8, &size, &error);
       }},
      {"token 0 is 1073741824",
       [&] {
         return flashelm_detokenize(engine, &unknown, 1, text, 8, &size,
                                    &error);
       }},
      {"text_bytes is NULL",
       [&] {
         return flashelm_detokenize(engine, &id, 1, text, 8, nullptr, &error);
       }},
      {"session is NULL", [&] { return flashelm_decode(nullptr, 5, &error); }},
      {"ids is NULL",
       [&] {
         return flashelm_prefill(session, nullptr, 1, nullptr, nullptr, &error);
       }},
      {"no ids",
       [&] {
         return flashelm_prefill(session, &id, 0, nullptr, nullptr, &error);
       }},
      {"token 0 is 1073741824",
       [&] { return flashelm_decode(session, unknown, &error); }},
      {"context is full",
       [&] {
         const std::vector<uint32_t> many(100000, 5);
         return flashelm_prefill(session, many.data(), many.size(), nullptr,
                                 nullptr, &error);
       }},
      {"logits is NULL",
       [&] { return flashelm_logits(session, nullptr, 5000, &error); }},
      {"room for 1 logits",
       [&] { return flashelm_logits(session, &logit, 1, &error); }},
      {"cannot cut to position 6",
       [&] { return flashelm_truncate(session, 6, &error); }},
      {"position is NULL",
       [&] { return flashelm_position(session, nullptr, &error); }},
      {"session is NULL",
       [&] { return flashelm_position(nullptr, &position, &error); }},
      {"prompt is NULL",
       [&] {
         return flashelm_generate(session, nullptr, 1, &generate, nullptr,
                                  &error);
       }},
      {"options: struct_size",
       [&] { return generates([](Generating& g) { g.struct_size = 1; }); }},
      {"temperature",
       [&] { return generates([](Generating& g) { g.temperature = -1; }); }},
      {"top-p", [&] { return generates([](Generating& g) { g.top_p = 2; }); }},
      {"ignore_eos",
       [&] { return generates([](Generating& g) { g.ignore_eos = 2; }); }},
      {"stop_strings is NULL",
       [&] {
         return generates([](Generating& g) { g.num_stop_strings = 1; });
       }},
      {"stop string 0 is NULL",
       [&] {
         return generates([&](Generating& g) {
           g.stop_strings = no_string;
           g.num_stop_strings = 1;
         });
       }},
      {"stop string 0 is empty",
       [&] {
         return generates([&](Generating& g) {
           g.stop_strings = empty_string;
           g.num_stop_strings = 1;
         });
       }},
      {"65 stop strings",
       [&] {
         return generates([&](Generating& g) {
           static const std::vector<const char*> many(65, "a");
           g.stop_strings = many.data();
           g.num_stop_strings = many.size();
         });
       }},
      {"result: struct_size",
       [&] {
         flashelm_generate_result result{};
         return flashelm_generate(session, "a", 1, &generate, &result, &error);
       }},
      {"session is NULL",
       [&] { return flashelm_session_get_stats(nullptr, &stats, &error); }},
      {"stats is NULL",
       [&] { return flashelm_session_get_stats(session, nullptr, &error); }},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    std::memset(&error, 0x55, sizeof(error));
    EXPECT_EQ(c.call(), FLASHELM_INVALID_ARGUMENT);
    EXPECT_EQ(error.code, FLASHELM_INVALID_ARGUMENT);
    EXPECT_NE(std::strstr(error.message, c.name), nullptr) << error.message;
  }
  // Nothing has changed.
  ASSERT_EQ(flashelm_position(session, &position, nullptr), FLASHELM_OK);
  EXPECT_EQ(position, ids_.size());
  EXPECT_EQ(flashelm_decode(session, 5, nullptr), FLASHELM_OK);
}

TEST_F(CApiMisuseTest, NothingIsDoneToNothing) {
  EXPECT_EQ(flashelm_engine_close(nullptr), FLASHELM_OK);
  EXPECT_EQ(flashelm_session_close(nullptr), FLASHELM_OK);
  flashelm_cancel(nullptr);
  flashelm_clear_cancel(nullptr);
  flashelm_error error;
  EXPECT_EQ(flashelm_session_open(nullptr, &error), nullptr);
  EXPECT_EQ(error.code, FLASHELM_INVALID_ARGUMENT);
  EXPECT_EQ(flashelm_engine_open(nullptr, nullptr, nullptr), nullptr);
}

TEST_F(CApiMisuseTest, FilesThatAreNoModelsHaveTheirCodes) {
  flashelm_error error;
  EXPECT_EQ(flashelm_engine_open("/none.felm", nullptr, &error), nullptr);
  EXPECT_EQ(error.code, FLASHELM_NOT_FOUND);
  const TempDirectory directory;
  const std::string path = directory.File("text");
  WriteFile(path, std::string(100000, 'x'));
  EXPECT_EQ(flashelm_engine_open(path.c_str(), nullptr, &error), nullptr);
  EXPECT_EQ(error.code, FLASHELM_DATA_LOSS);
  EXPECT_STREQ(flashelm_code_name(error.code), "DATA_LOSS");
  EXPECT_STREQ(flashelm_code_name(77), "UNKNOWN");
  EXPECT_STREQ(flashelm_code_name(-1), "UNKNOWN");
}

TEST_F(CApiMisuseTest, AnEstimateIsWhatAnEngineTakes) {
  const flashelm_source source = PathSource(model_.path());
  flashelm_engine_options options = MakeOptions(0, 3);
  const uint64_t least = LeastMemory(source, options);
  EXPECT_GT(least, LeastMemory(source, MakeOptions(0, 1)));
  for (const uint64_t budget : {least, least + (512 << 10), uint64_t{0}}) {
    options.memory_bytes = budget;
    auto plan = Sized<flashelm_plan>();
    ASSERT_EQ(flashelm_estimate(&source, &options, &plan, nullptr),
              FLASHELM_OK);
    EXPECT_EQ(plan.minimum_bytes, least);
    if (budget != 0) {
      EXPECT_LE(plan.total_bytes, budget);
    }
    uint64_t sum = 0;
    for (uint32_t i = 0; i < plan.num_parts; ++i) sum += plan.parts[i].bytes;
    EXPECT_EQ(sum, plan.total_bytes);
    const UniqueEngine engine = OpenEngine(source, options);
    auto taken = Sized<flashelm_plan>();
    ASSERT_EQ(flashelm_engine_get_plan(engine.get(), &taken, nullptr),
              FLASHELM_OK);
    EXPECT_EQ(std::memcmp(&plan, &taken, sizeof(plan)), 0);
  }
  options.memory_bytes = least - 1;
  auto plan = Sized<flashelm_plan>();
  flashelm_error error;
  EXPECT_EQ(flashelm_estimate(&source, &options, &plan, &error),
            FLASHELM_BUDGET_INFEASIBLE);
  EXPECT_EQ(plan.minimum_bytes, least);
  EXPECT_EQ(flashelm_engine_open_source(&source, &options, &error), nullptr);
  EXPECT_EQ(error.code, FLASHELM_BUDGET_INFEASIBLE);
}

// A caller's struct as an older or newer header has it.
TEST_F(CApiMisuseTest, OlderAndNewerStructsAreAccepted) {
  const flashelm_source source = PathSource(model_.path());
  struct Newer {
    flashelm_engine_options known;
    uint64_t more[4];
  } newer{};
  newer.known = MakeOptions();
  newer.known.struct_size = sizeof(newer);
  newer.known.context = 48;
  flashelm_error error;
  struct NewerPlan {
    flashelm_plan known;
    uint64_t more[4];
  } plan;
  std::memset(&plan, 0x55, sizeof(plan));
  plan.known.struct_size = sizeof(plan);
  ASSERT_EQ(flashelm_estimate(&source, &newer.known, &plan.known, &error),
            FLASHELM_OK)
      << error.message;
  EXPECT_EQ(plan.known.context, 48u);
  EXPECT_EQ(plan.known.struct_size, sizeof(plan));
  for (const uint64_t more : plan.more) EXPECT_EQ(more, 0u);
  newer.more[2] = 1;
  EXPECT_EQ(flashelm_estimate(&source, &newer.known, &plan.known, &error),
            FLASHELM_INVALID_ARGUMENT)
      << "what this library does not know was asked for";

  // Every older one: what it lacks counts as 0, and is not touched.
  for (size_t size = sizeof(size_t); size < sizeof(flashelm_engine_options);
       size += sizeof(void*)) {
    SCOPED_TRACE(size);
    flashelm_engine_options older;
    std::memset(&older, 0x55, sizeof(older));
    const flashelm_engine_options zero = Sized<flashelm_engine_options>();
    std::memcpy(&older, &zero, size);
    older.struct_size = size;
    auto made = Sized<flashelm_plan>();
    EXPECT_EQ(flashelm_estimate(&source, &older, &made, &error), FLASHELM_OK)
        << error.message;
    EXPECT_EQ(made.context, 128u) << "as the model was made";
  }
  for (size_t size = sizeof(size_t); size < sizeof(flashelm_stats);
       size += sizeof(void*)) {
    SCOPED_TRACE(size);
    flashelm_stats older;
    std::memset(&older, 0x55, sizeof(older));
    older.struct_size = size;
    ASSERT_EQ(flashelm_session_get_stats(session_.get(), &older, nullptr),
              FLASHELM_OK);
    const auto* const bytes = reinterpret_cast<const unsigned char*>(&older);
    for (size_t i = size; i < sizeof(older); ++i) ASSERT_EQ(bytes[i], 0x55);
  }
}

TEST_F(CApiMisuseTest, ASessionIsInOneCallAtATime) {
  struct Seen {
    flashelm_session* session;
    std::vector<flashelm_code> codes;
  } seen{session_.get(), {}};
  // From inside a callback and from another thread meanwhile.
  auto options = Greedy(1);
  options.token_user = &seen;
  options.token = [](void* user, uint32_t, const char*, size_t) {
    auto& to = *static_cast<Seen*>(user);
    const auto try_all = [&to] {
      uint32_t position = 0;
      to.codes.push_back(flashelm_decode(to.session, 5, nullptr));
      to.codes.push_back(flashelm_truncate(to.session, 0, nullptr));
      to.codes.push_back(flashelm_position(to.session, &position, nullptr));
      to.codes.push_back(
          flashelm_generate(to.session, "a", 1, nullptr, nullptr, nullptr));
      to.codes.push_back(flashelm_session_close(to.session));
    };
    try_all();
    std::thread(try_all).join();
    return 0;
  };
  ASSERT_EQ(
      flashelm_generate(session_.get(), "a", 1, &options, nullptr, nullptr),
      FLASHELM_OK);
  EXPECT_EQ(seen.codes,
            std::vector<flashelm_code>(10, FLASHELM_INVALID_ARGUMENT));
  EXPECT_EQ(flashelm_decode(session_.get(), 5, nullptr), FLASHELM_OK);
}

TEST_F(CApiMisuseTest, AnEngineInUseStaysAndAClosedOneIsMissed) {
  // While a session is in a call.
  auto options = Greedy(1);
  options.token_user = engine_.get();
  options.token = [](void* user, uint32_t, const char*, size_t) {
    EXPECT_EQ(flashelm_engine_close(static_cast<flashelm_engine*>(user)),
              FLASHELM_INVALID_ARGUMENT);
    return 0;
  };
  ASSERT_EQ(
      flashelm_generate(session_.get(), "a", 1, &options, nullptr, nullptr),
      FLASHELM_OK);
  // Before its sessions.
  engine_.reset();
  flashelm_error error;
  EXPECT_EQ(flashelm_decode(session_.get(), 5, &error),
            FLASHELM_INVALID_ARGUMENT);
  EXPECT_NE(std::strstr(error.message, "engine was closed"), nullptr);
  flashelm_cancel(session_.get());
  auto stats = Sized<flashelm_stats>();
  EXPECT_EQ(flashelm_session_get_stats(session_.get(), &stats, nullptr),
            FLASHELM_OK);
  EXPECT_EQ(flashelm_session_close(session_.release()), FLASHELM_OK);
}

TEST_F(CApiMisuseTest, ASourceThatIsReleasedMayCloseSessions) {
  struct Owner {
    CallbackReader reader;
    flashelm_source inner;
    UniqueSession session;
  } owner{CallbackReader(model_.path()), {}, nullptr};
  owner.inner = owner.reader.source();
  flashelm_source source = owner.inner;
  source.user = &owner;
  source.read = [](void* user, uint64_t offset, void* target, size_t size) {
    const flashelm_source& inner = static_cast<Owner*>(user)->inner;
    return inner.read(inner.user, offset, target, size);
  };
  source.release = [](void* user) {
    static_cast<Owner*>(user)->session.reset();
  };
  UniqueEngine engine = OpenEngine(source, MakeOptions());
  owner.session = OpenSession(engine.get());
  engine.reset();
  EXPECT_EQ(owner.session, nullptr);
}

TEST_F(CApiMisuseTest, ThereAreAsManySessionsAsWerePlanned) {
  flashelm_error error;
  EXPECT_EQ(flashelm_session_open(engine_.get(), &error), nullptr);
  EXPECT_EQ(error.code, FLASHELM_RESOURCE_EXHAUSTED);
  session_.reset();
  session_ = OpenSession(engine_.get());
}

TEST_F(CApiMisuseTest, UseAfterCancelIsRefusedUntilItIsCleared) {
  flashelm_cancel(session_.get());
  EXPECT_EQ(flashelm_decode(session_.get(), 5, nullptr), FLASHELM_CANCELLED);
  EXPECT_EQ(Generate(session_.get(), "a", Greedy(1)).code, FLASHELM_CANCELLED);
  uint32_t position = 1;
  EXPECT_EQ(flashelm_position(session_.get(), &position, nullptr), FLASHELM_OK);
  EXPECT_EQ(position, 0u);
  flashelm_clear_cancel(session_.get());
  EXPECT_EQ(flashelm_decode(session_.get(), 5, nullptr), FLASHELM_OK);
  // Where the logits of the next token are there already.
  flashelm_cancel(session_.get());
  const Generated generated = Generate(session_.get(), "", Greedy(1));
  EXPECT_EQ(generated.code, FLASHELM_CANCELLED);
  EXPECT_TRUE(generated.ids.empty());
  EXPECT_EQ(flashelm_position(session_.get(), &position, nullptr), FLASHELM_OK);
  EXPECT_EQ(position, 1u);
  flashelm_clear_cancel(session_.get());
  EXPECT_EQ(Generate(session_.get(), "", Greedy(1)).code, FLASHELM_OK);
}

TEST_F(CApiMisuseTest, AResultIsFilledWhereACallIsRefused) {
  auto wrong = Greedy(1);
  wrong.ignore_eos = 2;
  const auto refused = [&](flashelm_session* session,
                           const flashelm_generate_options& options) {
    auto result = Sized<flashelm_generate_result>();
    result.num_tokens = result.stop_reason = 7;
    EXPECT_EQ(flashelm_generate(session, "a", 1, &options, &result, nullptr),
              FLASHELM_INVALID_ARGUMENT);
    EXPECT_EQ(result.struct_size, sizeof(result));
    EXPECT_EQ(result.num_tokens, 0u);
    EXPECT_EQ(result.stop_reason, 0u);
  };
  refused(nullptr, Greedy(1));
  refused(session_.get(), wrong);
  wrong = Greedy(1);
  wrong.struct_size = 1;
  refused(session_.get(), wrong);
}

TEST_F(CApiMisuseTest, ALongMessageIsCutBetweenCodePoints) {
  std::string path = "/";
  while (path.size() < 1500) path += "\xC3\xA4";
  for (int shift = 0; shift < 2; ++shift, path.insert(0, "/")) {
    flashelm_error error;
    std::memset(&error, 0x55, sizeof(error));
    EXPECT_EQ(flashelm_engine_open(path.c_str(), nullptr, &error), nullptr);
    const size_t length = strnlen(error.message, sizeof(error.message));
    ASSERT_LT(length, sizeof(error.message));
    EXPECT_GE(length, sizeof(error.message) - 2);
    EXPECT_EQ(error.message[length - 1], '\xA4');
  }
}

TEST_F(CApiMisuseTest, VersionsAreThoseOfTheHeader) {
  EXPECT_EQ(flashelm_abi_version(), uint32_t{FLASHELM_ABI_VERSION});
  EXPECT_STREQ(flashelm_version(), FLASHELM_VERSION);
}

}  // namespace
}  // namespace flashelm::test
