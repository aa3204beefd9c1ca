"""Token ids of transformers' slow CLIPTokenizer, the one diffusers' pipelines use.

Importing this module hides ftfy, so that every CLIPTokenizer made afterwards cleans text
with BasicTokenizer. With ftfy installed the same prompt may give other tokens; where that
or the fast tokenizer disagrees, the fixture says so.
"""
import sys
import unicodedata

import ftfy

sys.modules["ftfy"] = None

from transformers import CLIPTokenizer, CLIPTokenizerFast  # noqa: E402

PLAIN = """\
a photo of a cat
A Photo Of A CAT
a large red circle on a blue background
two words
a
I
.
an astronaut riding a horse on the moon, highly detailed, 4k
masterpiece, best quality, (sharp focus:1.2), [blurry], ((hands))
one\u2014two\u2013three
snake_case_word and kebab-case-word and dotted.word.here
CamelCaseWord HTTPServer iPhone15Pro
supercalifragilisticexpialidocious
pneumonoultramicroscopicsilicovolcanoconiosis
qwxzjkv
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
abababababababab
the the the the
don't can't won't shan't
it's he's she's what's
we're they're you're
I've you've they've
I'm
i'm I'M
we'll they'll IT'LL
he'd she'd who'd
'tis the season, rock 'n' roll
o'clock O'Brien d'Artagnan
'
''
'''
's
's't're've'm'll'd
's 't 're 've 'm 'll 'd
'S'T'RE'VE'M'LL'D
'sand 'tree 'read 'velvet 'more 'llama 'dog
x's's's
don\u2019t it\u2019s we\u2019re
it`s it\u00b4s
'\u017f a long s after an apostrophe
1 2 3
123
1234567890
3.14159
1,000,000
4k 8K 35mm f/1.8
1920x1080
a1b2c3
2nd 3rd 4th
1990s '90s
50% off
#1 @user $100 \u20ac50 \u00a320 \u00a5300
\u0661\u0662\u0663 \u0967\u0968\u0969 \uff11\uff12\uff13
\u00bd \u00bc \u2153 \u00b2 \u00b3 \u2460 \u2461
\u2160 \u2161 \u2167 \u2170
\u4e00\u4e8c\u4e09\u5341\u767e
!
!!
!!!
!?!?!?
...
\u2026
---
--- *** === ___ ~~~
:) :( ;) :-D <3
()[]{}<>
"quoted" 'single' \u201cdouble\u201d \u2018curly\u2019 \u00abguillemets\u00bb \u201elow\u201c
a,b,c;d:e.f!g?h
a , b ; c : d
/path/to/file C:\\dir\\file
https://example.org/a?b=c&d=e#f
user@example.org
<lora:outline:0.8>
<b>bold</b> &amp; &lt;tag&gt; &quot;x&quot; &#39;y&#39; &eacute; &#x1F600; &nbsp;
&amp;amp; &ampere
\\ \\\\ \\n
`code` ```block```
^ ^^ | || ~ ~~ % %% @ @@
+-*/=<>
\u00a1Hola! \u00bfQu\u00e9 tal?
\u00a7 \u00b6 \u2020 \u2021 \u2022 \u00b7
\u2190 \u2191 \u2192 \u2193 \u21d2 \u2200 \u2203 \u2208 \u221e \u2211 \u222b
\u2500\u2502\u250c\u2510 \u2588\u2591
\u266a \u266b \u2605 \u2606 \u2713 \u2717
"""

