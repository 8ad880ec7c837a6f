"""GGUF files: what Cambium writes read by gguf-py and Transformers, what gguf-py writes run by Cambium; LoRA files both ways."""

import math
import re

import gguf
import numpy as np
import peft
import torch

from . import adapters, models, tokenizers
from .models import DECODER, ENCODER, GPT2, TOLERANCE, compare, inputs_for, outputs
from .table import difference

KIND = "GGUF"
WIDE = dict(hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=4)

# ---- architectures: ggml's name, the class, its options, a tokenizer whose vocabulary goes with it
# (Qwen 3 with heads of 128, GPT-2 with 1024 positions, Gemma 3 with heads of 256: Transformers takes no others from a GGUF file)
ARCHITECTURES = {
    "llama": ("LlamaForCausalLM", DECODER | WIDE, tokenizers.byte_fallback),
    "qwen2": ("Qwen2ForCausalLM", DECODER | WIDE | dict(tie_word_embeddings=True), tokenizers.byte_level),
    "qwen3": ("Qwen3ForCausalLM", DECODER | WIDE | dict(head_dim=128), tokenizers.byte_level),
    "mistral": ("MistralForCausalLM", DECODER | WIDE | dict(sliding_window=None, head_dim=32), tokenizers.byte_fallback),
    "gemma": ("GemmaForCausalLM", DECODER | WIDE | dict(head_dim=64, num_key_value_heads=1), tokenizers.byte_fallback),
    "gemma2": ("Gemma2ForCausalLM", DECODER | WIDE | dict(
        head_dim=64, query_pre_attn_scalar=64, sliding_window=5, attn_logit_softcapping=6.0, final_logit_softcapping=4.0,
        num_hidden_layers=3), tokenizers.byte_fallback),
    "gemma3": ("Gemma3ForCausalLM", DECODER | WIDE | dict(
        head_dim=256, query_pre_attn_scalar=256, sliding_window=5, num_hidden_layers=7, num_attention_heads=4, num_key_value_heads=1,
        rope_theta=1e6), tokenizers.byte_fallback),
    "mixtral": ("MixtralForCausalLM", DECODER | WIDE | dict(num_local_experts=5, num_experts_per_tok=2, sliding_window=None),
                tokenizers.byte_fallback),
    "qwen2moe": ("Qwen2MoeForCausalLM", DECODER | WIDE | dict(
        num_experts=6, num_experts_per_tok=3, moe_intermediate_size=256, shared_expert_intermediate_size=512, norm_topk_prob=False),
        tokenizers.byte_level),
    "qwen3moe": ("Qwen3MoeForCausalLM", DECODER | WIDE | dict(
        head_dim=64, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=256, norm_topk_prob=True), tokenizers.byte_level),
    "phi3": ("Phi3ForCausalLM", DECODER | WIDE | dict(sliding_window=None), tokenizers.byte_fallback),
    "phi3 longrope": ("Phi3ForCausalLM", DECODER | WIDE | dict(
        sliding_window=None, partial_rotary_factor=0.75, max_position_embeddings=1024, original_max_position_embeddings=512,
        rope_scaling={"type": "longrope", "short_factor": [1 + i / 8 for i in range(12)], "long_factor": [2 + i for i in range(12)]}),
        tokenizers.byte_fallback),
    "gpt2": ("GPT2LMHeadModel", GPT2 | dict(n_embd=256, n_layer=2, n_head=8, n_positions=1024), tokenizers.byte_level),
    "bert": ("BertModel", ENCODER | WIDE, tokenizers.word_piece),
}  # fmt: skip
TRANSFORMERS_READS = ("llama", "qwen2", "qwen3", "mistral", "gemma3", "phi3", "gpt2")  # all that these architectures' keys say
# what gguf-py quantises itself: bytes must be alike; of the others, how far values may be from the weights (in their root mean square)
EXACT = {"f32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0", "q4_0": "Q4_0", "q4_1": "Q4_1", "q5_0": "Q5_0", "q5_1": "Q5_1"}
BLOCKS = {"q6_k": 0.15, "q5_k": 0.3, "q4_k": 0.6, "q3_k": 1.2, "q2_k": 2.4, "iq4_nl": 0.8}


def load(path, class_name):
    """The folder as Transformers reads it; GGUF has no place for BERT's pooler."""
    return models.load(path, class_name, **(dict(add_pooling_layer=False) if class_name == "BertModel" else {}))


def ggml_name(architecture):
    """general.architecture: Mistral and Mixtral are ggml's llama."""
    return {"mistral": "llama", "mixtral": "llama"}.get(architecture, architecture.split()[0])


