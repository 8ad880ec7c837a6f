#!/usr/bin/env python3
"""Every tuner beside full fine-tuning, the last layers and the head, at one budget, on phrases of SST-2.

tuners.py BASE DATA OUT: rates are chosen on a part of the training data (the loss after --search-steps steps, seed 1; 0: the usual rate of the
tuner's kind is taken), then each tuner (with --tuners "SPEC SPEC@RATE ..." these alone) is trained --seeds times by `cambium compare`. OUT/tuners.md is the
table, OUT/tuners.json what tasks.py takes its tuners from."""
import json

from entrants import entrants, folder
from experiment import cambium, labelled, options, once, forget_checkpoints, searched, shuffled, side_by_side, table, write_records, write_table

WORDS = 10  # phrases of at most so many: most of the training part, few tokens
SHAPE = ["--task", "classify", "--new-head", "--batch", "16", "--seq", "16"]


def phrases(o, name):
    rows = table(o.data / "task_glue" / name, "\t")
    return shuffled({"text": r["sentence"].strip(), "label": r["label"]} for r in rows if len(r["sentence"].split()) <= WORDS)


def prepare(o):
    """Training and validation data are parts of the training part, the table's data the repository's held-out phrases."""
    rows = phrases(o, "sst2_train.tsv.zst")
    held = o.valid_examples
    data = labelled(o, "sst2", rows[held : held + 6000], rows[:held], phrases(o, "sst2_dev.tsv")[: o.test_examples])
    data["search"] = write_records(o.out / "data" / "sst2-search.jsonl", rows[: held // 2])
    return data


def train(o, data, entrant):
    def row():
        out = o.out / "runs" / folder(entrant["spec"])
        r = cambium(o, "compare", o.base, *SHAPE, "--data", data["train"], "--valid", data["valid"], "--test", data["test"], "--steps", o.steps, "--seeds",
                    o.seeds, "--tuner", f"{entrant['spec']}@{entrant['rate']}", "--out", out)["rows"][0]
        forget_checkpoints(out)
        return r

    r = {**entrant, **once(o.out / "runs" / f"{folder(entrant['spec'])}-{o.seeds}.json", row)}
    print(f"{r['spec']}: valid {r['valid']:.4f} test {r['test']:.4f} +- {r['error']}", flush=True)
    return r


def main():
    o = options(__doc__, steps=100, search_steps=30, valid_examples=400, test_examples=800, tuners="")
    data = prepare(o)
    chosen = [e for e in side_by_side(o, lambda e: searched(o, SHAPE, data, e, o.out / "search" / folder(e[2])), entrants(o.base, o.tuners)) if e]
    rows = [r for r in side_by_side(o, lambda e: train(o, data, e), chosen) if r]
    (o.out / "tuners.json").write_text(json.dumps(rows, indent=1))
    rows.sort(key=lambda r: -r["test"])
    write_table(o.out / "tuners.md", ["tuner", "family", "rate", "valid", "test", "s.e.", "trained", "step ms", "memory MiB", "file kB"],
                [[f"`{r['spec']}`", r["family"], f"{r['rate']:g}", f"{r['valid']:.3f}", f"{r['test']:.3f}", f"{r['error'] or 0:.3f}",
                  f"{100 * r['trainable'] / r['total']:.3g}%", f"{r['step_ms']:.0f}", f"{r['planned_bytes'] / 2**20:.0f}", f"{r['file_bytes'] / 1000:.0f}"]
                 for r in rows])


if __name__ == "__main__":
    main()