LANGUAGES = """\
Gr\u00fc\u00dfe aus K\u00f6ln, sch\u00f6ne Stra\u00dfe
STRASSE Stra\u00dfe STRA\u1e9eE
le gar\u00e7on a mang\u00e9 une cr\u00eape \u00e0 l'\u00e9t\u00e9
c\u0153ur \u0152UVRE \u00e6ther \u00c6THER
na\u00efve caf\u00e9 d\u00e9j\u00e0 vu
NA\u00cfVE CAF\u00c9
el ni\u00f1o ma\u00f1ana coraz\u00f3n
S\u00e3o Paulo cora\u00e7\u00e3o
P\u0159\u00edli\u0161 \u017elu\u0165ou\u010dk\u00fd k\u016f\u0148 \u00fap\u011bl \u010f\u00e1belsk\u00e9 \u00f3dy
Za\u017c\u00f3\u0142\u0107 g\u0119\u015bl\u0105 ja\u017a\u0144
\u00c5ngstr\u00f6m sm\u00f6rg\u00e5sbord f\u00f8rde
\u00deetta er \u00edslenska \u00d0
\u0130stanbul I\u0131\u0130i
\u0130
\u0130\u0130\u0130
i\u0307 I\u0307
D\u0130YARBAKIR ISPARTA
\u01c4 \u01c5 \u01c6 \u01c7 \u01c8 \u01c9
\ufb01ne \ufb02at \ufb00 \ufb03 \ufb04 \ufb06
\u017fchool \u212aelvin \u212bngstr\u00f6m \u2126hm
\u1e9e
Ti\u1ebfng Vi\u1ec7t \u0111\u1eb9p H\u00e0 N\u1ed9i
\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440
\u041a\u0420\u0410\u0421\u041d\u042b\u0419 \u041a\u041e\u0422
\u043a\u0440\u0430\u0441\u0438\u0432\u0430\u044f \u0434\u0435\u0432\u0443\u0448\u043a\u0430 \u0443 \u043c\u043e\u0440\u044f
\u0407\u0436\u0430\u043a \u0490\u0430\u043d\u043e\u043a \u0423\u043a\u0440\u0430\u0457\u043d\u0430
\u0451\u0436 \u0401\u0416 \u0439 \u0438\u0306
\u0416\u0416\u0416 \u04d8 \u04e8 \u04ba
\u0393\u03b5\u03b9\u03ac \u03c3\u03bf\u03c5 \u039a\u03cc\u03c3\u03bc\u03b5
\u039f\u0394\u039f\u03a3
\u039f\u0394\u039f\u03a3 \u039f\u0394\u039f\u03a3. \u03a3 \u03a3\u03a3 \u03a3\u03a3\u03a3
\u03a3\u0391\u03a3 \u0391\u03a3\u0391 \u0391\u03a3'\u0391 \u0391\u03a3. \u0391\u03a3.\u0391
\u0391\u03a3\u0301 \u0391\u03a3\u0301\u0391 \u0391\u0301\u03a3
\u0391\u03a3\u00b7 \u0391\u03a3:\u0391 \u0391\u03a3_ \u0391\u03a31
A\u03a3B A\u03a3 a\u03a3
\u1f00\u03bd\u03ae\u03c1 \u1fb3 \u1fbc \u1f88
\u1fb3 \u1fc3 \u1ff3 \u1fbc
\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645
\u0642\u0637\u0629 \u0639\u0644\u0649 \u0627\u0644\u0637\u0627\u0648\u0644\u0629
\u0645\u064f\u062d\u064e\u0645\u0651\u064e\u062f
\u0633\u0644\u0627\u0645\u060c \u062f\u0646\u06cc\u0627\u061f
\ufefb \ufdfa
\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd
\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd
\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01
\u0e41\u0e21\u0e27 \u0e1a\u0e49\u0e32\u0e19 \u0e17\u0e35\u0e48
\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e
\u0939\u093f\u0928\u094d\u0926\u0940 \u092d\u093e\u0937\u093e \u0915\u094d\u0937
\u0915\u093c \u0958 \u0921\u093c
\u09ac\u09be\u0982\u09b2\u09be \u09ad\u09be\u09b7\u09be
\u0bb5\u0bbf\u0ba3\u0bcd\u0bae\u0bc0\u0ba9\u0bcd
\u0c24\u0c46\u0c32\u0c41\u0c17\u0c41
\u10e5\u10d0\u10e0\u10d7\u10e3\u10da\u10d8 \u1ca5\u1c90
\u0540\u0561\u0575\u0565\u0580\u0565\u0576 \u0587
\u12a0\u121b\u122d\u129b
\u1780\u1798\u17d2\u1796\u17bb\u1787\u17b6
\u0f56\u0f7c\u0f51\u0f0b\u0f66\u0f90\u0f51
\u13a3\u13b3\u13a9 \uab70\uab71
\u732b
\u732b\u3068\u72ac
\u6f22\u5b57\u4eee\u540d\u4ea4\u3058\u308a\u6587
\u4e00\u53ea\u732b\u5750\u5728\u684c\u5b50\u4e0a
a\u732bb\u732bc
\u6771\u4eac\u30bf\u30ef\u30fc
\u3053\u3093\u306b\u3061\u306f\u4e16\u754c
\u30ac\u30f3\u30c0\u30e0 \u30a2\u30cb\u30e1\u30b9\u30bf\u30a4\u30eb
\uff76\uff9e\uff9d\uff80\uff9e\uff91
\u304b\u3099 \u304c \u30cf\u309a \u30d1
\u3400 \u4dbf \u4dc0 \u4e00 \u9fff \ua000 \uf900 \ufaff \ufb00
\U00020000 \U0002a6df \U0002a6e0 \U0002a700 \U0002b73f \U0002b740 \U0002b820 \U0002ceaf
\U0002ceb0 \U0002f800 \U0002fa1f \U0002fa20 \U00030000
\u3005\u3006\u3007 \u300c\u300d \u3002\u3001
\uff21\uff22\uff23 \uff41\uff42\uff43 \uff01\uff1f
\uace0\uc591\uc774
\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4
\u1112\u1161\u11ab\u1100\u1173\u11af
\u3131\u314f \u314b\u314b\u314b
\u3105\u3106
\U00010400\U00010428 \U0001e900\U0001e922
\U0001d400\U0001d401 \U0001d7d8 \U00012000 \U00013000
\u2c00\u2c30 \ua640\ua641 \ua7aa
"""

