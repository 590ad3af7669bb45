/* FlashELM: OpenELM language models from flash, under a memory budget.
 *
 * This header is the manual of the library, in C99.
 *
 *   flashelm_engine_options options = {.struct_size = sizeof options};
 *   options.memory_bytes = 200u << 20;
 *   flashelm_error error;
 *   flashelm_engine* engine = flashelm_engine_open("m.felm", &options, &error);
 *   flashelm_session* session = flashelm_session_open(engine, &error);
 *   flashelm_generate_options generate = {.struct_size = sizeof generate};
 *   generate.token = print_token;
 *   flashelm_generate(session, "Once upon a time", 16, &generate, NULL,
 *                     &error);
 *   flashelm_session_close(session);
 *   flashelm_engine_close(engine);
 *
 * OBJECTS. An engine is a loaded model: heavy, and shared by its sessions. A
 * session is one text that grows token by token. Handles are opaque; the
 * library owns what is behind them until they are closed.
 *
 * THREADS. An engine may be used by any number of threads at a time. A session
 * is in one call at a time; a second call, from another thread or from inside a
 * callback, returns FLASHELM_INVALID_ARGUMENT and changes nothing. Only
 * flashelm_cancel(), flashelm_clear_cancel() and flashelm_session_get_stats()
 * may be called beside another one. Sessions of one engine take turns: one
 * token of each decodes, or one batch of each prompt is read, then the next is
 * served. No handle is used during or after the call that closes it. Callbacks
 * run in the thread that made the call, but for flashelm_source.read.
 *
 * STRUCTS. Every struct but flashelm_error begins with `struct_size`, which the
 * caller sets to its sizeof. Structs only grow at their end. Fields that a
 * caller's smaller struct lacks count as 0; bytes of a larger struct than this
 * library knows have to be 0 where it reads, and become 0 where it writes. A
 * size below sizeof(size_t), above 4096, or no multiple of sizeof(void*) gives
 * FLASHELM_INVALID_ARGUMENT. In options, 0 always is the default.
 *
 * ERRORS. A function that can fail returns a flashelm_code, or a handle that is
 * NULL on failure, and fills the flashelm_error that it is given, which may be
 * NULL. Of any function: FLASHELM_INVALID_ARGUMENT for NULL where an object is
 * due, FLASHELM_RESOURCE_EXHAUSTED where the system has no memory left,
 * FLASHELM_INTERNAL for what should not happen.
 *
 * GUEST. The library prints nothing, ends no process, installs no signal
 * handler, reads no environment variable and keeps no global state, but that
 * Highway, which its kernels use, keeps what it found the processor to be, and
 * prints a warning once on ARM processors without AES. It starts
 * threads with the engine (flashelm_engine_options.num_threads - 1 that
 * compute, and where io_uring is not to be had some that read), which end when
 * it is closed. No C++ exception leaves it, and none may enter it: callbacks do
 * not throw.
 *
 * TEXT is UTF-8, and its length is counted in bytes. Paths are in the system's
 * encoding. */
#ifndef FLASHELM_FLASHELM_H_
#define FLASHELM_FLASHELM_H_

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define FLASHELM_API __attribute__((visibility("default")))
#else
#define FLASHELM_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The binary interface that this header describes. It changes when a program
 * compiled with an older header could not use the library any more; the name of
 * the shared library has it, too. */
#define FLASHELM_ABI_VERSION 0

typedef struct flashelm_engine flashelm_engine;   /* a loaded model */
typedef struct flashelm_session flashelm_session; /* a text */

/* What a caller does about an error. Values never change. */
typedef enum flashelm_code {
  FLASHELM_OK = 0,
  FLASHELM_INVALID_ARGUMENT = 1,  /* the call is wrong: fix the call */
  FLASHELM_NOT_FOUND = 2,         /* no such file: ask for another */
  FLASHELM_DATA_LOSS = 3,         /* no model file, or damaged: get a new one */
  FLASHELM_BUDGET_INFEASIBLE = 4, /* too little memory_bytes: give more */
  FLASHELM_RESOURCE_EXHAUSTED = 5, /* no memory, or no free session: free one */
  FLASHELM_UNAVAILABLE = 6,        /* a read failed: try again */
  FLASHELM_UNIMPLEMENTED = 7,      /* not on this platform, or a newer file */
  FLASHELM_CANCELLED = 8,          /* as asked: go on */
  FLASHELM_INTERNAL = 9            /* a bug in here: report it */
} flashelm_code;

