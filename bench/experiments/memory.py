#!/usr/bin/env python3
"""Resident peak of merging two models of 4.1 GiB (bf16, 2.2 billion parameters) made for it, and their base; 17 GB of disk, removed afterwards.

memory.py OUT METHOD...: `cambium merge --method METHOD` over the pair, its `peak_bytes` and seconds."""
import argparse
import json
import random
import resource
import shutil
import struct
import subprocess
import time
from array import array
from pathlib import Path

HIDDEN, INNER, LAYERS, VOCABULARY, SHIFT = 2048, 5632, 38, 64000, 1 << 20


def tensors():
    """Names and shapes of a Llama."""
    yield "model.embed_tokens.weight", [VOCABULARY, HIDDEN]
    for i in range(LAYERS):
        for name, shape in (("self_attn.q_proj", [HIDDEN, HIDDEN]), ("self_attn.k_proj", [HIDDEN, HIDDEN]), ("self_attn.v_proj", [HIDDEN, HIDDEN]),
                            ("self_attn.o_proj", [HIDDEN, HIDDEN]), ("mlp.gate_proj", [INNER, HIDDEN]), ("mlp.up_proj", [INNER, HIDDEN]),
                            ("mlp.down_proj", [HIDDEN, INNER]), ("input_layernorm", [HIDDEN]), ("post_attention_layernorm", [HIDDEN])):
            yield f"model.layers.{i}.{name}.weight", shape
    yield "model.norm.weight", [HIDDEN]
    yield "lm_head.weight", [VOCABULARY, HIDDEN]


def values(seed):
    """Bytes of normal bf16 numbers, of which every tensor takes its own stretch."""
    draw = random.Random(seed)
    numbers = array("f", (draw.gauss(0, 0.02) for _ in range(SHIFT)))
    pairs = array("H", numbers.tobytes())[1::2]  # the upper half of each
    return pairs.tobytes()


def write(folder, seed):
    folder.mkdir(parents=True)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
              "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": VOCABULARY, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5,
              "tie_word_embeddings": False, "torch_dtype": "bfloat16", "hidden_act": "silu"}
    (folder / "config.json").write_text(json.dumps(config))
    header, at = {}, 0
    for name, shape in tensors():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    block = values(seed)
    with open(folder / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        draw = random.Random(seed)
        for t in header.values():
            left = t["data_offsets"][1] - t["data_offsets"][0]
            while left:
                begin = 2 * draw.randrange(SHIFT)
                n = min(left, len(block) - begin)
                f.write(block[begin : begin + n])
                left -= n
    return at


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("out", type=Path)
    p.add_argument("method", nargs="+")
    p.add_argument("--cambium", default="build/cambium")
    p.add_argument("--threads", default="2")
    o = p.parse_args()
    folders = [o.out / name for name in ("base", "a", "b")]
    try:
        sizes = [write(folder, seed) for seed, folder in enumerate(folders)]
        for method in o.method:
            begin = time.time()
            run = subprocess.run([o.cambium, "merge", "--method", method, "--base", folders[0], *folders[1:], "--set", "parameters.density=0.5", "--out",
                                  o.out / "merged", "--threads", o.threads, "--json", "--quiet"], capture_output=True, text=True, check=True)
            print(f"{method}: models of {sizes[1] / 2**30:.2f} GiB, peak_bytes {json.loads(run.stdout)['peak_bytes'] / 1e6:.0f} MB, "
                  f"ru_maxrss {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6:.0f} MB, {time.time() - begin:.0f} s", flush=True)
            shutil.rmtree(o.out / "merged")
    finally:
        for folder in [*folders, o.out / "merged"]:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
