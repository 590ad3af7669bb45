#!/usr/bin/env python3
"""Makes Markdown of what scripts/benchmarks.sh measured. Standard library only.

tables.py begin MODE COMMIT MODEL TITLE prints meta.json of a section that begins
tables.py section NAME DIR              prints a section
tables.py write FILE|- DIR...           sections one after the other; with a
                                        FILE, raw results beside it as JSON
tables.py insert FILE DIR...            each between its markers in FILE

A DIR has meta.json, commands, raw results and, for the last two, section.md.
"""

import datetime
import glob
import json
import os
import platform
import re
import statistics
import sys

MARKER = "<!-- benchmarks.sh: {} -->"
END = "<!-- end of {} -->"


# --- What was measured.

def load(directory, name):
    with open(os.path.join(directory, name), encoding="utf-8") as file:
        return json.load(file)


def load_all(directory, pattern):
    paths = sorted(glob.glob(os.path.join(directory, pattern)))
    assert paths, f"there is no {pattern} in {directory}"
    return [load(directory, os.path.basename(path)) for path in paths]


def medians(results, key):
    """Of a file of Google Benchmark: by name, the median over repetitions."""
    values = {}
    for run in results["benchmarks"]:
        if run.get("error_occurred"):
            raise ValueError(f"{run['name']}: {run['error_message']}")
        if run["run_type"] == "iteration" and key in run:
            values.setdefault(run["run_name"], []).append(run[key])
    return {name: statistics.median(runs) for name, runs in values.items()}


def pairs(row, other):
    """Ratios of two rows of bench, round by round: each was measured in turn."""
    if row["error"] or other["error"]:
        return []
    return [a / b for a, b in zip(row["samples_ts"], other["samples_ts"])]


# --- How it is written. A cell is never empty.

def number(value, digits=2):
    return "-" if value is None else f"{value:,.{digits}f}"


def of_rounds(values, digits=2):
    """The median, and in brackets the lowest and the highest."""
    if not values:
        return "-"
    text = number(statistics.median(values), digits)
    if len(values) < 2:
        return text
    return (f"{text} ({number(min(values), digits)} to "
            f"{number(max(values), digits)})")


def rate_of(row):
    if row["error"]:
        return "failed: " + row["error"].split("\n")[0].replace("|", "/")[:80]
    return of_rounds(row["samples_ts"])


def megabytes(value, digits=1):
    return "-" if value is None else number(value / 1e6, digits)


def table(head, rows):
    assert rows, "no rows: " + ", ".join(head)
    lines = ["| " + " | ".join(head) + " |",
             "|---" + "|---:" * (len(head) - 1) + "|"]
    for row in rows:
        assert len(row) == len(head) and all(row), (head, row)
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


# --- The sections.

def machine(directory):
    record = load(directory, "record.json")[0]
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(re.search(r"MemTotal: *(\d+)", file.read()).group(1))
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "unknown")
    drive = " ".join(str(record[key]) for key in
                     ("block_device", "storage_model") if record[key])
    return table(["what", "found"], [
        ["processor", record["cpu"] or "unknown"],
        ["processors to be used", str(len(os.sched_getaffinity(0)))],
        ["threads of computation", str(record["n_threads"])],
        ["SIMD", record["simd"]],
        ["RAM", f"{memory / 1024 ** 2:.1f} GiB"],
        ["system", f"{system}, {record['kernel']}"],
        ["file system", record["fs_type"] or "unknown"],
        ["drive", drive or "unknown"],
        ["reader", record["io_backend"] +
         (", O_DIRECT" if record["direct_io"] else ", buffered")],
    ])


