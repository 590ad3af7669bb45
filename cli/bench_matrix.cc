#include "cli/bench_matrix.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>

#include "cli/bench_record.h"
#include "cli/engine_setup.h"

namespace flashelm::cli {
namespace {

// "a,b" as {"a", "b"}. kInvalidArgument: nothing between two commas.
Result<std::vector<std::string>> SplitList(const std::string& text,
                                           std::string_view flag) {
  std::vector<std::string> items;
  size_t begin = 0;
  while (true) {
    const size_t end = std::min(text.find(',', begin), text.size());
    if (end == begin) {
      return InvalidArgument(flag, ": \"", text,
                             "\" is no list; expected values with single "
                             "commas between them");
    }
    items.push_back(text.substr(begin, end - begin));
    if (end == text.size()) return items;
    begin = end + 1;
  }
}

Result<std::vector<uint32_t>> SplitNumbers(const std::string& text,
                                           std::string_view flag, uint32_t min,
                                           uint32_t max) {
  FLASHELM_ASSIGN_OR_RETURN(const std::vector<std::string> items,
                            SplitList(text, flag));
  std::vector<uint32_t> numbers;
  for (const std::string& item : items) {
    const char* const end = item.data() + item.size();
    uint32_t number = 0;
    const auto [stop, error] = std::from_chars(item.data(), end, number);
    if (error != std::errc() || stop != end || number < min || number > max) {
      return InvalidArgument(flag, ": \"", item, "\" is no whole number from ",
                             min, " to ", max);
    }
    numbers.push_back(number);
  }
  return numbers;
}

constexpr uint32_t kMaxNumber = std::numeric_limits<uint32_t>::max();

Result<std::vector<uint32_t>> SplitWindows(const std::string& text) {
  constexpr uint32_t kMaxWindow = 65535;
  FLASHELM_ASSIGN_OR_RETURN(const std::vector<std::string> items,
                            SplitList(text, "--window"));
  std::vector<uint32_t> windows;
  for (const std::string& item : items) {
    if (item == "auto") {
      windows.push_back(UINT32_MAX);
      continue;
    }
    FLASHELM_ASSIGN_OR_RETURN(const std::vector<uint32_t> number,
                              SplitNumbers(item, "--window", 0, kMaxWindow));
    windows.push_back(number.front());
  }
  return windows;
}

// The lists, taken apart and checked as far as they can be without a model.
struct Lists {
  std::vector<std::string> budgets;
  std::vector<std::string> ios;
  std::vector<std::string> sparsities;
  std::vector<std::string> kv_types;
  std::vector<uint32_t> windows;
  std::vector<uint32_t> threads;
  std::vector<uint32_t> batches;
  std::vector<uint32_t> contexts;
};

Status CheckLists(const BenchArgs& args, const Lists& lists) {
  for (const std::string& budget : lists.budgets) {
    FLASHELM_RETURN_IF_ERROR([&] {
      const auto bytes = ResolveBudget(budget, 1);
      return bytes ? OkStatus() : bytes.error();
    }());
  }
  const auto num_mmap = std::count(lists.ios.begin(), lists.ios.end(), "mmap");
  for (const std::string& io : lists.ios) {
    EngineArgs engine = args.engine;
    engine.io = io;
    // It is for those rows that need it.
    if (num_mmap > 0 && io != "mmap") engine.allow_unenforced = false;
    if (num_mmap < std::ssize(lists.ios)) engine.device_profile.clear();
    FLASHELM_RETURN_IF_ERROR(CheckIo(engine));
  }
  const auto num_gate =
      std::count(lists.sparsities.begin(), lists.sparsities.end(), "gate");
  for (const std::string& sparsity : lists.sparsities) {
    const bool takes_bound = sparsity == "gate" || num_gate == 0;
    const auto parsed =
        ParseSparsity(sparsity, takes_bound ? args.engine.max_skipped : 0);
    if (!parsed) return parsed.error();
  }
  if (std::ranges::count(lists.sparsities, "off") ==
      std::ssize(lists.sparsities)) {
    EngineArgs engine = args.engine;
    engine.sparsity = "off";
    for (const uint32_t window : lists.windows) {
      engine.window = window;
      FLASHELM_RETURN_IF_ERROR(CheckNeuronFlags(engine, false));
    }
  }
  for (const std::string& kv_type : lists.kv_types) {
    if (kv_type == "f32" || kv_type == "bf16") continue;
    return InvalidArgument("--kv-type: \"", kv_type,
                           "\" is no type; there are f32 and bf16");
  }
  return OkStatus();
}

Result<Lists> SplitLists(const BenchArgs& args) {
  Lists lists;
  FLASHELM_ASSIGN_OR_RETURN(lists.budgets,
                            SplitList(args.mem_budgets, "--mem-budget"));
  FLASHELM_ASSIGN_OR_RETURN(lists.ios, SplitList(args.ios, "--io"));
  FLASHELM_ASSIGN_OR_RETURN(lists.sparsities,
                            SplitList(args.sparsities, "--sparsity"));
  FLASHELM_ASSIGN_OR_RETURN(lists.kv_types,
                            SplitList(args.kv_types, "--kv-type"));
  FLASHELM_ASSIGN_OR_RETURN(lists.windows, SplitWindows(args.windows));
  FLASHELM_ASSIGN_OR_RETURN(
      lists.threads, SplitNumbers(args.threads, "--threads", 0, kMaxThreads));
  FLASHELM_ASSIGN_OR_RETURN(
      lists.batches, SplitNumbers(args.batches, "--batch-size", 1, kMaxNumber));
  FLASHELM_ASSIGN_OR_RETURN(
      lists.contexts, SplitNumbers(args.contexts, "--ctx-size", 0, kMaxNumber));
  FLASHELM_RETURN_IF_ERROR(CheckLists(args, lists));
  return lists;
}

// Each of `all` with each of `values`.
template <class T>
void Multiply(const std::vector<T>& values,
              const std::function<void(EngineArgs&, const T&)>& set,
              std::vector<EngineArgs>& all) {
  std::vector<EngineArgs> product;
  for (const EngineArgs& engine : all) {
    for (const T& value : values) {
      product.push_back(engine);
      set(product.back(), value);
    }
  }
  all = std::move(product);
}

// What tells a row from the others.
std::string NameOf(const BenchArgs& args, const EngineArgs& engine,
                   const BenchTest& test) {
  std::string name = TestName(test.n_prompt, test.n_gen);
  const auto add = [&](const std::string& list, std::string_view flag,
                       const auto& value) {
    if (list.find(',') != std::string::npos) {
      name += StatusMessage::Join(" ", flag, " ", value);
    }
  };
  if (args.models.size() > 1) {
    name += StatusMessage::Join(" -m ", engine.model);
  }
  name += StatusMessage::Join(" --mem-budget ", engine.mem_budget, " --io ",
                              engine.io);
  add(args.sparsities, "--sparsity", engine.sparsity);
  add(args.windows, "--window", WindowText(engine.window));
  add(args.kv_types, "--kv-type", engine.kv_type);
  add(args.threads, "-t", engine.threads);
  add(args.batches, "-b", engine.batch);
  add(args.contexts, "-c", engine.context);
  return name;
}

// Makes a row of it, as far as it can be one.
Status FinishPlan(const ModelFile& model, RowPlan& row) {
  EngineArgs& engine = row.args.engine;
  AddModelKeys(model, row.model_facts);
  FLASHELM_ASSIGN_OR_RETURN(engine.context,
                            BenchContext({row.args.n_prompt, row.args.n_gen},
                                         engine.context, model.config()));
  FLASHELM_ASSIGN_OR_RETURN(const EngineSetup setup,
                            SetUpEngine(model, engine, {}));
  const PlanOptions& plan = setup.options.plan;
  if (plan.io == IoBackend::kMmap && plan.sparsity.is_on()) {
    return InvalidArgument(
        "--sparsity ", engine.sparsity,
        ": neurons are not read one by one through --io mmap; take --sparsity "
        "off, or --io uring, pread or auto");
  }
  // "auto" and "40%" mean the same bytes in every repetition.
  row.budget_bytes = plan.budget_bytes;
  if (row.budget_bytes != kUnlimitedBytes) {
    engine.mem_budget = std::to_string(row.budget_bytes);
  }
  return OkStatus();
}

}  // namespace

std::string WindowText(uint32_t window) {
  return window == UINT32_MAX ? "auto" : std::to_string(window);
}

Result<std::vector<EngineArgs>> CrossEngines(const BenchArgs& args) {
  FLASHELM_ASSIGN_OR_RETURN(const Lists lists, SplitLists(args));
  const bool is_all_mmap = std::count(lists.ios.begin(), lists.ios.end(),
                                      "mmap") == std::ssize(lists.ios);
  std::vector<EngineArgs> all = {args.engine};
  using Word = std::string;
  using Args = EngineArgs;
  Multiply<Word>(
      args.models, [](Args& to, const Word& text) { to.model = text; }, all);
  Multiply<Word>(
      lists.budgets, [](Args& to, const Word& text) { to.mem_budget = text; },
      all);
  Multiply<Word>(
      lists.ios,
      [&](Args& to, const Word& text) {
        to.io = text;
        to.allow_unenforced = text == "mmap";
        if (text == "mmap" && !is_all_mmap) to.device_profile.clear();
      },
      all);
  Multiply<Word>(
      lists.sparsities,
      [](Args& to, const Word& text) {
        to.sparsity = text;
        if (text != "gate") to.max_skipped = 0;
      },
      all);
  Multiply<uint32_t>(
      lists.windows, [](Args& to, uint32_t value) { to.window = value; }, all);
  // Without sparsity there is nothing to keep, for however long, nor to choose.
  std::erase_if(all, [&](const Args& engine) {
    return engine.sparsity == "off" && engine.window != lists.windows.front();
  });
  for (Args& engine : all) {
    if (engine.sparsity != "off") continue;
    engine.window = Args().window;
    engine.neuron_reads = Args().neuron_reads;
  }
  Multiply<Word>(
      lists.kv_types, [](Args& to, const Word& text) { to.kv_type = text; },
      all);
  Multiply<uint32_t>(
      lists.threads, [](Args& to, uint32_t value) { to.threads = value; }, all);
  Multiply<uint32_t>(
      lists.batches, [](Args& to, uint32_t value) { to.batch = value; }, all);
  Multiply<uint32_t>(
      lists.contexts, [](Args& to, uint32_t value) { to.context = value; },
      all);
  return all;
}

Result<std::vector<BenchTest>> BenchTests(const BenchArgs& args) {
  FLASHELM_ASSIGN_OR_RETURN(const std::vector<uint32_t> prompts,
                            SplitNumbers(args.n_prompts, "-p", 0, kMaxNumber));
  FLASHELM_ASSIGN_OR_RETURN(const std::vector<uint32_t> gens,
                            SplitNumbers(args.n_gens, "-n", 0, kMaxNumber));
  std::vector<BenchTest> tests;
  for (const uint32_t n_prompt : prompts) {
    if (n_prompt > 0) tests.push_back({n_prompt, 0});
  }
  for (const uint32_t n_gen : gens) {
    if (n_gen > 0) tests.push_back({0, n_gen});
  }
  for (const std::string& pair : args.prompt_gens) {
    FLASHELM_ASSIGN_OR_RETURN(const std::vector<uint32_t> numbers,
                              SplitNumbers(pair, "--pg", 1, kMaxNumber));
    if (numbers.size() != 2) {
      return InvalidArgument("--pg: \"", pair,
                             "\" is no pair; expected tokens of a prompt, and "
                             "after it, such as 512,128");
    }
    tests.push_back({numbers[0], numbers[1]});
  }
  if (tests.empty()) {
    return InvalidArgument(
        "-p 0 and -n 0 leave nothing to measure, without --pg");
  }
  return tests;
}

Result<uint32_t> BenchContext(const BenchTest& test, uint32_t context,
                              const ModelConfig& config) {
  const uint64_t positions = uint64_t{test.n_prompt} + test.n_gen;
  const uint32_t max_context = config.max_context;
  if (context > max_context) {
    return InvalidArgument("-c ", context, ": the model was made for ",
                           max_context, " positions");
  }
  const uint64_t most = context != 0 ? context : max_context;
  if (positions > most) {
    return InvalidArgument("-p ", test.n_prompt, " and -n ", test.n_gen,
                           " take ", positions,
                           " positions, but the context (-c) holds ", most);
  }
  return context != 0 ? context : static_cast<uint32_t>(positions);
}

Result<std::vector<RowPlan>> PlanRows(const BenchArgs& args) {
  FLASHELM_ASSIGN_OR_RETURN(const std::vector<EngineArgs> engines,
                            CrossEngines(args));
  FLASHELM_ASSIGN_OR_RETURN(const std::vector<BenchTest> tests,
                            BenchTests(args));
  std::vector<RowPlan> rows;
  std::optional<Result<ModelFile>> model;
  const std::string* opened = nullptr;
  for (const EngineArgs& engine : engines) {
    if (opened == nullptr || *opened != engine.model) {
      model.emplace(ModelFile::Open(engine.model));
      opened = &engine.model;
    }
    for (const BenchTest& test : tests) {
      RowPlan row;
      row.args = {engine, test.n_prompt, test.n_gen, args.repetitions};
      row.name = NameOf(args, engine, test);
      row.budget_text = engine.mem_budget;
      row.refused = *model ? FinishPlan(**model, row) : model->error();
      rows.push_back(std::move(row));
    }
  }
  if (std::all_of(rows.begin(), rows.end(),
                  [](const RowPlan& row) { return !row.refused.ok(); })) {
    const RowPlan& first = rows.front();
    if (rows.size() == 1 || !*model) return Unexpected(first.refused);
    return ErrorStatus(first.refused.code(),
                       StatusMessage::Join("no row can run; ", first.name, ": ",
                                           first.refused.message()));
  }
  return rows;
}

}  // namespace flashelm::cli
