"""Model families: folders that Transformers wrote read by Cambium, and the other way, for every family and class of `cambium list models`."""

import json
import pathlib

import numpy as np
import torch
import transformers

from .table import difference

KIND = "model"
TOLERANCE = 2e-5
VOCAB = 179

# ---- configurations: the first of each family has its usual features, the others turn what can be turned
DECODER = dict(
    vocab_size=VOCAB, hidden_size=48, intermediate_size=100, num_hidden_layers=3, num_attention_heads=6,
    num_key_value_heads=2, max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)  # fmt: skip
ENCODER = dict(
    vocab_size=VOCAB, hidden_size=40, intermediate_size=72, num_hidden_layers=3, num_attention_heads=5,
    max_position_embeddings=64, pad_token_id=0,
)  # fmt: skip
BART = dict(
    vocab_size=VOCAB, d_model=32, encoder_layers=2, decoder_layers=3, encoder_attention_heads=4, decoder_attention_heads=2,
    encoder_ffn_dim=56, decoder_ffn_dim=72, max_position_embeddings=64, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    decoder_start_token_id=2, forced_eos_token_id=None,
)  # fmt: skip
T5 = dict(
    vocab_size=VOCAB, d_model=32, d_kv=12, d_ff=60, num_layers=3, num_decoder_layers=2, num_heads=4,
    relative_attention_num_buckets=10, relative_attention_max_distance=24, pad_token_id=0, eos_token_id=1,
    decoder_start_token_id=0,
)  # fmt: skip
GPT2 = dict(vocab_size=VOCAB, n_embd=48, n_layer=3, n_head=4, n_positions=64, pad_token_id=0, bos_token_id=1, eos_token_id=2)
SPECIAL = dict(bos_token_id=1, cls_token_id=1, eos_token_id=2, sep_token_id=2)
WINDOWS = ["full_attention", "sliding_attention", "full_attention"]
EXPERTS = dict(num_experts=6, num_experts_per_tok=3, moe_intermediate_size=40, output_router_logits=True)