def kernels(directory):
    results = load(directory, "kernels.json")
    rates = medians(results, "bytes_per_second")
    macs = medians(results, "GMAC/s")
    stream = max(rate for name, rate in rates.items()
                 if name.startswith("BM_Stream/"))
    peaks = {kind: macs.get(f"BM_Peak/{kind}/real_time")
             for kind in ("f32", "int8")}

    def cell(kind, encoding, matrix):
        pattern = re.compile(
            rf"BM_{kind}/{encoding}/{matrix}(/layer:\d+)?/real_time")
        for name in (name for name in rates if pattern.fullmatch(name)):
            if kind == "Decode":
                return (f"{number(rates[name] / 1e9, 1)} "
                        f"({number(rates[name] / stream)})")
            peak = peaks["f32" if encoding == "bf16" else "int8"]
            part = f" ({number(macs[name] / peak)})" if peak else ""
            return number(macs[name], 1) + part
        return "-"

    encodings = [encoding for encoding in ("bf16", "q8", "q4")
                 if any(f"/{encoding}/" in name for name in rates)]
    rows = []
    for kind, what in (("Decode", "decoding"), ("Prompt", "prompt")):
        for matrix in ("qkv", "attention_out", "gate_up", "down", "ffn",
                       "head"):
            cells = [cell(kind, encoding, matrix) for encoding in encodings]
            if any(cell != "-" for cell in cells):
                rows.append([f"{what}, {matrix}"] + cells)
    peak_text = ", ".join(f"{number(peak, 1)} GMAC/s ({kind})"
                          for kind, peak in peaks.items() if peak)
    return (f"Decoding: weights in GB/s, and as a part of the fastest stream of "
            f"the same run, {number(stream / 1e9, 1)} GB/s. Prompts of 128 "
            f"tokens: GMAC/s, and as a part of the peak of the same run, "
            f"{peak_text}.\n\n" + table(["product"] + encodings, rows))


def exact(directory):
    rows = load(directory, "rows.json")
    by_budget = {}
    for row in rows:
        by_budget.setdefault(row["config"]["mem_budget"], {})[
            row["config"]["io"]] = row
    lines = []
    for budget, readers in by_budget.items():
        uring, mmap = readers["uring"], readers["mmap"]
        lines.append([
            budget, megabytes(uring["peak_rss_bytes"], 0),
            f"{megabytes(uring['flash_bytes_per_token'])} "
            f"({megabytes(uring['flash_bytes_bound_per_token'])})",
            number(uring["io_wait_ms"], 1), number(uring["compute_ms"], 1),
            rate_of(uring), rate_of(readers["pread"]), rate_of(mmap),
            of_rounds(pairs(uring, mmap))])
    limited = any(row["cgroup"] for row in rows)
    prompts = [[row["config"]["mem_budget"], rate_of(row)]
               for row in load(directory, "prompts.json")]
    return (
        f"{rows[0]['n_gen']} tokens one by one, "
        + ("each row in a memory cgroup of its budget, without swap"
           if limited else
           "without a cgroup, which could not be made here: mmap has all of "
           "the machine's RAM")
        + "; tokens/s, medians of the rounds, in brackets the lowest and the "
        "highest. The ratio is that of each round.\n\n"
        + table(["budget", "peak RAM, MB", "from flash per token, MB (bound)",
                 "waiting, ms", "computing, ms", "io_uring", "pread", "mmap",
                 "io_uring / mmap"], lines)
        + "\nPrompts:\n\n" + table(["budget", "tokens/s, 128 tokens"], prompts))


