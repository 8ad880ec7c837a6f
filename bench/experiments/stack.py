#!/usr/bin/env python3
"""A Russian language module under a task module that was trained in English, against the task module alone, in Russian.

stack.py BASE DATA OUT: a bottleneck with an invertible adapter learns Russian prose as a language model (and one English novels); task modules learn the
sentiment of English review sentences on the base and over the English module (--over-english 0: not the latter); they are asked about Russian restaurant reviews. OUT/stack.md."""
import json

from experiment import cambium, labelled, mean_and_error, options, once, forget_checkpoints, read, shuffled, side_by_side, write_records, write_table, write_text

TASK = ["--task", "classify"]


def english(o):
    lines = read(o.data / "reviews_en" / "sentence_polarity.jsonl.zst").splitlines()
    rows = shuffled({"text": r["text"], "label": str(r["label"])} for r in map(json.loads, lines))
    return labelled(o, "polarity", rows[1000:], rows[:500], rows[500 : 500 + o.test_examples])


def russian(o):
    """Good: 8 and more of 10 points in the mean of the marks; bad: 6 and less; as many of each."""
    kinds = {"1": [], "0": []}
    for line in read(o.data / "reviews_ru" / "reviews_ru_finetune.jsonl").splitlines():
        r = json.loads(line)
        marks = [r[k] for k in ("food", "interior", "service") if isinstance(r.get(k), (int, float))]
        mean = sum(marks) / len(marks) if marks else 7
        if mean >= 8 or mean <= 6:
            kinds["1" if mean >= 8 else "0"].append({"text": r["text"], "label": "1" if mean >= 8 else "0"})
    n = min(map(len, kinds.values()))
    return write_records(o.out / "data" / "restaurants.jsonl", [r for rows in kinds.values() for r in shuffled(rows)[:n]])


def language(o, name, path):
    """A language module of the first characters of a corpus."""
    text = write_text(o.out / "data" / f"{name}.txt", read(path)[: o.characters])
    out = o.out / f"language-{name}"

    def train():
        r = cambium(o, "finetune", o.base, "--tuner", "seq_bn_inv", "--data", text, "--steps", o.language_steps, "--batch", "8", "--seq", "128", "--lr", "3e-3",
                    "--out", out)
        forget_checkpoints(out)
        return r

    once(out.with_suffix(".json"), train)
    return out


def task(o, data, under, seed):
    """A task module on the base, or over a language module."""
    out = o.out / f"task-{'over-en' if under else 'plain'}-{seed}"

    def train():
        r = cambium(o, "finetune", o.base, *TASK, "--tuner", o.tuner, "--data", data["train"], "--steps", o.steps, "--batch", "16", "--seq", "32", "--lr",
                    "3e-3", "--seed", seed, "--out", out, *(["--modules", under] if under else []))
        forget_checkpoints(out)
        return r

    once(out.with_suffix(".json"), train)
    return out


def ask(o, modules, records, seq):
    return cambium(o, "eval", o.base, *TASK, "--modules", modules, "--data", records, "--seq", seq)


def main():
    o = options(__doc__, steps=100, language_steps=100, characters=2000000, tuner="seq_bn", test_examples=500, over_english=1)
    data, restaurants = english(o), russian(o)
    corpora = [("ru", o.data / "text_russian_literature" / "prose_train.txt.zst"), ("en", o.data / "text_english_novels" / "train.txt.zst")]
    ru, *en = side_by_side(o, lambda c: language(o, *c), corpora[: 1 + o.over_english])
    en = en[0] if en else None
    wanted = [(under, seed) for seed in range(1, o.seeds + 1) for under in dict.fromkeys((None, en))]
    tasks = dict(zip(wanted, side_by_side(o, lambda w: task(o, data, *w), wanted)))
    # what is asked: the name, what the task module was trained over, the stack it is asked under (the task module is {}), and of what
    questions = [("task", None, "{}", "en"), ("task over en", en, f'stack("{en}", {{}})', "en"), ("task", None, "{}", "ru"),
                 ("task, ru under it", None, f'stack("{ru}", {{}})', "ru"), ("task over en, alone", en, "{}", "ru"),
                 ("task over en, en under it", en, f'stack("{en}", {{}})', "ru"), ("task over en, ru in its place", en, f'stack("{ru}", {{}})', "ru")]
    rows = []
    if not en:
        questions = [q for q in questions if "over en" not in q[0]]
    for name, under, expression, asked in questions:
        texts, seq = (data["test"], 64) if asked == "en" else (restaurants, 128)
        found = side_by_side(o, lambda seed: ask(o, expression.format(f'"{tasks[under, seed]}"' if "stack" in expression else tasks[under, seed]), texts, seq),
                             range(1, o.seeds + 1))
        accuracy, error = mean_and_error([r["accuracy"] for r in found])
        f1, f1_error = mean_and_error([r["f1"] for r in found])
        rows.append([name, asked, f"{accuracy:.3f}", f"{error:.3f}", f"{f1:.3f}", f"{f1_error:.3f}"])
    write_table(o.out / "stack.md", ["modules", "asked in", "accuracy", "s.e.", "f1", "s.e."], rows)


if __name__ == "__main__":
    main()
