#!/usr/bin/env python3
"""Compares what `flashelm plan` forecasts with what `flashelm bench` measures.

For each model and budget: tokens/s and the peak of RAM (VmHWM), forecast and
measured, and their ratio. Each round takes every row once, forecast and
measurement one after the other, so that what changes on a machine over time
changes all rows alike; the table has medians over the rounds. Run it where
nothing else runs.
"""

import argparse
import json
import statistics
import subprocess
import sys


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="FILE", help="model files")
    parser.add_argument("--flashelm", default="build/release/bin/flashelm",
                        help="the command [%(default)s]")
    parser.add_argument("--mem-budget", default="25%,50%,75%,100%",
                        help="list of budgets [%(default)s]")
    parser.add_argument("-c", "--ctx-size", type=int, default=0,
                        help="positions; 0: as many as the tokens take, since "
                        "a cache that is not filled need not be all in RAM "
                        "[%(default)s]")
    parser.add_argument("-p", "--n-prompt", type=int, default=128,
                        help="tokens of the prompt before [%(default)s]")
    parser.add_argument("-n", "--n-gen", type=int, default=16,
                        help="tokens that are timed [%(default)s]")
    parser.add_argument("-t", "--threads", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE",
                        help="write all samples to this file")
    parser.add_argument("--check", action="store_true",
                        help="exit with 1 where tokens/s differ by more than "
                        "20 %% or RAM by more than 3 %%")
    return parser.parse_args()


def output_of(command):
    done = subprocess.run(command, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit("%s\nexited with %d: %s" %
                 (" ".join(command), done.returncode, done.stderr.strip()))
    return json.loads(done.stdout)


def shared_flags(args, model, budget):
    return ["-m", model, "--mem-budget", budget, "-c", str(args.ctx_size),
            "-t", str(args.threads), "--sparsity", "off"]


def sample(args, model, budget):
    """What is forecast and measured of one row, once."""
    flags = shared_flags(args, model, budget)
    plan = output_of([args.flashelm, "plan", "--json"] + flags)
    row, = output_of([args.flashelm, "bench", "-p", "0", "-n", "0", "--pg",
                      "%d,%d" % (args.n_prompt, args.n_gen), "-r", "1",
                      "-o", "json"] + flags)
    if row["error"] is not None:
        sys.exit("%s in %s: %s" % (model, budget, row["error"]))
    return {
        "weights": plan["weights"],
        "forecast_tps": plan["forecast"]["gen_tps"],
        "measured_tps": row["gen_tps"],
        "forecast_bytes": plan["expected_peak_rss_bytes"],
        "measured_bytes": row["peak_rss_bytes"],
        "planned_bytes": plan["planned_bytes"],
    }


def median(samples, key):
    return statistics.median(each[key] for each in samples)


def main():
    args = parse_args()
    args.ctx_size = args.ctx_size or args.n_prompt + args.n_gen
    rows = [(model, budget) for model in args.models
            for budget in args.mem_budget.split(",")]
    samples = {row: [] for row in rows}
    for round_number in range(args.rounds):
        for row in rows:
            samples[row].append(sample(args, *row))
            print("round %d of %d: %s in %s" %
                  (round_number + 1, args.rounds, *row), file=sys.stderr)
    print("| model | weights | budget | forecast t/s | measured t/s | ratio "
          "| forecast MB | VmHWM MB | ratio |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    is_near = True
    for (model, budget), found in samples.items():
        # Ratios of neighbours in time, and of them the median.
        speed = statistics.median(each["forecast_tps"] / each["measured_tps"]
                                  for each in found)
        ram = median(found, "forecast_bytes") / median(found, "measured_bytes")
        is_near &= 0.8 <= speed <= 1.2 and 0.97 <= ram <= 1.03
        print("| %s | %s | %s | %.2f | %.2f | %.2f | %.1f | %.1f | %.3f |" %
              (model, found[0]["weights"], budget,
               median(found, "forecast_tps"), median(found, "measured_tps"),
               speed, median(found, "forecast_bytes") / 1e6,
               median(found, "measured_bytes") / 1e6, ram))
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump([{"model": model, "budget": budget, "samples": found}
                       for (model, budget), found in samples.items()], file,
                      indent=1)
    return 1 if args.check and not is_near else 0


if __name__ == "__main__":
    sys.exit(main())