/* Why a call failed. The only struct that never grows, so it has no
 * `struct_size`. After success the code is FLASHELM_OK, the message empty. */
typedef struct flashelm_error {
  int32_t code;       /* a flashelm_code */
  char message[1020]; /* for people: what was attempted, where, what was found
                         and what expected; UTF-8, ends with a 0, cut if long */
} flashelm_error;

/* flashelm_version() :
 *  The version of the library that runs, "0.1.0". Thread-safe.
 * @return : text that lives as long as the library. */
FLASHELM_API const char* flashelm_version(void);

/* flashelm_abi_version() :
 *  The binary interface of the library that runs. Thread-safe.
 * @return : FLASHELM_ABI_VERSION as the library was compiled with it. Where it
 *           differs from the header's, nothing else may be called. */
FLASHELM_API uint32_t flashelm_abi_version(void);

/* flashelm_code_name() :
 *  A code's name without its prefix, "DATA_LOSS", for logs. Thread-safe.
 * @code : a flashelm_code, or any other number.
 * @return : text that lives as long as the library; "UNKNOWN" for no code. */
FLASHELM_API const char* flashelm_code_name(int32_t code);

/* ------------------------------------------------------------- callbacks */

/* Reports how far something is.
 * @user : as the options say.
 * @done, @total : bytes of resident weights while an engine is opened, tokens
 *                 of the prompt while it is read.
 * @return : 0 to go on; anything else ends the call with FLASHELM_CANCELLED. */
typedef int (*flashelm_progress_callback)(void* user, uint64_t done,
                                          uint64_t total);

#define FLASHELM_LOG_INFO 0    /* what was chosen: plan, reader */
#define FLASHELM_LOG_WARNING 1 /* slower than need be, or retried */

/* Takes a line for a log. It comes from any thread that uses the engine, one
 * line at a time.
 * @user : as the options say.
 * @level : FLASHELM_LOG_INFO or FLASHELM_LOG_WARNING.
 * @message : UTF-8 without a newline, ends with a 0; valid during the call. */
typedef void (*flashelm_log_callback)(void* user, int32_t level,
                                      const char* message);

/* The id that comes with text that belongs to no token of its own. */
#define FLASHELM_NO_TOKEN UINT32_MAX

/* Takes a token that was generated.
 * @user : as the options say.
 * @id : the token; FLASHELM_NO_TOKEN once at the end, where text was held back
 *       until it was clear that it does not begin a stop string.
 * @text, @text_bytes : what there is to show now: whole UTF-8 code points, none
 *       of a stop string, perhaps empty. Followed by a 0 that does not count.
 *       Valid during the call.
 * @return : 0 to go on; anything else ends the text with FLASHELM_STOP_CALLBACK
 *           after this token. */
typedef int (*flashelm_token_callback)(void* user, uint32_t id,
                                       const char* text, size_t text_bytes);

/* --------------------------------------------------------------- sources */

#define FLASHELM_SOURCE_PATH 0 /* a file by its name */
#define FLASHELM_SOURCE_FD 1   /* an open file, or a part of one */
#define FLASHELM_SOURCE_READ 2 /* a function that reads */

/* Where the bytes of a model file are. Only the fields of its kind are used. */
typedef struct flashelm_source {
  size_t struct_size;
  uint32_t kind; /* FLASHELM_SOURCE_... */

  /* FLASHELM_SOURCE_FD: an open regular file, duplicated during the call, so
   * that it may be closed after it; its position is not used and does not move.
   * The model is the `size_bytes` from `offset_bytes` on, as where it lies
   * uncompressed in an APK. An offset that is a multiple of 4096 lets reads go
   * past the system's cache. */
  int32_t fd;
  uint64_t offset_bytes; /* where the model begins in it */

  /* Of the model. FLASHELM_SOURCE_FD: 0 for all that follows the offset. */
  uint64_t size_bytes;

  /* FLASHELM_SOURCE_PATH: a regular file. */
  const char* path;

  /* FLASHELM_SOURCE_READ: fills `target` with `num_bytes` from byte `offset` of
   * the model. Called by several threads of the library at a time, with some
   * 50 KiB of stack left, and while the source is opened by the caller's.
   * Nobody else looks at `target` meanwhile. The bytes never change.
   * @return : the bytes read; fewer than asked are asked for again, 0 says that
   *           the file ends; below 0 says that the device failed, which ends
   *           the call that needs them with FLASHELM_UNAVAILABLE. */
  int64_t (*read)(void* user, uint64_t offset, void* target, size_t num_bytes);

  /* Called once, when `read` will not be called any more; may be NULL. That is
   * before the call that takes the source returns if it fails or only looks at
   * the source, and else inside flashelm_engine_close(), or later in a thread
   * of the library if `read` has not returned by then. Never where this struct
   * itself is refused, for its size or for fields that are not known. */
  void (*release)(void* user);
  void* user; /* Of `read` and `release`. */
} flashelm_source;

