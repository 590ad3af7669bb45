// Work in a process of its own, so that its memory is its own.
#ifndef FLASHELM_CLI_CHILD_PROCESS_H_
#define FLASHELM_CLI_CHILD_PROCESS_H_

#include <sys/types.h>

#include <functional>
#include <string>

#include "core/base/cancel.h"
#include "core/base/status.h"

namespace flashelm::cli {

struct ChildResult {
  std::string message;  // What the body returned; empty when a signal came.
  int signal = 0;       // That ended the child; 0: it ended by itself.
};

// Forks, calls `prepare` with the child's id while the child waits, then lets
// it run `body` and send back what that returns. The child dies with this
// process. Call it while this process has one thread: only that one is copied.
// kCancelled: as asked; the child was killed. kResourceExhausted: no process.
Result<ChildResult> RunInChild(const std::function<std::string()>& body,
                               const std::function<void(pid_t)>& prepare,
                               const CancelToken& cancel);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_CHILD_PROCESS_H_
