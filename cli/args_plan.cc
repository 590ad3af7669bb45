#include <memory>

#include "cli/args_common.h"

namespace flashelm::cli {
namespace {

// In place of the engine's: what is a model already, and what is not yet one.
void AddPlannedModel(CLI::App* app, PlanArgs* args) {
  for (const char* flag : {"--model", "--mem-budget"}) {
    app->remove_option(app->get_option(flag));
  }
  CLI::Option* model =
      app->add_option(
             "-m,--model", args->engine.model,
             "Model file (.felm); or, before there is one, the config.json of "
             "a Hugging Face checkpoint, or a directory with it: nothing else "
             "has to be downloaded")
          ->type_name("FILE|DIR");
  app->add_option("--shape", args->shape,
                  "Instead of -m: the OpenELM model of that size, as published")
      ->check(CLI::IsMember({"270M", "450M", "1.1B", "3B"}))
      ->excludes(model);
  app->add_option("--mem-budget", args->engine.mem_budget,
                  "RAM that the whole process may take, as for run; of a list, "
                  "the parts are those of the first that is feasible [auto, "
                  "and a forecast for 25%,50%,75%,100%, too]")
      ->type_name("SIZE,...");
}

}  // namespace

void AddPlan(CLI::App* app, VerbFunction* verb) {
  const auto args = std::make_shared<PlanArgs>();
  CLI::App* plan = app->add_subcommand(
      "plan",
      "Print what run would take of RAM and of the disk, and how fast it could "
      "be, for a model that is there or for one that is to be downloaded; "
      "measures this machine for some seconds");
  AddEngine(plan, &args->engine);
  AddPlannedModel(plan, args.get());
  AddEncodings(plan, &args->encodings);
  plan->add_option("--storage", args->storage,
                   "Forecast for storage of that class alone, and measure "
                   "none: an SD card (90 MB/s), eMMC (300), UFS (1500), NVMe "
                   "(3500)")
      ->check(CLI::IsMember({"sd", "emmc", "ufs", "nvme"}))
      ->excludes("--device-profile");
  plan->add_flag("--json", args->json, "Print JSON");
  plan->callback([=] {
    for (const char* flag : {"--weights", "--embedding", "--attention", "--ffn",
                             "--layout", "--tokenizer"}) {
      args->has_encodings |= plan->get_option(flag)->count() > 0;
    }
    args->has_budget = plan->get_option("--mem-budget")->count() > 0;
    *verb = [=] { return RunPlan(*args); };
  });
}

void AddDoctor(CLI::App* app, VerbFunction* verb) {
  const auto args = std::make_shared<DoctorArgs>();
  CLI::App* doctor = app->add_subcommand(
      "doctor",
      "Check this machine: what will run here, how fast, and what to change");
  doctor
      ->add_option("path", args->path,
                   "Where models are to lie: a directory, in which a temporary "
                   "file of at most 256 MiB is written, read and deleted "
                   "again; or a large file, which is only read")
      ->type_name("DIR|FILE")
      ->capture_default_str();
  doctor
      ->add_option("-o,--output", args->output,
                   "Write what was measured of the storage to this file, for "
                   "--device-profile")
      ->type_name("FILE");
  doctor
      ->add_option("--time", args->time_ms,
                   "Milliseconds for each of about 40 ways to read")
      ->check(CLI::Range(1u, 60000u).description(""))
      ->type_name("MS")
      ->capture_default_str();
  doctor
      ->add_option("-c,--ctx-size", args->context,
                   "Positions to hold, in what is said of models; 0: their "
                   "own limit")
      ->capture_default_str();
  AddThreads(doctor, &args->threads);
  doctor->add_flag("--json", args->json, "Print JSON");
  doctor->callback([=] { *verb = [=] { return RunDoctor(*args); }; });
}

}  // namespace flashelm::cli
