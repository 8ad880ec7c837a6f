"""Every tuner that PEFT or the adapters library has too: what Cambium trained runs in the library, what the library wrote runs in Cambium."""

import json

import adapters
import numpy as np
import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

from .adapters import randomise, with_adapter
from .models import CONFIGS, TOLERANCE, build, compare, inputs_for, load, outputs, seed_of
from .table import difference

# ---- small bases: class, kind of vocabulary, options of `cambium init`
HALF = "hidden_size=32,intermediate_size=48,num_hidden_layers=2,num_attention_heads=4"
BASES = {
    "llama": ("LlamaForCausalLM", "bpe", f"{HALF},num_key_value_heads=2"),
    "qwen2": ("Qwen2ForCausalLM", "bpe", f"{HALF},num_key_value_heads=2,tie_word_embeddings=true"),
    "qwen3": ("Qwen3ForCausalLM", "bpe", f"{HALF},num_key_value_heads=2,head_dim=16"),
    "gpt2": ("GPT2LMHeadModel", "bpe", "n_embd=32,n_layer=2,n_head=4,n_positions=64"),
    "bloom": ("BloomForCausalLM", "bpe", "hidden_size=32,n_layer=2,n_head=4"),
    "bert": ("BertForMaskedLM", "wordpiece", HALF),
    "roberta": ("RobertaForMaskedLM", "wordpiece", HALF),
    "albert": ("AlbertForMaskedLM", "wordpiece", f"{HALF},embedding_size=16"),
    "t5": ("T5ForConditionalGeneration", "wordpiece", "d_model=32,d_ff=48,d_kv=8,num_layers=2,num_heads=4,num_decoder_layers=2"),
}

