#include <memory>
#include <string>

#include "cli/args_common.h"

namespace flashelm::cli {

void AddChat(CLI::App* app, VerbFunction* verb) {
  const auto args = std::make_shared<ChatArgs>();
  CLI::App* sub = app->add_subcommand(
      "chat",
      "Talk with a model, line by line; /help there tells of its commands");
  AddEngine(sub, &args->engine);
  sub->add_option("--template", args->chat_template,
                  "What is put around a message: raw: nothing; zephyr: the "
                  "marks of Zephyr's chats; or a JSON file of your own")
      ->type_name("raw|zephyr|FILE")
      ->capture_default_str();
  sub->add_option("--ctx-full", args->ctx_full,
                  "When the context is full: stop: end the answer; shift: "
                  "forget the oldest tokens and compute the others anew")
      ->check(CLI::IsMember({"stop", "shift"}))
      ->capture_default_str();
  CLI::Option* keep =
      sub->add_option(
             "--keep", args->keep,
             "With --ctx-full shift: tokens at the begin that are never "
             "forgotten")
          ->type_name("N")
          ->capture_default_str();
  AddGeneration(sub, &args->n_predict, &args->stop, &args->no_status);
  AddSampling(sub, &args->sampler, &args->seed);
  sub->callback([args, verb, keep] {
    if (keep->count() > 0 && args->ctx_full != "shift") {
      throw CLI::RequiresError("--keep", "--ctx-full shift");
    }
    *verb = [args] { return RunChat(*args); };
  });
}

}  // namespace flashelm::cli