CONFIGS = {
    "gpt2": [
        GPT2,
        GPT2 | dict(n_inner=84, activation_function="relu", scale_attn_by_inverse_layer_idx=True, tie_word_embeddings=False),
        GPT2 | dict(activation_function="gelu", scale_attn_weights=False, layer_norm_epsilon=1e-3),
    ],
    "llama": [
        DECODER,
        DECODER | dict(attention_bias=True, mlp_bias=True, tie_word_embeddings=True, head_dim=20, rms_norm_eps=1e-4),
        DECODER | dict(num_key_value_heads=6, rope_scaling={"rope_type": "linear", "factor": 3.0}, rope_theta=5000.0),
        DECODER | dict(rope_scaling={
            "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0,
            "original_max_position_embeddings": 32}),
        DECODER | dict(rope_scaling={
            "rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64, "beta_fast": 24.0}),
        DECODER | dict(max_position_embeddings=8, rope_scaling={"rope_type": "dynamic", "factor": 2.0}),
    ],
    "mistral": [DECODER | dict(sliding_window=5), DECODER | dict(sliding_window=None, head_dim=16, tie_word_embeddings=True)],
    "qwen2": [
        DECODER,
        DECODER | dict(use_sliding_window=True, sliding_window=4, max_window_layers=1, tie_word_embeddings=True),
        DECODER | dict(use_sliding_window=True, sliding_window=6, layer_types=WINDOWS),
    ],
    "qwen3": [
        DECODER | dict(head_dim=12),
        DECODER | dict(head_dim=8, attention_bias=True, tie_word_embeddings=True, use_sliding_window=True, sliding_window=3,
                       layer_types=WINDOWS),
    ],
    "gemma": [DECODER | dict(head_dim=16, num_key_value_heads=1), DECODER | dict(head_dim=8, rope_theta=1e5)],
    "gemma2": [
        DECODER | dict(head_dim=12, sliding_window=5, query_pre_attn_scalar=20, attn_logit_softcapping=3.0,
                       final_logit_softcapping=4.0),
        DECODER | dict(head_dim=8, sliding_window=7, attn_logit_softcapping=None, final_logit_softcapping=None),
    ],
    "gemma3_text": [
        DECODER | dict(head_dim=12, sliding_window=5, query_pre_attn_scalar=30, layer_types=WINDOWS),
        DECODER | dict(head_dim=8, sliding_window=4, num_hidden_layers=7, rope_local_base_freq=500.0,
                       rope_scaling={"rope_type": "linear", "factor": 4.0}),
    ],
    "phi3": [
        DECODER | dict(sliding_window=6),
        DECODER | dict(original_max_position_embeddings=8, partial_rotary_factor=1.0, sliding_window=None, rope_scaling={
            "type": "longrope", "short_factor": [1.0, 1.2, 1.5, 2.0], "long_factor": [1.5, 2.5, 4.0, 8.0]}),
        DECODER | dict(partial_rotary_factor=0.5, sliding_window=None, tie_word_embeddings=True),
    ],
    "smollm3": [DECODER, DECODER | dict(no_rope_layers=[1, 0, 1], tie_word_embeddings=False, attention_bias=True)],
    "olmo2": [DECODER, DECODER | dict(num_key_value_heads=6, attention_bias=True, tie_word_embeddings=True)],
    "gpt_neox": [
        DECODER | dict(rotary_pct=0.5),
        DECODER | dict(use_parallel_residual=False, rotary_pct=1.0, attention_bias=False, hidden_act="gelu_new",
                       tie_word_embeddings=True),
    ],
    "opt": [
        DECODER | dict(ffn_dim=88, word_embed_proj_dim=48, pad_token_id=1),
        DECODER | dict(ffn_dim=60, word_embed_proj_dim=24, do_layer_norm_before=False, pad_token_id=1),
        DECODER | dict(ffn_dim=64, word_embed_proj_dim=48, pad_token_id=1, activation_function="gelu", enable_bias=False,
                       tie_word_embeddings=False),
    ],
    "bloom": [
        dict(vocab_size=VOCAB, hidden_size=40, n_layer=3, n_head=5, pad_token_id=3, bos_token_id=1, eos_token_id=2),
        dict(vocab_size=VOCAB, hidden_size=32, n_layer=2, n_head=8, pad_token_id=3, bos_token_id=1, eos_token_id=2,
             apply_residual_connection_post_layernorm=True, layer_norm_epsilon=1e-3),
    ],
    "mixtral": [
        DECODER | dict(num_local_experts=5, num_experts_per_tok=2, output_router_logits=True, sliding_window=None),
        DECODER | dict(num_local_experts=4, num_experts_per_tok=3, output_router_logits=True, sliding_window=5,
                       tie_word_embeddings=True),
    ],
    "qwen2_moe": [
        DECODER | EXPERTS | dict(shared_expert_intermediate_size=52, norm_topk_prob=False),
        DECODER | EXPERTS | dict(shared_expert_intermediate_size=36, norm_topk_prob=True, mlp_only_layers=[1], num_experts_per_tok=2),
    ],
    "qwen3_moe": [
        DECODER | EXPERTS | dict(head_dim=12, norm_topk_prob=True),
        DECODER | EXPERTS | dict(head_dim=8, norm_topk_prob=False, decoder_sparse_step=2, tie_word_embeddings=True),
    ],
    "bert": [
        ENCODER,
        ENCODER | dict(type_vocab_size=3, hidden_act="relu", layer_norm_eps=1e-5),
        ENCODER | dict(hidden_act="gelu_new", num_attention_heads=8, tie_word_embeddings=False),
    ],
    "roberta": [ENCODER | dict(pad_token_id=1), ENCODER | dict(pad_token_id=1, type_vocab_size=1, num_attention_heads=4)],
    "camembert": [ENCODER | dict(pad_token_id=1, type_vocab_size=1), ENCODER | dict(pad_token_id=1, layer_norm_eps=1e-5)],
    "xlm-roberta": [ENCODER | dict(pad_token_id=1, type_vocab_size=1), ENCODER | dict(pad_token_id=1, hidden_act="gelu_new")],
    "distilbert": [
        dict(vocab_size=VOCAB, dim=40, hidden_dim=72, n_layers=3, n_heads=5, max_position_embeddings=64, pad_token_id=0),
        dict(vocab_size=VOCAB, dim=24, hidden_dim=60, n_layers=2, n_heads=4, max_position_embeddings=64, pad_token_id=0,
             activation="relu"),
    ],
    "electra": [ENCODER | dict(embedding_size=24), ENCODER | dict(embedding_size=40, hidden_act="relu", summary_activation="gelu")],
    "albert": [
        ENCODER | dict(embedding_size=16),
        ENCODER | dict(embedding_size=20, num_hidden_layers=4, num_hidden_groups=2, inner_group_num=1, hidden_act="gelu"),
    ],
    "deberta": [
        ENCODER | dict(relative_attention=True, pos_att_type="c2p|p2c", position_biased_input=False, max_relative_positions=-1),
        ENCODER | dict(relative_attention=True, pos_att_type=["p2c"], max_relative_positions=6, type_vocab_size=2),
        ENCODER | dict(relative_attention=False, hidden_act="gelu_new"),
    ],
    "deberta-v2": [
        ENCODER | dict(relative_attention=True, position_buckets=8, pos_att_type=["p2c", "c2p"], norm_rel_ebd="layer_norm",
                       share_att_key=True, type_vocab_size=0, position_biased_input=False, max_relative_positions=-1),
        ENCODER | dict(relative_attention=True, pos_att_type=["c2p"], conv_kernel_size=3, conv_act="gelu", type_vocab_size=2,
                       position_biased_input=True, share_att_key=False),
        ENCODER | dict(relative_attention=False, type_vocab_size=2),
    ],
    "modernbert": [
        ENCODER | SPECIAL | dict(local_attention=6, global_attn_every_n_layers=2),
        ENCODER | SPECIAL | dict(local_attention=10, global_attn_every_n_layers=3, attention_bias=True, mlp_bias=True, norm_bias=True,
                       classifier_pooling="mean", num_attention_heads=4),
    ],
    "t5": [T5, T5 | dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False), T5 | dict(num_decoder_layers=4, d_kv=8)],
    "mt5": [T5 | dict(tie_word_embeddings=False), T5 | dict(feed_forward_proj="relu", tie_word_embeddings=False)],
    "bart": [BART, BART | dict(scale_embedding=True, activation_function="relu"), BART | dict(activation_function="gelu_new")],
    "mbart": [BART, BART | dict(scale_embedding=True, activation_function="relu")],
    "marian": [
        BART | dict(activation_function="swish", scale_embedding=True, pad_token_id=178, decoder_start_token_id=178, eos_token_id=0,
                    bos_token_id=3, decoder_vocab_size=VOCAB),
        BART | dict(share_encoder_decoder_embeddings=True, decoder_vocab_size=VOCAB),
    ],
    "m2m_100": [BART | dict(scale_embedding=True), BART | dict(activation_function="gelu")],
}  # fmt: skip


ANY_BASE = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice")


def seed_of(text):
    """A seed that depends on the name alone."""
    return int.from_bytes(text.encode()[-8:].rjust(8, b"\1"), "big") % (2**31)


def randomise(model, seed):
    """Weights of a size at which every part of the model has a say: norms near one, biases that are not zero."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if not p.requires_grad:  # tables that are computed, not stored
                continue
            noise = torch.randn(p.shape, generator=draw)
            if p.ndim < 2:
                kept = p if torch.all(p == 1) else torch.zeros_like(p)
                p.copy_(kept + 0.2 * noise)
            elif "embed" in name or "wte" in name or "wpe" in name or "shared" in name:
                p.copy_(0.5 * noise)
            else:
                p.copy_(noise * (1.5 / max(p.shape[-1], 1) ** 0.5))
    return model.eval()


def build(architecture, options, seed):
    model_class = getattr(transformers, architecture)
    config = model_class.config_class(**options)
    config._attn_implementation = "eager"
    if config.model_type == "modernbert":
        config.reference_compile = False
    torch.manual_seed(seed)
    return randomise(model_class(config), seed)


def load(path, architecture, **options):
    """The folder as Transformers reads it, in float64: every weight must be there, none left over."""
    model_class = getattr(transformers, architecture)
    model, told = model_class.from_pretrained(
        path, output_loading_info=True, attn_implementation="eager", dtype=torch.float32, **options
    )
    wrong = {key: sorted(map(str, names)) for key, names in told.items() if names}
    if wrong:
        raise RuntimeError(f"Transformers found {wrong}")
    return model.eval().double()


def inputs_for(model, seed):
    """Two padded rows of ids with all that the class learns from, as numpy arrays."""
    rng, config = np.random.default_rng(seed), model.config
    name, rows, length = type(model).__name__, 2, 13
    shape = (rows, 3, length) if "MultipleChoice" in name else (rows, length)
    ids = rng.integers(4, VOCAB - 2, shape)
    mask = np.ones(shape, np.int64)
    mask[-1, ..., length - 2 :] = 0  # fewer than any window, so that every row sees a key
    pad = config.pad_token_id or 0
    ids = np.where(mask == 1, ids, pad)
    given = {"input_ids": ids, "attention_mask": mask}
    if getattr(config, "type_vocab_size", 0) and config.model_type not in ("roberta", "xlm-roberta", "camembert"):
        given["token_type_ids"] = rng.integers(0, config.type_vocab_size, shape) * mask
    if "QuestionAnswering" in name:
        given["start_positions"] = rng.integers(0, 4, rows)
        given["end_positions"] = rng.integers(4, 9, rows)
    elif "SequenceClassification" in name:
        if config.is_encoder_decoder:  # these read at the last end-of-text token, one a row
            ids[0, -1] = ids[1, length - 3] = config.eos_token_id
        given["labels"] = rng.integers(0, config.num_labels, rows)
    elif "MultipleChoice" in name:
        given["labels"] = rng.integers(0, 3, rows)
    elif "NextSentence" in name:
        given["labels"] = rng.integers(0, 2, rows)
    elif config.is_encoder_decoder:
        given["labels"] = np.where(rng.random((rows, 9)) < 0.1, -100, rng.integers(4, VOCAB - 2, (rows, 9)))
    elif name.endswith("Model") and "LMHead" not in name:
        pass
    else:
        most = 2 if name == "ElectraForPreTraining" else config.num_labels if "Token" in name else VOCAB
        labels = rng.integers(0, most, shape)
        given["labels"] = labels if name == "ElectraForPreTraining" else np.where(mask == 1, labels, -100)
        if name == "BertForPreTraining":
            given["next_sentence_label"] = rng.integers(0, 2, rows)
        if name == "AlbertForPreTraining":
            given["sentence_order_label"] = rng.integers(0, 2, rows)
    return {key: np.ascontiguousarray(value, np.int64) for key, value in given.items()}


COMPARED = (
    "logits", "start_logits", "end_logits", "prediction_logits", "seq_relationship_logits", "sop_logits", "last_hidden_state",
    "pooler_output", "loss",
)  # fmt: skip


def outputs(model, given):
    """What Transformers makes of the inputs, in the numbers of the model (float64)."""
    with torch.no_grad():
        made = model(**{key: torch.from_numpy(value) for key, value in given.items()})
    return {key: made[key].double().numpy() for key in COMPARED if key in made and made[key] is not None}


def compare(got, wanted, given):
    """The largest difference over all outputs, padding left out, and the name of the output."""
    mask, worst = given["attention_mask"], (0.0, "")
    for key, value in wanted.items():
        if key not in got:
            raise RuntimeError(f"no {key}; found {sorted(got)}")
        where = mask == 1 if value.ndim >= 2 and value.shape[: mask.ndim] == mask.shape else None
        worst = max(worst, (difference(got[key], value, where), key))
    return worst


def greedy(model, prompt, n):
    """The greedy continuation by whole passes, and the smallest lead of a chosen id."""
    ids, lead = list(prompt), np.inf
    source = torch.tensor([prompt]) if model.config.is_encoder_decoder else None
    if source is not None:
        ids = [model.config.decoder_start_token_id]
    begin = len(ids)
    for _ in range(n):
        row = torch.tensor([ids])
        with torch.no_grad():
            made = model(input_ids=source, decoder_input_ids=row) if source is not None else model(input_ids=row, use_cache=False)
        best = made.logits[0, -1].topk(2)
        lead = min(lead, float(best.values[0] - best.values[1]))
        ids.append(int(best.indices[0]))
    return ids[begin:], lead


def same_files(a, b):
    """The name of the first file that two folders do not have alike, or nothing."""
    names = {p.name for p in pathlib.Path(a).iterdir()} | {p.name for p in pathlib.Path(b).iterdir()}
    for name in sorted(names - {"run.json"}):  # the options of each call
        x, y = pathlib.Path(a, name), pathlib.Path(b, name)
        if not x.exists() or not y.exists() or x.read_bytes() != y.read_bytes():
            return name
    return ""


def generates(architecture):
    return architecture.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "MTModel"))


def check_case(table, cambium, folder, family, architecture, options, what):
    """One class and configuration, both ways."""
    seed = seed_of(what)
    theirs, again, third, ours = (folder / name for name in ("theirs", "again", "third", "ours"))
    model = build(architecture, options, seed)
    model.save_pretrained(theirs)
    given = inputs_for(model, seed + 1)
    single = outputs(model, given)
    model = model.double()
    wanted = outputs(model, given)
    # ten times what single precision does to the library itself, where that is more
    tolerance = max(TOLERANCE, 10 * compare(single, wanted, given)[0])

    with table.case(KIND, family, what, "Transformers wrote, Cambium ran"):
        worst, key = compare(cambium.forward(theirs, given), wanted, given)
        table.numbers(KIND, family, what, "Transformers wrote, Cambium ran", worst, tolerance, key)

    with table.case(KIND, family, what, "Cambium wrote again, Transformers ran"):
        cambium.run("convert", theirs, again)
        cambium.run("convert", again, third)
        wrong = same_files(again, third)
        worst, key = compare(outputs(load(again, architecture), given), wanted, given)
        table.numbers(KIND, family, what, "Cambium wrote again, Transformers ran", worst, 0, key)
        first = same_files(theirs, again)
        if first not in ("", "config.json", "generation_config.json"):
            wrong = wrong or f"{first} is not as Transformers wrote it"
        table.same(KIND, family, f"{what}: load, save, load, save", "bytes", wrong and f"other bytes: {wrong}")

    with table.case(KIND, family, what, "Cambium made, Transformers ran"):
        cambium.run("init", "--from", theirs / "config.json", "--out", ours, "--seed", seed % 1000)
        made = load(ours, architecture)
        reference = outputs(made, given)
        tolerance = max(TOLERANCE, 10 * compare(outputs(made.float(), given), reference, given)[0])
        worst, key = compare(cambium.forward(ours, given), reference, given)
        table.numbers(KIND, family, what, "Cambium made, Transformers ran", worst, tolerance, key)

    if generates(architecture):
        with table.case(KIND, family, f"{what}: greedy ids", "both"):
            prompt = given["input_ids"][0, :5].tolist()
            ids, lead = greedy(model, prompt, 12)
            got = cambium.greedy(theirs, prompt, 12)
            wrong = "" if got == ids else f"{got}, wanted {ids} (smallest lead {lead:.1e})"
            table.same(KIND, family, f"{what}: greedy ids", "both", wrong)


def families(cambium):
    return json.loads(cambium.run("list", "models", "--json"))["models"]


def run(table, cambium, folder):
    for family in families(cambium):
        name = family["name"]
        configs = CONFIGS.get(name)
        if not configs:
            table.same(KIND, name, name, "both", "no configuration in tests/interop/models.py")
            continue
        # the first class with every configuration, each other class with one of them
        cases = [(family["architectures"][0], i) for i in range(len(configs))]
        cases += [(architecture, i % len(configs)) for i, architecture in enumerate(family["architectures"][1:], 1)]
        # heads that any base takes here, and Transformers gives to some families
        lacking = [a for a in family["architectures"][1:] if a.endswith(ANY_BASE) and not hasattr(transformers, a)]
        for architecture in lacking:
            table.skipped(KIND, name, architecture, "both", "Transformers has no such class")
        cases = [case for case in cases if case[0] not in lacking]
        for architecture, i in cases:
            what = f"{architecture} {i + 1}"
            options = configs[i] | (dict(num_labels=4) if "Classification" in architecture else {})
            with table.case(KIND, name, what, "both"):
                check_case(table, cambium, folder / f"{architecture}_{i}", name, architecture, options, what)
