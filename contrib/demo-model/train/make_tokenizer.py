"""1. Learn a byte-level BPE from the words of the grammar, in CLIP's file format.

Ids, as in CLIP: 256 byte symbols, the same with "</w>", one per merge, <|startoftext|>,
<|endoftext|>. Merging goes on until each word is one token; any other text falls back to
bytes, so every string has ids.

    python make_tokenizer.py --model ../model
"""
import argparse
import json
from collections import Counter
from pathlib import Path

from transformers import CLIPTokenizer
from transformers.models.clip.tokenization_clip import bytes_to_unicode

import render

# Likely words outside the grammar: nothing is learned about them, but they stay short.
EXTRA = ["colour", "color", "shape", "the", "in", "under", "over", "gray", "brown", "two",
         "style", "outline", "filled"]


def join(symbols, pair):
    """`symbols` with each occurrence of `pair` made one symbol."""
    out = []
    for s in symbols:
        if out and (out[-1], s) == pair:
            out[-1] += s
        else:
            out.append(s)
    return out


def learn_merges(words):
    """The most frequent pair first; a tie goes to the alphabetically first pair."""
    split = [list(w[:-1]) + [w[-1] + "</w>"] for w in words]
    merges = []
    while True:
        pairs = Counter(pair for s in split for pair in zip(s, s[1:]))
        if not pairs:
            return merges
        merges.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
        split = [join(s, merges[-1]) for s in split]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--model", required=True)
    out = Path(ap.parse_args().model) / "tokenizer"
    out.mkdir(parents=True, exist_ok=True)
    grammar = render.caption_words()
    merges = learn_merges(sorted({w for w in grammar + EXTRA if w.isalpha()}))
    symbols = list(bytes_to_unicode().values())
    vocab = symbols + [s + "</w>" for s in symbols] + [a + b for a, b in merges]
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    assert len(vocab) == len(set(vocab))
    (out / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(vocab)},
                                               ensure_ascii=False), encoding="utf-8")
    (out / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges),
                                    encoding="utf-8")
    tokenizer = CLIPTokenizer(str(out / "vocab.json"), str(out / "merges.txt"),
                              unk_token="<|endoftext|>", pad_token="<|endoftext|>",
                              model_max_length=77)
    tokenizer.save_pretrained(out)
    for word in grammar:
        assert len(tokenizer(word).input_ids) == 3, f"{word!r} is not one token"
    print(f"{len(vocab)} tokens, {len(merges)} merges")


if __name__ == "__main__":
    main()
