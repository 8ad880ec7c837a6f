"""llama.cpp, through llama-cpp-python: it runs the GGUF files and the LoRA files that Cambium wrote."""

import numpy as np
import peft
import torch

from . import adapters, gguf, tokenizers
from .models import load
from .table import difference

KIND = "llama.cpp"
QTYPE = gguf.gguf.GGMLQuantizationType
# Its activations are rounded too, to half precision or to eight bits, and so are the reference's: then the results are alike to 1e-6, until a rounding
# falls the other way and moves a number by a whole step (without that the differences are 0.1 to 0.2). Its GELU is a table in half precision.
TOLERANCES = {"f32": 2e-4, "f16": 1e-2, "q8_0": 0.1, "q4_0": 0.1}
GELU_TOLERANCE = 5e-3
GELU = ("gemma", "gemma2", "gemma3", "gpt2")


def scores(llama_cpp, path, ids, **options):
    """Logits (T,V) of every position."""
    model = llama_cpp.Llama(str(path), n_ctx=64, n_batch=64, n_threads=1, logits_all=True, verbose=False, type_k=0, type_v=0, **options)
    try:
        model.eval(ids)
        return np.array(model.scores[: len(ids)], np.float64)
    finally:
        model.close()


def rounded_by_blocks(x):
    """Q8_0 there and back: what llama.cpp multiplies Q4_0 and Q8_0 weights with."""
    return gguf.gguf.quants.dequantize(gguf.gguf.quants.quantize(x, QTYPE.Q8_0), QTYPE.Q8_0)


def rounded_by_long_blocks(x):
    """Q8_K there and back, for the K-quants: 256 values, a scale in f32 by the largest of them, which becomes -127."""
    blocks = x.reshape(-1, 256)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)
    scale = np.where(largest == 0, 1, -127 / largest)
    return (np.minimum(np.round(blocks * scale), 127) / scale).reshape(x.shape)


def rounding(qtype):
    """What llama.cpp does to the input of a product with a weight of this type: nothing, half precision, or blocks of eight bits."""
    if qtype == QTYPE.F32:
        return lambda x: x
    if qtype == QTYPE.F16:
        return lambda x: x.astype(np.float16).astype(np.float32)
    return rounded_by_long_blocks if qtype.name.endswith("_K") else rounded_by_blocks


def reference(architecture, source, class_name, path, ids):
    """Logits of the file's weights by Transformers, with activations rounded as llama.cpp rounds them."""
    tensors, types, _ = gguf.read(path)
    model = gguf.with_tensors(architecture, load(source, class_name).float(), tensors)
    type_of = {}
    for new, names in gguf.names_of(architecture, model).items():
        for name in names if isinstance(names, list) else [names]:
            type_of[name] = types[new][0]
    table = next(qtype for name, qtype in type_of.items() if "embed_tokens" in name or "wte" in name)  # a tied head's type
    for name, module in model.named_modules():
        if type(module).__name__ in ("Linear", "Conv1D"):
            change = rounding(type_of.get(f"{name}.weight", table))
            module.register_forward_pre_hook(
                lambda _, x, change=change: (torch.from_numpy(np.ascontiguousarray(change(x[0].float().numpy()))).double(),)
            )
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


def check_architecture(table, cambium, llama_cpp, folder, architecture, lines):
    source, _, _ = gguf.make(folder, architecture, lines)
    class_name = gguf.ARCHITECTURES[architecture][0]
    ids = np.random.default_rng(9).integers(8, 250, 24).tolist()
    given = {"input_ids": np.array([ids], np.int64), "attention_mask": np.ones((1, len(ids)), np.int64)}
    least = GELU_TOLERANCE if architecture in GELU else 0
    for kind, tolerance in TOLERANCES.items():
        allowed = max(tolerance, least)
        what, path, direction = f"{architecture} {kind}", folder / f"{kind}.gguf", "Cambium wrote, llama.cpp ran"
        with table.case(KIND, architecture, what, direction):
            cambium.run("convert", source, path, "--quantize", kind)
            if kind == "f32":
                wanted = cambium.forward(path, given)["logits"][0]
            else:
                wanted = reference(architecture, source, class_name, path, ids)
            diff = difference(scores(llama_cpp, path, ids), wanted)
            table.numbers(KIND, architecture, what, direction, diff, allowed)
    what, direction, pairs = f"{architecture} LoRA", "Cambium wrote, llama.cpp ran", folder / "lora.gguf"
    with table.case(KIND, architecture, what, direction):
        targets = gguf.lora_targets(architecture)
        config = peft.LoraConfig(r=4, lora_alpha=10, target_modules=targets, fan_in_fan_out=architecture == "gpt2")
        tuned = peft.get_peft_model(load(source, class_name).float(), config)
        adapters.randomise(tuned, 77)
        tuned.save_pretrained(folder / "lora")
        cambium.run("convert", folder / "lora", pairs, "--model", source)
        wanted = cambium.forward(folder / "f32.gguf", given, "--modules", pairs)["logits"][0]
        diff = difference(scores(llama_cpp, folder / "f32.gguf", ids, lora_path=str(pairs)), wanted)
        table.numbers(KIND, architecture, what, direction, diff, max(TOLERANCES["f32"], least))
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
