"""LoRA adapters: what PEFT wrote run, merged and written again by Cambium; what Cambium trained loaded by PEFT."""

import numpy as np
import peft
import torch
from safetensors.torch import load_file

from . import models
from .models import CONFIGS, TOLERANCE, compare, inputs_for, load, outputs, seed_of
from .table import difference

KIND = "adapter"

# ---- what PEFT writes: a class, its configuration, the adapter's options
ATTENTION = dict(r=4, lora_alpha=9, target_modules=["q_proj", "v_proj"])
CASES = [
    ("LlamaForCausalLM", "llama", 0, ATTENTION),
    ("LlamaForCausalLM", "llama", 1, dict(r=3, lora_alpha=6, target_modules="all-linear", bias="all")),
    ("LlamaForCausalLM", "llama", 0, dict(
        r=4, lora_alpha=8, use_rslora=True, target_modules=["k_proj", "o_proj", "up_proj", "down_proj"],
        rank_pattern={"up_proj": 7}, alpha_pattern={"o_proj": 5.5, "model.layers.1.mlp.down_proj": 2})),
    ("LlamaForCausalLM", "llama", 2, dict(
        r=2, lora_alpha=2, target_modules=r".*\.(q_proj|gate_proj)", bias="lora_only", modules_to_save=["lm_head"])),
    ("MistralForCausalLM", "mistral", 0, dict(r=5, target_modules=["q_proj", "down_proj"], layers_to_transform=[0, 2])),
    ("Qwen2ForCausalLM", "qwen2", 0, ATTENTION),
    ("Qwen3ForCausalLM", "qwen3", 0, dict(r=4, target_modules="all-linear", exclude_modules=["down_proj"])),
    ("GemmaForCausalLM", "gemma", 0, ATTENTION),
    ("Gemma2ForCausalLM", "gemma2", 0, ATTENTION),
    ("Gemma3ForCausalLM", "gemma3_text", 0, dict(r=4, target_modules="all-linear")),
    ("Phi3ForCausalLM", "phi3", 0, dict(r=6, target_modules=["qkv_proj", "gate_up_proj"])),
    ("SmolLM3ForCausalLM", "smollm3", 0, ATTENTION),
    ("Olmo2ForCausalLM", "olmo2", 0, ATTENTION),
    ("GPT2LMHeadModel", "gpt2", 0, dict(r=4, lora_alpha=7, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)),
    ("GPT2LMHeadModel", "gpt2", 1, dict(r=3, target_modules=["c_fc"], fan_in_fan_out=True, bias="lora_only")),
    ("GPTNeoXForCausalLM", "gpt_neox", 0, dict(r=4, target_modules=["query_key_value", "dense_h_to_4h"])),
    ("OPTForCausalLM", "opt", 0, dict(r=4, target_modules=["q_proj", "out_proj", "fc1"])),
    ("BloomForCausalLM", "bloom", 0, dict(r=4, target_modules=["query_key_value", "dense_4h_to_h"])),
    ("MixtralForCausalLM", "mixtral", 0, dict(r=4, target_modules=["q_proj", "w1", "w2"])),
    ("Qwen2MoeForCausalLM", "qwen2_moe", 0, dict(r=4, target_modules="all-linear")),
    ("Qwen3MoeForCausalLM", "qwen3_moe", 0, dict(r=4, target_modules=["v_proj", "down_proj"])),
    ("BertForSequenceClassification", "bert", 0, dict(r=4, target_modules=["query", "value"], task_type="SEQ_CLS")),
    ("BertForMaskedLM", "bert", 1, dict(r=4, target_modules=["key", "dense"])),
    ("RobertaForTokenClassification", "roberta", 0, dict(r=4, target_modules=["query", "key"], task_type="TOKEN_CLS")),
    ("XLMRobertaForQuestionAnswering", "xlm-roberta", 0, dict(r=4, target_modules=["query"], modules_to_save=["qa_outputs"])),
    ("DistilBertForSequenceClassification", "distilbert", 0, dict(
        r=4, target_modules=["q_lin", "lin1"], modules_to_save=["pre_classifier", "classifier"])),
    ("ElectraForMaskedLM", "electra", 0, dict(r=4, target_modules=["query", "value"])),
    ("AlbertForMaskedLM", "albert", 0, dict(r=4, target_modules=["query", "ffn"])),
    ("DebertaV2ForSequenceClassification", "deberta-v2", 1, dict(
        r=4, target_modules=["query_proj", "value_proj"], modules_to_save=["classifier"])),
    ("ModernBertForMaskedLM", "modernbert", 0, dict(r=4, target_modules=["Wqkv", "Wo"])),
    ("T5ForConditionalGeneration", "t5", 0, dict(r=4, target_modules=["q", "v", "wi"])),
    ("MT5ForConditionalGeneration", "mt5", 0, dict(r=4, target_modules=["k", "wi_0", "wi_1"])),
    ("BartForConditionalGeneration", "bart", 0, dict(r=4, target_modules=["q_proj", "v_proj", "fc2"])),
    ("MarianMTModel", "marian", 0, dict(r=4, target_modules=["k_proj", "out_proj"])),
]  # fmt: skip