/* --------------------------------------------------------------- engines */

#define FLASHELM_KV_F32 0  /* the same logits as the reference */
#define FLASHELM_KV_BF16 1 /* half the bytes per position */

#define FLASHELM_IO_AUTO 0  /* io_uring where there is one, else threads */
#define FLASHELM_IO_URING 1 /* fails with FLASHELM_UNIMPLEMENTED without it */
#define FLASHELM_IO_PREAD 2 /* threads that read */

#define FLASHELM_SPARSITY_OFF 0      /* every neuron, as the model was made */
#define FLASHELM_SPARSITY_GATE 1     /* neurons by their computed gates */
#define FLASHELM_SPARSITY_LOW_BIT 2  /* by a predictor: gates at 1 or 2 bits */
#define FLASHELM_SPARSITY_LOW_RANK 3 /* by a predictor: two thin matrices */

/* How a model is loaded. Where all else is equal, so are the logits, to the
 * bit: they do not depend on memory, threads, batch or reader. */
typedef struct flashelm_engine_options {
  size_t struct_size;

  /* A hard limit of what the library takes of RAM for this engine and its
   * sessions: weights, buffers, KV caches, thread stacks, and what the kernel
   * keeps for it. Its code is not in it, nor what callbacks take. 0: no limit;
   * everything is loaded. */
  uint64_t memory_bytes;

  uint32_t context;      /* positions of a session; 0: as the model was made */
  uint32_t max_sessions; /* open at a time, 1 to 1024; 0: 1 */
  uint32_t num_threads;  /* that compute, the caller's too; 0: the fast cores */
  uint32_t max_batch;    /* prompt tokens at a time; 0: 512, fewer if short */
  uint32_t kv_type;      /* FLASHELM_KV_... */
  uint32_t io;           /* FLASHELM_IO_... */

  /* Threads that read, where threads do; 0: 8. Where memory is short, at most 4
   * of them are made. */
  uint32_t num_io_threads;

  /* How long a read may take before the call that waits for it fails with
   * FLASHELM_UNAVAILABLE; 0: 30000. The engine can be used afterwards. */
  uint32_t read_timeout_ms;

  /* Which neurons are computed: FLASHELM_SPARSITY_... Not off needs a model
   * file that was calibrated, the low ones one with such predictors; others
   * give FLASHELM_INVALID_ARGUMENT. */
  uint32_t sparsity;

  uint32_t reserved; /* 0 */

  /* The part of each layer's neurons that is kept, above 0 to 1. 0, for ReLU
   * models only: those whose gate is, or is predicted to be, positive. */
  double kept_fraction;

  flashelm_progress_callback progress; /* may be NULL */
  void* progress_user;
  flashelm_log_callback log; /* NULL: silence. Until the engine is closed. */
  void* log_user;
} flashelm_engine_options;

#define FLASHELM_MAX_PLAN_PARTS 24 /* that a plan has room for */

/* A part of what an engine takes. */
typedef struct flashelm_plan_part {
  char name[40];  /* for people: "KV cache"; ends with a 0 */
  uint64_t bytes; /* of RAM */
} flashelm_plan_part;

/* What an engine takes of RAM. */
typedef struct flashelm_plan {
  size_t struct_size;
  uint64_t total_bytes;    /* at most memory_bytes; the sum of the parts */
  uint64_t minimum_bytes;  /* the smallest memory_bytes that is feasible */
  uint64_t weight_bytes;   /* that a token needs, wherever they are */
  uint64_t resident_bytes; /* of these, in RAM */
  uint64_t streamed_bytes_per_token; /* of these, read for each token */
  uint64_t kv_cache_bytes;           /* of all sessions */
  uint32_t context;                  /* positions of a session */
  uint32_t batch;                    /* prompt tokens at a time */
  uint32_t num_parts;                /* of `parts` */
  uint32_t reserved;                 /* 0 */
  flashelm_plan_part parts[FLASHELM_MAX_PLAN_PARTS]; /* what it consists of */
} flashelm_plan;

