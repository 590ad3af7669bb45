// Engines of the C interface: estimate, open, close.
#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "core/base/processors.h"
#include "core/c_api_state.h"
#include "core/c_api_support.h"
#include "core/callback_file.h"
#include "core/memory_plan.h"
#include "core/sampler.h"
#include "storage/file.h"

namespace flashelm {
namespace {

// Stop strings of a call, and what is held back for them.
constexpr uint64_t kStopBytes = uint64_t{32} << 10;
constexpr uint32_t kDefaultBatch = 512;
constexpr uint32_t kDefaultReadTimeoutMs = 30000;

Status CheckEnum(uint32_t value, uint32_t last, std::string_view name) {
  if (value <= last) return OkStatus();
  return InvalidArgument("options: ", name, " is ", value,
                         ", expected at most ", last);
}

// Calls `release` unless the source was handed on.
class SourceOwner {
 public:
  explicit SourceOwner(const flashelm_source& source) : source_(source) {}
  ~SourceOwner() {
    if (source_.kind == FLASHELM_SOURCE_READ && source_.release != nullptr) {
      source_.release(source_.user);
    }
  }
  SourceOwner(const SourceOwner&) = delete;
  SourceOwner& operator=(const SourceOwner&) = delete;

  Result<ModelFile> Open() {
    switch (source_.kind) {
      case FLASHELM_SOURCE_PATH:
        FLASHELM_RETURN_IF_ERROR(CheckNotNull(source_.path, "source: path"));
        return ModelFile::Open(std::string(source_.path));
      case FLASHELM_SOURCE_FD: {
        FLASHELM_ASSIGN_OR_RETURN(
            auto file,
            OpenDescriptor(
                source_.fd, source_.offset_bytes,
                source_.size_bytes == 0 ? kToTheEnd : source_.size_bytes,
                StatusMessage::Join("descriptor ", source_.fd),
                CacheMode::kDirect));
        return ModelFile::Open(std::move(file));
      }
      case FLASHELM_SOURCE_READ: {
        if (source_.read == nullptr) {
          return InvalidArgument("source: read is NULL");
        }
        auto file = std::make_unique<CallbackFile>(source_);
        source_.release = nullptr;  // The file's affair from here on.
        return ModelFile::Open(std::move(file));
      }
      default:
        return InvalidArgument("source: kind is ", source_.kind,
                               ", expected at most ", FLASHELM_SOURCE_READ);
    }
  }

