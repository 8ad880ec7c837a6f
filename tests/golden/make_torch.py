"""Makes the files of tests/golden/torch as torch.save writes them, now and before PyTorch 1.6, with want.safetensors beside them: python3 make_torch.py [FOLDER]."""
import json, os, sys
import torch
from safetensors.torch import save_file

out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "torch")
os.makedirs(out, exist_ok=True)
torch.manual_seed(3)
tied = torch.randn(4, 3)
tensors = {"a.weight": torch.randn(3, 5), "half": torch.randn(7).half(), "brain": torch.randn(2, 3).bfloat16(), "cube": torch.randn(2, 3, 4),
           "ids": torch.arange(3), "none": torch.zeros(0, 3), "scalar": torch.tensor(2.5), "tied.a": tied, "tied.b": tied, "rows": tied[1:3]}
save_file({n: t.clone().contiguous() for n, t in tensors.items()}, os.path.join(out, "want.safetensors"))
# what lies in other strides than its shape says
turned = {**tensors, "a.weight": tensors["a.weight"].t().contiguous().t(), "cube": tensors["cube"].permute(2, 0, 1).contiguous().permute(1, 2, 0),
          "rows": torch.cat([tied[1:3], torch.ones(2, 2)], 1)[:, :3]}
for name, state, options in (("zip", tensors, {}), ("zip_turned", turned, {}), ("plain", tensors, {"_use_new_zipfile_serialization": False}),
                             ("plain_turned", turned, {"_use_new_zipfile_serialization": False})):
    torch.save(state, os.path.join(out, name + ".bin"), **options)
# shards, each of a kind
folder = os.path.join(out, "sharded")
os.makedirs(folder, exist_ok=True)
files = {}
for i, name in enumerate(tensors):
    files.setdefault("pytorch_model-0000%d-of-00002.bin" % (1 + i % 2), {})[name] = tensors[name]
for i, (file, state) in enumerate(sorted(files.items())):
    torch.save(state, os.path.join(folder, file), _use_new_zipfile_serialization=i == 0)
index = {"metadata": {}, "weight_map": {n: file for file, state in files.items() for n in state}}
with open(os.path.join(folder, "pytorch_model.bin.index.json"), "w") as f:
    json.dump(index, f)