# ---- PEFT: for each tuner what Cambium trains (family, spec) and what PEFT makes (family, class of the configuration, options)
QV, ALL = dict(target_modules=["q_proj", "v_proj"]), dict(target_modules="all-linear")
CAUSAL = dict(task_type="CAUSAL_LM")
PEFT = {
    "lora": (
        [("llama", f"lora:{o}") for o in (
            "r=4,alpha=8", "r=4,dora=true", "r=4,init=pissa", "r=4,alpha=6,rslora=true,init=pissa_niter_4", "r=4,init=olora",
            "r=4,init=orthogonal", "r=4,init=eva", "r=4,lora_bias=true", "r=4,tokens=9+11+40,dora=true", "r=2,save=lm_head")]
        + [("gpt2", f"lora:{o}") for o in (
            "r=3,targets=c_attn+c_fc,bias=all", "r=4,dora=true", "r=4,init=pissa", "r=4,tokens=9+11")]
        + [("qwen3", "lora:r=4,rslora=true,layers=1"), ("bert", "lora:r=4,targets=query+value"), ("bloom", "lora:r=4,targets=all-linear"),
           ("albert", "lora:r=3,alpha=7,targets=all-linear"), ("t5", "lora:r=3,alpha=7,targets=q+v"),
           ("qwen2", "lora:r=4,tokens=9+11+40"), ("qwen2", "lora:r=4,lora_bias=true,targets=q_proj")],
        [("bert", "LoraConfig", dict(r=2, bias="all", target_modules=["query"])), ("llama", "LoraConfig", dict(r=4, use_dora=True) | QV), ("gpt2", "LoraConfig", dict(r=3, lora_bias=True, target_modules=["c_fc"]))],
    ),
    "adalora": (
        [("llama", "adalora:r=4,target=2,tinit=1,tfinal=1"), ("gpt2", "adalora:r=4,target=2")],
        [("llama", "AdaLoraConfig", dict(init_r=4, target_r=2, total_step=10, lora_alpha=6) | QV)],
    ),
    "beft": ([("llama", "beft"), ("qwen2", "beft:targets=q_proj+v_proj")], [("qwen2", "BeftConfig", dict(target_modules=["v_proj"]))]),
    "boft": ([("llama", "boft:block=4"), ("gpt2", "boft:block=8,targets=c_attn")], [("llama", "BOFTConfig", dict(boft_block_size=4) | QV)]),
    "c3a": ([("llama", "c3a:block=8"), ("gpt2", "c3a:block=16,targets=c_attn")], [("llama", "C3AConfig", dict(block_size=8) | QV)]),
    "delora": ([("llama", "delora:r=4"), ("gpt2", "delora:r=4")], [("llama", "DeloraConfig", dict(r=3, delora_lambda=4) | ALL)]),
    "fourierft": (
        [("llama", "fourierft:n=20,scaling=100"), ("gpt2", "fourierft:n=20,scaling=100,targets=c_attn")],
        [("llama", "FourierFTConfig", dict(n_frequency=30, scaling=20) | ALL)],
    ),
    "gralora": ([("llama", "gralora:r=4,hybrid=2")], [("llama", "GraloraConfig", dict(r=4, gralora_k=2, hybrid_r=2) | QV)]),
    "hira": ([("llama", "hira:r=4"), ("gpt2", "hira:r=4")], [("llama", "HiraConfig", dict(r=3, rank_pattern={"q_proj": 2}) | ALL)]),
    "hra": ([("llama", "hra:r=4"), ("gpt2", "hra:r=4,targets=c_attn")], [("llama", "HRAConfig", dict(r=4, apply_GS=True) | QV)]),
    "ia3": (
        [("llama", "ia3"), ("llama", "ia3:targets=all-linear,feedforward=up_proj"), ("gpt2", "ia3")],
        [("llama", "IA3Config", dict(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]))],
    ),
    "ln_tuning": ([("llama", "ln_tuning"), ("gpt2", "ln_tuning")], [("gpt2", "LNTuningConfig", dict(target_modules=["ln_1", "ln_f"]))]),
    "loha": ([("llama", "loha:r=4"), ("gpt2", "loha:r=3,targets=c_attn")], [("llama", "LoHaConfig", dict(r=3, alpha=5) | ALL)]),
    "lokr": (
        [("llama", "lokr:r=2"), ("llama", "lokr:r=1,both=true,factor=4"), ("gpt2", "lokr:r=2,targets=c_attn")],
        [("llama", "LoKrConfig", dict(r=2, alpha=4, decompose_both=True, decompose_factor=4) | ALL)],
    ),
    "miss": (
        [("llama", "miss:r=4"), ("llama", "miss:r=4,variant=bat"), ("llama", "miss:r=4,variant=mini,mini_r=8")],
        [("llama", "MissConfig", dict(r=4) | ALL), ("llama", "MissConfig", dict(r=4, init_weights="bat") | QV)],
    ),
    "oft": (
        [("llama", "oft:block=4"), ("llama", "oft:block=8,series=false,share=true"), ("gpt2", "oft:block=4,targets=c_attn")],
        [("llama", "OFTConfig", dict(oft_block_size=4, use_cayley_neumann=False) | ALL)],
    ),
    "poly": (
        [("llama", "poly:r=2,tasks=2,skills=3"), ("llama", "poly:r=2,tasks=3,skills=2,splits=2,targets=q_proj+v_proj")],
        [("llama", "PolyConfig", dict(r=2, n_tasks=3, n_skills=2, n_splits=2) | QV | CAUSAL)],
    ),
    "prefix": (
        [("llama", "prefix:n=3"), ("llama", "prefix:n=3,projection=true,hidden=8"), ("gpt2", "prefix:n=4"), ("qwen2", "prefix:n=2")],
        [("llama", "PrefixTuningConfig", dict(num_virtual_tokens=4) | CAUSAL), ("gpt2", "PrefixTuningConfig", dict(
            num_virtual_tokens=4, prefix_projection=True, encoder_hidden_size=12) | CAUSAL)],
    ),
    "prompt": (
        [("llama", "prompt:n=3"), ("gpt2", "prompt:n=4,init=SAMPLE_VOCAB")],
        [("llama", "PromptTuningConfig", dict(num_virtual_tokens=5) | CAUSAL)],
    ),
    "ptuning": (
        [("llama", "ptuning:n=3,hidden=16"), ("gpt2", "ptuning:n=4,hidden=6,encoder=LSTM")],
        [("llama", "PromptEncoderConfig", dict(num_virtual_tokens=4, encoder_hidden_size=12) | CAUSAL)],
    ),
    "randlora": (
        [("llama", "randlora:r=4"), ("llama", "randlora:r=4,sparse=true,save_projection=false"), ("gpt2", "randlora:r=4,targets=c_attn")],
        [("llama", "RandLoraConfig", dict(r=4, randlora_alpha=8, save_projection=True) | QV),
         ("llama", "RandLoraConfig", dict(r=5, randlora_alpha=8, save_projection=False) | QV)],
    ),
    "road": (
        [("llama", "road:group=8"), ("llama", "road:variant=road_4,group=16"), ("gpt2", "road:variant=road_2,group=8,targets=c_fc")],
        [("llama", "RoadConfig", dict(variant="road_2", group_size=8) | ALL)],
    ),
    "shira": ([("llama", "shira:r=2")], [("llama", "ShiraConfig", dict(r=3, random_seed=7) | QV)]),
    "trainable_tokens": (
        [("llama", "trainable_tokens:tokens=14+16+30+32+38+52"), ("qwen2", "trainable_tokens:tokens=9+11+40"),
         ("gpt2", "trainable_tokens:tokens=9+11")],
        [("qwen2", "TrainableTokensConfig", dict(token_indices=[7, 8, 20], target_modules=["embed_tokens"]))],
    ),
    "vblora": (
        [("llama", "vblora:r=2,vectors=16,length=8"), ("llama", "vblora:r=2,vectors=12,length=4,topk=3,short=true")],
        [("llama", "VBLoRAConfig", dict(r=2, num_vectors=10, vector_length=8, topk=2) | QV)],
    ),
    "vera": (
        [("llama", "vera:r=8"), ("llama", "vera:r=8,save_projection=false"), ("gpt2", "vera:r=8,targets=c_attn")],
        [("llama", "VeraConfig", dict(r=6, d_initial=0.5) | QV)],
    ),
    "xlora": (
        [("llama", "xlora:hidden=32,size=8"), ("llama", "xlora:hidden=32,depth=2,size=8,layerwise=true,top_k=1")],
        [("llama", "XLoraConfig", dict(hidden_size=32, xlora_depth=1, layerwise_scalings=True) | CAUSAL)],
    ),
}  # fmt: skip

