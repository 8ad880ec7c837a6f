"""llama.cpp, through llama-cpp-python: it runs the GGUF files and the LoRA files that Cambium wrote."""

import math

import numpy as np
import peft

from . import adapters, gguf, tokenizers
from .models import load

KIND = "llama.cpp"
# its cache of keys and values is in half precision, and products with quantised weights round the activations to eight bits:
# the likeliest tokens' log-probabilities move by as much
TOLERANCES = {"f32": 0.02, "f16": 0.03, "q8_0": 0.1, "q4_0": 0.3}


def log_probabilities(logits):
    logits = np.asarray(logits, np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def scores(llama_cpp, path, ids, **options):
    """Logits (T,V) of every position."""
    model = llama_cpp.Llama(str(path), n_ctx=64, n_batch=64, n_threads=1, logits_all=True, verbose=False, **options)
    try:
        model.eval(ids)
        return np.array(model.scores[: len(ids)], np.float64)
    finally:
        model.close()


def divergence(got, wanted):
    """The largest Kullback-Leibler divergence of a position's distribution from the reference's, as a root: near the error of a logit."""
    p, q = log_probabilities(wanted), log_probabilities(got)
    if p.shape != q.shape or not np.isfinite(q).all():
        return math.inf
    return float(np.sqrt(np.maximum((np.exp(p) * (p - q)).sum(-1), 0).max()))


def check_architecture(table, cambium, llama_cpp, folder, architecture, lines):
    source, _, _ = gguf.make(folder, architecture, lines)
    class_name = gguf.ARCHITECTURES[architecture][0]
    ids = np.random.default_rng(9).integers(8, 250, 24).tolist()
    given = {"input_ids": np.array([ids], np.int64), "attention_mask": np.ones((1, len(ids)), np.int64)}
    for kind, tolerance in TOLERANCES.items():
        what, path, direction = f"{architecture} {kind}", folder / f"{kind}.gguf", "Cambium wrote, llama.cpp ran"
        with table.case(KIND, architecture, what, direction):
            cambium.run("convert", source, path, "--quantize", kind)
            wanted = cambium.forward(path, given)["logits"][0]
            diff = divergence(scores(llama_cpp, path, ids), wanted)
            table.numbers(KIND, architecture, what, direction, diff, tolerance)
    what, direction, pairs = f"{architecture} LoRA", "Cambium wrote, llama.cpp ran", folder / "lora.gguf"
    with table.case(KIND, architecture, what, direction):
        targets = gguf.lora_targets(architecture)
        config = peft.LoraConfig(r=4, lora_alpha=10, target_modules=targets, fan_in_fan_out=architecture == "gpt2")
        tuned = peft.get_peft_model(load(source, class_name).float(), config)
        adapters.randomise(tuned, 77)
        tuned.save_pretrained(folder / "lora")
        cambium.run("convert", folder / "lora", pairs, "--model", source)
        wanted = cambium.forward(folder / "f32.gguf", given, "--modules", pairs)["logits"][0]
        diff = divergence(scores(llama_cpp, folder / "f32.gguf", ids, lora_path=str(pairs)), wanted)
        table.numbers(KIND, architecture, what, direction, diff, TOLERANCES["f32"])
    what = f"{architecture} vocabulary"
    with table.case(KIND, architecture, what, direction):
        model = llama_cpp.Llama(str(folder / "f32.gguf"), vocab_only=True, verbose=False)
        texts = [t for t in tokenizers.TEXTS if t and "<s>" not in t and "\0" not in t]
        wanted = [model.tokenize(t.encode(), add_bos=False, special=False) for t in texts]
        got = [row["ids"] for row in tokenizers.encode(cambium, folder / "f32.gguf", "--no-special", texts=texts)]
        table.same(KIND, architecture, what, direction, tokenizers.first_wrong(got, wanted, texts), f"{len(texts)} texts")
        model.close()


def run(table, cambium, folder):
    chosen = [name for name in gguf.ARCHITECTURES if name != "bert"]
    try:
        import llama_cpp
    except Exception as error:  # noqa: BLE001 - a library that does not load is no failure of ours
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        for architecture in chosen:
            table.skipped(KIND, architecture, architecture, "Cambium wrote, llama.cpp ran", f"llama-cpp-python: {why}")
        return
    lines = tokenizers.corpus()
    for architecture in chosen:
        place = folder / architecture.replace(" ", "-")
        place.mkdir(parents=True, exist_ok=True)
        with table.case(KIND, architecture, architecture, "Cambium wrote, llama.cpp ran"):
            check_architecture(table, cambium, llama_cpp, place, architecture, lines)
