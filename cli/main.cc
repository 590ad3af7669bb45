#include <malloc.h>

#include <cstdio>
#include <exception>
#include <new>

#include "cli/args.h"
#include "cli/exit_code.h"

int main(int argc, char** argv) {
  // The memory plan counts one heap that gives large blocks back at once; by
  // default glibc makes a heap per thread and raises its threshold as it goes.
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_MMAP_THRESHOLD, 128 << 10);
  mallopt(M_TRIM_THRESHOLD, 128 << 10);
  try {
    return flashelm::cli::ParseAndRun(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fputs("flashelm: out of memory\n", stderr);
    return flashelm::cli::kExitOutOfMemory;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "flashelm: internal error: %s\n", error.what());
    return flashelm::cli::kExitInternal;
  }
}
