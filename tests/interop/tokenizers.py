"""Tokenizers: ids, offsets and text of every kind, between the tokenizers library, SentencePiece, tiktoken, Transformers and Cambium."""

import base64
import io
import json
import pathlib

import sentencepiece
import tiktoken
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

KIND = "tokenizer"

TEXTS = [
    "", " ", "a", "Hello, world!", "  two  spaces  ", "line\nbreak\r\n\ttab", "don't they're we'll I'd", "3.14159 1,000,000 ½ ²",
    "naïve café élève Ångström e\u0301", "Съешь же ещё этих мягких французских булок", "Γειά σου Κόσμε", "东京是日本的首都。", "ひらがなとカタカナ",
    "한국어 문장", "مرحبا بالعالم", "שלום עולם", "नमस्ते दुनिया", "emoji 🙂🚀 👩‍👩‍👧 🇫🇷", "int main(void) { return x->y[3] != 0; }", "ﬁne ﬀ Ⅷ ①", "İstanbul ß ẞ",
    "https://example.org/a?b=c&d=%20", "a" * 70, "word " * 30, "ALL CAPS And MiXeD", "tail  ", "\u00a0nbsp\u2003em\u200bzero", "quote “x” ‘y’ — dash…",
    "under_score snake_case CamelCase", "<s> not a token </s>", "line one\n\n\nline two", "\u0000nul? \u0007", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚", "x" + "\u0301" * 3,
]  # fmt: skip
TRAINING = [t for t in TEXTS if t.strip()] * 2


def corpus():
    """The project's own pages and sources, and the texts: a vocabulary of words, code and many scripts."""
    root = pathlib.Path(__file__).resolve().parents[2]
    pages = [page for page in sorted(root.glob("docs/*.md")) if page.name != "formats.md"]  # it gets the table of results
    files = pages + sorted(root.glob("src/base/*.c"))
    return [line for f in files for line in f.read_text().splitlines() if line.strip()] + TRAINING


# ---- the kinds, trained by the library
def byte_level(lines, **options):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False, **options), decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"]))
    return t


def byte_level_pattern(lines):
    pattern = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
    t = Tokenizer(models.BPE(ignore_merges=True))
    t.normalizer, t.decoder = normalizers.NFC(), decoders.ByteLevel()
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])  # fmt: skip
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=800, initial_alphabet=alphabet, special_tokens=["<|bos|>"]))
    t.post_processor = processors.TemplateProcessing("<|bos|> $A", "<|bos|> $A <|bos|> $B", [("<|bos|>", t.token_to_id("<|bos|>"))])
    return t


def byte_fallback(lines):
    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    strip = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    t.decoder = decoders.Sequence(strip)
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=700, special_tokens=special, limit_alphabet=90))
    # byte tokens are no special tokens: the file is written anew without them as such
    state = json.loads(t.to_str())
    state["added_tokens"] = state["added_tokens"][:3]
    t = Tokenizer.from_str(json.dumps(state))
    t.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", t.token_to_id("<s>"))])
    return t


def word_piece(lines):
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer, t.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    t.train_from_iterator(lines, trainers.WordPieceTrainer(vocab_size=600, special_tokens=special))
    t.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return t


def unigram(lines):
    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer, t.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    t.train_from_iterator(lines, trainers.UnigramTrainer(vocab_size=500, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>"))
    t.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    return t


def word_level(lines):
    t = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    t.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)])
    t.train_from_iterator(lines, trainers.WordLevelTrainer(vocab_size=500, special_tokens=["[UNK]", "[PAD]"]))
    t.enable_truncation(20)
    t.enable_padding(length=8, pad_id=1, pad_token="[PAD]")
    return t


def with_added(lines):
    t = byte_level(lines)
    t.add_special_tokens([AddedToken("<|user|>", lstrip=True, rstrip=True, special=True)])
    t.add_tokens([AddedToken("snake_case", single_word=True), AddedToken("  ", normalized=False), "东京"])
    return t