def device(directory):
    lines, loops = [], []
    for row in load(directory, "rates.json"):
        rates = {name: [rate / 1e9 for rate in values]
                 for name, values in row["bytes_per_second"].items()}
        same = row["of_same_bytes"] is not None
        lines.append([row["mem_budget"], row["io"],
                      of_rounds(rates["decoding"]),
                      of_rounds(rates[row["best_loop"]]),
                      of_rounds(row["of_bare"]),
                      of_rounds(row["same_bytes_of_bare"]) if same else "-",
                      of_rounds(row["of_same_bytes"]) if same else "-",
                      number(row["token_ms"], 0), number(row["compute_ms"], 0)])
        loops.append([row["mem_budget"], row["io"]]
                     + [("**{}**" if name == row["best_loop"] else "{}").format(
                         number(statistics.median(values)))
                        for name, values in rates.items()
                        if name not in ("decoding", "same bytes")])
    names = [name for name in row["bytes_per_second"]
             if name not in ("decoding", "same bytes")]
    return ("Bytes from flash while decoding, and loops that read the same file "
            "in turn with it, in tenths of a second between tokens and in a "
            "random order; ratios of each round. The bare loop is the one with "
            "the highest median. The loop of the same bytes computes nothing, "
            "but reads what arrives with all cores, and as much resident memory "
            "beside it as decoding does with that budget. Computing is what a "
            "token takes without waiting for reads, so it is part of them or "
            "beside them.\n\n"
            + table(["budget", "reader", "decoding, GB/s", "bare loop, GB/s",
                     "decoding, of it", "same bytes, of it",
                     "decoding, of the same bytes", "ms a token",
                     "of them computing"], lines)
            + "\nThe bare loops, medians in GB/s:\n\n"
            + table(["budget", "reader"] + names, loops))


def sweep(directory):
    rounds = {}
    with open(os.path.join(directory, "sweeps.txt"), encoding="ascii") as file:
        for line in file:
            found = re.match(r" *(\d+) %  bare (\S+)  first (\S+)  next (\S+)"
                             r"  used (\S+) GB/s", line)
            if found:
                rounds.setdefault(found.group(1), []).append(
                    [float(value) for value in found.groups()[1:]])
    lines = []
    for percent, values in rounds.items():
        lines.append([f"{percent} %", of_rounds([v[0] for v in values])] +
                     [of_rounds([v[i] / v[0] for v in values])
                      for i in (1, 2, 3)])
    return ("What the weight store brings, before any layer computes, as parts "
            "of a bare loop's rate in the same round: in its first sweep, which "
            "compares checksums; in one of the next; and in one in which a core "
            "looks at every byte.\n\n"
            + table(["budget", "bare loop, GB/s", "first sweep", "a next one",
                     "looked at"], lines))


def decode(directory):
    results = load(directory, "steps.json")
    keys = ("tokens/s", "weight_GB/s", "stream_GB/s", "of_stream",
            "flash_bytes", "io_busy_ms", "io_wait_ms", "compute_ms")
    found = {key: medians(results, key) for key in keys}
    lines = []
    for name in found["tokens/s"]:
        budget = re.search(r"budget:([^/]*)", name).group(1)
        value = {key: found[key].get(name) for key in keys}
        lines.append([
            "all resident" if budget == "all" else budget,
            number(value["tokens/s"]), number(value["weight_GB/s"], 1),
            number(value["stream_GB/s"], 1), number(value["of_stream"]),
            megabytes(value["flash_bytes"]), number(value["io_busy_ms"], 1),
            number(value["io_wait_ms"], 1), number(value["compute_ms"], 1)])
    return ("In one process, the engine alone in the budget; the stream is "
            "read before and after each measurement. Medians.\n\n"
            + table(["budget", "tokens/s", "weights, GB/s", "stream, GB/s",
                     "of the stream", "flash, MB/token", "reading, ms",
                     "waiting, ms", "computing, ms"], lines))