# ---- the adapters library: for each tuner what Cambium trains (family, spec) and what the library makes (family, configuration, options)
LIBRARY = {
    "bottleneck": (
        [("gpt2", "seq_bn:reduction_factor=4"), ("llama", "seq_bn:reduction_factor=4"), ("bert", "seq_bn:reduction_factor=4,ln_before=true"),
         ("gpt2", "double_seq_bn:reduction_factor=0:3+default:5,ln_after=true,ln_before=true"), ("bert", "double_seq_bn:reduction_factor=4"),
         ("gpt2", "par_bn:reduction_factor=3,scaling=channel"), ("llama", "scaled_par_bn:reduction_factor=4"),
         ("gpt2", "seq_bn_inv:reduction_factor=4"), ("bert", "double_seq_bn_inv:reduction_factor=4"),
         ("gpt2", "adapterplus:reduction_factor=4,stochastic_depth=0"), ("bert", "adapterplus:reduction_factor=4,stochastic_depth=0"),
         ("gpt2", "compacter:reduction_factor=4,phm_dim=2"), ("bert", "compacter:reduction_factor=4,phm_dim=4,shared_W_phm=true"),
         ("llama", "compacter++:reduction_factor=4"), ("roberta", "seq_bn:reduction_factor=4,use_gating=true")],
        [("gpt2", "SeqBnConfig", dict(reduction_factor=4)), ("llama", "DoubleSeqBnConfig", dict(reduction_factor=4)),
         ("bert", "SeqBnInvConfig", dict(reduction_factor=4)), ("gpt2", "DoubleSeqBnInvConfig", dict(reduction_factor=4)),
         ("bert", "ParBnConfig", dict(reduction_factor=4, scaling="learned")), ("gpt2", "AdapterPlusConfig", dict(reduction_factor=4, stochastic_depth=0.0)),
         ("bert", "CompacterConfig", dict(reduction_factor=4)), ("llama", "CompacterPlusPlusConfig", dict(reduction_factor=8, phm_dim=2))],
    ),
    "ad_lora": (
        [("gpt2", "ad_lora:r=3,intermediate_lora=true"), ("gpt2", "ad_lora:r=4,use_gating=true"),
         ("llama", "ad_lora:r=4,alpha=6,intermediate_lora=true,output_lora=true"), ("bert", "ad_lora:r=4,attn_matrices=q+k+v"),
         ("llama", "ad_vera:attn_matrices=q"), ("bert", "ad_vera")],
        [("llama", "LoRAConfig", dict(r=3, alpha=5, intermediate_lora=True)), ("bert", "LoRAConfig", dict(r=4, use_gating=True)),
         ("gpt2", "LoRAConfig", dict(r=2, output_lora=True)), ("bert", "VeraConfig", dict())],
    ),
    "ad_dora": (
        [("llama", "ad_dora:attn_matrices=q"), ("bert", "ad_dvora"), ("bert", "ad_dora")],
        [("bert", "DoRAConfig", dict()), ("bert", "DvoRAConfig", dict())],
    ),
    "ad_ia3": ([("gpt2", "ad_ia3"), ("llama", "ad_ia3"), ("bert", "ad_ia3:output_lora=true")], [("gpt2", "IA3Config", dict()), ("bert", "IA3Config", dict())]),
    "mtl_lora": (
        [("bert", "mtl_lora:r=4"), ("bert", "mtl_lora:r=4,ups=2"), ("bert", "mtl_lora:r=4,matrix=linear")],
        [("bert", "MTLLoRAConfig", dict(r=3, n_up_projection=2))],
    ),
    "ad_prefix": (
        [("gpt2", "ad_prefix:n=3,bottleneck=8"), ("llama", "ad_prefix:n=3,bottleneck=8"), ("bert", "ad_prefix:n=2,flat=true"),
         ("bert", "ad_prefix:n=4,bottleneck=8,use_gating=true")],
        [("gpt2", "PrefixTuningConfig", dict(prefix_length=4, bottleneck_size=10)),
         ("bert", "PrefixTuningConfig", dict(prefix_length=3, flat=True)), ("llama", "PrefixTuningConfig", dict(prefix_length=2, bottleneck_size=6))],
    ),
    "ad_prompt": (
        [("bert", "ad_prompt:n=3"), ("roberta", "ad_prompt:n=4,combine=prefix_after_bos")],
        [("bert", "PromptTuningConfig", dict(prompt_length=4))],
    ),
    "reft": (
        [("gpt2", "loreft:r=2,suffix_positions=1"), ("bert", "loreft:r=2,tied_weights=true"), ("gpt2", "noreft"), ("llama", "noreft:r=2"),
         ("gpt2", "direft:r=2"), ("bert", "direft")],
        [("gpt2", "LoReftConfig", dict(r=2)), ("bert", "NoReftConfig", dict(r=2)), ("bert", "DiReftConfig", dict())],
    ),
    "union": (
        [("gpt2", "mam:0.bottleneck=6,1.reduction_factor=4"), ("gpt2", "unipelt:0.n=2,0.bottleneck=5,1.reduction_factor=4,2.r=2"),
         ("bert", "unipelt:0.n=2,0.bottleneck=5,1.reduction_factor=4"), ("gpt2", "union:methods=par_bn+ad_lora,0.reduction_factor=4")],
        [("gpt2", "MAMConfig", dict()), ("bert", "UniPELTConfig", dict())],
    ),
}  # fmt: skip