MADE = {
    "byte-level BPE": byte_level, "byte-level BPE, own pattern": byte_level_pattern, "BPE with byte fallback": byte_fallback,
    "WordPiece": word_piece, "Unigram": unigram, "WordLevel": word_level, "added tokens": with_added,
}  # fmt: skip


# ---- Cambium's side
def encode(cambium, path, *options, texts=TEXTS):
    lines = pathlib.Path(path).parent / "texts.jsonl"
    lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    told = cambium.run("tokenizer", "encode", path, "--file", lines, "--json", "--offsets", *options)
    return [json.loads(line) for line in told.splitlines()]


def decode(cambium, path, rows, *options):
    lines = pathlib.Path(path).parent / "ids.jsonl"
    lines.write_text("".join(json.dumps({"ids": ids}) + "\n" for ids in rows))
    told = cambium.run("tokenizer", "decode", path, "--file", lines, "--json", *options)
    return [json.loads(line)["text"] for line in told.splitlines()]


def first_wrong(got, wanted, texts=TEXTS):
    """The first text whose result differs, or nothing."""
    if len(got) != len(wanted):
        return f"{len(got)} results of {len(wanted)} texts"
    for text, a, b in zip(texts, got, wanted):
        if a != b:
            return f"{text[:30]!r}: {str(a)[:110]}, wanted {str(b)[:110]}"
    return ""


def compare_library(cambium, path, library):
    """Ids, offsets and decoded text of a tokenizer.json, beside the library's."""
    wanted = [library.encode(text) for text in TEXTS]
    got = encode(cambium, path)
    return (
        first_wrong([row["ids"] for row in got], [row.ids for row in wanted])
        or first_wrong([[tuple(o) for o in row["offsets"]] for row in got], [row.offsets for row in wanted])
        or first_wrong(decode(cambium, path, [row.ids for row in wanted]), [library.decode(row.ids, False) for row in wanted])
        or first_wrong(decode(cambium, path, [row.ids for row in wanted], "--skip-special"), [library.decode(row.ids) for row in wanted])
    )


def both_ways_of_library(table, cambium, folder, lines):
    for what, make in MADE.items():
        direction, place = "tokenizers wrote, Cambium ran", folder / what.replace(" ", "-").replace(",", "")
        with table.case(KIND, what, what, direction):
            place.mkdir(parents=True, exist_ok=True)
            library = make(lines)
            library.save(str(place / "tokenizer.json"))
            table.same(KIND, what, what, direction, compare_library(cambium, place, library), f"{len(TEXTS)} texts")
        direction = "Cambium wrote again, tokenizers ran"
        with table.case(KIND, what, what, direction):
            cambium.run("tokenizer", "convert", place, "--out", place / "again")
            library = Tokenizer.from_file(str(place / "again" / "tokenizer.json"))
            table.same(KIND, what, what, direction, compare_library(cambium, place, library), f"{len(TEXTS)} texts")
    text = folder / "training.txt"
    text.write_text("\n".join(lines))
    for kind, vocab in (("bpe", 700), ("bpe-fallback", 700), ("wordpiece", 600), ("unigram", 500), ("char", 400), ("byte", 300)):
        what, direction, place = f"--kind {kind}", "Cambium trained, tokenizers ran", folder / f"trained-{kind}"
        with table.case(KIND, what, what, direction):
            cambium.run("tokenizer", "train", text, "--kind", kind, "--vocab", vocab, "--out", place)
            library = Tokenizer.from_file(str(place / "tokenizer.json"))
            table.same(KIND, what, what, direction, compare_library(cambium, place, library), f"{len(TEXTS)} texts")