def lora_targets(architecture):
    if architecture == "gpt2":
        return ["c_attn", "c_fc"]
    if "moe" in architecture or architecture == "mixtral":
        return ["q_proj", "k_proj", "v_proj", "o_proj"]  # pairs of single experts have no form in GGUF
    return ["qkv_proj", "gate_up_proj", "down_proj"] if ggml_name(architecture) == "phi3" else ["q_proj", "k_proj", "v_proj", "down_proj"]


def turned(architecture, name, value, config, back=False):
    """A weight as the file holds it (or back): llama's heads in pairs, GPT-2's matrices turned, Gemma's norms plus one."""
    if ggml_name(architecture) == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
        shape = (heads, -1, 2) if back else (heads, 2, -1)
        return value.reshape(*shape, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
    if architecture == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
        return value.T
    if architecture.startswith("gemma") and name.endswith("norm.weight"):
        return value - np.float32(1) if back else value + np.float32(1)
    return value


def names_of(architecture, model):
    """Transformers' name of each of the file's tensors, by gguf-py's own table."""
    kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == ggml_name(architecture))
    layers = getattr(model.config, "num_hidden_layers", None) or model.config.n_layer
    table = gguf.get_tensor_name_map(kind, layers)
    tied, named = model.config.tie_word_embeddings, {}
    for name in model.state_dict():
        # the experts of a layer are one tensor: a list of names
        new = table.get_name(re.sub(r"\.experts\.\d+\.", ".experts.", name), try_suffixes=(".weight", ".bias"))
        if new and ".experts." in name:
            named.setdefault(new, []).append(name)
        elif new and not (tied and name == "lm_head.weight"):
            named[new] = name
    return named


def wanted_tensors(architecture, model):
    state = model.state_dict()
    made = {}
    for new, name in names_of(architecture, model).items():
        if isinstance(name, list):
            made[new] = np.stack([state[one].float().numpy() for one in name])
        else:
            value = state[name].float().numpy()
            made[new] = np.ascontiguousarray(turned(architecture, name, value[0] if new.endswith("_shexp.weight") and len(value) == 1 else value, model.config))
    return made


def with_tensors(architecture, model, tensors):
    """The model in float64, with the values of a file."""
    state = model.state_dict()
    for new, name in names_of(architecture, model).items():
        if isinstance(name, list):
            for one, value in zip(name, tensors[new]):
                state[one].copy_(torch.from_numpy(np.ascontiguousarray(value)))
            continue
        value = np.ascontiguousarray(turned(architecture, name, tensors[new], model.config, back=True))
        state[name].copy_(torch.from_numpy(value).reshape(state[name].shape))
    return model.double().eval()


def read(path):
    """Values of all tensors and their types, by gguf-py."""
    file = gguf.GGUFReader(path)
    values, types = {}, {}
    for t in file.tensors:
        shape = tuple(int(n) for n in reversed(t.shape))
        values[t.name] = gguf.quants.dequantize(t.data, t.tensor_type).reshape(shape).astype(np.float32)
        types[t.name] = (t.tensor_type, np.asarray(t.data))
    return values, types, file


