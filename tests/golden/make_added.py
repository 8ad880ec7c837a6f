"""Makes folders as Transformers wrote them before added_tokens_decoder, in tests/golden/tokenizers: vocabularies of make_tokenizers.py's folders with
special_tokens_map.json and added_tokens.json beside them, and the ids that both its classes give, slow and fast; of special tokens in a text, where
they disagree, those of the fast one, which AutoTokenizer takes: python3 make_added.py [FOLDER]."""
import json, os, shutil, sys
import transformers as T

out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizers")
TEXTS = ["", "The old tree bears 12, and 9,000 apples.", "a <e1> tree <e2>b <e1>", "a new word, two  words and two words", "naïve <mask> [MASK] tree [X]", "TREE tree New",
         "<e1>", " the[X]tree two words", "the tree</s> of [PAD] <pad> old"]
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] the old tree bears apples and a b , . 1 2 9 0 ##s ##12 ##, ##0 young one naive new word of x t ##r ##e ##w < > [ ] e ##1 ##2".split()


SPECIALS = {  # in texts
    "roberta-added": ["old<mask>tree", "old <mask> tree", " old</s>tree", "<s>tree", "</s></s>tree", "tree <pad>the"],
    "albert-added": ["</s> tree", "tree<s>the", "tree<user>the"],
}


def make(name, slow, add, specials, keep=()):
    place = os.path.join(out, name)
    t = slow()
    t.add_tokens(add)
    t.add_special_tokens(specials)
    shutil.rmtree(place, ignore_errors=True)
    t.save_pretrained(place)
    config = json.load(open(os.path.join(place, "tokenizer_config.json")))
    json.dump({k: config[k] for k in ("tokenizer_class", "do_lower_case", *keep) if k in config}, open(os.path.join(place, "tokenizer_config.json"), "w"))
    slow = getattr(T, config["tokenizer_class"]).from_pretrained(place)
    fast = T.AutoTokenizer.from_pretrained(place)
    with open(os.path.join(place, "wanted.jsonl"), "w") as f:
        for text in TEXTS:
            ids, other = slow(text)["input_ids"], fast(text)["input_ids"]
            if ids == other:
                f.write(json.dumps({"text": text, "ids": ids}) + "\n")
        for text in SPECIALS.get(name, ()):
            f.write(json.dumps({"text": text, "ids": fast(text)["input_ids"]}) + "\n")


def vocab_txt():
    path = os.path.join(out, "vocab.txt")
    open(path, "w").write("\n".join(WORDS) + "\n")
    return path


made = lambda name, file: os.path.join(out, name, file)
E = {"additional_special_tokens": ["<e1>", T.AddedToken("<e2>", lstrip=True, rstrip=True)]}
make("bert-added", lambda: T.BertTokenizer(vocab_txt()), ["[X]", "two words", "word"], E)
make("gpt2-added", lambda: T.GPT2Tokenizer(made("roberta", "vocab.json"), made("roberta", "merges.txt"), unk_token="<unk>", bos_token="<s>", eos_token="</s>"), ["[X]", "two words"], {**E, "pad_token": "[PAD]"})
make("roberta-added", lambda: T.RobertaTokenizer(made("roberta", "vocab.json"), made("roberta", "merges.txt"), add_prefix_space=True), ["[X]", "two words"], E, ["add_prefix_space"])
make("xlm-roberta-added", lambda: T.XLMRobertaTokenizer(made("xlm-roberta", "sentencepiece.bpe.model")), ["[X]", "two words"], E)
make("albert-added", lambda: T.AlbertTokenizer(made("albert", "spiece.model")), ["[X]", "two words"], E)
make("mbart50-added", lambda: T.MBart50Tokenizer(made("mbart50", "sentencepiece.bpe.model"), src_lang="ru_RU"), ["[X]"], {"pad_token": "[PAD]"}, ["src_lang"])
os.remove(os.path.join(out, "vocab.txt"))