 private:
  flashelm_source source_;
};

Result<SparsityOptions> SparsityOf(const flashelm_engine_options& options) {
  SparsityOptions sparsity;
  switch (options.sparsity) {
    case FLASHELM_SPARSITY_OFF:
      break;
    case FLASHELM_SPARSITY_GATE:
      sparsity.selector = Selector::kGate;
      break;
    case FLASHELM_SPARSITY_LOW_BIT:
      sparsity.selector = Selector::kLowBit;
      break;
    case FLASHELM_SPARSITY_LOW_RANK:
      sparsity.selector = Selector::kLowRank;
      break;
    default:
      return InvalidArgument("options: sparsity is ", options.sparsity,
                             ", expected at most ", FLASHELM_SPARSITY_LOW_RANK);
  }
  if (!(options.kept_fraction >= 0 && options.kept_fraction <= 1)) {
    return InvalidArgument("options: kept_fraction is ", options.kept_fraction,
                           ", expected a number from 0 to 1");
  }
  sparsity.kept_fraction = options.kept_fraction;
  return sparsity;
}

// What the caller's options mean for a model.
Result<EngineOptions> EngineOptionsOf(const flashelm_engine_options& options,
                                      const ModelFile& model) {
  FLASHELM_RETURN_IF_ERROR(
      CheckEnum(options.kv_type, FLASHELM_KV_BF16, "kv_type"));
  FLASHELM_RETURN_IF_ERROR(CheckEnum(options.io, FLASHELM_IO_PREAD, "io"));
  FLASHELM_RETURN_IF_ERROR(CheckEnum(options.reserved, 0, "reserved"));
  EngineOptions ours;
  PlanOptions& plan = ours.plan;
  if (options.memory_bytes != 0) plan.budget_bytes = options.memory_bytes;
  plan.whole_process = false;
  plan.context = options.context;
  plan.max_sessions = std::max(1u, options.max_sessions);
  plan.num_threads =
      options.num_threads != 0
          ? options.num_threads
          : std::min(kMaxThreads, FindUsableProcessors().num_cores);
  plan.max_batch = options.max_batch != 0 ? options.max_batch : kDefaultBatch;
  plan.kv_type =
      options.kv_type == FLASHELM_KV_BF16 ? KvType::kBf16 : KvType::kF32;
  plan.io = options.io == FLASHELM_IO_URING   ? IoBackend::kUring
            : options.io == FLASHELM_IO_PREAD ? IoBackend::kPread
                                              : IoBackend::kAuto;
  if (options.num_io_threads != 0) plan.num_io_threads = options.num_io_threads;
  FLASHELM_ASSIGN_OR_RETURN(plan.sparsity, SparsityOf(options));
  // Of each session: its text, lists of what a call wants logits of, a sampler.
  const uint64_t context =
      plan.context != 0 ? plan.context : model.config().max_context;
  plan.caller_bytes =
      plan.max_sessions *
      (sizeof(flashelm_session) + 3 * sizeof(TokenId) * context +
       Sampler::NumBytes(model.config().vocab_size) + kStopBytes);
  ours.read_timeout = std::chrono::milliseconds(options.read_timeout_ms != 0
                                                    ? options.read_timeout_ms
                                                    : kDefaultReadTimeoutMs);
  return ours;
}

void DescribePlan(const MemoryPlan& plan, flashelm_plan& out) {
  out.total_bytes = plan.total_bytes;
  out.minimum_bytes = plan.minimum_bytes;
  out.weight_bytes = plan.weight_bytes;
  out.streamed_bytes_per_token = plan.streamed_bytes_per_token;
  out.kv_cache_bytes = plan.kv_cache_bytes;
  out.context = plan.context;
  out.batch = plan.batch;
  for (const PlanLine& line : plan.lines) {
    if (line.name == "resident weights" || line.name == "norm vectors") {
      out.resident_bytes += line.bytes;
    }
    // The last part takes what there is no room for.
    if (out.num_parts == FLASHELM_MAX_PLAN_PARTS) {
      flashelm_plan_part& last = out.parts[FLASHELM_MAX_PLAN_PARTS - 1];
      CopyText("others", last.name, sizeof(last.name));
      last.bytes += line.bytes;
      continue;
    }
    flashelm_plan_part& part = out.parts[out.num_parts++];
    CopyText(line.name, part.name, sizeof(part.name));
    part.bytes = line.bytes;
  }
}

void LogOpened(EngineState& state, const flashelm_engine_options& options) {
  if (state.log == nullptr) return;
  const Engine& engine = *state.engine;
  const MemoryPlan& plan = engine.plan();
  state.Log(FLASHELM_LOG_INFO,
            StatusMessage::Join(
                engine.model().path(), ": ", engine.model().weights_name(),
                ", takes ", FormatBytes(plan.total_bytes), " of RAM, reads ",
                FormatBytes(plan.streamed_bytes_per_token), " per token by ",
                engine.io_backend()));
  const RandomAccessFile& file = engine.model().weight_file().file();
  if (options.io == FLASHELM_IO_AUTO && engine.io_backend() != "uring") {
    state.Log(
        FLASHELM_LOG_WARNING,
        StatusMessage::Join(file.path(), ": without io_uring, threads read"));
  }
  if (!file.direct_io() && plan.streamed_bytes_per_token > 0) {
    state.Log(FLASHELM_LOG_WARNING,
              StatusMessage::Join(
                  file.path(),
                  ": reads go through the system's cache, which may be slow"));
  }
}

// What reads were given up of is left behind, and counted there.
void NoteLeft(flashelm_session& session) {
  std::lock_guard lock(session.stats_mutex);
  session.stats.unanswered_bytes = 0;
}

// Goes over to a plan between the turns of sessions, none of which comes or
// goes meanwhile. memory_bytes 0: no limit; nothing: the same plan.
Status ChangePlan(flashelm_engine* engine,
                  std::optional<uint64_t> memory_bytes) {
  FLASHELM_RETURN_IF_ERROR(CheckNotNull(engine, "engine"));
  EngineState& state = *engine->state;
  // Before the mutex: who has the turn may want that.
  const TurnQueue::Turn turn = state.turns.WaitThoughPaused();
  const Engine& ours = *state.engine;
  uint64_t budget_bytes = ours.plan_options().budget_bytes;
  MemoryPlan plan;
  if (memory_bytes) {
    budget_bytes = *memory_bytes != 0 ? *memory_bytes : kUnlimitedBytes;
    // Without the mutex: it may read, by a callback which may want that, too.
    FLASHELM_ASSIGN_OR_RETURN(plan, ours.PlanFor(budget_bytes));
  } else {
    plan = ours.plan();
  }
  std::lock_guard lock(state.mutex);
  std::vector<Session*> sessions;
  for (const flashelm_session* session : state.sessions) {
    sessions.push_back(session->session.get());
  }
  FLASHELM_RETURN_IF_ERROR(
      state.engine->Replan(std::move(plan), budget_bytes, sessions));
  for (flashelm_session* session : state.sessions) NoteLeft(*session);
  return OkStatus();
}

Result<flashelm_engine_options> ReadOptions(
    const flashelm_engine_options* caller) {
  flashelm_engine_options options{};
  if (caller != nullptr) {
    FLASHELM_RETURN_IF_ERROR(ReadStruct(caller, "options", options));
  }
  return options;
}

Result<std::unique_ptr<flashelm_engine>> OpenEngine(
    const flashelm_source* caller_source,
    const flashelm_engine_options* caller_options) {
  flashelm_source source{};
  FLASHELM_RETURN_IF_ERROR(ReadStruct(caller_source, "source", source));
  SourceOwner owner(source);
  FLASHELM_ASSIGN_OR_RETURN(const flashelm_engine_options options,
                            ReadOptions(caller_options));
  FLASHELM_ASSIGN_OR_RETURN(ModelFile model, owner.Open());
  FLASHELM_ASSIGN_OR_RETURN(EngineOptions ours,
                            EngineOptionsOf(options, model));
  CancelToken cancel;
  ours.cancel = &cancel;
  if (options.progress != nullptr) {
    ours.progress = [&](uint64_t done, uint64_t total) {
      if (options.progress(options.progress_user, done, total) != 0) {
        cancel.Cancel();
      }
    };
  }
  auto engine = std::make_unique<flashelm_engine>();
  engine->state = std::make_shared<EngineState>();
  EngineState& state = *engine->state;
  state.log = options.log;
  state.log_user = options.log_user;
  FLASHELM_ASSIGN_OR_RETURN(state.engine,
                            Engine::Create(std::move(model), ours));
  // A session that is opened later adds itself without an allocation.
  state.sessions.reserve(ours.plan.max_sessions);
  if (cancel.IsCancelled()) {
    return Cancelled("stopped by the progress callback");
  }
  LogOpened(state, options);
  return engine;
}

}  // namespace

void EngineState::Log(int32_t level, const std::string& message) {
  if (log == nullptr) return;
  std::lock_guard lock(log_mutex);
  log(log_user, level, message.c_str());
}

}  // namespace flashelm

