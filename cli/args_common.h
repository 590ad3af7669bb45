// Flags that several verbs share, and the verbs that are defined in files of
// their own. Only files that define flags, or describe them, include this.
#ifndef FLASHELM_CLI_ARGS_COMMON_H_
#define FLASHELM_CLI_ARGS_COMMON_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cli/verbs.h"

namespace flashelm::cli {

// What is to be done once the whole command line was understood.
using VerbFunction = std::function<Status()>;

// What is done with the whole command: `function` gets every verb and flag of
// it, what parsing will set to the verb to run, and the words given here. `app`
// and `verb` end when it returns. In a struct, as the names of the closures in
// WithCommand(), which are mapped, too, spell out its parameters.
struct CommandUse {
  int (*function)(CLI::App& app, const VerbFunction& verb, int argc,
                  char** argv);
  int argc;
  char** argv;
};
// Defines the command, and returns what `use` makes of it: to parse a command
// line with it, or to describe it.
int WithCommand(CommandUse use);

void AddThreads(CLI::App* app, uint32_t* threads);
// What a checkpoint becomes.
void AddEncodings(CLI::App* app, EncodingArgs* args);
// Flags of every verb that computes with a model, -m among them.
void AddEngine(CLI::App* app, EngineArgs* args);
// Flags that choose a token, in a group of their own.
void AddSampling(CLI::App* app, SamplerOptions* sampler, int64_t* seed);
// How long text becomes, and what is shown while it does.
void AddGeneration(CLI::App* app, int64_t* n_predict,
                   std::vector<std::string>* stop, bool* no_status);

// Each adds a verb to `app`, which sets `*verb` where it is on the command
// line.
void AddChat(CLI::App* app, VerbFunction* verb);
void AddPlan(CLI::App* app, VerbFunction* verb);
void AddDoctor(CLI::App* app, VerbFunction* verb);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_ARGS_COMMON_H_
