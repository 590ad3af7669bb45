#include "cli/args_bench.h"

#include <string>
#include <vector>

namespace flashelm::cli {
namespace {

// One flag that may be given several times, a value each.
void AddRepeated(CLI::App* app, const char* flag,
                 std::vector<std::string>* values, const char* help,
                 const char* type) {
  app->add_option(flag, *values, help)
      ->take_all()
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->type_name(type);
}

void AddList(CLI::App* app, const char* flag, std::string* list,
             const char* help, const char* type) {
  app->add_option(flag, *list, help)->type_name(type)->capture_default_str();
}

// In place of the engine's: every combination of these lists is measured.
void AddLists(CLI::App* app, BenchArgs* args) {
  for (const char* flag :
       {"--model", "--mem-budget", "--ctx-size", "--threads", "--batch-size",
        "--io", "--kv-type", "--sparsity", "--window"}) {
    app->remove_option(app->get_option(flag));
  }
  AddRepeated(app, "-m,--model", &args->models,
              "Model file (.felm); may be repeated", "FILE");
  AddList(app, "-p,--n-prompt", &args->n_prompts,
          "Tokens of a prompt, which is made up; each is a test, as pp128; 0: "
          "none",
          "N,...");
  AddList(app, "-n,--n-gen", &args->n_gens,
          "Tokens to generate, made up as well; each is a test, as tg32; 0: "
          "none",
          "N,...");
  AddRepeated(app, "--pg", &args->prompt_gens,
              "A test of P tokens of prompt and N after it, as pp128+tg32; may "
              "be repeated",
              "P,N");
  AddList(app, "--mem-budget", &args->mem_budgets,
          "RAM that the whole process may take: 900M, 1.5G, 40% of the model "
          "file, or auto for what is free less a reserve",
          "SIZE,...");
  AddList(app, "--io", &args->ios,
          "How the file is read: uring, pread, auto for the best there is, or "
          "mmap, the baseline, which holds no budget",
          "IO,...");
  AddList(app, "-t,--threads", &args->threads,
          "Threads of computation; 0: one for each physical core it may use",
          "N,...");
  AddList(app, "-c,--ctx-size", &args->contexts,
          "Positions to hold; 0: prompt and generated tokens", "N,...");
  AddList(app, "-b,--batch-size", &args->batches,
          "Most prompt tokens that share one sweep through the weights",
          "N,...");
  AddList(app, "--kv-type", &args->kv_types,
          "Numbers of the KV cache: f32, bf16", "TYPE,...");
  AddList(app, "--sparsity", &args->sparsities,
          "Which neurons of each FFN are computed, as run takes it",
          "SELECTOR,...");
  AddList(app, "--window", &args->windows,
          "With sparsity, tokens whose neurons stay in RAM; 0: none do; auto: "
          "as long as there is room",
          "K,...");
}

void AddReport(CLI::App* app, BenchArgs* args) {
  CLI::Option* html = app->add_option(
      "--html", args->html,
      "Also write a report to this file: a page with plots and tables, whole "
      "by itself");
  html->type_name("FILE");
  AddRepeated(app, "--from", &args->from,
              "Measure nothing: report on records that -o json or jsonl wrote "
              "to this file before; may be repeated",
              "FILE");
  app->get_option("--from")->needs(html);
}

void AddMeasuring(CLI::App* app, BenchArgs* args) {
  app->add_option("-r,--repetitions", args->repetitions,
                  "Times that a test is run")
      ->check(CLI::Range(1u, 1000000u).description(""))
      ->type_name("N")
      ->capture_default_str();
  AddRepeated(app, "-o,--output", &args->outputs,
              "md: a table; csv, json, jsonl: everything measured; with =FILE "
              "into a file. May be repeated: one measurement in several forms "
              "[md]",
              "FORMAT[=FILE]");
  AddReport(app, args);
  app->add_option("--cache-state", args->cache_state,
                  "Before a row: cold: drop the model file from the page "
                  "cache, for each repetition, a process each and no warm-up; "
                  "warm: read it through. By default it is as it is")
      ->check(CLI::IsMember({"cold", "warm"}));
  app->add_flag("--no-warmup", args->no_warmup,
                "Do not run the prompt and one token before what is measured");
  app->add_flag("--interleave", args->interleave,
                "Measure the first repetition of all rows, then the second, "
                "each in a process of its own: what changes while it runs "
                "changes all rows alike");
}

void AddAblation(CLI::App* app, BenchArgs* args) {
  CLI::Option* ablation = app->add_flag(
      "--ablation", args->ablation,
      "Instead of a row for each combination: what each part of sparse "
      "decoding brings, for a calibrated model, from reading all weights for "
      "every token on; --mem-budget is 50% unless given");
  app->add_option("--rows-model", args->rows_model,
                  "With --ablation: the same model, converted with --layout "
                  "rows and calibrated")
      ->type_name("FILE")
      ->needs(ablation);
  app->add_option("--file-order-model", args->file_order_model,
                  "With --ablation: the same model, calibrated with --order "
                  "file")
      ->type_name("FILE")
      ->needs(ablation);
}

CLI::App* AddBenchIo(CLI::App* app, BenchIoArgs* args) {
  CLI::App* io = app->add_subcommand(
      "io", "Measure the device that holds a file: readers, orders, shapes");
  io->add_option("-m,--model", args->file,
                 "A large file on the device, model or not; it is read")
      ->required()
      ->type_name("FILE");
  io->add_option("--save", args->save,
                 "Write the profile to this file, for --device-profile")
      ->type_name("FILE");
  io->add_option("--time", args->time_ms,
                 "Milliseconds for each of about 160 combinations")
      ->check(CLI::Range(1u, 60000u).description(""))
      ->type_name("MS")
      ->capture_default_str();
  io->add_option("-o,--output", args->format, "md: tables; json: the profile")
      ->check(CLI::IsMember({"md", "json"}))
      ->capture_default_str();
  return io;
}

// What options of their own cannot say of two verbs in one.
void CheckBench(const CLI::App& bench, const CLI::App& io) {
  if (bench.get_option("--from")->count() > 0 && !io.parsed()) {
    for (const CLI::Option* option : bench.get_options()) {
      const std::string name = option->get_name();
      if (option->count() > 0 && name != "--from" && name != "--html") {
        throw CLI::ExcludesError("--from", name);
      }
    }
    return;
  }
  if (!io.parsed()) {
    if (bench.get_option("--model")->count() == 0) {
      throw CLI::RequiredError("--model");
    }
    return;
  }
  for (const CLI::Option* option : bench.get_options()) {
    if (option->count() > 0) {
      throw CLI::ExcludesError("io", option->get_name());
    }
  }
}

}  // namespace

std::string CommandText(int argc, const char* const* argv) {
  std::string text = "flashelm";
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    text += ' ';
    if (!word.empty() &&
        word.find_first_not_of("abcdefghijklmnopqrstuvwxyz"
                               "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                               "0123456789%+,-./:=@_") == std::string::npos) {
      text += word;
      continue;
    }
    text += '\'';
    for (const char c : word) {
      // A quote ends the quotes, stands for itself, and begins others.
      text += c == '\'' ? std::string("'\\''") : std::string(1, c);
    }
    text += '\'';
  }
  return text;
}

void AddBench(CLI::App* app, BenchArgs* bench, BenchIoArgs* io_args,
              std::function<Status()>* verb) {
  AddLists(app, bench);
  AddMeasuring(app, bench);
  CLI::Option* cgroup = app->add_flag(
      "--cgroup", bench->cgroup,
      "Run each row in a memory cgroup of the budget's size, without swap; "
      "needs the permission to make one");
  AddAblation(app, bench);
  CLI::App* io = AddBenchIo(app, io_args);
  app->callback([=] {
    CheckBench(*app, *io);
    // What the page cache has already is not charged to the cgroup.
    if (cgroup->count() > 0 && bench->cache_state == "warm") {
      throw CLI::ExcludesError("--cache-state warm", "--cgroup");
    }
    if (io->parsed()) {
      *verb = [=] { return RunBenchIo(*io_args); };
    } else if (!bench->from.empty()) {
      *verb = [=] { return RunBenchFrom(*bench); };
    } else if (bench->ablation) {
      if (app->get_option("--mem-budget")->count() == 0) {
        bench->mem_budgets = "50%";
      }
      *verb = [=] { return RunAblation(*bench); };
    } else {
      *verb = [=] { return RunBench(*bench); };
    }
  });
}

}  // namespace flashelm::cli