def write(path, architecture, model, kind):
    """A file by gguf-py's writer, without a vocabulary."""
    c, w = model.config, gguf.GGUFWriter(path, ggml_name(architecture))
    heads = c.num_attention_heads
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_block_count(c.num_hidden_layers)
    w.add_head_count(heads)
    w.add_vocab_size(c.vocab_size)
    w.add_feed_forward_length(4 * c.n_embd if architecture == "gpt2" else c.intermediate_size)
    w.add_tokenizer_model("none")
    if architecture in ("gpt2", "bert"):
        w.add_layer_norm_eps(c.layer_norm_epsilon if architecture == "gpt2" else c.layer_norm_eps)
    else:
        w.add_layer_norm_rms_eps(c.rms_norm_eps)
        w.add_head_count_kv(c.num_key_value_heads)
        w.add_rope_freq_base(c.rope_theta)
        size = getattr(c, "head_dim", None) or c.hidden_size // heads
        w.add_rope_dimension_count(int(size * getattr(c, "partial_rotary_factor", 1)))
        w.add_key_length(size)
        w.add_value_length(size)
    if architecture in ("mixtral", "qwen2moe", "qwen3moe"):
        w.add_expert_count(c.num_local_experts if architecture == "mixtral" else c.num_experts)
        w.add_expert_used_count(c.num_experts_per_tok)
    if architecture in ("qwen2moe", "qwen3moe"):
        w.add_expert_feed_forward_length(c.moe_intermediate_size)
    if architecture == "qwen2moe":
        w.add_expert_shared_feed_forward_length(c.shared_expert_intermediate_size)
    if architecture in ("gemma2", "gemma3"):
        w.add_sliding_window(c.sliding_window)
    if architecture == "gemma2":
        w.add_attn_logit_softcapping(c.attn_logit_softcapping)
        w.add_final_logit_softcapping(c.final_logit_softcapping)
    if architecture == "phi3 longrope":
        w.add_rope_scaling_orig_ctx_len(c.original_max_position_embeddings)
        w.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(c.max_position_embeddings / c.original_max_position_embeddings)
                                                  / math.log(c.original_max_position_embeddings)))  # fmt: skip
        for part in ("long", "short"):
            w.add_tensor(f"rope_factors_{part}.weight", np.array(c.rope_scaling[f"{part}_factor"], np.float32))
    if architecture == "bert":
        w.add_causal_attention(False)
        w.add_token_type_count(c.type_vocab_size)
    for name, value in wanted_tensors(architecture, model).items():
        quantised = kind if value.ndim >= 2 and "_norm" not in name and "gate_inp" not in name and not name.startswith(("position", "token_types")) else "f32"
        qtype = gguf.GGMLQuantizationType[EXACT[quantised]]
        w.add_tensor(name, gguf.quants.quantize(value, qtype), raw_dtype=qtype)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def check_written(table, cambium, folder, architecture, source, model, kind, given):
    """One number type: values and bytes by gguf-py, logits by Transformers with gguf-py's values, and Transformers' own reader."""
    class_name, what, path = type(model).__name__, f"{architecture} {kind}", folder / f"{kind}.gguf"
    direction = "Cambium wrote, gguf-py read"
    with table.case(KIND, architecture, what, direction):
        cambium.run("convert", source, path, "--quantize", kind)
        values, types, _ = read(path)
        wanted, worst, wrong, of_type = wanted_tensors(architecture, model), 0.0, "", 0
        missing = sorted(set(wanted) - set(values)) + sorted(set(values) - set(wanted) - {"output.weight", "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"})
        for name, value in wanted.items():
            if name not in values:
                continue
            worst = max(worst, difference(values[name], value))
            qtype, data = types[name]
            of_type += kind in EXACT and qtype.name == EXACT[kind]
            if qtype.name in EXACT.values() and not np.array_equal(data.view(np.uint8).ravel(), gguf.quants.quantize(value, qtype).view(np.uint8).ravel()):
                wrong = wrong or f"{name} ({qtype.name}) is not gguf-py's bytes"
        if missing:
            wrong = f"other tensors: {missing[:4]}"
        if kind in EXACT:
            table.same(KIND, architecture, what, direction, wrong or ("" if of_type else f"no tensor of type {kind}"), f"{worst:.1e} of the weights")
        else:
            table.numbers(KIND, architecture, what, direction, worst if not wrong else float("inf"), BLOCKS[kind], wrong)
    direction = "Cambium wrote and ran, gguf-py and Transformers"
    with table.case(KIND, architecture, what, direction):
        reference = with_tensors(architecture, load(source, class_name).float(), read(path)[0])
        worst, key = compare(cambium.forward(path, given), outputs(reference, given), given)
        table.numbers(KIND, architecture, what, direction, worst, TOLERANCE, key)
    if kind in ("f32", "q8_0"):
        direction = "Cambium turned back, Transformers ran"
        with table.case(KIND, architecture, what, direction):
            cambium.run("convert", path, folder / f"{kind}-folder")
            worst, key = compare(outputs(load(folder / f"{kind}-folder", class_name), given), outputs(reference, given), given)
            table.numbers(KIND, architecture, what, direction, worst, TOLERANCE, key)
    if kind in ("f32", "q4_0") and architecture in TRANSFORMERS_READS:
        direction = "Cambium wrote, Transformers read the file"
        with table.case(KIND, architecture, what, direction):
            import transformers

            made = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=path.name, attn_implementation="eager")
            worst, key = compare(outputs(made.double().eval(), given), outputs(reference, given), given)
            table.numbers(KIND, architecture, what, direction, worst, TOLERANCE, key)