def sparse(directory):
    rows = load(directory, "rows.json")
    dense = {row["config"]["mem_budget"]: row for row in rows
             if row["config"]["sparsity"] == "off"}
    lines = []
    for row in rows:
        off = dense[row["config"]["mem_budget"]]
        lines.append([
            row["config"]["mem_budget"],
            "exact" if row is off else row["config"]["sparsity"],
            of_rounds([1000 * row["n_gen"] / ms for ms in row["gen_samples"]])
            if not row["error"] else rate_of(row),
            "1" if row is off else of_rounds(
                [] if row["error"] or off["error"] else
                [a / b for a, b in zip(off["gen_samples"],
                                       row["gen_samples"])]),
            megabytes(row["flash_bytes_per_token"]),
            megabytes(row["fresh_bytes_per_token"]),
            "1" if row is off else number(row["kept_fraction"], 3),
            number(row["overlap"]), number(row["cache_hit_rate"]),
            number(row["compute_ms"], 1), number(row["io_wait_ms"], 1),
            f"{megabytes(row['peak_rss_bytes'], 0)} of "
            f"{megabytes(row['mem_budget_bytes'], 0)}"])
    return (f"{rows[0]['n_gen']} tokens after {rows[0]['n_prompt']}; rows take "
            "turns, and the ratio is that of each round. Overlap: of the neurons "
            "of a token and of the one before, the part that is of both.\n\n"
            + table(["budget", "neurons", "tokens/s", "times exact",
                     "from flash per token, MB", "missing neurons, MB",
                     "computed", "overlap", "from RAM",
                     "computing, ms", "waiting, ms", "peak RAM, MB"], lines))


def ablation(directory):
    lines = []
    for rows in load_all(directory, "rows-*.json"):
        for row in rows:
            flash = row["flash_bytes_per_token"]
            lines.append([
                row["config"]["mem_budget"], row["ablation"],
                rate_of(row) if row["error"] else number(flash / 1e9, 4),
                number(row["flash_read_gbps"]),
                number(row["reads_per_token"], 0),
                number(row["io_busy_ms"], 1), number(row["io_wait_ms"], 1),
                number(row["compute_ms"], 1), number(row["memory_ms"], 1),
                number(row["ms_per_token"], 1),
                megabytes(row["peak_rss_bytes"], 0)])
    return table(["budget", "part", "GB/token", "GB/s", "reads/token", "I/O ms",
                  "wait ms", "compute ms", "memory ms", "ms/token",
                  "peak RAM, MB"], lines)


def quality(directory):
    lines = []
    for weights in ("bf16", "q8", "q4"):
        cells = [weights]
        for text in ("stories", "books"):
            result = load(directory, f"{text}-{weights}.json")
            cells += [number(result["perplexity"], 4),
                      number(result["mean_kl"], 5),
                      number(result["same_top"], 3)]
        lines.append(cells)
    tokens = [load(directory, f"{text}-q4.json")["n_tokens"]
              for text in ("stories", "books")]
    return (f"`models/tiny-stories`; KL divergence from f32 in nats per token, "
            f"and how often the likeliest token is that of f32; {tokens[0]:,} "
            f"and {tokens[1]:,} tokens.\n\n"
            + table(["weights", "stories: perplexity", "KL", "same",
                     "books: perplexity", "KL", "same"], lines))


def selectors(directory):
    lines = []
    for path in sorted(glob.glob(os.path.join(directory, "stories-*.json"))):
        _, fraction, selector = os.path.basename(path)[:-5].split("-", 2)
        cells = [selector, fraction]
        for text in ("stories", "books"):
            result = load(directory, f"{text}-{fraction}-{selector}.json")
            cells += [number(result["perplexity"], 3),
                      number(result["mean_kl"], 4),
                      number(result["same_top"], 3)]
        lines.append(cells)
    order = ["gate", "low-bit", "low-rank", "random", "magnitude"]
    lines.sort(key=lambda line: (-float(line[1]), order.index(line[0])))
    return ("`models/tiny-stories`, SwiGLU, bf16, against itself with all "
            "neurons.\n\n"
            + table(["selector", "kept", "stories: perplexity", "KL", "same",
                     "books: perplexity", "KL", "same"], lines))


def bound(directory):
    lines = []
    for text in ("stories", "books"):
        with open(os.path.join(directory, f"{text}.md"),
                  encoding="ascii") as file:
            rows = [[cell.strip() for cell in line.split("|")[1:-1]]
                    for line in file if line.startswith("|")]
        head = ["text"] + rows[0]
        lines += [[text] + row for row in rows[2:]]
    return table(head, lines)