def library_trained(kind, vocab, file):
    """What the library's train([file]) learns with the parts and options of a kind here."""
    special = ["<unk>", "<s>", "</s>"]
    if kind == "bpe":
        t, alphabet = Tokenizer(models.BPE()), pre_tokenizers.ByteLevel.alphabet()
        t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(vocab_size=vocab, min_frequency=2, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"])
    elif kind == "bpe-fallback":
        t = Tokenizer(models.BPE(unk_token="<unk>"))
        t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        trainer = trainers.BpeTrainer(vocab_size=vocab - 256, min_frequency=2, special_tokens=special)
    else:
        t = Tokenizer(models.Unigram())
        t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        trainer = trainers.UnigramTrainer(vocab_size=vocab, special_tokens=special, unk_token="<unk>")
    t.train([str(file)], trainer)
    return t.get_vocab()


def trained_alike(table, cambium, folder, lines):
    """The vocabulary of one file of text: blank lines, CRLF, tabs, and no end of the last line. NUL is no token here: docs/tokenizers.md."""
    text, lines = folder / "lines.txt", [line.replace("\0", "") for line in lines]
    text.write_bytes("\n".join(line + "\r" * (i % 5 == 0) + "\n\n" * (i % 7 == 0) for i, line in enumerate(lines)).encode())
    for kind, vocab in (("bpe", 900), ("bpe-fallback", 1100), ("unigram", 800)):
        what, direction, place = f"vocabulary of --kind {kind}", "both trained on a file", folder / f"alike-{kind}"
        with table.case(KIND, what, what, direction):
            cambium.run("tokenizer", "train", text, "--kind", kind, "--vocab", vocab, "--out", place)
            got = set(Tokenizer.from_file(str(place / "tokenizer.json")).get_vocab())
            wanted = set(library_trained(kind, vocab, text))
            if kind == "bpe-fallback":
                got -= {f"<0x{byte:02X}>" for byte in range(256)}
            wrong = f"{len(got & wanted)} of {len(wanted)} pieces, as {sorted(wanted - got)[:3]}" if got != wanted else ""
            table.same(KIND, what, what, direction, wrong, f"{len(wanted)} pieces")


# ---- the other files
def without_ties(library, got, wanted):
    """Rows of ids with the wanted in place of another cut of the same pieces, whose scores have the same sum; and how many."""
    ties = [i for i, (a, b) in enumerate(zip(got, wanted)) if a != b and sorted(a) == sorted(b) and library.decode(a) == library.decode(b)]
    return [wanted[i] if i in ties else row for i, row in enumerate(got)], len(ties)


def sentence_pieces(table, cambium, folder, lines):
    kinds = {
        "unigram": dict(vocab_size=450), "bpe": dict(vocab_size=450, byte_fallback=True, character_coverage=0.98),
        "char": dict(vocab_size=300), "unigram with bytes": dict(
            vocab_size=600, byte_fallback=True, character_coverage=0.98, normalization_rule_name="nfkc_cf", add_dummy_prefix=False,
            remove_extra_whitespaces=False, user_defined_symbols=["<|x|>"], split_digits=True),
    }  # fmt: skip
    texts = [t for t in TEXTS if "\0" not in t]
    for kind, options in kinds.items():
        what, place = f"SentencePiece {kind}", folder / f"spm-{kind.replace(' ', '-')}"
        direction = "SentencePiece wrote, Cambium ran"
        with table.case(KIND, "SentencePiece", what, direction):
            place.mkdir(parents=True, exist_ok=True)
            made = io.BytesIO()
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines), model_writer=made, model_type=kind.split()[0], hard_vocab_limit=False,
                minloglevel=2, **options)  # fmt: skip
            (place / "tokenizer.model").write_bytes(made.getvalue())
            library = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
            ids = [library.encode(t) for t in texts]
            got = encode(cambium, place, "--no-special", texts=texts)
            wrong = first_wrong([row["ids"] for row in got], ids, texts)
            wrong = wrong or first_wrong(decode(cambium, place, ids), [library.decode(row) for row in ids], texts)
            table.same(KIND, "SentencePiece", what, direction, wrong, f"{len(texts)} texts")
        direction = "Cambium converted, tokenizers ran"
        with table.case(KIND, "SentencePiece", what, direction):
            cambium.run("tokenizer", "convert", place, "--out", place / "converted")
            file = Tokenizer.from_file(str(place / "converted" / "tokenizer.json"))
            # texts that spell a special token are taken as the token there: docs/tokenizers.md
            kept = [i for i, t in enumerate(texts) if "<s>" not in t]
            got = [file.encode(texts[i], add_special_tokens=False).ids for i in kept]
            wanted = [library.encode(texts[i]) for i in kept]
            got, ties = without_ties(library, got, wanted) if kind.startswith("unigram") else (got, 0)
            wrong = first_wrong(got, wanted, [texts[i] for i in kept])
            why = "cut another way of the same score: tokenizers adds scores in 64 bits, SentencePiece in 32"
            table.same(KIND, "SentencePiece", what, direction, wrong, f"{len(kept)} texts", f"{ties} of {len(kept)} texts {why}" if ties else "")