SYMBOLS = """\
\U0001f642
\U0001f642\U0001f642\U0001f642
a\U0001f642b
\U0001f600 \U0001f602 \U0001f525 \u2728
\u2764\ufe0f \u2764
\U0001f44d\U0001f3fd \U0001f44d
\U0001f469\u200d\U0001f3a8
\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466
\U0001f3f3\ufe0f\u200d\U0001f308
\U0001f1e9\U0001f1ea \U0001f1ef\U0001f1f5
\U0001f1e9 \U0001f1ea\U0001f1f5
1\ufe0f\u20e3 #\ufe0f\u20e3
\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f
\U0001fae0 \U0001fa77 \U0001fae8
\u261d\u263a\u2603
e\u0301 \u00e9
E\u0301 \u00c9
a\u0323\u0302 a\u0302\u0323 \u1ead
q\u0307\u0323 q\u0323\u0307
\u0301 alone
Z\u0351\u036b\u0343a\u0352\u0366l\u0354g\u0335o\u0321
n\u0303 \u00f1 N\u0303
\u1100\u1161 \uac00
\u212b \u00c5 A\u030a
\u0344 \u0340 \u0341 \u0374 \u037e \u0387
\u2000\u2001 x
\u2329 \u232a
\u0958\u0959 \ufb1d \ufb2c
\u00a0
a\u00a0b
a\u3000b
a\u2003b\u2009c\u202fd
a\u1680b\u205fc
a\u200bb
a\u200cb\u200dc
a\u2060b\ufeffc
\ufeffstart
a\u00adb
a\u180eb
a\u2028b\u2029c
a\u0085b
a\u000bb\u000cc
a\u001cb\u001dc\u001ed\u001fe
\u200fright\u200e left
\u202aembedded\u202c \u2066isolate\u2069
a\u0001b\u0007c\u001bd\u007fe
a\u0080b\u009fc
\ufffd
a\ufffdb
\ufffe\uffff
\ue000
a\ue000b \uf8ff
\U000f0000 \U0010fffd
\u0378 \u0380
a\u0378b
\U000e0001 \U000e0100
\U0001f8ff \U0001fbff
\ufff9\ufffa\ufffb
\ufe0f
\u034f
\u2061\u2062
\u0600 \u06dd \u070f
\u1d2c \u02b0 \u02d0 \u02b9
\u2071 \u207f \u2090
\u3031 \u309d \u30fc
\u16ee \u2181 \u3021
\u00aa \u00ba
\u2102 \u210d \u2115
\u00d7 \u00f7 \u00ac \u00b1
\u00ac\u00b4 \u00a8 \u00b8 \u02c7
\u20bf \u20bd \u20b9
\u00e2\u20ac\u2122 \u00c3\u00a9 \u00e2\u20ac\u0153
\u0178 \u0192 \u0160
"""