# Tuners whose folders no library has (hyper is exported as LoRA or bottlenecks); fusion is weights of an expression over other modules.
OWN = {"adept", "bitfit", "diff", "sft", "said", "hyper", "fusion", "ssf"}

# A library's own words for what it cannot make or read: kinds of layers, and MTL-LoRA's linear matrix, whose making ends in an error.
CANNOT = ("not supported", "cannot assign parameters before Module.__init__() call")
# What holds for a row that passes.
NOTES = {
    "direft": "the library takes every file of a DiReFT for a NoReFT, its own too: ours was read into a unit that it made itself",
    "XLoraConfig": "PEFT's writer leaves the classifier's first layer out, as its number is an expert's: it was put back into the file",
}

LIKE = "The {a} tree bears {n} {b} apples."


# ---- heads that a labelled task brings: the class that PEFT's module stands on, and what Cambium trains; the adapters library has classes of its own
LABELLED = {
    "PEFT": [("bert", "BertForSequenceClassification", spec) for spec in ("lora:r=4", "ia3", "prefix:n=3")],
    "adapters": [("bert", "BertAdapterModel", spec) for spec in ("seq_bn:reduction_factor=4", "ad_lora:r=4", "loreft:r=2")],
}


# bodies whose weights have another prefix in files than the language model's, or none
BODIES = [("llama", "LlamaModel", "q_proj"), ("llama", "LlamaForQuestionAnswering", "q_proj"), ("gpt2", "GPT2Model", "c_attn"),
          ("bert", "BertModel", "query")]  # fmt: skip