def ranks_of(library):
    """tiktoken's ranks of a byte-level BPE whose ids are in the order of its merges."""
    letters = {c: b for b, c in transformers.models.gpt2.tokenization_gpt2.bytes_to_unicode().items()}
    state = json.loads(library.to_str())["model"]
    rank = {bytes([b]): b for b in range(256)}
    for left, right in (m if isinstance(m, list) else m.split(" ") for m in state["merges"]):
        rank.setdefault(bytes(letters[c] for c in left + right), len(rank))
    return rank


def tiktoken_files(table, cambium, folder, lines):
    what, direction = "tiktoken ranks", "tiktoken's file, Cambium ran"
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    with table.case(KIND, "tiktoken", what, direction):
        place = folder / "tiktoken"
        place.mkdir(parents=True, exist_ok=True)
        rank = ranks_of(byte_level(lines))
        text = "".join(f"{base64.b64encode(b).decode()} {n}\n" for b, n in rank.items())
        (place / "tiktoken.model").write_text(text)
        library = tiktoken.Encoding("interop", pat_str=pattern, mergeable_ranks=rank, special_tokens={})
        wanted = [library.encode_ordinary(t) for t in TEXTS]
        got = encode(cambium, place, "--no-special", "--pattern", "gpt2")
        wrong = first_wrong([row["ids"] for row in got], wanted)
        table.same(KIND, "tiktoken", what, direction, wrong, f"{len(TEXTS)} texts")


def older_files(table, cambium, folder, lines):
    """vocab.txt, and vocab.json with merges.txt, beside the Python tokenizers of Transformers."""
    for what, make, tokenizer_class in (
        ("vocab.txt", word_piece, transformers.BertTokenizer),
        ("vocab.json and merges.txt", byte_level, transformers.GPT2Tokenizer),
    ):
        direction, place = "Transformers wrote, Cambium ran", folder / what.split(".")[0]
        place = place.with_name(what.replace(" ", "-"))
        with table.case(KIND, what, what, direction):
            place.mkdir(parents=True, exist_ok=True)
            library = make(lines)
            if what == "vocab.txt":
                names = sorted(library.get_vocab().items(), key=lambda item: item[1])
                (place / "vocab.txt").write_text("".join(f"{name}\n" for name, _ in names))
            else:
                library.model.save(str(place))
            (made := tokenizer_class.from_pretrained(place)).save_pretrained(place / "saved")
            for extra in ("special_tokens_map.json", "added_tokens.json"):
                (place / "saved" / extra).unlink(missing_ok=True)
            wanted = [made(t)["input_ids"] for t in TEXTS]
            got = encode(cambium, place / "saved")
            wrong = first_wrong([row["ids"] for row in got], wanted)
            table.same(KIND, what, what, direction, wrong, f"{len(TEXTS)} texts")


