"""What the experiments share: options, the command, runs side by side, records of the corpora, tables."""
import argparse
import csv
import io
import json
import random
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def options(about, **more):
    """BASE DATA OUT and what every experiment can be told; more: further options with their defaults."""
    p = argparse.ArgumentParser(description=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("base", help="model folder that everything starts from")
    p.add_argument("data", type=Path, help="folder of the corpora: task_glue, reviews_en, ...")
    p.add_argument("out", type=Path, help="folder to write; what is finished there is not run again")
    p.add_argument("--cambium", default="build/cambium", help="the command")
    p.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    p.add_argument("--seeds", type=int, default=3, help="runs of each kind")
    for name, default in more.items():
        p.add_argument("--" + name.replace("_", "-"), type=type(default), default=default, help=" ")
    o = p.parse_args()
    o.out.mkdir(parents=True, exist_ok=True)
    return o


def cambium(o, *words):
    """Runs a verb on one thread; its result as a dictionary."""
    words = [str(w) for w in words]
    if words[0] == "finetune":  # a run that was stopped begins again
        shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
    run = subprocess.run([o.cambium, *words, "--threads", "1", "--json", "--quiet"], capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(" ".join(words) + "\n" + run.stderr)
    return json.loads(run.stdout)


def side_by_side(o, function, items):
    """function of each item, o.jobs at a time, in order; None where one failed, which is told."""
    def guarded(item):
        try:
            return function(item)
        except (RuntimeError, ValueError) as error:
            print(f"failed: {error}", flush=True)
            return None

    with ThreadPoolExecutor(o.jobs) as pool:
        return list(pool.map(guarded, items))


def forget_checkpoints(folder):
    """Checkpoints are far larger than what a run leaves."""
    for run in list(folder.glob("**/run")):
        shutil.rmtree(run)


def once(path, make):
    """The JSON of a file, which make() gives where it is not there."""
    if not path.exists():
        value = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=1))
    return json.loads(path.read_text())


def searched(o, shape, data, entrant, out, measure="loss", most=5):
    """The rate of the best measure on data["search"] (or "valid") after --search-steps steps: of a third of the usual one, it and three times it, and of
    further ones where the best is the first or the last, at most so many; 0 steps: the usual one. As a dictionary with what was seen."""
    family, usual, spec = entrant
    if not o.search_steps:
        return {"family": family, "spec": spec, "rate": usual}

    sign = 1 if measure == "loss" else -1

    def cost(rate):
        run = out.with_name(f"{out.name}-{rate}")  # of this rate alone: what was stopped is gone on with
        r = cambium(o, "compare", o.base, *shape, "--data", data["train"], "--valid", data.get("search", data["valid"]), "--metric", measure,
                    "--steps", o.search_steps, "--tuner", f"{spec}@{rate}", "--out", run)["rows"][0]
        shutil.rmtree(run)
        return sign * r["valid"] if r["valid"] is not None else float("inf")

    def costs():
        found = {rate: cost(rate) for rate in (float(f"{usual * by:.1g}") for by in (1 / 3, 1, 3))}
        while len(found) < most:
            best = min(found, key=found.get)
            if best not in (min(found), max(found)):
                break
            rate = float(f"{best / 3 if best == min(found) else best * 3:.1g}")
            found[rate] = cost(rate)
        return sorted(found.items())

    found = once(out.with_name(out.name + ".json"), costs)
    best = min(found, key=lambda pair: pair[1])[0]
    print(f"{spec}: {best}  {found}", flush=True)
    return {"family": family, "spec": spec, "rate": best, "search": found}


# ---- corpora
def read(path):
    """The text of a file, also of a .zst."""
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-dc", str(path)], capture_output=True, check=True).stdout.decode()
    return path.read_text(encoding="utf-8")


def table(path, separator, names=None):
    """Rows of a table as dictionaries; names: of the columns, where the first line does not have them. Tabs know no quotes."""
    quoting = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
    return list(csv.DictReader(io.StringIO(read(path)), fieldnames=names, delimiter=separator, quoting=quoting))


def entities(data, name):
    """Words and tags of each sentence of a part of the entity corpora."""
    for sentence in read(data / "ner_conll2002" / f"{name}.zst").strip().split("\n\n"):
        words = [line.split(" ") for line in sentence.split("\n") if line]
        yield [w[0] for w in words], [w[-1] for w in words]


def shuffled(rows, seed=1):
    rows = list(rows)
    random.Random(seed).shuffle(rows)
    return rows


def write_records(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return path


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def labelled(o, name, train, valid, test):
    """Three files of records: learnt, chosen by, and only for the table."""
    parts = zip(("train", "valid", "test"), (train, valid, test))
    return {part: write_records(o.out / "data" / f"{name}-{part}.jsonl", rows) for part, rows in parts}


def reviews(o, language, most=1 << 20):
    """Reviews as text: eight tenths to learn, of the ninth some characters to choose by, of the last twice as many for the table."""
    lines = read(o.data / f"reviews_{language}" / f"reviews_{language}_400k.txt").split("\n")
    a, b = int(len(lines) * 0.8), int(len(lines) * 0.9)
    parts = {"train": lines[:a], "valid": lines[a:b], "test": lines[b:]}
    most = {"train": None, "valid": most, "test": 2 * most}
    return {part: write_text(o.out / "data" / f"reviews-{language}-{part}.txt", ("\n".join(text) + "\n")[: most[part]]) for part, text in parts.items()}


# ---- tables
def mean_and_error(values):
    """Mean and its standard error."""
    n = len(values)
    mean = sum(values) / n
    return mean, (sum((v - mean) ** 2 for v in values) / (n - 1) / n) ** 0.5 if n > 1 else float("nan")


def write_table(path, head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)] + ["| " + " | ".join(r) + " |" for r in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines), flush=True)