def forecast(directory):
    with open(os.path.join(directory, "forecast.txt"),
              encoding="utf-8") as file:
        text = file.read().strip()
    assert text, "scripts/forecast_accuracy.py printed nothing"
    is_table = any(line.startswith("|") for line in text.splitlines())
    return (text if is_table else "```\n" + text + "\n```") + "\n"


SECTIONS = {
    "machine": machine,
    "kernels": kernels,
    "exact-bf16": exact,
    "exact-q8": exact,
    "exact-q4": exact,
    "device-bf16": device,
    "device-q4": device,
    "sweep": sweep,
    "decode-bf16": decode,
    "decode-q8": decode,
    "decode-q4": decode,
    "sparse-bf16": sparse,
    "sparse-q4": sparse,
    "ablation": ablation,
    "quality": quality,
    "selectors": selectors,
    "bound": bound,
    "forecast": forecast,
}


# --- Documents.

def begin(mode, commit, model, title):
    print(json.dumps({
        "title": title, "mode": mode, "commit": commit, "model": model,
        "begin": datetime.datetime.now(datetime.timezone.utc).strftime(
            "%Y-%m-%d %H:%M UTC"),
        "load": os.getloadavg()[0]}))


def section(name, directory):
    render = SECTIONS[name]
    meta = load(directory, "meta.json")
    with open(os.path.join(directory, "commands"), encoding="utf-8") as file:
        commands = file.read()
    short = "" if meta["mode"] == "full" else (
        f" This is the {meta['mode']} form: few rounds, for a look, not to be "
        "quoted.")
    print(f"### {meta['title']}\n\n"
          f"Commit {meta['commit']}, {meta['begin']}, {meta['model']}; "
          f"{meta['load']:.1f} processes were at work when it began.{short}\n\n"
          f"```sh\n{commands}```\n\n{render(directory)}", end="")


def raw_results(directory):
    files = {}
    for name in sorted(os.listdir(directory)):
        if name in ("done", "meta.json", "section.md", "commands"):
            continue
        path = os.path.join(directory, name)
        if name.endswith(".json"):
            files[name] = load(directory, name)
        else:
            with open(path, encoding="utf-8") as file:
                files[name] = file.read()
    with open(os.path.join(directory, "commands"), encoding="utf-8") as file:
        commands = file.read().splitlines()
    return {"meta": load(directory, "meta.json"), "commands": commands,
            "results": files}


def replace_file(path, text):
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def write_json(document, directories):
    """Sections that were not measured now keep what they had."""
    path = re.sub(r"\.md$", "", document) + ".json"
    sections = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            sections = json.load(file)["sections"]
    for directory in directories:
        sections[os.path.basename(directory)] = raw_results(directory)
    replace_file(path, json.dumps({"sections": sections}, indent=1) + "\n")


def read_section(directory):
    with open(os.path.join(directory, "section.md"),
              encoding="utf-8") as file:
        return file.read()


def write(output, directories):
    text = "\n".join(read_section(directory) for directory in directories)
    if output == "-":
        print(text, end="")
        return
    replace_file(output, text)
    write_json(output, directories)


def insert(document, directories):
    with open(document, encoding="utf-8") as file:
        text = file.read()
    for directory in directories:
        name = os.path.basename(directory)
        first, last = MARKER.format(name), END.format(name)
        if text.count(first) != 1 or text.count(last) != 1:
            sys.exit(f"{document}: expected \"{first}\" and \"{last}\" once "
                     "each; nothing was written")
        before, rest = text.split(first)
        _, after = rest.split(last)
        text = f"{before}{first}\n{read_section(directory)}{last}{after}"
    replace_file(document, text)
    write_json(document, directories)


def main(args):
    verbs = {"begin": lambda: begin(*args[1:]),
             "section": lambda: section(*args[1:]),
             "write": lambda: write(args[1], args[2:]),
             "insert": lambda: insert(args[1], args[2:])}
    if not args or args[0] not in verbs:
        sys.exit(__doc__)
    verbs[args[0]]()


if __name__ == "__main__":
    main(sys.argv[1:])