class Bases:
    """The bases, each made when it is first asked for; two experts for X-LoRA."""

    def __init__(self, cambium, folder):
        self.cambium, self.folder, self.made = cambium, folder, set()
        self.text = folder / "text.txt"
        self.labelled, self.pairs = folder / "labelled.jsonl", folder / "pairs.jsonl"
        rows = [{"text": LIKE.format(a=a, n=n, b="red"), "label": a} for n in range(20) for a in ("old", "young", "lost")]
        self.labelled.write_text("\n".join(map(json.dumps, rows)))
        pairs = [{"prompt": LIKE.format(a="old", n=n, b="red"), "completion": f"{n} red"} for n in range(40)]
        self.pairs.write_text("\n".join(map(json.dumps, pairs)))  # for encoder-decoders
        self.text.write_text("\n".join(LIKE.format(a=a, n=n, b=b) for n in range(40) for a, b in [("old", "red"), ("young", "green")]))

    def once(self, path, *arguments):
        if path not in self.made:
            self.cambium.run(*arguments, "--out", path)
            self.made.add(path)
        return path

    def base(self, family):
        _, kind, options = BASES[family]
        vocabulary = self.once(self.folder / kind, "tokenizer", "train", self.text, "--kind", kind, "--vocab", 300)
        return self.once(self.folder / family, "init", "--family", family, "--set", options, "--tokenizer", vocabulary, "--seed", 5)

    def expert(self, n):
        return self.once(self.folder / f"expert{n}", *self.finetune("llama", f"lora:r={n + 2},alpha=8,targets=q_proj+v_proj"), "--seed", n)

    def finetune(self, family, spec, data=None, *options):
        return ("finetune", self.base(family), "--tuner", spec, "--data", data or (self.pairs if family == "t5" else self.text), "--steps", 6, "--lr", "0.02", "--batch", 4,
                "--seq", 24, "--quiet", *options)  # fmt: skip

    def load(self, family):
        model = load(self.base(family), BASES[family][0])
        model.config.use_cache = False
        return model


def inputs(model, tuner):
    rng = np.random.default_rng(3)
    given = {"input_ids": rng.integers(5, model.config.vocab_size, (2, 11)), "attention_mask": np.ones((2, 11), np.int64)}
    if model.config.is_encoder_decoder:
        given["decoder_input_ids"] = given["input_ids"][:, ::-1].copy()
    return given | ({"task_ids": np.array([1, 0])} if tuner == "poly" else {})


def must_change(plain, wanted, given):
    """Whatever changes nothing says nothing."""
    given = {key: value for key, value in given.items() if key != "task_ids"}
    before, after = outputs(plain, given)["logits"], wanted["logits"]
    if difference(before, after[:, -before.shape[1] :]) < 1e-4:
        raise RuntimeError("the module changes nothing: the comparison says nothing")


def reference(model, given):
    """Outputs in float64 and the tolerance: ten times what single precision does to the library, where that is more."""
    single = outputs(model.float(), given)
    try:
        wanted = outputs(model.double(), given)
    except RuntimeError as error:
        if "same dtype" not in str(error):
            raise
        return single, TOLERANCE  # parts that the library has in single precision whatever the model is in
    return wanted, max(TOLERANCE, 10 * compare(single, wanted, given)[0])


# ---- the two libraries: how each reads a folder, and makes a module of its own
def read_peft(bases, family, path):
    return with_adapter(bases.load(family).float(), path)


