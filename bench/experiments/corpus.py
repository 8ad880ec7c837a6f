#!/usr/bin/env python3
"""Writes the text that small bases are pretrained on for tasks.py, one file a source: OUT/wide, about 48 MB in English, Russian and Spanish; then OUT/near, about
52 MB of the texts that tasks learn from, without their labels, and what is like them (task-adaptive pretraining, Gururangan et al. 2020, arXiv:2004.10964);
for a decoder OUT/reviews, 11 MB of reviews of films and of other products than those of the task; OUT/spanish, 13 MB that are read before Spanish entities, with
what spanish.py writes there; OUT/russian, 53 MB that are read before Russian sentences. OUT/entities-nl.jsonl has Dutch words with the kind of their entity,
OUT/tags-nl.jsonl with the tags of the Spanish ones: intermediate tasks (Phang et al. 2018, arXiv:1811.01088).

corpus.py DATA OUT. What tasks.py chooses by or measures on is left out, whatever --test-examples is: the tasks themselves say which rows these are. Some are
there several times, each novel only with its beginning."""
import argparse
import json
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace

from experiment import entities, read, shuffled, table, write_records, write_text
from tasks import TASKS

END = "\n<|endoftext|>\n"  # ends a document
NOVEL, STORY = 200_000, 60_000  # characters of each


def text_of(record):
    return record["text"].strip() if "text" in record else " ".join(record["tokens"])


def records(path):
    return [json.loads(line) for line in read(path).split("\n") if line]


def tasks(data):
    """Of each labelled task the texts to learn, and of all of them together those never to learn."""
    most = 1 << 30
    learnt, held = {}, set()
    with tempfile.TemporaryDirectory() as folder:
        o = SimpleNamespace(data=data, out=Path(folder), valid_examples=400, test_examples=most)
        for name, (make, _, _) in TASKS.items():
            parts = make(o)
            if parts["train"].suffix == ".jsonl":  # the reviews as text are of products: not among the sources here
                learnt[name] = [text_of(r) for r in records(parts["train"])]
                held.update(text_of(r) for part in ("valid", "test") for r in records(parts[part]))
    return learnt, held


def treebank(path):
    return [line[len("# text = "):] for line in read(path).split("\n") if line.startswith("# text = ")]


def kinds(data, name, words=24):
    """Records of so many words at most; what begins an entity and what goes on with it have one tag."""
    for tokens, tags in entities(data, name):
        tags = [tag.split("-")[-1] for tag in tags]
        for i in range(0, len(tokens), words):
            yield {"tokens": tokens[i : i + words], "tags": tags[i : i + words]}


def paragraphs(path):
    return [p["context"] for article in json.loads(read(path))["data"] for p in article["paragraphs"]]


def lines_of(path):
    return read(path).replace(END.strip(), "").split("\n")


def corpus(data):
    """name: lines, and how often each folder has them."""
    learnt, held = tasks(data)
    novels = read(data / "text_english_novels" / "train.txt.zst").split(END.strip())
    articles = "".join(read(data / "text_wikitext2" / f"{name}.txt") for name in ("valid", "test")).replace(" <unk>", "")
    prose = read(data / "text_russian_literature" / "prose_train.txt.zst").split(END.strip())
    news = table(data / "parallel_en_ru" / "newstest2012_2018_eng_rus.tsv.zst", "\t", ["en", "ru"])
    task = read(data / "reviews_en" / "reviews_en_400k.txt")
    products = [text_of(r) for r in records(data / "reviews_en" / "product_reviews.jsonl")]
    products = [text for text in products if text[:200] not in task]
    parts = {
        "radio-news": ("".join(read(data / "text_news_en_abc" / f"{name}.txt.zst") for name in ("rural", "science")).split("\n"), dict(wide=1, near=1)),
        "film-reviews": (END.join(text_of(r) for r in records(data / "reviews_en" / "movie_reviews.jsonl.zst")).split("\n"), dict(wide=2, near=1, reviews=1)),
        "product-reviews": (END.join(products).split("\n"), dict(reviews=8)),
        "film-phrases": ([r["sentence"].strip() for r in table(data / "task_glue" / "sst2_train.tsv.zst", "\t")], dict(wide=1, near=1)),
        "news-en": ([r["en"] for r in news], dict(wide=1, near=1, spanish=1)),
        "news-ru": ([r["ru"] for r in news], dict(wide=1, russian=1)),
        "encyclopaedia": (re.sub(r" @(.)@ ", r"\1", articles).split("\n"), dict(wide=1)),
        "encyclopaedia-es": (paragraphs(data / "task_xquad" / "xquad.es.json.zst"), dict(near=4, spanish=4)),
        "novels": (END.join(novel.strip()[:NOVEL] for novel in novels).split("\n"), dict(wide=1)),
        "treebank-en": (treebank(data / "ud_english_ewt" / "en_ewt-train-from-sources.conllu.zst"), dict(wide=1)),
        "treebank-ru": (treebank(data / "ud_russian_gsd" / "ru_gsd-ud-dev.conllu.zst"), dict(wide=1)),
        "agnews": (learnt["AG News"], dict(wide=2, near=5)),
        "rucola": (learnt["RuCoLA"], dict(wide=2, near=4, russian=4)),
        "literature-ru": ("".join(novel.strip()[:STORY] + "\n" for novel in prose).split("\n"), dict(russian=1)),
        "essays-ru": (lines_of(data / "text_russian_literature" / "publicism.txt.zst"), dict(russian=1)),
        "jokes-ru": (lines_of(data / "text_dialogues_ru" / "jokes.txt.zst"), dict(russian=1)),
        "films-ru": (lines_of(data / "text_dialogues_ru" / "movies_ru_mt.txt.zst"), dict(russian=1)),
        "conll-es": (learnt["CoNLL-2002, Spanish"], dict(wide=2, near=12, spanish=4)),
        "conll-es-more": ([" ".join(tokens) for tokens, _ in entities(data, "esp.testa")], dict(near=4, spanish=4)),
        "conll-nl": ([" ".join(tokens) for tokens, _ in entities(data, "ned.train")], dict(near=3, spanish=3)),
    }
    return {name: ([line for line in lines if line.strip() not in held], times) for name, (lines, times) in parts.items()}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", type=Path, help="folder of the corpora: text_news_en_abc, reviews_en, ...")
    p.add_argument("out", type=Path, help="folder to write")
    o = p.parse_args()
    for name, (lines, folders) in corpus(o.data).items():
        for where, times in folders.items():
            path = write_text(o.out / where / f"{name}.txt", ("\n".join(lines) + "\n") * times)
            print(f"{where}: {name}: {path.stat().st_size / 1e6:.2f} MB, {times} x {len(lines)} lines")
    write_records(o.out / "entities-nl.jsonl", shuffled(kinds(o.data, "ned.train")))
    write_records(o.out / "tags-nl.jsonl", shuffled({"tokens": tokens, "tags": tags} for name in ("ned.train", "ned.testb") for tokens, tags in entities(o.data, name)))


if __name__ == "__main__":
    main()