/* flashelm_estimate() :
 *  Says what flashelm_engine_open_source() would take, without loading the
 *  model: reads its directory and its tokenizer. The same source and options
 *  always give the same plan. Thread-safe.
 * @source : as for opening, but that nothing of it is used after the call.
 * @options : as for opening; callbacks are not called. NULL: defaults.
 * @plan : filled. With FLASHELM_BUDGET_INFEASIBLE only minimum_bytes is.
 * @return : FLASHELM_BUDGET_INFEASIBLE  memory_bytes is below minimum_bytes
 *           FLASHELM_NOT_FOUND          no file at the path
 *           FLASHELM_DATA_LOSS          not a model file, or a damaged one
 *           FLASHELM_UNIMPLEMENTED      a newer model file than the library
 *           FLASHELM_UNAVAILABLE        a read failed
 *           FLASHELM_INVALID_ARGUMENT   an option outside its range, or a
 *                                       source that cannot be read */
FLASHELM_API flashelm_code flashelm_estimate(
    const flashelm_source* source, const flashelm_engine_options* options,
    flashelm_plan* plan, flashelm_error* error);

/* flashelm_engine_open() :
 *  Loads the model file at `path`: flashelm_engine_open_source() of a path.
 * @path : of a regular file.
 * @options : copied. NULL: defaults.
 * @return : the engine, or NULL, as there. */
FLASHELM_API flashelm_engine* flashelm_engine_open(
    const char* path, const flashelm_engine_options* options,
    flashelm_error* error);

/* flashelm_engine_open_source() :
 *  Plans, takes memory and loads the resident weights. Takes seconds for a
 *  large model, so it belongs off the UI thread. Thread-safe.
 * @source : copied; what it points to has to live during the call, and `user`
 *           until `release` is called.
 * @options : copied. NULL: defaults.
 * @return : the engine, for flashelm_engine_close(), or NULL with the codes of
 *           flashelm_estimate() and
 *           FLASHELM_RESOURCE_EXHAUSTED  the system has less than was planned
 *           FLASHELM_UNIMPLEMENTED       no io_uring here, and it was asked for
 *           FLASHELM_CANCELLED           by the progress callback */
FLASHELM_API flashelm_engine* flashelm_engine_open_source(
    const flashelm_source* source, const flashelm_engine_options* options,
    flashelm_error* error);

/* flashelm_engine_close() :
 *  Gives back all that the engine took: memory, descriptors, threads. Sessions
 *  that are still open lose theirs, too: their calls return
 *  FLASHELM_INVALID_ARGUMENT from then on, but for that of
 *  flashelm_session_get_stats(), and they still have to be closed.
 *  Takes at most about two seconds where the device does not answer, four with
 *  sparsity. The memory that such reads go to then stays, as the system may
 *  still write there, with a thread that waits for them and then gives it back:
 *  `unanswered_bytes` of a session that is still open says whether it has.
 * @engine : NULL does nothing.
 * @return : FLASHELM_INVALID_ARGUMENT  a session of it is in a call; nothing
 *           was closed. Cancel, wait for that call to return, close again. */
FLASHELM_API flashelm_code flashelm_engine_close(flashelm_engine* engine);

/* flashelm_engine_get_plan() :
 *  What the engine takes by now. Thread-safe.
 * @plan : filled. */
FLASHELM_API flashelm_code flashelm_engine_get_plan(
    const flashelm_engine* engine, flashelm_plan* plan, flashelm_error* error);

/* flashelm_set_budget() :
 *  Gives a live engine another hard limit, as a system grants more memory or
 *  asks for some back. All memory of weights and of activations goes back to
 *  the system at once; weights that the new limit has room for are read again
 *  when the next token needs them, which takes as long as one that streams them
 *  all. Allocators may keep some of it, less than 1 MiB in tests with glibc.
 *  Texts, KV caches and results stay as they are. Waits for the token or
 *  batch that is being computed. Thread-safe; may be called from callbacks, but
 *  for those of sources and of logs.
 *  Reads that a device does not answer keep their buffers, on top of the limit,
 *  and for those it waits two seconds at most, four with sparsity. With
 *  sparsity it reads some parts of the file for its plan.
 * @memory_bytes : as in flashelm_engine_options; 0: no limit.
 * @return : FLASHELM_BUDGET_INFEASIBLE  below minimum_bytes of the plan, which
 *                                       flashelm_estimate() tells
 *           FLASHELM_RESOURCE_EXHAUSTED  the system has less than was planned
 *           FLASHELM_UNAVAILABLE         a read failed
 *           After an error the limit is what it was. */
