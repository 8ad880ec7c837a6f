"""The tuners that are compared: family, usual learning rate, spec."""
import json

# Of each family: what it trains parameters of, what it puts before or beside inputs, what it adds to the network's function.
PARAMETERS, INPUTS, FUNCTIONS, WHOLE = "parameters", "inputs", "functions", "whole"

# The search begins at a third, once and three times the usual rate of the tuner's kind: weights themselves, thin matrices, vectors and rows.
DENSE, THIN, VECTORS = 3e-4, 2e-3, 2e-2

ENTRANTS = [
    (WHOLE, DENSE, "full"),
    (WHOLE, DENSE, "last:2"),
    (WHOLE, THIN, "head"),
    (PARAMETERS, THIN, "lora:r=8,alpha=16"),
    (PARAMETERS, THIN, "lora:r=8,alpha=16,targets={linear}+{words}"),  # the words too: a base of an hour knows few of them
    (PARAMETERS, THIN, "lora:r=8,alpha=16,dora=true"),
    (PARAMETERS, THIN, "lora:r=8,alpha=8,init=pissa_niter_4"),
    (PARAMETERS, THIN, "adalora:r=12,target=8,alpha=16"),
    (PARAMETERS, VECTORS, "vera:r=256"),
    (PARAMETERS, THIN, "loha:r=8,alpha=16"),
    (PARAMETERS, THIN, "lokr:r=8,alpha=16"),
    (PARAMETERS, THIN, "oft:block=32"),
    (PARAMETERS, THIN, "boft:block=8"),
    (PARAMETERS, THIN, "hra:r=8"),
    (PARAMETERS, THIN, "shira:r=8"),
    (PARAMETERS, VECTORS, "fourierft:n=1000,scaling=150"),
    (PARAMETERS, THIN, "randlora:r=32"),
    (PARAMETERS, THIN, "vblora:r=4,vectors=64,length=128"),
    (PARAMETERS, THIN, "miss:r=16"),
    (PARAMETERS, THIN, "c3a:block=128"),
    (PARAMETERS, THIN, "delora:r=8"),
    (PARAMETERS, THIN, "gralora:r=8,k=2"),
    (PARAMETERS, THIN, "hira:r=8"),
    (PARAMETERS, THIN, "road:variant=road_1"),
    (PARAMETERS, THIN, "ln_tuning"),
    (PARAMETERS, THIN, "bitfit"),
    (PARAMETERS, THIN, "beft"),
    (PARAMETERS, VECTORS, "said:d=1000,targets={out}"),
    (PARAMETERS, THIN, "sft:density=0.02"),
    (PARAMETERS, DENSE, "diff"),
    (INPUTS, VECTORS, "prompt:n=8"),
    (INPUTS, THIN, "ptuning:n=8"),
    (INPUTS, VECTORS, "prefix:n=8"),
    (INPUTS, VECTORS, "prefix:n=32"),
    (INPUTS, VECTORS, "prefix:n=80"),  # about 4% of a base that is 256 wide
    (INPUTS, THIN, "prefix:n=8,projection=true"),
    (INPUTS, THIN, "ad_prefix:n=8"),
    (INPUTS, THIN, "adept:n=8,r=64"),
    (INPUTS, THIN, "adept:n=8,r=300"),  # about 4% of a base that is 256 wide
    (INPUTS, THIN, "adept:n=8,r=700"),  # of one that is 384 wide
    (FUNCTIONS, THIN, "seq_bn"),
    (FUNCTIONS, THIN, "seq_bn:reduction_factor=4"),  # the usual ones are thin where the base is
    (FUNCTIONS, THIN, "double_seq_bn"),
    (FUNCTIONS, THIN, "seq_bn_inv"),
    (FUNCTIONS, THIN, "seq_bn_inv:inv_adapter_reduction_factor=0.5"),  # a wide one sees more in the words
    (FUNCTIONS, THIN, "par_bn"),
    (FUNCTIONS, THIN, "par_bn:reduction_factor=4"),
    (FUNCTIONS, THIN, "scaled_par_bn"),
    (FUNCTIONS, THIN, "scaled_par_bn:reduction_factor=4"),
    (FUNCTIONS, THIN, "adapterplus"),
    (FUNCTIONS, THIN, "compacter"),
    (FUNCTIONS, THIN, "compacter++"),
    (FUNCTIONS, VECTORS, "ia3"),
    (FUNCTIONS, THIN, "loreft"),
    (FUNCTIONS, THIN, "noreft"),
    (FUNCTIONS, THIN, "direft"),
    (FUNCTIONS, THIN, "mam"),
    (FUNCTIONS, THIN, "unipelt"),
]

# What the families of bases call their layers.
NAMES = {
    "gpt2": {"linear": "c_attn+c_proj+c_fc", "words": "wte", "out": "attn.c_proj"},
    "modernbert": {"linear": "Wqkv+Wo+Wi", "words": "tok_embeddings", "out": "attn.Wo"},
}


def entrants(base, only=""):
    """The list for the family of a base (a model folder); only: these specs, in this order, of the family of their kind; SPEC@RATE has a rate of its own, and
    a spec may come with several."""
    with open(f"{base}/config.json", encoding="utf-8") as file:
        names = NAMES[json.load(file)["model_type"]]
    listed = [(family, rate, spec.format(**names)) for family, rate, spec in ENTRANTS]
    if not only:
        return listed
    known = {name: (family, rate) for family, rate, spec in reversed(listed) for name in (kind(spec), spec)}
    words = [word.partition("@")[::2] for word in only.split()]
    unknown = [spec for spec, _ in words if kind(spec) not in known]
    if unknown:
        raise SystemExit(f"not among the kinds of entrants.py: {', '.join(unknown)}")
    like = [(spec, rate, *known[spec if spec in known else kind(spec)]) for spec, rate in words]
    return [(family, float(rate or usual), spec) for spec, rate, family, usual in like]


def kind(spec):
    """The name that a spec begins with."""
    return spec.partition(":")[0]


def folder(spec):
    """A name for a spec's folder."""
    return "".join(c if c.isalnum() or c in "_-" else "-" for c in spec)