SPECIAL = """\
<|startoftext|>
<|endoftext|>
<|startoftext|><|endoftext|>
a cat<|endoftext|>
<|startoftext|>a cat
a <|endoftext|> b
a<|endoftext|>b
a cat <|endoftext|> <|endoftext|> <|endoftext|>
<|ENDOFTEXT|>
<|StartOfText|> x
x<|ENDOFTEXT|>y
<|endoftext |>
<| endoftext|>
<|endoftext
endoftext|>
<<|endoftext|>>
!<|endoftext|>!
...<|ENDOFTEXT|>...
<|start\u00adoftext|>
<|endoftext|>\u732b<|endoftext|>
\u0130<|endoftext|>\u0130
<|pad|> [UNK] [PAD] <unk> </s> <s>
</w>
a</w> b</w>
cat</w>
"""

OTHER = [
    "", " ", "  ", "\t", "\n", "\r\n", " \t\n ", "\u3000", "\u00a0\u00a0", "\u200b", "\u200d",
    " leading", "trailing ", "  both  ", "a  b", "a   b    c", "a\tb", "a\nb", "a\r\nb", "\ta\n",
    "a \t \n b", "line one\nline two\n\nline four", "\u0001", "\u0001\u0002", "a\u0301\u00a0b",
    "word " * 100, "x" * 300, "\U0001f642" * 40, "\u732b" * 90, "don't " * 40, "1" * 100,
    "!" * 200, "a, " * 60, "\u00e9" * 120, "\u0301" * 20, "<|endoftext|>" * 30,
    "a painting of a castle in the mountains at sunset, " * 6,
    "The quick brown fox jumps over the lazy dog. " * 8,
    "\u039f\u0394\u039f\u03a3 " * 10 + "\u03a3",
    "mixed \u0442\u0435\u043a\u0441\u0442 \u6f22\u5b57 \ud55c\uad6d\uc5b4 \u0e44\u0e17\u0e22"
    " \u0639\u0631\u0628\u064a \U0001f642 123 'll",
    "a photo of a caf\u00e9\u2014\u00abna\u00efve\u00bb r\u00e9sum\u00e9, \u00bd price (50%)",
    "(masterpiece:1.3), best quality, 1girl, solo, <lora:outline:0.8>, (blue eyes:1.1), 8k uhd",
]

PADDED = ["", "a photo of a cat", "word " * 74, "word " * 75, "word " * 76, "word " * 200,
          "\u732b" * 90, "a <|endoftext|> b"]


def texts():
    out = []
    for block in (PLAIN, LANGUAGES, SYMBOLS, SPECIAL):
        out += block.split("\n")[:-1]
    out += OTHER
    # every code point of a few blocks on its own, in short runs
    for first, last in ((0x21, 0x7e), (0xa1, 0x17f), (0x370, 0x3ff), (0x400, 0x45f)):
        for a in range(first, last + 1, 32):
            out.append(" ".join(chr(c) for c in range(a, min(a + 32, last + 1))))
    return list(dict.fromkeys(out))


def fixture(folder):
    slow = CLIPTokenizer.from_pretrained(folder)
    fast = CLIPTokenizerFast.from_pretrained(folder)
    sys.modules["ftfy"] = ftfy
    fixing = CLIPTokenizer.from_pretrained(folder)
    sys.modules["ftfy"] = None
    rows = []
    for text in texts():
        row = {"text": text, "ids": slow(text).input_ids}
        if fixing(text).input_ids != row["ids"]:
            row["with_ftfy"] = fixing(text).input_ids
        if fast(text).input_ids != row["ids"]:
            row["fast"] = fast(text).input_ids
        if any(unicodedata.category(c) == "Cn" for c in text):
            row["unassigned"] = True
        rows.append(row)
    padded = [{"text": t, "ids": slow(t, padding="max_length", max_length=77,
                                      truncation=True).input_ids} for t in PADDED]
    return {"bos": slow.bos_token_id, "eos": slow.eos_token_id, "pad": slow.pad_token_id,
            "vocab_size": len(slow), "rows": rows, "padded": padded}
