#!/usr/bin/env bash
# What is to be measured on one GPU of 80 GB, about 25 minutes: step costs at Qwen3-0.6B and 1.7B shapes (random weights, bfloat16,
# completions of up to 4,096 tokens) and a Countdown run from scratch at ten times the bundled model's size.
# Not run on a GPU yet. On a CPU, SMOKE=1 runs the same commands on sizes of nothing, to see that they work.
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-runs/gpu}
mkdir -p "$OUT"
device=cuda steps=(--steps 6000 1500) changes='{}' train=(--training.steps 60) eval=() rounds=3
if [ -n "${SMOKE:-}" ]; then
  device=cpu steps=(--steps 2 2) train=(--training.steps 2 --data.limit 64)
  eval=(--limit 2 --num_samples 4) rounds=1
  changes='{"shape": {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 2048}, "longest": 64, "shortest": 16, "prompt": 16, "reference": 32}'
fi
for shape in qwen3-0.6b qwen3-1.7b; do
  python benchmarks/step_cost.py "$shape" --rounds "$rounds" --changes "$changes" --output "$OUT/step-cost.json"
done
python -m dasd.assets.build countdown --hidden-size 384 --layers 5 --device "$device" "${steps[@]}" --output "$OUT/base"
evaluate() { python -m dasd eval "$1" --benchmarks 'countdown/*' --output "$OUT/$2-eval" "${eval[@]}"; }
evaluate "$OUT/base" base
for method in grpo dasd; do
  python -m dasd train "recipes/countdown/$method.yaml" --model.path "$OUT/base" --output "$OUT/$method" "${train[@]}"
  evaluate "$OUT/$method/checkpoints/final" "$method"
  python -m dasd compare "$OUT/base-eval" "$OUT/$method-eval" --output "$OUT/$method-compare"
done
