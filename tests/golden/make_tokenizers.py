"""Makes small folders of Transformers' slow tokenizers in tests/golden/tokenizers, with the ids that they give: python3 make_tokenizers.py [FOLDER]."""
import json, os, sys
import sentencepiece, transformers as T
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizers")
os.makedirs(out, exist_ok=True)
TEXTS = ["", "The old tree bears 12, and 9,000 apples.", "  two  spaces\n\nand a line ", "Старое дерево", "日本の木 🙂", "naïve «café»", "a <mask> tree</s> [MASK] b", "TREE"]
LINES = ["The old tree bears apples, and the young one bears none.", "A graft takes where the bark is cut.", "Old trees, young trees: 12, 90, 9,000.", "Старое дерево и молодое."] * 4
made = os.path.join(out, "pieces")
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(LINES), model_prefix=made, vocab_size=90, normalization_rule_name="identity", pad_id=-1, minloglevel=2, hard_vocab_limit=False,
    user_defined_symbols=["<user>"])  # fmt: skip
model = made + ".model"
pieces = sentencepiece.SentencePieceProcessor(model)
plain = [p for p in map(pieces.id_to_piece, range(pieces.get_piece_size())) if p not in ("<s>", "</s>", "<unk>", "<pad>")]
bpe = Tokenizer(models.BPE())
bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
bpe.train_from_iterator(LINES, trainers.BpeTrainer(
    vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"]))  # fmt: skip
bpe.model.save(out)
many, one, merges = os.path.join(out, "many.json"), os.path.join(out, "vocab.json"), os.path.join(out, "merges.txt")
marian = os.path.join(out, "marian.json")
json.dump({p: i for i, p in enumerate(["<s>", "<pad>", "</s>", "<unk>"] + plain)}, open(many, "w"))
json.dump({p: i for i, p in enumerate(["</s>", "<unk>", ">>ru<<"] + plain[::-1][5:] + ["日本の木", "<pad>"])}, open(marian, "w"))
KINDS = {
    "roberta": lambda: T.RobertaTokenizer(one, merges),
    "bart": lambda: T.BartTokenizer(one, merges),
    "xlm-roberta": lambda: T.XLMRobertaTokenizer(model),
    "camembert": lambda: T.CamembertTokenizer(model),
    "albert": lambda: T.AlbertTokenizer(model),
    "deberta-v2": lambda: T.DebertaV2Tokenizer(model, do_lower_case=True),
    "mbart": lambda: T.MBartTokenizer(model, src_lang="ru_RU"),
    "mbart50": lambda: T.MBart50Tokenizer(model, src_lang="ru_RU"),
    "nllb": lambda: T.NllbTokenizer(model, src_lang="rus_Cyrl", additional_special_tokens=["eng_Latn", "rus_Cyrl"]),
    "m2m100": lambda: T.M2M100Tokenizer(many, model, src_lang="ru"),
    "marian": lambda: T.MarianTokenizer(source_spm=model, target_spm=model, vocab=marian),
}
for name, make in KINDS.items():
    place = os.path.join(out, name)
    make().save_pretrained(place)
    slow = getattr(T, json.load(open(os.path.join(place, "tokenizer_config.json")))["tokenizer_class"]).from_pretrained(place)
    # what the classes take as text and their fast forms as the token is left out
    texts = [t for t in TEXTS if "</s>" not in t or name not in ("albert", "deberta-v2")] + ([">>ru<< old tree"] if name == "marian" else [])
    with open(os.path.join(place, "wanted.jsonl"), "w") as f:
        for text in texts:
            f.write(json.dumps({"text": text, "ids": slow(text)["input_ids"]}) + "\n")
    for spare in ("special_tokens_map.json", "added_tokens.json", "target.spm"):
        if os.path.exists(os.path.join(place, spare)):
            os.remove(os.path.join(place, spare))
for spare in ("pieces.model", "pieces.vocab", "many.json", "marian.json", "vocab.json", "merges.txt"):
    os.remove(os.path.join(out, spare))
