// The command line: verbs, flags, help.
#ifndef FLASHELM_CLI_ARGS_H_
#define FLASHELM_CLI_ARGS_H_

namespace flashelm::cli {

// Parses the command line, runs the verb, and returns the exit code. Errors are
// printed to stderr.
int ParseAndRun(int argc, char** argv);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_ARGS_H_
