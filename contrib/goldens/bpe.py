"""A small byte-level BPE in CLIP's file format, learned from a multilingual text."""
import json
from collections import Counter
from pathlib import Path

import regex
from transformers.models.clip.tokenization_clip import bytes_to_unicode

WORDS = regex.compile(r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")

# Lower case and NFC, as the tokenizer will see it. Frequent words stand several times.
TEXT = """
a photo of a cat on the table. a painting of a red house by the sea, highly detailed, 4k.
the old man and the young woman are walking in the rain, oil on canvas, trending.
an astronaut riding a horse on the moon; best quality, masterpiece, (sharp focus:1.2), [blurry].
it's the cat's toy, don't you think? we're sure they'll come, i've seen it, i'm here, he'd go.
a castle in the mountains at sunset... a castle in the clouds!! lowres, bad anatomy, bad hands --
portrait of a beautiful girl with blue eyes and long hair, cinematic light, watercolor, sketch.
größe, schöne grüße aus köln: das mädchen heißt jürgen müller, die straße ist weiß und süß.
ein großes haus, eine schöne straße, über den wolken, für die tür, natürlich fröhlich.
le garçon a mangé une crêpe à l'été, élève, forêt, naïve, cœur, français, château, déjà vu.
el niño mañana, corazón, canción, señor, ¿qué tal? ¡adiós! árbol, pingüino, año, niños.
não, coração, ação, são paulo, avião, maçã, você é, está. àlbum, già, perché, città, è.
příliš žluťoučký kůň úpěl ďábelské ódy. zażółć gęślą jaźń. łódź, dziękuję, świat, źródło.
göz, güneş, çiçek, ağaç, ışık, şehir, kız, iyi, günaydın. smörgåsbord, ålesund, øl, fjørd.
việt nam, phở, một, người, đẹp, hà nội, tiếng việt, đường. īsts, ēka, šķiņķis, ąžuolas.
привет мир, красивая девушка, большой дом у моря, кот на столе, ночь, звезда, луна, солнце.
красный дом, синий кот, зимний лес, портрет девушки, україна, їжак, ґанок, свет, цвет, лес.
γειά σου κόσμε, θάλασσα, ουρανός, ήλιος, φεγγάρι, σπίτι, άνθρωπος, γάτα, κόκκινο σπίτι.
مرحبا بالعالم، قطة على الطاولة، البيت الكبير، القمر، الشمس، الليل. سلام دنیا، خانه.
שלום עולם, חתול על השולחן, בית גדול, ירח, שמש, לילה. नमस्ते दुनिया, बिल्ली, घर, चाँद, सूरज.
สวัสดีชาวโลก แมว บ้าน ดวงจันทร์. বাংলা, விண்மீன், ქართული ენა, հայերեն, አማርኛ.
猫 猫 山 水 月 日 本 人 女 大 小 中 国 花 鳥 風 東 京 学 生 美 漢 字 空 海 森 林 火 木 金 土
ねこ ねこ さくら ありがとう こんにちは カメラ アニメ アニメ ガンダム スタイル きれい です ます
고양이 고양이 안녕하세요 세계 한국 서울 달 별 하늘 바다 사람 집
🙂 🙂 😀 😂 ❤ ❤ ✨ ✨ 🔥 🔥 👍 🎨 🎨 🌙 🌊 🐱 🐱 🇩🇪 👩‍🎨 ☀ ★ ★ → → … … “ ” „ ‘ ’ ’ – — — € £ ° × ½ « »
0 1 2 3 4 5 6 7 8 9 10 100 1024 512 2024 1920x1080 8k 4k 35mm f/1.8 50% #1 @user & ( ) ( ) [ ] :: ,, || <lora:x:0.8>
"""


def learn(words, count):
    """`count` merges of the most frequent pair; ties go to the alphabetically first."""
    symbol = bytes_to_unicode()
    seqs = []
    for word, n in sorted(Counter(words).items()):
        s = [symbol[b] for b in word.encode()]
        s[-1] += "</w>"
        seqs.append((s, n))
    merges = []
    while len(merges) < count:
        pairs = Counter()
        for s, n in seqs:
            for pair in zip(s, s[1:]):
                pairs[pair] += n
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        for s, _ in seqs:
            i = 0
            while i + 1 < len(s):
                if (s[i], s[i + 1]) == best:
                    s[i:i + 2] = [s[i] + s[i + 1]]
                i += 1
    return merges


def write(folder, vocab_size=1000):
    """vocab.json, merges.txt and the two files that CLIPTokenizer wants beside them."""
    symbols = list(bytes_to_unicode().values())
    merges = learn(WORDS.findall(TEXT), vocab_size - 2 * len(symbols) - 2)
    vocab = symbols + [s + "</w>" for s in symbols] + [a + b for a, b in merges]
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    assert len(set(vocab)) == len(vocab) == vocab_size
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)

    def dump(name, value, **kw):
        text = json.dumps(value, ensure_ascii=False, **kw) + "\n"
        (folder / name).write_text(text, encoding="utf-8")

    dump("vocab.json", {t: i for i, t in enumerate(vocab)})
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8")

    def token(text):
        return {"content": text, "lstrip": False, "normalized": True, "rstrip": False,
                "single_word": False}

    start, end = token("<|startoftext|>"), token("<|endoftext|>")
    dump("special_tokens_map.json",
         {"bos_token": start, "eos_token": end, "pad_token": "<|endoftext|>",
          "unk_token": end}, indent=2)
    dump("tokenizer_config.json",
         {"add_prefix_space": False, "bos_token": {"__type": "AddedToken", **start},
          "do_lower_case": True, "eos_token": {"__type": "AddedToken", **end},
          "errors": "replace", "model_max_length": 77, "pad_token": "<|endoftext|>",
          "tokenizer_class": "CLIPTokenizer",
          "unk_token": {"__type": "AddedToken", **end}}, indent=2)
