#!/bin/sh
# Train everything in order: sh all.sh OUT [SHARE]
# OUT gets model/, lora/ and ck/ (checkpoints); SHARE scales the time (default 1; 0.001 is a smoke test).
set -eu
cd "$(dirname "$0")"
out=$1 share=${2:-1} py=${PYTHON:-python3}
t() { awk "BEGIN { print $1 * $share }"; }
n() { awk "BEGIN { n = int($1 * $share); print (n > $2 ? n : $2) }"; }
mkdir -p "$out/model" "$out/lora" "$out/ck"
m=$out/model ck=$out/ck
$py make_tokenizer.py --model "$m"
$py train_vae.py --model "$m" --ckpt "$ck/vae.pt" --cap "$(t 1080)" --scenes "$(n 6000 64)"
$py make_latents.py --model "$m" --out "$ck/latents_0.pt" --n "$(n 16000 64)" --seed 0
$py make_latents.py --model "$m" --out "$ck/latents_1.pt" --n "$(n 16000 64)" --seed 1
$py make_latents.py --model "$m" --out "$ck/outline.pt" --n "$(n 4000 64)" --seed 100 --style outline
$py train_text.py --model "$m" --out "$ck/text.pt" --cap "$(t 300)"
$py train_unet.py --model "$m" --text "$ck/text.pt" --data "$ck"/latents_?.pt --out "$ck/unet.pt" --cap "$(t 9000)"
$py export.py --ckpt "$ck/unet.pt" --model "$m"
$py train_lora.py --model "$m" --data "$ck/outline.pt" --out "$out/lora" --cap "$(t 480)"
$py eval.py --model "$m" --n "$(n 64 2)" --sheet "$out/samples.png"
