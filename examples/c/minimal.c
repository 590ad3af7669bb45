/* The least that a program in C does: say what a model will take, load it, and
 * print a text as it is written.
 *
 *   minimal MODEL.felm MEBIBYTES PROMPT
 *
 * The model stays within so many MiB; 0 is no limit. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "flashelm/flashelm.h"

/* Called with each token's text. Anything but 0 would end the text. */
static int PrintText(void* user, uint32_t id, const char* text,
                     size_t text_bytes) {
  (void)user;
  (void)id;
  return fwrite(text, 1, text_bytes, stdout) != text_bytes || fflush(stdout);
}

/* Called while weights are read. Anything but 0 would end that. */
static int PrintProgress(void* user, uint64_t done, uint64_t total) {
  (void)user;
  fprintf(stderr, "\rloading %3d %%%s", (int)(100 * done / total),
          done == total ? "\n" : "");
  return 0;
}

static int Fail(const flashelm_error* error) {
  fprintf(stderr, "%s: %s\n", flashelm_code_name(error->code), error->message);
  return 1;
}

int main(int argc, char** argv) {
  /* Each struct says how large it is, and whatever else is 0 is a default. */
  flashelm_source source = {.struct_size = sizeof source};
  flashelm_engine_options options = {.struct_size = sizeof options};
  flashelm_plan plan = {.struct_size = sizeof plan};
  flashelm_generate_options generate = {.struct_size = sizeof generate};
  flashelm_generate_result result = {.struct_size = sizeof result};
  flashelm_error error;
  flashelm_engine* engine;
  flashelm_session* session;
  flashelm_code code;

  if (argc != 4) {
    fprintf(stderr, "usage: %s MODEL.felm MEBIBYTES PROMPT\n", argv[0]);
    return 2;
  }
  if (flashelm_abi_version() != FLASHELM_ABI_VERSION) {
    fprintf(stderr, "another libflashelm than this was compiled for\n");
    return 1;
  }
  options.memory_bytes = (uint64_t)strtoul(argv[2], NULL, 10) << 20;
  options.context = 256;
  options.progress = PrintProgress;

  /* Before anything large is taken. */
  source.kind = FLASHELM_SOURCE_PATH;
  source.path = argv[1];
  code = flashelm_estimate(&source, &options, &plan, &error);
  if (code == FLASHELM_BUDGET_INFEASIBLE) {
    fprintf(stderr, "that is too little: %.1f MiB would do\n",
            (double)plan.minimum_bytes / 1048576);
  }
  if (code != FLASHELM_OK) return Fail(&error);
  fprintf(stderr, "%.1f MiB of RAM, %.1f MiB read per token\n",
          (double)plan.total_bytes / 1048576,
          (double)plan.streamed_bytes_per_token / 1048576);

  engine = flashelm_engine_open(argv[1], &options, &error);
  if (engine == NULL) return Fail(&error);
  session = flashelm_session_open(engine, &error);
  if (session == NULL) {
    flashelm_engine_close(engine);
    return Fail(&error);
  }

  printf("%s", argv[3]);
  generate.max_tokens = 40;
  generate.token = PrintText;
  code = flashelm_generate(session, argv[3], strlen(argv[3]), &generate,
                           &result, &error);
  printf("\n");
  if (code == FLASHELM_OK) {
    fprintf(stderr, "%llu tokens in %.2f s\n",
            (unsigned long long)result.num_tokens, result.decode_seconds);
  }

  flashelm_session_close(session);
  flashelm_engine_close(engine);
  return code == FLASHELM_OK ? 0 : Fail(&error);
}
