#!/usr/bin/env python3
"""The two best tuners of each family (by validation data of SST-2, at most 4% of the parameters) beside full fine-tuning and the last layers, on phrases of
SST-2, AG News, RuCoLA, named entities of CoNLL-2002 (Spanish) and reviews as text.

tasks.py BASE DATA OUT, after tuners.py with the same OUT; or with --tuners "SPEC SPEC@RATE ...", where a spec may come with several rates. Each task has its own
search for rates (--search-steps 0: those given, or the usual ones). --labels N: so many examples are learnt (0: all). --only names one task (an encoder learns
no reviews as text). OUT/tasks.md: the tables, and whether the best of each family is within 1% of full fine-tuning or within two standard errors of the
difference; full fine-tuning too is the one whose rate has the best validation data, a mean over the seeds."""
import json

from entrants import FUNCTIONS, INPUTS, PARAMETERS, entrants, folder
from experiment import cambium, entities, labelled, options, once, forget_checkpoints, read, searched, shuffled, side_by_side, table, write_text
from tuners import SHAPE, prepare

MOST = 0.04


def agnews(o):
    rows = shuffled(table(o.data / "task_agnews" / "dev.tsv.zst", "\t", ["text", "label"]))
    test = shuffled(table(o.data / "task_agnews" / "test.tsv.zst", "\t", ["text", "label"]))
    return labelled(o, "agnews", rows[300:], rows[:300], test[: o.test_examples])


def rucola(o):
    def part(name):
        rows = table(o.data / "task_rucola" / f"in_domain_{name}.csv", ",")
        return shuffled({"text": r["sentence"], "label": r["acceptable"]} for r in rows)

    rows = part("train")
    return labelled(o, "rucola", rows[1000:], rows[:1000], part("dev")[: o.test_examples])


def conll(o):
    def part(name):
        return shuffled({"tokens": tokens, "tags": tags} for tokens, tags in entities(o.data, f"esp.{name}"))

    rows = part("train")
    return labelled(o, "conll", rows[1000:], rows[:1000], part("testb")[: o.test_examples])


def product_reviews(o):
    """Reviews of products in their file's order, product by product: three fifths to learn; of the rest, mostly of other products, every other one to choose
    by and for the table."""
    end = "<|endoftext|>\n"
    texts = [text for text in read(o.data / "reviews_en" / "reviews_en_400k.txt").split(end) if text.strip()]
    a = int(len(texts) * 0.6)
    parts = {"train": texts[:a], "valid": texts[a::2], "test": texts[a + 1 :: 2]}
    return {part: write_text(o.out / "data" / f"reviews-{part}.txt", "".join(text + end for text in chosen)) for part, chosen in parts.items()}


# name: data, shape of a batch, the measure; text is measured by its loss
TASKS = {
    "SST-2 phrases": (prepare, SHAPE, "accuracy"),
    "AG News": (agnews, ["--task", "classify", "--new-head", "--batch", "16", "--seq", "32"], "accuracy"),
    "RuCoLA": (rucola, ["--task", "classify", "--new-head", "--batch", "16", "--seq", "48"], "mcc"),
    "CoNLL-2002, Spanish": (conll, ["--task", "tag", "--batch", "16", "--seq", "96"], "f1"),
    "product reviews": (product_reviews, ["--task", "text", "--batch", "8", "--seq", "64"], "loss"),
}


def compared(o, data, shape, measure, e, out):
    """Measures such that more is better: a loss counts negative."""
    r = cambium(o, "compare", o.base, *shape, "--data", data["train"], "--valid", data["valid"], "--test", data["test"], "--metric", measure, "--steps",
                o.steps, "--seeds", o.seeds, "--tuner", f"{e['spec']}@{e['rate']}", "--out", out)["rows"][0]
    forget_checkpoints(out)
    sign = -1 if measure == "loss" else 1
    return {"valid": sign * r["valid"], "test": sign * r["test"], "error": r["error"], "share": r["trainable"] / r["total"]}


def best(rows, family, n):
    fit = [r for r in rows if r["family"] == family and r["trainable"] / r["total"] <= MOST]
    return sorted(fit, key=lambda r: -r["valid"])[:n]


def verdict(full, r):
    gap = full["test"] - r["test"]
    error = ((full["error"] or 0) ** 2 + (r["error"] or 0) ** 2) ** 0.5  # none of a single seed
    if gap <= 0.01 * abs(full["test"]):
        return "within 1%"
    return "within two standard errors" if gap <= 2 * error else f"no: {gap:.3f} behind, two standard errors are {2 * error:.3f}"


def first_labels(o, data):
    """The same with the first --labels examples to learn."""
    lines = data["train"].read_text(encoding="utf-8").splitlines(keepends=True)
    name = f"{data['train'].stem}-{o.labels}{data['train'].suffix}"
    return {**data, "train": write_text(o.out / "data" / name, "".join(lines[: o.labels]))} if o.labels else data


def run_task(o, name, chosen):
    make, shape, measure = TASKS[name]
    data = first_labels(o, make(o))

    def one(entrant):
        out = o.out / "tasks" / (folder(name) + (f"-{o.labels}" if o.labels else "")) / folder(entrant[2])
        e = searched(o, shape, data, entrant, out.with_name(out.name + "-search"), measure)
        out = out.with_name(f"{out.name}-{e['rate']:g}")
        r = once(out.with_name(out.name + ".json"), lambda: compared(o, data, shape, measure, e, out))
        print(name, e["spec"], r, flush=True)
        return {**e, **r}

    rows = [r for r in side_by_side(o, one, chosen) if r]
    full = max((r for r in rows if r["spec"] == "full"), key=lambda r: r["valid"])
    lines = [f"**{name}**, {measure}", "", "| tuner | family | rate | valid | test | s.e. | trained |", "|---|---|---|---|---|---|---|"]
    lines += [f"| `{r['spec']}` | {r['family']} | {r['rate']:g} | {abs(r['valid']):.3f} | {abs(r['test']):.3f} | {r['error'] or 0:.3f} | {100 * r['share']:.3g}% |"
              for r in sorted(rows, key=lambda r: -r["test"])]
    lines += ["", "Best of each family with at most 4% by validation data, against full fine-tuning: " + "; ".join(
        f"{family} `{r['spec']}`: {verdict(full, r)}" for family in (PARAMETERS, INPUTS, FUNCTIONS)
        for r in sorted((r for r in rows if r["family"] == family and r["share"] <= MOST), key=lambda r: -r["valid"])[:1]) + ".", ""]
    return lines


def main():
    o = options(__doc__, steps=60, search_steps=30, labels=0, valid_examples=400, test_examples=500, tuners="", only="")
    specs = o.tuners
    if not specs:
        rows = json.loads((o.out / "tuners.json").read_text())
        specs = " ".join(["full", "last:2"] + [r["spec"] for f in (PARAMETERS, INPUTS, FUNCTIONS) for r in best(rows, f, 2)])
    chosen = entrants(o.base, specs)
    lines = [line for name in TASKS if o.only in ("", name) for line in run_task(o, name, chosen)]
    (o.out / "tasks.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