FLASHELM_API flashelm_code flashelm_set_budget(flashelm_engine* engine,
                                               uint64_t memory_bytes,
                                               flashelm_error* error);

/* flashelm_trim() :
 *  Gives back at once all memory that a token can get back: that of weights,
 *  but for some small ones, and of activations. The limit stays, and the next
 *  token takes the memory again, so this is for an engine that rests; to have
 *  less for good, set a smaller budget. Waits, threads, errors: as
 *  flashelm_set_budget(). */
FLASHELM_API flashelm_code flashelm_trim(flashelm_engine* engine,
                                         flashelm_error* error);

/* flashelm_pause() :
 *  From here on no session computes or begins to read, until
 *  flashelm_resume(): calls that would, wait. A flashelm_cancel() ends them all
 *  the same. Returns when the token or batch that was being computed has ended.
 *  The engine can be trimmed and given another budget meanwhile. Where it is
 *  paused already this does nothing. Thread-safe; may be called from callbacks,
 *  but for those of sources and of logs. */
FLASHELM_API flashelm_code flashelm_pause(flashelm_engine* engine,
                                          flashelm_error* error);

/* flashelm_resume() :
 *  Lets sessions go on. Where the engine is not paused this does nothing.
 *  Thread-safe. */
FLASHELM_API flashelm_code flashelm_resume(flashelm_engine* engine,
                                           flashelm_error* error);

/* A model's properties. */
typedef struct flashelm_model_info {
  size_t struct_size;
  uint64_t file_bytes;  /* of the whole model */
  uint32_t vocab_size;  /* logits of a position */
  uint32_t max_context; /* positions that the model was made for */
  uint32_t num_layers;  /* transformer layers */
  uint32_t model_dim;   /* numbers that a position has between layers */
  uint32_t bos_id;      /* stands before every text */
  uint32_t eos_id;      /* ends a text */
  char weights[32];     /* how they are encoded, "q4+q8"; ends with a 0 */
  char io[16];          /* how they are read, "uring"; ends with a 0 */
} flashelm_model_info;

/* flashelm_engine_get_info() :
 *  What model it is. Thread-safe.
 * @info : filled. */
FLASHELM_API flashelm_code
flashelm_engine_get_info(const flashelm_engine* engine,
                         flashelm_model_info* info, flashelm_error* error);

/* ---------------------------------------------------------------- tokens */

/* flashelm_tokenize() :
 *  The ids of a text, as the model's own tokenizer gives them. Needs some 36
 *  bytes per character of the longest word besides. Thread-safe.
 * @text, @text_bytes : bytes that are not UTF-8 count as U+FFFD. May be NULL
 *                      where text_bytes is 0.
 * @add_bos : whether bos_id comes first, as at the beginning of every text.
 * @ids : [capacity], filled; NULL with capacity 0 just counts.
 * @num_ids : how many the text has, also where they do not fit.
 * @return : FLASHELM_INVALID_ARGUMENT  capacity is too small; nothing was
 *           written to ids. */
FLASHELM_API flashelm_code flashelm_tokenize(const flashelm_engine* engine,
                                             const char* text,
                                             size_t text_bytes, int add_bos,
                                             uint32_t* ids, size_t capacity,
                                             size_t* num_ids,
                                             flashelm_error* error);

/* flashelm_detokenize() :
 *  The text of ids. Ids like bos_id have none. Thread-safe.
 * @ids : [num_ids]
 * @text : [capacity] bytes, filled and ended with a 0; NULL with capacity 0
 *         just counts.
 * @text_bytes : of the text without the 0, also where it does not fit.
 * @return : FLASHELM_INVALID_ARGUMENT  capacity is not above text_bytes, or an
 *           id outside the vocabulary; nothing was written to text. */
FLASHELM_API flashelm_code flashelm_detokenize(
    const flashelm_engine* engine, const uint32_t* ids, size_t num_ids,
    char* text, size_t capacity, size_t* text_bytes, flashelm_error* error);

/* -------------------------------------------------------------- sessions */

