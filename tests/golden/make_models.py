"""Makes the small models of tests/golden/models and their outputs with Transformers: python3 make_models.py [FOLDER]. Each folder is laid out as in
Transformers, with golden.safetensors (inputs, outputs, gradients) and golden.json (which is which); activations.safetensors holds x, then what each makes of it."""
import json, os, shutil, sys
import torch, transformers
from safetensors.torch import save_file
from transformers.activations import ACT2FN

out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "models")
SIZES = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12, max_position_embeddings=11, vocab_size=13,
             embedding_size=6, type_vocab_size=2, bos_token_id=1, eos_token_id=2)


def make(name, title, head, labels_padding=False, **changes):
    torch.manual_seed(7)
    transformers.set_seed(7)
    config = getattr(transformers, title + "Config")(**{**SIZES, **changes})
    model = getattr(transformers, title + head)._from_config(config, attn_implementation="eager").eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)
    model.tie_weights()
    folder = os.path.join(out, name)
    os.makedirs(folder, exist_ok=True)
    model.save_pretrained(folder)
    for old in ("generation_config.json",):
        if os.path.exists(os.path.join(folder, old)):
            os.remove(os.path.join(folder, old))
    is_choice = head == "ForMultipleChoice"  # three candidates a row
    shape, hidden = ((2, 3, 7), (..., 1, slice(0, 2))) if is_choice else ((2, 7), (1, slice(5, 7)))
    inputs = {"input_ids": torch.randint(4, SIZES["vocab_size"], shape), "attention_mask": torch.ones(shape, dtype=torch.long)}
    if title != "ModernBert":
        inputs["token_type_ids"] = torch.randint(0, 2, shape)
    inputs["input_ids"][hidden] = config.pad_token_id
    inputs["attention_mask"][hidden] = 0
    inputs["labels"] = torch.where(inputs["attention_mask"] == 1, torch.randint(0, SIZES["vocab_size"], shape), -100)
    if labels_padding:  # so that rows that see no token have a gradient
        inputs["labels"] = torch.randint(0, SIZES["vocab_size"], shape)
    if is_choice:
        inputs["labels"] = torch.tensor([2, 0])
    if not labels_padding:  # there the double's lowest number would become -infinity in a softmax of floats
        model = model.double()
    y = model(**inputs, output_hidden_states=True)
    y.loss.backward()
    tensors = {**inputs, "loss": y.loss, "logits": y.logits, **{f"hidden.{i}": h for i, h in enumerate(y.hidden_states)}}
    tensors.update({"grad." + n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    tensors = {n: t.detach().float().contiguous().clone() if t.is_floating_point() else t for n, t in tensors.items()}
    save_file(tensors, os.path.join(folder, "golden.safetensors"))
    masked = [] if is_choice else ["logits"] + [n for n in tensors if n.startswith("hidden.")]
    with open(os.path.join(folder, "golden.json"), "w") as f:
        json.dump({"inputs": list(inputs), "outputs": ["loss", "logits"], "compare_where_mask_is_1": masked,
                   "transformers": transformers.__version__}, f, indent=1)


make("bert_relative_key", "Bert", "ForMaskedLM", position_embedding_type="relative_key", hidden_act="mish")
make("bert_relative_key_query", "Bert", "ForMaskedLM", position_embedding_type="relative_key_query", hidden_act="relu2")
make("roberta_relative_key_query", "Roberta", "ForMaskedLM", position_embedding_type="relative_key_query", pad_token_id=1, bos_token_id=0)
make("electra_relative_key", "Electra", "ForMaskedLM", position_embedding_type="relative_key", hidden_act="laplace")
make("albert_relative_key_query", "Albert", "ForMaskedLM", position_embedding_type="relative_key_query", num_hidden_layers=2, pad_token_id=0,
     hidden_act="gelu_10")
make("electra_choice_mean", "Electra", "ForMultipleChoice", summary_type="mean", summary_activation="tanh", pad_token_id=0)
make("electra_choice_last", "Electra", "ForMultipleChoice", summary_type="last", summary_activation=None, summary_use_proj=False,
     pad_token_id=0)
make("modernbert_choice_padded_left", "ModernBert", "ForMultipleChoice", classifier_pooling="cls", local_attention=64, pad_token_id=0,
     cls_token_id=1, sep_token_id=2)
make("modernbert_blind_rows", "ModernBert", "ForMaskedLM", labels_padding=True, num_hidden_layers=2, global_attn_every_n_layers=2,
     local_attention=2, pad_token_id=0, cls_token_id=1, sep_token_id=2)
make("deberta_v2_unread_norm", "DebertaV2", "ForMaskedLM", relative_attention=False, norm_rel_ebd="layer_norm", embedding_size=8,
     pad_token_id=0)
make("deberta_v2_own_head", "DebertaV2", "ForMaskedLM", legacy=False, tie_word_embeddings=False, embedding_size=8, relative_attention=True,
     pos_att_type=["c2p", "p2c"], position_buckets=4, share_att_key=True, pad_token_id=0)

# the first one's weights in the files of torch.save, as folders had them before safetensors
first = os.path.join(out, "bert_relative_key")
state = transformers.BertForMaskedLM.from_pretrained(first).state_dict()
for name, is_zip in (("bert_pytorch", True), ("bert_pytorch_old", False)):
    os.makedirs(os.path.join(out, name), exist_ok=True)
    shutil.copy(os.path.join(first, "config.json"), os.path.join(out, name))
    torch.save(state, os.path.join(out, name, "pytorch_model.bin"), _use_new_zipfile_serialization=is_zip)

x = torch.cat([torch.linspace(-12, 12, 65), torch.tensor([0.0, 6.0, 10.5, 20.0])])
tensors = {"x": x}
for name in sorted(ACT2FN):
    if name in ("prelu", "xielu"):  # these have weights
        continue
    at = x.double().requires_grad_()
    y = ACT2FN[name](at)
    tensors["y." + name] = y.detach().float()
save_file(tensors, os.path.join(out, "activations.safetensors"))