def make_peft(bases, family, name, options, path):
    if name == "XLoraConfig":
        options = options | dict(adapters={str(n): str(bases.expert(n)) for n in range(2)})
    tuned = peft.get_peft_model(bases.load(family).float(), getattr(peft, name)(**options)).eval()
    if name == "XLoraConfig":  # the experts are written beside it, but read from their own folders
        tuned.base_model.requires_grad_(False)
        tuned.base_model.internal_xlora_classifier.requires_grad_(True)
    randomise(tuned, seed_of(name + family))
    tuned.save_pretrained(path)
    if name == "XLoraConfig":
        file = f"{path}/adapter_model.safetensors"
        left_out = {key: value for key, value in tuned.state_dict().items() if "internal_xlora_classifier" in key}
        save_file(load_file(file) | left_out, file)


def library_write(model, name, path):
    """As safetensors where the library can: what it holds under two names it writes with torch.save alone."""
    try:
        model.save_adapter(str(path), name, use_safetensors=True, with_head=False)
    except RuntimeError as error:
        if "share memory" not in str(error):
            raise
        model.save_adapter(str(path), name, use_safetensors=False, with_head=False)


def library_tensors(path):
    written = path / "adapter.safetensors"
    return load_file(written) if written.exists() else torch.load(path / "pytorch_adapter.bin", weights_only=True)


def read_library(bases, family, path):
    """As the adapters library reads it; every tensor must arrive: it is written again and compared."""
    model, again = bases.load(family), path.with_suffix(".again")
    adapters.init(model)
    written = json.loads((path / "adapter_config.json").read_text())
    if written["config"].pop("subtract_projection", True) is False:
        # load_adapter loses this key on its way: the unit is made first, its weights are then read
        model.add_adapter(written["name"], config=adapters.DiReftConfig.from_dict(written["config"]))
    name = model.load_adapter(str(path), use_safetensors=True, with_head=False)
    model.set_active_adapters(name)
    library_write(model, name, again)
    held = library_tensors(again)
    for key, value in library_tensors(path).items():
        if key not in held or not torch.equal(held[key].float(), value.float()):
            raise RuntimeError(f"the library holds another {key}")
    return model.eval()


def make_library(bases, family, name, options, path):
    model = bases.load(family).float()
    adapters.init(model)
    torch.manual_seed(seed_of(name))
    model.add_adapter("theirs", config=getattr(adapters, name)(**options))
    model.train_adapter("theirs")
    randomise(model, seed_of(name + family))
    library_write(model, "theirs", path)


# ---- one comparison: a folder, read by both
def check(table, bases, library, read, tuner, family, what, direction, make, out):
    kind, what = f"tuner of {library}", f"{BASES[family][0]}: {what}"
    with table.case(kind, tuner, what, direction):
        make(out)
        plain = bases.load(family)
        given = inputs(plain, tuner)
        try:
            model = read(bases, family, out)
        except (AttributeError, TypeError, ValueError) as error:
            if not any(words in str(error) for words in CANNOT):
                raise
            return table.skipped(kind, tuner, what, direction, f"{library}: {str(error).splitlines()[0]}")
        wanted, tolerance = reference(model, given)
        must_change(plain, wanted, given)
        worst, key = compare(bases.cambium.forward(bases.base(family), given, "--modules", out), wanted, given)
        table.numbers(kind, tuner, what, direction, worst, tolerance, key)
        table.rows[-1].excuse = next((note for name, note in NOTES.items() if f": {name}" in what), "")


def check_tuner(table, bases, library, read, make, tuner, trained, made, folder):
    experts = f",experts={bases.expert(0)}+{bases.expert(1)}" if tuner == "xlora" else ""
    for n, (family, spec) in enumerate(trained):
        check(table, bases, library, read, tuner, family, f"{spec}, trained", f"Cambium trained, {library} ran",
              lambda out, f=family, s=spec: bases.cambium.run(*bases.finetune(f, s + experts), "--out", out), folder / f"trained{n}")  # fmt: skip
    for n, (family, name, options) in enumerate(made):
        told = ", ".join(f"{k}={v}" for k, v in options.items() if k not in ("target_modules", "task_type"))
        check(table, bases, library, read, tuner, family, f"{name}({told})", f"{library} wrote, Cambium ran",
              lambda out, f=family, c=name, o=options: make(bases, f, c, o, out), folder / f"made{n}")  # fmt: skip
    for direction in (f"Cambium trained, {library} ran", f"{library} wrote, Cambium ran"):
        if not any(row.passed for row in table.rows if (row.kind, row.group, row.direction) == (f"tuner of {library}", tuner, direction)):
            table.same(f"tuner of {library}", tuner, tuner, direction, "no comparison passed")


