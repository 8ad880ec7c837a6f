"""Runs all comparisons and writes the table: python -m interop.run --cambium build/cambium --out build/interop.md"""

import argparse
import importlib
import os
import pathlib
import shutil
import sys
import tempfile

KINDS = ("models", "adapters", "tuners", "tokenizers", "gguf", "llamacpp")


def versions():
    from importlib.metadata import PackageNotFoundError, version

    told = [f"Python {sys.version.split()[0]}"]
    for name in ("torch", "transformers", "peft", "adapters", "tokenizers", "safetensors", "sentencepiece", "tiktoken", "gguf", "llama-cpp-python"):
        try:
            told.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(told)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cambium", required=True, help="the command")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the table of all cases")
    parser.add_argument("--docs", type=pathlib.Path, help="a page whose section of results is written anew")
    parser.add_argument("--only", help=f"some of {','.join(KINDS)}")
    parser.add_argument("--keep", type=pathlib.Path, help="a folder for the files of all cases (default: removed)")
    parser.add_argument("--quiet", action="store_true", help="print what failed alone")
    a = parser.parse_args()
    os.environ.update(TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")

    from .cambium import Cambium
    from .table import Table, update_section

    import torch

    torch.set_num_threads(1)
    table, cambium = Table(a.quiet), Cambium(a.cambium)
    folder = a.keep or pathlib.Path(tempfile.mkdtemp(prefix="interop"))
    try:
        for kind in a.only.split(",") if a.only else KINDS:
            place = folder / kind
            place.mkdir(parents=True, exist_ok=True)
            importlib.import_module(f".{kind}", __package__).run(table, cambium, place)
    finally:
        if not a.keep:
            shutil.rmtree(folder)
    a.out.parent.mkdir(parents=True, exist_ok=True)
    head = f"With {versions()}. Differences are the largest over all outputs, as parts of the root mean square of the reference.\n\n"
    a.out.write_text("# What Cambium and the Python libraries make of each other's files\n\n" + head + table.whole())
    if a.docs:
        update_section(a.docs, "## Checked against the libraries\n`make interop` runs these comparisons. " + head, table.short())
    passed, failed = table.count()
    print(f"{a.out}: {len(table.rows)} rows")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