/* flashelm_session_open() :
 *  An empty text. Takes its KV cache out of what the engine planned.
 *  Thread-safe.
 * @return : the session, for flashelm_session_close(), or NULL with
 *           FLASHELM_RESOURCE_EXHAUSTED  max_sessions are open already */
FLASHELM_API flashelm_session* flashelm_session_open(flashelm_engine* engine,
                                                     flashelm_error* error);

/* flashelm_session_close() :
 *  Gives back the session's memory. Its engine may be closed already. After
 *  FLASHELM_OK no call may use it.
 * @session : NULL does nothing.
 * @return : FLASHELM_INVALID_ARGUMENT  it is in a call, perhaps in the one
 *           whose callback this is; nothing was closed. */
FLASHELM_API flashelm_code flashelm_session_close(flashelm_session* session);

/* flashelm_prefill() :
 *  Appends tokens and computes them, so that flashelm_logits() has what follows
 *  the last one. Takes turns with other sessions batch by batch. One call of a
 *  session at a time.
 * @ids : [num_ids], at least one.
 * @progress : called after each batch with tokens done and in all; may be NULL.
 * @return : FLASHELM_INVALID_ARGUMENT  an id outside the vocabulary, or more
 *                                      tokens than the context has left
 *           FLASHELM_UNAVAILABLE       a read failed
 *           FLASHELM_CANCELLED         by flashelm_cancel() or the progress
 *           After any error the text is as before the call, which may be
 *           repeated. After FLASHELM_INVALID_ARGUMENT so are the logits, after
 *           others there are none. */
FLASHELM_API flashelm_code flashelm_prefill(flashelm_session* session,
                                            const uint32_t* ids, size_t num_ids,
                                            flashelm_progress_callback progress,
                                            void* progress_user,
                                            flashelm_error* error);

/* flashelm_decode() :
 *  Appends one token and computes it: flashelm_prefill() of one. One call of a
 *  session at a time.
 * @id : of the vocabulary.
 * @return : as flashelm_prefill(), text and logits after an error, too */
FLASHELM_API flashelm_code flashelm_decode(flashelm_session* session,
                                           uint32_t id, flashelm_error* error);

/* flashelm_logits() :
 *  The logits of what follows the text's last token. One call of a session at a
 *  time.
 * @logits : copied to here, [vocab_size] floats.
 * @capacity : floats that there is room for.
 * @return : FLASHELM_INVALID_ARGUMENT  capacity is below vocab_size, or the
 *           text's last token has not been computed: nothing was read yet, a
 *           call failed, or the text was cut. */
FLASHELM_API flashelm_code flashelm_logits(flashelm_session* session,
                                           float* logits, size_t capacity,
                                           flashelm_error* error);

/* flashelm_truncate() :
 *  Cuts the text; the next tokens go there. Costs nothing.
 *  One call of a session at a time.
 * @position : tokens that stay, at most flashelm_position().
 * @return : FLASHELM_INVALID_ARGUMENT  it is larger */
FLASHELM_API flashelm_code flashelm_truncate(flashelm_session* session,
                                             uint32_t position,
                                             flashelm_error* error);

/* flashelm_position() :
 *  Tokens of the text. One call of a session at a time.
 * @position : filled. */
FLASHELM_API flashelm_code flashelm_position(flashelm_session* session,
                                             uint32_t* position,
                                             flashelm_error* error);

/* flashelm_cancel() :
 *  Ends the call that the session is in, within some tens of milliseconds, also
 *  where it waits for the device or for other sessions. What is being computed
 *  stops after some billion products at the latest; attention and, with
 *  sparsity, the choice and the sums of neurons stop between layers. The call
 *  returns FLASHELM_CANCELLED, and so does every flashelm_prefill(),
 *  flashelm_decode() and flashelm_generate() from then on until
 *  flashelm_clear_cancel(). So it does not matter whether it comes just before
 *  or during a call. Only stores a flag: may be called from any thread and from
 *  a signal handler.
 * @session : NULL does nothing. */
FLASHELM_API void flashelm_cancel(flashelm_session* session);

/* flashelm_clear_cancel() :
 *  Lets the session be used again. Only after the cancelled call has returned:
 *  before that it may not notice that it was cancelled. Thread-safe.
 * @session : NULL does nothing. */
FLASHELM_API void flashelm_clear_cancel(flashelm_session* session);

/* ------------------------------------------------------------ generation */

