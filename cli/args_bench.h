// The flags of flashelm bench, and of the verb below it.
#ifndef FLASHELM_CLI_ARGS_BENCH_H_
#define FLASHELM_CLI_ARGS_BENCH_H_

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "cli/verbs.h"
#include "core/base/status.h"

namespace flashelm::cli {

// The words of a command line as a shell takes them, the first as the program
// is called everywhere.
std::string CommandText(int argc, const char* const* argv);

// To `app`, which has the engine's flags already: those that take lists here
// are replaced. Once parsed, `verb` is what to run. All outlive parsing.
void AddBench(CLI::App* app, BenchArgs* bench, BenchIoArgs* io,
              std::function<Status()>* verb);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_ARGS_BENCH_H_