using namespace flashelm;  // NOLINT: the functions of the C interface follow.

flashelm_code flashelm_estimate(const flashelm_source* source,
                                const flashelm_engine_options* options,
                                flashelm_plan* plan, flashelm_error* error) {
  return ReportCall(error, [&]() -> Status {
    flashelm_source our_source{};
    FLASHELM_RETURN_IF_ERROR(ReadStruct(source, "source", our_source));
    SourceOwner owner(our_source);
    FLASHELM_RETURN_IF_ERROR(CheckStructSize(plan, "plan"));
    FLASHELM_ASSIGN_OR_RETURN(const flashelm_engine_options our_options,
                              ReadOptions(options));
    FLASHELM_ASSIGN_OR_RETURN(const ModelFile model, owner.Open());
    FLASHELM_ASSIGN_OR_RETURN(EngineOptions engine_options,
                              EngineOptionsOf(our_options, model));
    auto made = MakePlan(model, engine_options.plan);
    flashelm_plan out{};
    if (made) {
      DescribePlan(*made, out);
      WriteStruct(out, plan);
      return OkStatus();
    }
    if (made.error().code() == StatusCode::kBudgetInfeasible) {
      engine_options.plan.budget_bytes = kUnlimitedBytes;
      FLASHELM_ASSIGN_OR_RETURN(const MemoryPlan unlimited,
                                MakePlan(model, engine_options.plan));
      out.minimum_bytes = unlimited.minimum_bytes;
      WriteStruct(out, plan);
    }
    return made.error();
  });
}