# ---- chat templates: the continuation of a conversation is that of the ids which Transformers makes of it
TEMPLATES = {
    "ChatML": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "turns and a system text": "{{ bos_token }}{% set ns = namespace(system='') %}{%- for m in messages -%}{% if m.role == 'system' %}"
    "{% set ns.system = m.content | trim %}{% elif m.role == 'user' %}{{ '[INST] ' }}{% if loop.index0 < 2 and ns.system %}"
    "{{ '<<' ~ ns.system ~ '>> ' }}{% endif %}{{ m['content'] | trim + ' [/INST]' }}{% else %}{{ ' ' + m.content + eos_token }}"
    "{% endif %}{%- endfor -%}",
    "macro, filters and slices": "{%- macro turn(m, i=0) -%}({{ i }}) {{ m.role | upper }}: {{ m.content.strip().split('\\n') | join(' / ') }}"
    "{%- endmacro -%}{% for m in messages[-3:] %}{{ turn(m, loop.index) }}{{ '\\n' if not loop.last }}{% endfor %}"
    "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list | length }}\n{{ messages[0] | tojson }}",
}  # fmt: skip
CONVERSATIONS = [
    [{"role": "user", "content": "Which tree bears apples?"}],
    [{"role": "system", "content": " Be brief.\n"}, {"role": "user", "content": "Hi\nthere"}, {"role": "assistant", "content": "Hello!"},
     {"role": "user", "content": "Съешь же ещё — 东京?"}],
]  # fmt: skip


def chat(table, cambium, folder, lines):
    direction = "both"
    base = byte_level(lines)
    special = ["<|im_start|>", "<|im_end|>", "<s>", "</s>"]
    base.add_special_tokens(special)
    for name, template in TEMPLATES.items():
        with table.case("chat", "templates", name, direction):
            place, wrong = folder / f"chat-{name.split()[0]}", ""
            made = transformers.PreTrainedTokenizerFast(tokenizer_object=base, bos_token="<s>", eos_token="</s>", chat_template=template)
            from .models import DECODER, build

            model = build("LlamaForCausalLM", DECODER | dict(vocab_size=len(made), max_position_embeddings=512), 11)
            model.save_pretrained(place)
            made.save_pretrained(place)
            for conversation in CONVERSATIONS:
                file = place / "conversation.json"
                file.write_text(json.dumps(conversation))
                ids = made.apply_chat_template(conversation, add_generation_prompt=True, tokenize=True, return_dict=False)
                options = ("--greedy", "--ignore-eos", "--max-new", 8)
                got = cambium.json("generate", place, "--messages", file, *options)
                wanted = cambium.json("generate", place, "--ids", ",".join(map(str, ids)), *options)
                if (got["prompt_tokens"], got["ids"]) != (len(ids), wanted["ids"]):
                    wrong = wrong or f"{got['prompt_tokens']} tokens, {got['ids']}; wanted {len(ids)}, {wanted['ids']}"
            table.same("chat", "templates", name, direction, wrong, f"{len(CONVERSATIONS)} conversations")


def slow_classes(table, cambium, folder, lines):
    """Folders without a tokenizer.json, a class each."""
    place, direction = folder / "slow", "Transformers wrote, Cambium ran"
    place.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(place / "pieces"), vocab_size=450, hard_vocab_limit=False, minloglevel=2)  # fmt: skip
    model, texts = str(place / "pieces.model"), [t for t in TEXTS if "\0" not in t and "<s>" not in t]
    for name in ("XLMRoberta", "Camembert", "Albert", "DebertaV2", "MBart", "MBart50", "Nllb"):
        with table.case(KIND, "slow classes", name, direction):
            made = getattr(transformers, name + "Tokenizer")(model)
            made.save_pretrained(place / name)
            got = encode(cambium, place / name, texts=texts)
            wrong = first_wrong([row["ids"] for row in got], [made(t)["input_ids"] for t in texts], texts)
            table.same(KIND, "slow classes", name, direction, wrong, f"{len(texts)} texts")


def run(table, cambium, folder):
    lines = corpus()
    both_ways_of_library(table, cambium, folder, lines)
    trained_alike(table, cambium, folder, lines)
    sentence_pieces(table, cambium, folder, lines)
    tiktoken_files(table, cambium, folder, lines)
    older_files(table, cambium, folder, lines)
    slow_classes(table, cambium, folder, lines)
    chat(table, cambium, folder, lines)
