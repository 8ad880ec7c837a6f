#!/bin/sh
# Modules that begin by data or by what quantising loses, trained by the command: what is saved, that a run which was stopped goes on as the same one,
# memory that the plan counts.
set -eu
# shellcheck source=tests/cli/common.sh
. "$(dirname "$0")/common.sh"
right init --family llama --set hidden_size=32,intermediate_size=64,num_hidden_layers=2,num_attention_heads=4,num_key_value_heads=2 --tokenizer tok --out m
finetune() { # OUT TUNER OPTION...
    to=$1 tuner=$2
    shift 2
    right finetune m --tuner "$tuner" --text text --out "$to" --steps 6 --batch 2 --seq 16 --save-every 2 --quiet "$@"
}

# ---- CorDA: the part that is taken off the weight is in no checkpoint, and found again
for method in ipm kpm; do
    finetune one-$method lora:r=2,alpha=4,init=corda,corda=$method
    "$cambium" finetune m --tuner lora:r=2,alpha=4,init=corda,corda=$method --text text --out two-$method --steps 6 --batch 2 --seq 16 --save-every 2 \
        --stop-after 2 --quiet >out 2>err </dev/null && say "--stop-after ended with 0"
    finetune two-$method lora:r=2,alpha=4,init=corda,corda=$method --resume
    cmp one-$method/adapter_model.safetensors two-$method/adapter_model.safetensors || say "$method: 2 + 4 steps differ from 6"
    # plain LoRA of twice the rank
    grep -q '"r": 4' one-$method/adapter_config.json || say "$method: $(cat one-$method/adapter_config.json)"
    right eval m --modules one-$method --text text
done
cmp -s one-ipm/adapter_model.safetensors one-kpm/adapter_model.safetensors && say "ipm and kpm are the same"

# ---- LoftQ: the file has A and B, and says what Q was
finetune loftq lora:r=2,alpha=4,init=loftq,iterations=2,blocks=q4_0
for word in '"loftq_type": "q4_0"' '"loftq_iter": 2' '"init_lora_weights": "loftq"'; do
    grep -qF "$word" loftq/adapter_config.json || say "loftq: no $word"
done
right eval m --modules loftq --text text
right merge m --modules loftq --out merged

# ---- MTL-LoRA: a task's module is trained alone, and both are used by rows
finetune a mtl_lora:r=2,ups=2,name=a
finetune b mtl_lora:r=2,ups=2,name=b,matrix=linear
grep -qF '"architecture": "mtl_lora"' a/adapter_config.json || say "mtl_lora: $(cat a/adapter_config.json)"
right eval m --modules 'multitask(a, b)' --field task_ids=1 --text text
right merge m --modules b --out merged_b
# trained together, tasks have A and B in common: fewer numbers than two modules have, and each works alone as in the whole
trainable() { sed 's/.*"trainable": \([0-9]*\).*/\1/' out; }
head -n 150 text >one.txt
tail -n 150 text >two.txt
right plan finetune m --tuner mtl_lora:r=2,ups=2 --text text --out x --steps 4 --batch 4 --seq 16 --json
alone=$(trainable)
together="finetune m --tuner mtl_lora:r=2,ups=2 --dataset one=one.txt --dataset two=two.txt --module-per-dataset --steps 4 --batch 4 --seq 16"
# shellcheck disable=SC2086
right plan $together --out x --json
[ "$(trainable)" -lt $((2 * alone)) ] || say "mtl_lora: nothing is shared, $(trainable) of 2 x $alone"
# shellcheck disable=SC2086
right $together --out both --save-every 2 --quiet
right eval m --modules both --field task_ids=two --text two.txt
right eval m --modules both/two --text two.txt

# ---- AdaLoRA keeps two numbers for each that is trained, beside the optimiser's two: the plan counts them
right plan finetune m --tuner adalora:r=4,tinit=1,tfinal=1 --text text --out x --steps 6 --batch 2 --seq 16 --json
bytes=$(sed 's/.*"optimizer": \([0-9]*\).*/\1/' out)
trainable=$(sed 's/.*"trainable": \([0-9]*\).*/\1/' out)
[ "$bytes" -ge $((16 * trainable)) ] || say "adalora: $bytes bytes of states for $trainable parameters"
exit $failed