def check_labelled(table, bases, library, family, name, spec, out):
    """The module with its head on a base that has none: the library adds ours to the class of the task."""
    kind, what, direction = f"tuner of {library}", f"{name}: {spec}, trained with a head", f"Cambium trained, {library} ran"
    with table.case(kind, "heads", what, direction):
        bases.cambium.run(*bases.finetune(family, spec, bases.labelled, "--task", "classify"), "--out", out)
        if library == "PEFT":
            plain = getattr(transformers, name).from_pretrained(bases.base(family), num_labels=3)
            model = with_adapter(plain, out)
        else:
            model = getattr(adapters, name).from_pretrained(bases.base(family))
            model.load_adapter(str(out), use_safetensors=True, set_active=True)
            model.eval()
        given = inputs(model, spec)
        wanted, tolerance = reference(model, given)
        worst, key = compare(bases.cambium.forward(bases.base(family), given, "--modules", out), wanted, given)
        table.numbers(kind, "heads", what, direction, worst, tolerance, key)


def check_body(table, cambium, family, architecture, target, folder):
    """PEFT's module on a class of its own prefix, and Cambium's: PEFT must find every key."""
    base, theirs, ours = folder / "base", folder / "theirs", folder / "ours"
    what = f"LoRA on {architecture}"
    model = build(architecture, CONFIGS[family][0], seed_of(what))
    base.mkdir(parents=True)
    model.save_pretrained(base)
    given = inputs_for(model, 1)
    with table.case("tuner of PEFT", "lora", what, "both"):
        tuned = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=[target])).eval()
        randomise(tuned, seed_of(architecture))
        tuned.save_pretrained(theirs)
        wanted, tolerance = reference(tuned, given)
        worst, key = compare(cambium.forward(base, given, "--modules", theirs), wanted, given)
        table.numbers("tuner of PEFT", "lora", what, "PEFT wrote, Cambium ran", worst, tolerance, key)
        cambium.run("convert", theirs, ours, "--model", base)
        wanted, tolerance = reference(with_adapter(build(architecture, CONFIGS[family][0], seed_of(what)), ours), given)
        worst, key = compare(cambium.forward(base, given, "--modules", ours), wanted, given)
        table.numbers("tuner of PEFT", "lora", what, "Cambium wrote, PEFT ran", worst, tolerance, key)


def run(table, cambium, folder):
    bases = Bases(cambium, folder)
    listed = json.loads(cambium.run("list", "tuners", "--json"))["tuners"]
    tried = PEFT.keys() | LIBRARY.keys() | {spec.split(":")[0] for cases in LIBRARY.values() for _, spec in cases[0]}
    for name in sorted({tuner["name"] for tuner in listed} - OWN - tried):
        table.same("tuner", name, name, "both", "no case in tests/interop/tuners.py")
    others = ", ".join(sorted(set(peft.PeftType) - {tuner.get("peft_type") for tuner in listed}))
    table.skipped("tuner of PEFT", "others", others, "both", f"Cambium has none of {others}")
    for library, cases, read, make in (("PEFT", PEFT, read_peft, make_peft), ("adapters", LIBRARY, read_library, make_library)):
        for tuner, (trained, made) in cases.items():
            place = folder / f"{tuner}-tuner"
            place.mkdir(parents=True, exist_ok=True)
            with table.case(f"tuner of {library}", tuner, tuner, "both"):
                check_tuner(table, bases, library, read, make, tuner, trained, made, place)
    for family, name, target in BODIES:
        check_body(table, cambium, family, name, target, folder / name)
    for library in ("PEFT", "adapters"):
        for n, (family, name, spec) in enumerate(LABELLED[library]):
            check_labelled(table, bases, library, family, name, spec, folder / f"{library}-labelled{n}")
