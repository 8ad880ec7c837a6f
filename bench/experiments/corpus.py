#!/usr/bin/env python3
"""Writes the text that a small base is pretrained on for tasks.py: about 48 MB in English, Russian and Spanish, one file a source.

corpus.py DATA OUT. What tasks.py chooses by or measures on is left out, whatever --test-examples is: the tasks themselves say which rows these are. The film
reviews and the texts that tasks learn from, without their labels, are there twice, each novel only with its beginning."""
import argparse
import json
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace

from experiment import read, table, write_text
from tasks import TASKS

END = "\n<|endoftext|>\n"  # ends a document
NOVEL = 200_000  # characters of each


def text_of(record):
    return record["text"].strip() if "text" in record else " ".join(record["tokens"])


def records(path):
    return [json.loads(line) for line in read(path).split("\n") if line]


def tasks(data):
    """Of each labelled task the texts to learn, and of all of them together those never to learn."""
    most = 1 << 30
    learnt, held = {}, set()
    with tempfile.TemporaryDirectory() as folder:
        o = SimpleNamespace(data=data, out=Path(folder), valid_examples=400, test_examples=most, characters=most)
        for name, (make, _, _) in TASKS.items():
            parts = make(o)
            if parts["train"].suffix == ".jsonl":  # the reviews as text are of products: not among the sources here
                learnt[name] = [text_of(r) for r in records(parts["train"])]
                held.update(text_of(r) for part in ("valid", "test") for r in records(parts[part]))
    return learnt, held


def treebank(path):
    return [line[len("# text = "):] for line in read(path).split("\n") if line.startswith("# text = ")]


def corpus(data):
    """name: lines, times that they are written."""
    learnt, held = tasks(data)
    novels = read(data / "text_english_novels" / "train.txt.zst").split(END.strip())
    articles = "".join(read(data / "text_wikitext2" / f"{name}.txt") for name in ("valid", "test")).replace(" <unk>", "")
    news = table(data / "parallel_en_ru" / "newstest2012_2018_eng_rus.tsv.zst", "\t", ["en", "ru"])
    parts = {
        "radio-news": ("".join(read(data / "text_news_en_abc" / f"{name}.txt.zst") for name in ("rural", "science")).split("\n"), 1),
        "film-reviews": (END.join(text_of(r) for r in records(data / "reviews_en" / "movie_reviews.jsonl.zst")).split("\n"), 2),
        "film-phrases": ([r["sentence"].strip() for r in table(data / "task_glue" / "sst2_train.tsv.zst", "\t")], 1),
        "news-en": ([r["en"] for r in news], 1),
        "news-ru": ([r["ru"] for r in news], 1),
        "encyclopaedia": (re.sub(r" @(.)@ ", r"\1", articles).split("\n"), 1),
        "novels": (END.join(novel.strip()[:NOVEL] for novel in novels).split("\n"), 1),
        "treebank-en": (treebank(data / "ud_english_ewt" / "en_ewt-train-from-sources.conllu.zst"), 1),
        "treebank-ru": (treebank(data / "ud_russian_gsd" / "ru_gsd-ud-dev.conllu.zst"), 1),
        "agnews": (learnt["AG News"], 2),
        "rucola": (learnt["RuCoLA"], 2),
        "conll-es": (learnt["CoNLL-2002, Spanish"], 2),
    }
    return {name: ([line for line in lines if line.strip() not in held], times) for name, (lines, times) in parts.items()}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", type=Path, help="folder of the corpora: text_news_en_abc, reviews_en, ...")
    p.add_argument("out", type=Path, help="folder to write")
    o = p.parse_args()
    for name, (lines, times) in corpus(o.data).items():
        path = write_text(o.out / f"{name}.txt", ("\n".join(lines) + "\n") * times)
        print(f"{name}: {path.stat().st_size / 1e6:.2f} MB, {times} x {len(lines)} lines")


if __name__ == "__main__":
    main()