def randomise(model, seed):
    """Adapters that change something: neither factor is zero."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, p in model.named_parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=draw) * (0.8 / max(p.shape[-1], 4) ** 0.5))


def with_adapter(base, path):
    """The base with the folder's adapter as PEFT reads it; every tensor of the file must arrive, and no other."""
    model = peft.PeftModel.from_pretrained(base, path).eval().double()
    held, file = peft.get_peft_model_state_dict(model), load_file(f"{path}/adapter_model.safetensors")
    if sorted(held) != sorted(file):
        raise RuntimeError(f"PEFT holds other tensors: {sorted(set(held) ^ set(file))[:4]}")
    for name, value in file.items():
        if not torch.equal(held[name].float(), value.float()):
            raise RuntimeError(f"PEFT holds another {name}")
    return model


def check_case(table, cambium, folder, architecture, family, config, options):
    what = f"{architecture} {config + 1}: " + ", ".join(f"{k}={v}" for k, v in options.items() if k != "lora_alpha")
    what = what if len(what) < 110 else what[:107] + "..."
    seed = seed_of(what)
    base, theirs, again, third, merged = (folder / name for name in ("base", "theirs", "again", "third", "merged"))
    extra = dict(num_labels=3) if "Classification" in architecture else {}
    model = models.build(architecture, CONFIGS[family][config] | extra, seed)
    model.save_pretrained(base)
    given = inputs_for(model, seed + 1)
    tuned = peft.get_peft_model(model, peft.LoraConfig(**options)).eval()
    randomise(tuned, seed + 2)
    tuned.save_pretrained(theirs)
    reference = with_adapter(load(base, architecture), theirs)
    wanted = outputs(reference, given)
    tolerance = max(TOLERANCE, 10 * compare(outputs(reference.float(), given), wanted, given)[0])
    reference.double()

    with table.case(KIND, family, what, "PEFT wrote, Cambium ran"):
        worst, key = compare(cambium.forward(base, given, "--modules", theirs), wanted, given)
        table.numbers(KIND, family, what, "PEFT wrote, Cambium ran", worst, tolerance, key)
        plain = difference(outputs(load(base, architecture), given)["logits" if "logits" in wanted else "start_logits"],
                           wanted["logits" if "logits" in wanted else "start_logits"])  # fmt: skip
        if plain < 1e-3:
            raise RuntimeError("the adapter changes nothing: the comparison says nothing")

    with table.case(KIND, family, what, "Cambium wrote again, PEFT ran"):
        cambium.run("convert", theirs, again, "--model", base)
        cambium.run("convert", again, third, "--model", base)
        got = outputs(with_adapter(load(base, architecture), again), given)
        worst, key = compare(got, outputs(with_adapter(load(base, architecture), theirs), given), given)
        table.numbers(KIND, family, what, "Cambium wrote again, PEFT ran", worst, 0, key)
        wrong = models.same_files(again, third)
        table.same(KIND, family, f"{what}: load, save, load, save", "bytes", wrong and f"other bytes: {wrong}")

    with table.case(KIND, family, what, "Cambium merged, Transformers ran"):
        cambium.run("merge", base, "--modules", theirs, "--out", merged)
        worst, key = compare(outputs(load(merged, architecture), given), wanted, given)
        table.numbers(KIND, family, what, "Cambium merged, Transformers ran", worst, tolerance, key)


