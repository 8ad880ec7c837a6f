"""LoRA adapters that PEFT wrote: run, merged and written again by Cambium, on every family."""

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
    # X-LoRA's writer leaves out keys with an expert's number in them; RandLoRA's repeats shared matrices at each module
    held = {key: value for key, value in model.state_dict().items() if key in file} | held
    copied = {key for key in held.keys() - file.keys() if f"base_model.{key.split('.')[-1]}" in file}
    if held.keys() - copied != file.keys():
        raise RuntimeError(f"PEFT holds other tensors: {sorted(held.keys() - copied ^ file.keys())[:4]}")
    for name, value in file.items():
        if not torch.allclose(held[name].float(), value.float(), rtol=1e-6, atol=0):  # VB-LoRA's shares go through a logarithm
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


def run(table, cambium, folder):
    for n, (architecture, family, config, options) in enumerate(CASES):
        with table.case(KIND, family, f"{architecture} {config + 1}", "both"):
            check_case(table, cambium, folder / str(n), architecture, family, config, options)