#define FLASHELM_STOP_EOS 1          /* the model ended the text */
#define FLASHELM_STOP_STRING 2       /* a stop string appeared */
#define FLASHELM_STOP_MAX_TOKENS 3   /* as many as were asked for */
#define FLASHELM_STOP_CONTEXT_FULL 4 /* no position is left */
#define FLASHELM_STOP_CALLBACK 5     /* the token callback said so */

/* How text is generated. All zero: greedy, until the text or context ends. */
typedef struct flashelm_generate_options {
  size_t struct_size;
  uint64_t max_tokens;  /* 0: no limit but the context */
  float temperature;    /* 0: the likeliest token, always */
  uint32_t top_k;       /* of the k likeliest; 0: of all */
  float top_p;          /* of the fewest that reach this probability; 0: all */
  float min_p;          /* of those with this part of the best's; 0: all */
  float repeat_penalty; /* of what is in the text, above 0; 0 and 1: none */
  uint32_t ignore_eos;  /* 1: go on behind the end of a text */
  uint64_t seed;        /* the same one gives the same text */

  /* [num_stop_strings] texts that end with a 0; where one of them appears, the
   * text ends before it. At most 64, of 4096 bytes in all. May be NULL. */
  const char* const* stop_strings;
  size_t num_stop_strings; /* of `stop_strings` */

  flashelm_token_callback token; /* may be NULL */
  void* token_user;
  flashelm_progress_callback progress; /* of the prompt; may be NULL */
  void* progress_user;
} flashelm_generate_options;

/* What became of it. */
typedef struct flashelm_generate_result {
  size_t struct_size;
  uint64_t num_prompt_tokens; /* of this call's prompt, bos_id included */
  uint64_t num_tokens;        /* generated */
  uint32_t stop_reason;       /* FLASHELM_STOP_...; 0 after an error */
  uint32_t reserved;          /* 0 */
  double prompt_seconds;      /* until the first token could be chosen */
  double decode_seconds;      /* from then on */
} flashelm_generate_result;

/* flashelm_generate() :
 *  Appends a prompt to the text, after bos_id where the text is empty, and then
 *  tokens until there is a reason to stop. Those stay in the text, but for the
 *  model's end mark; the next call goes on behind them. One call of a session
 *  at a time. Decoding allocates nothing.
 * @prompt, @prompt_bytes : text. Empty: goes on with the text as it is.
 * @options : NULL: defaults.
 * @result : filled, after errors too, as far as it got; may be NULL.
 * @return : FLASHELM_INVALID_ARGUMENT  an option outside its range, or a prompt
 *                                      that the context has no room for
 *           FLASHELM_UNAVAILABLE       a read failed
 *           FLASHELM_CANCELLED         by flashelm_cancel() or the progress
 *           While the prompt is read these leave the text as it was, later they
 *           leave what was generated; another call goes on from there. */
FLASHELM_API flashelm_code
flashelm_generate(flashelm_session* session, const char* prompt,
                  size_t prompt_bytes, const flashelm_generate_options* options,
                  flashelm_generate_result* result, flashelm_error* error);

/* ------------------------------------------------------------ statistics */

/* Counts since the session was opened; of the engine, since it was. */
typedef struct flashelm_stats {
  size_t struct_size;
  uint64_t num_tokens;   /* computed by this session */
  uint64_t compute_ns;   /* of this session's turns, waits for reads included */
  uint64_t wait_ns;      /* of this session for its turns */
  uint64_t used_bytes;   /* of RAM, by the engine and its sessions */
  uint64_t flash_bytes;  /* read by the engine since it was loaded */
  uint64_t num_reads;    /* of these, requests */
  uint64_t read_wait_ns; /* of all sessions, for reads */
  uint64_t read_busy_ns; /* with a read in flight */
  /* Of buffers that are not used, as reads of weights were given up that go
   * there and have not been answered; also, as of now, of those that were left
   * behind for it when the budget was changed or the engine closed. */
  uint64_t unanswered_bytes;
} flashelm_stats;

/* flashelm_session_get_stats() :
 *  As they were after the session's last token or batch. May be called at any
 *  time from any thread.
 * @stats : filled. */
FLASHELM_API flashelm_code
flashelm_session_get_stats(const flashelm_session* session,
                           flashelm_stats* stats, flashelm_error* error);

#ifdef __cplusplus
}
#endif

#endif /* FLASHELM_FLASHELM_H_ */