# ---- what Cambium trains
TRAINED = [
    ("llama", "LlamaForCausalLM", "bpe", "hidden_size=48,intermediate_size=96,num_hidden_layers=2,num_attention_heads=4,"
     "num_key_value_heads=2", "lora:r=4,alpha=8"),
    ("gpt2", "GPT2LMHeadModel", "bpe", "n_embd=32,n_layer=2,n_head=4,n_positions=64", "lora:r=3,targets=c_attn+c_fc,bias=all"),
    ("qwen3", "Qwen3ForCausalLM", "bpe", "hidden_size=48,intermediate_size=96,num_hidden_layers=2,num_attention_heads=4,"
     "num_key_value_heads=2,head_dim=16", "lora:r=4,rslora=true,layers=1"),
    ("bert", "BertForMaskedLM", "wordpiece", "hidden_size=32,intermediate_size=64,num_hidden_layers=2,num_attention_heads=4",
     "lora:r=4,targets=query+value"),
    ("bloom", "BloomForCausalLM", "bpe", "hidden_size=32,n_layer=2,n_head=4", "lora:r=4,targets=all-linear"),
] + [
    ("llama", "LlamaForCausalLM", "bpe", "hidden_size=32,intermediate_size=48,num_hidden_layers=2,num_attention_heads=4,"
     "num_key_value_heads=2", spec)
    for spec in ("lora:r=4,dora=true", "lora:r=4,init=pissa", "lora:r=4,alpha=6,rslora=true,init=pissa_niter_4", "lora:r=4,init=olora",
                 "lora:r=4,init=orthogonal", "lora:r=4,init=eva", "lora:r=4,lora_bias=true", "lora:r=4,tokens=9+11+40,dora=true",
                 "lora:r=2,save=lm_head", "ia3", "ia3:targets=all-linear,feedforward=up_proj",
                 "hira:r=4", "delora:r=4", "gralora:r=4,hybrid=2", "ln_tuning", "beft", "trainable_tokens:tokens=14+16+30+32+38+52",
                 "adalora:r=4,target=2,tinit=1,tfinal=1")
] + [
    ("qwen2", "Qwen2ForCausalLM", "bpe", "hidden_size=32,intermediate_size=48,num_hidden_layers=2,num_attention_heads=4,"
     "num_key_value_heads=2,tie_word_embeddings=true", spec)
    for spec in ("lora:r=4,tokens=9+11+40", "trainable_tokens:tokens=9+11+40", "lora:r=4,lora_bias=true,targets=q_proj", "beft:targets=q_proj+v_proj")
] + [
    ("gpt2", "GPT2LMHeadModel", "bpe", "n_embd=32,n_layer=2,n_head=4,n_positions=64", spec)
    for spec in ("lora:r=4,dora=true", "lora:r=4,init=pissa", "lora:r=4,tokens=9+11", "ia3", "hira:r=4", "ln_tuning", "adalora:r=4,target=2",
                 "trainable_tokens:tokens=9+11")
]  # fmt: skip


def check_trained(table, cambium, folder, family, architecture, kind, options, spec):
    what, direction = f"{architecture}: {spec}, trained", "Cambium trained, PEFT ran"
    with table.case(KIND, family, what, direction):
        folder.mkdir(parents=True, exist_ok=True)
        text, vocabulary, base, out = folder / "text.txt", folder / "vocabulary", folder / "base", folder / "adapter"
        text.write_text("\n".join(f"The {a} tree bears {n} {b} apples." for n in range(40) for a, b in [("old", "red"), ("young", "green")]))
        cambium.run("tokenizer", "train", text, "--kind", kind, "--vocab", 300, "--out", vocabulary)
        cambium.run("init", "--family", family, "--set", options, "--tokenizer", vocabulary, "--out", base, "--seed", 5)
        cambium.run("finetune", base, "--tuner", spec, "--data", text, "--steps", 6, "--lr", "0.02", "--batch", 4, "--seq", 24,
                    "--out", out, "--quiet")  # fmt: skip
        rng, plain = np.random.default_rng(3), load(base, architecture)
        ids = rng.integers(5, plain.config.vocab_size, (2, 11))
        given = {"input_ids": ids, "attention_mask": np.ones((2, 11), np.int64)}
        wanted = outputs(with_adapter(load(base, architecture), out), given)
        if difference(outputs(plain, given)["logits"], wanted["logits"]) < 1e-4:
            raise RuntimeError("training changed nothing: the comparison says nothing")
        worst, key = compare(cambium.forward(base, given, "--modules", out), wanted, given)
        table.numbers(KIND, family, what, direction, worst, TOLERANCE, key)


def run(table, cambium, folder):
    for n, (architecture, family, config, options) in enumerate(CASES):
        with table.case(KIND, family, f"{architecture} {config + 1}", "both"):
            check_case(table, cambium, folder / str(n), architecture, family, config, options)
    for n, (family, architecture, kind, options, spec) in enumerate(TRAINED):
        check_trained(table, cambium, folder / f"trained-{n}", family, architecture, kind, options, spec)