flashelm_engine* flashelm_engine_open(const char* path,
                                      const flashelm_engine_options* options,
                                      flashelm_error* error) {
  flashelm_source source{};
  source.struct_size = sizeof(source);
  source.kind = FLASHELM_SOURCE_PATH;
  source.path = path;
  return flashelm_engine_open_source(&source, options, error);
}

flashelm_engine* flashelm_engine_open_source(
    const flashelm_source* source, const flashelm_engine_options* options,
    flashelm_error* error) {
  flashelm_engine* opened = nullptr;
  ReportCall(error, [&]() -> Status {
    FLASHELM_ASSIGN_OR_RETURN(auto engine, OpenEngine(source, options));
    opened = engine.release();
    return OkStatus();
  });
  return opened;
}

flashelm_code flashelm_engine_close(flashelm_engine* engine) {
  return ReportCall(nullptr, [&]() -> Status {
    if (engine == nullptr) return OkStatus();
    EngineState& state = *engine->state;
    // Ends without the lock: its source's `release` may close sessions.
    std::unique_ptr<Engine> closed;
    {
      std::lock_guard lock(state.mutex);
      if (state.num_calls > 0) {
        return InvalidArgument("a session of the engine is in a call");
      }
      for (flashelm_session* session : state.sessions) {
        session->session.reset();
        NoteLeft(*session);
      }
      state.sessions.clear();
      closed = std::move(state.engine);
    }
    closed.reset();
    delete engine;
    return OkStatus();
  });
}

flashelm_code flashelm_engine_get_plan(const flashelm_engine* engine,
                                       flashelm_plan* plan,
                                       flashelm_error* error) {
  return ReportCall(error, [&]() -> Status {
    FLASHELM_RETURN_IF_ERROR(CheckNotNull(engine, "engine"));
    FLASHELM_RETURN_IF_ERROR(CheckStructSize(plan, "plan"));
    EngineState& state = *engine->state;
    std::lock_guard lock(state.mutex);
    flashelm_plan out{};
    DescribePlan(state.engine->plan(), out);
    WriteStruct(out, plan);
    return OkStatus();
  });
}

flashelm_code flashelm_engine_get_info(const flashelm_engine* engine,
                                       flashelm_model_info* info,
                                       flashelm_error* error) {
  return ReportCall(error, [&]() -> Status {
    FLASHELM_RETURN_IF_ERROR(CheckNotNull(engine, "engine"));
    FLASHELM_RETURN_IF_ERROR(CheckStructSize(info, "info"));
    EngineState& state = *engine->state;
    std::lock_guard lock(state.mutex);
    const Engine& ours = *state.engine;
    flashelm_model_info out{};
    out.file_bytes = ours.model().file_bytes();
    out.vocab_size = ours.config().vocab_size;
    out.max_context = ours.config().max_context;
    out.num_layers = ours.config().num_layers();
    out.model_dim = ours.config().model_dim;
    out.bos_id = ours.tokenizer().bos_id();
    out.eos_id = ours.tokenizer().eos_id();
    CopyText(ours.model().weights_name(), out.weights, sizeof(out.weights));
    CopyText(ours.io_backend(), out.io, sizeof(out.io));
    WriteStruct(out, info);
    return OkStatus();
  });
}

flashelm_code flashelm_set_budget(flashelm_engine* engine,
                                  uint64_t memory_bytes,
                                  flashelm_error* error) {
  return ReportCall(
      error, [&]() -> Status { return ChangePlan(engine, memory_bytes); });
}

flashelm_code flashelm_trim(flashelm_engine* engine, flashelm_error* error) {
  return ReportCall(
      error, [&]() -> Status { return ChangePlan(engine, std::nullopt); });
}

flashelm_code flashelm_pause(flashelm_engine* engine, flashelm_error* error) {
  return ReportCall(error, [&]() -> Status {
    FLASHELM_RETURN_IF_ERROR(CheckNotNull(engine, "engine"));
    engine->state->turns.Pause();
    return OkStatus();
  });
}

flashelm_code flashelm_resume(flashelm_engine* engine, flashelm_error* error) {
  return ReportCall(error, [&]() -> Status {
    FLASHELM_RETURN_IF_ERROR(CheckNotNull(engine, "engine"));
    engine->state->turns.Resume();
    return OkStatus();
  });
}