def check_lora(table, cambium, folder, architecture, source, class_name, given):
    """A pair of factors for each matrix: PEFT to GGUF, run there, and back."""
    what, pairs, back, own = f"{architecture} LoRA", folder / "lora.gguf", folder / "lora-back", folder / "lora-own.gguf"
    targets = lora_targets(architecture)
    tuned = peft.get_peft_model(
        load(source, class_name).float(),
        peft.LoraConfig(r=4, lora_alpha=10, target_modules=targets, fan_in_fan_out=architecture == "gpt2"),
    )
    adapters.randomise(tuned, 77)
    tuned.save_pretrained(folder / "lora")
    single = outputs(tuned.eval(), given)
    tuned = tuned.double()
    wanted = outputs(tuned, given)
    tolerance = max(TOLERANCE, 10 * compare(single, wanted, given)[0])
    direction = "Cambium wrote, gguf-py read"
    with table.case(KIND, architecture, what, direction):
        cambium.run("convert", folder / "lora", pairs, "--model", source)
        values, _, file = read(pairs)
        alpha = float(file.get_field("adapter.lora.alpha").contents())
        worst, count, named = 0.0, 0, {name: new for new, name in names_of(architecture, load(source, class_name)).items() if isinstance(name, str)}
        for name, module in tuned.named_modules():
            if not hasattr(module, "get_delta_weight"):
                continue
            new = named[name.removeprefix("base_model.model.") + ".weight"]
            a, b = values[new + ".lora_a"], values[new + ".lora_b"]
            delta = module.get_delta_weight("default").detach().float().numpy()
            delta = turned(architecture, name + ".weight", delta, tuned.config)
            worst, count = max(worst, difference(alpha / a.shape[0] * b @ a, delta)), count + 2
        if count != len(values):
            raise RuntimeError(f"{len(values)} tensors, wanted {count}")
        table.numbers(KIND, architecture, what, direction, worst, TOLERANCE)
        w = gguf.GGUFWriter(own, ggml_name(architecture))  # the same factors by gguf-py
        w.add_type("adapter")
        w.add_string("adapter.type", "lora")
        w.add_float32("adapter.lora.alpha", alpha)
        for name, value in values.items():
            w.add_tensor(name, value)
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()
    for path, direction in ((pairs, "Cambium wrote and ran, PEFT"), (own, "gguf-py wrote, Cambium ran")):
        with table.case(KIND, architecture, what, direction):
            worst, key = compare(cambium.forward(folder / "f32.gguf", given, "--modules", path), wanted, given)
            table.numbers(KIND, architecture, what, direction, worst, tolerance, key)
    direction = "Cambium turned back, PEFT ran"
    with table.case(KIND, architecture, what, direction):
        cambium.run("convert", pairs, back, "--model", source)
        worst, key = compare(outputs(adapters.with_adapter(load(source, class_name), back), given), wanted, given)
        table.numbers(KIND, architecture, what, direction, worst, TOLERANCE, key)


def make(folder, architecture, lines):
    """A model with a vocabulary: the folder, the model, the tokenizer."""
    class_name, options, tokenizer = ARCHITECTURES[architecture]
    vocabulary = tokenizer(lines)
    options = options | dict(vocab_size=vocabulary.get_vocab_size())
    model = models.build(class_name, options, models.seed_of(architecture))
    if architecture == "bert":
        model.pooler = None  # the file has no place for it
    source = folder / "source"
    model.save_pretrained(source)
    vocabulary.save(str(source / "tokenizer.json"))
    return source, model, vocabulary


def run(table, cambium, folder):
    lines = tokenizers.corpus()
    for architecture, (class_name, _, _) in ARCHITECTURES.items():
        place = folder / architecture.replace(" ", "-")
        with table.case(KIND, architecture, architecture, "both"):
            place.mkdir(parents=True, exist_ok=True)
            source, model, vocabulary = make(place, architecture, lines)
            given = inputs_for(model, 3)
            given.pop("labels", None)
            for kind in (*EXACT, *BLOCKS):
                if kind in ("f32", "f16", "q8_0", "q4_0", "q4_k", "q6_k") or architecture == "llama":
                    check_written(table, cambium, place, architecture, source, model, kind, given)
            for kind in ("f32", "f16", "q5_1"):
                what, direction, path = f"{architecture} {kind}", "gguf-py wrote, Cambium ran", place / f"own-{kind}.gguf"
                with table.case(KIND, architecture, what, direction):
                    write(path, architecture, model, kind)
                    reference = with_tensors(architecture, load(source, class_name).float(), read(path)[0])
                    worst, key = compare(cambium.forward(path, given), outputs(reference, given), given)
                    table.numbers(KIND, architecture, what, direction, worst, TOLERANCE, key)
            if architecture != "bert":
                check_lora(table, cambium, place, architecture, source, class_name, given)
            what, direction = f"{architecture} vocabulary", "Cambium wrote and read, tokenizers"
            with table.case(KIND, architecture, what, direction):
                texts = [t for t in tokenizers.TEXTS if "<s>" not in t and "\0" not in t]
                got = [row["ids"] for row in tokenizers.encode(cambium, place / "f32.gguf", "--no-special", texts=texts)]
                wanted = [vocabulary.encode(t, add_special_tokens=False).ids for t in texts]
                table.same(KIND, architecture, what, direction, tokenizers.first_wrong(got, wanted, texts), f"{len(texts)} texts")
