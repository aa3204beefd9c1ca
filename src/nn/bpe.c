#include "nn/bpe.h"

#include "base/arena.h"
#include "base/buf.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "nn/bpe_vocab.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

struct dr_bpe {
    dr_bpe_vocab vocab;
    dr_arena *scratch; /* one call's memory */
    dr_buf clean, lower;
    pcre2_code *words, *final_sigma;
    pcre2_match_data *match;
};

static dr_status no_memory(dr_err *err)
{
    return dr_fail(err, DR_ENOMEM, "tokenizer: out of memory");
}

/* --- regular expressions --- */

static dr_status compile(pcre2_code **out, const char *pattern, uint32_t flags, dr_err *err)
{
    int code;
    PCRE2_SIZE at;
    PCRE2_UCHAR message[128];
    *out = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                         PCRE2_UTF | PCRE2_UCP | flags, &code, &at, NULL);
    if (*out)
        return DR_OK;
    pcre2_get_error_message(code, message, sizeof message);
    return dr_fail(err, DR_EINVAL, "tokenizer: pattern: %s at %zu", (char *)message, at);
}

/* The next match at or after offset `at`: 1 and its bounds, 0 when there is none, -1 with
 * err when PCRE2 gave up. */
static int next_match(dr_bpe *b, const pcre2_code *code, const dr_buf *text, size_t at,
                      size_t bounds[2], dr_err *err)
{
    int rc = pcre2_match(code, (PCRE2_SPTR)text->data, text->len, at, PCRE2_NO_UTF_CHECK,
                         b->match, NULL);
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    if (rc < 0) {
        PCRE2_UCHAR message[128];
        pcre2_get_error_message(rc, message, sizeof message);
        dr_fail(err, DR_EINVAL, "tokenizer: text too difficult: %s", (char *)message);
        return -1;
    }
    memcpy(bounds, pcre2_get_ovector_pointer(b->match), 2 * sizeof *bounds);
    return 1;
}

/* --- text --- */

/* CJK ideographs are words of their own. */
static bool is_ideograph(int32_t cp)
{
    static const int32_t ranges[][2] = {
        { 0x4e00, 0x9fff },   { 0x3400, 0x4dbf },   { 0x20000, 0x2a6df },
        { 0x2a700, 0x2b73f }, { 0x2b740, 0x2b81f }, { 0x2b820, 0x2ceaf },
        { 0xf900, 0xfaff },   { 0x2f800, 0x2fa1f },
    };
    for (size_t i = 0; i < DR_COUNT(ranges); i++)
        if (cp >= ranges[i][0] && cp <= ranges[i][1])
            return true;
    return false;
}

static void put_cp(dr_buf *out, int32_t cp)
{
    char bytes[4];
    dr_buf_put(out, bytes, (size_t)dr_utf8_encode(cp, bytes));
}

static void put_apart(dr_buf *out, int32_t cp)
{
    dr_buf_puts(out, " ");
    put_cp(out, cp);
    dr_buf_puts(out, " ");
}

/* Drop control characters (and all else of category C) and U+FFFD, make spaces plain, set
 * ideographs apart. */
static void clean(dr_buf *out, const char *p, size_t n)
{
    for (size_t i = 0; i < n;) {
        int32_t cp;
        i += (size_t)dr_utf8_decode(p + i, n - i, &cp);
        const char *category = dr_utf8_category(cp);
        if (cp == '\t' || cp == '\n' || cp == '\r' || !strcmp(category, "Zs"))
            dr_buf_put(out, " ", 1);
        else if (is_ideograph(cp) && *category != 'C')
            put_apart(out, cp);
        else if (*category != 'C' && cp != 0xfffd)
            put_cp(out, cp);
    }
}

/* Lower case as Unicode's SpecialCasing has it without a language: one code point becomes
 * two (U+0130), and a capital sigma that ends a word becomes the final one. */
static dr_status lower(dr_bpe *b, dr_buf *out, const dr_buf *text, dr_err *err)
{
    size_t sigma[2] = { 0, 0 };
    /* U+03A3 in UTF-8. */
    bool has_sigma = strstr(text->data, "\xce\xa3") != NULL;
    for (size_t i = 0; i < text->len;) {
        int32_t cp;
        if (has_sigma && i >= sigma[1]) {
            int rc = next_match(b, b->final_sigma, text, i, sigma, err);
            if (rc < 0)
                return err ? err->code : DR_EINVAL;
            has_sigma = rc > 0;
        }
        bool final = has_sigma && i == sigma[0];
        i += (size_t)dr_utf8_decode(text->data + i, text->len - i, &cp);
        if (cp == 0x130)
            dr_buf_puts(out, "i\xcc\x87");
        else
            put_cp(out, final ? 0x3c2 : dr_utf8_lower(cp));
    }
    return DR_OK;
}

/* --- words --- */

/* One encode call: where ids go, and room for the longest word. */
typedef struct {
    dr_bpe *b;
    const dr_bpe_vocab *v;
    int32_t *ids;
    int max, count;
    int32_t *symbols, *next, *prev, *merged; /* the word as a linked list */
    uint64_t *heap;                          /* rank << 32 | position, smallest first */
    size_t heap_len;
} encoder;

static void emit(encoder *e, int32_t id)
{
    if (e->count < e->max)
        e->ids[e->count] = id;
    e->count++;
}

static void emit_symbol(encoder *e, int32_t s)
{
    int32_t id = s < 0 ? -1 : e->v->symbols[s].id;
    emit(e, id < 0 ? e->v->unk : id);
}

static void heap_push(encoder *e, uint64_t v)
{
    size_t i = e->heap_len++;
    for (; i && e->heap[(i - 1) / 2] > v; i = (i - 1) / 2)
        e->heap[i] = e->heap[(i - 1) / 2];
    e->heap[i] = v;
}

static uint64_t heap_pop(encoder *e)
{
    uint64_t top = e->heap[0], v = e->heap[--e->heap_len];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < e->heap_len) {
        child += child + 1 < e->heap_len && e->heap[child + 1] < e->heap[child];
        if (e->heap[child] >= v)
            break;
        e->heap[i] = e->heap[child];
        i = child;
    }
    e->heap[i] = v;
    return top;
}

static void push_pair(encoder *e, int32_t at)
{
    if (at < 0 || e->next[at] < 0)
        return;
    const dr_bpe_merge *m = dr_bpe_merge_of(e->v, e->symbols[at], e->symbols[e->next[at]]);
    if (m->rank >= 0)
        heap_push(e, (uint64_t)m->rank << 32 | (uint32_t)at);
}

/* All pairs of the smallest rank, from the left; pairs that this makes wait for the next
 * pass even when their rank is smaller still. */
static int merge_pass(encoder *e)
{
    int n = 0;
    int32_t rank = (int32_t)(e->heap[0] >> 32);
    while (e->heap_len && (int32_t)(e->heap[0] >> 32) == rank) {
        int32_t at = (int32_t)(uint32_t)heap_pop(e), right = e->next[at];
        if (e->symbols[at] < 0 || right < 0)
            continue; /* merged away since it was pushed */
        const dr_bpe_merge *m = dr_bpe_merge_of(e->v, e->symbols[at], e->symbols[right]);
        if (m->rank != rank)
            continue;
        e->symbols[at] = m->result;
        e->symbols[right] = -1;
        e->next[at] = e->next[right];
        if (e->next[at] >= 0)
            e->prev[e->next[at]] = at;
        e->merged[n++] = at;
    }
    return n;
}

/* Each merge pushes two pairs at most, so that a word of n bytes costs O(n log n). */
static void encode_word(encoder *e, const char *p, size_t n)
{
    e->heap_len = 0;
    for (size_t i = 0; i < n; i++) {
        e->symbols[i] = e->v->byte_symbol[i + 1 == n][(uint8_t)p[i]];
        e->next[i] = i + 1 < n ? (int32_t)i + 1 : -1;
        e->prev[i] = (int32_t)i - 1;
    }
    for (size_t i = 0; i < n; i++)
        push_pair(e, (int32_t)i);
    while (e->heap_len) {
        int merges = merge_pass(e);
        for (int i = 0; i < merges; i++) {
            push_pair(e, e->prev[e->merged[i]]);
            push_pair(e, e->merged[i]);
        }
    }
    for (int32_t i = 0; i >= 0; i = e->next[i])
        emit_symbol(e, e->symbols[i]);
}

static dr_status encode_words(encoder *e, const dr_buf *text, dr_err *err)
{
    size_t word[2] = { 0, 0 };
    int rc;
    while ((rc = next_match(e->b, e->b->words, text, word[1], word, err)) > 0) {
        const char *p = text->data + word[0];
        size_t n = word[1] - word[0];
        /* These two are never taken apart, whatever the tokenizer's own specials are. */
        if ((n == 15 && !memcmp(p, "<|startoftext|>", n)) ||
            (n == 13 && !memcmp(p, "<|endoftext|>", n)))
            emit_symbol(e, dr_bpe_symbol_of(e->v, p, n));
        else
            encode_word(e, p, n);
    }
    if (rc)
        dr_err_wrap(err, "prompt");
    return rc ? DR_EINVAL : DR_OK;
}

static dr_status make_room(encoder *e, size_t n, dr_err *err)
{
    dr_arena *a = e->b->scratch;
    e->symbols = dr_arena_alloc(a, n * sizeof *e->symbols);
    e->next = dr_arena_alloc(a, n * sizeof *e->next);
    e->prev = dr_arena_alloc(a, n * sizeof *e->prev);
    e->merged = dr_arena_alloc(a, n * sizeof *e->merged);
    e->heap = dr_arena_alloc(a, 3 * n * sizeof *e->heap);
    return e->symbols && e->next && e->prev && e->merged && e->heap ? DR_OK
                                                                    : no_memory(err);
}

/* Text without added tokens. */
static dr_status encode_text(encoder *e, const char *p, size_t n, dr_err *err)
{
    dr_bpe *b = e->b;
    dr_status st = DR_OK;
    char *composed = NULL;
    dr_buf_clear(&b->clean);
    clean(&b->clean, p, n);
    if (!b->clean.len && !b->clean.failed)
        return DR_OK;
    if (!b->clean.failed)
        composed = dr_utf8_nfc(b->clean.data);
    if (!composed)
        return no_memory(err);
    dr_buf_clear(&b->clean);
    dr_buf_puts(&b->clean, composed);
    dr_buf_clear(&b->lower);
    if (b->clean.failed)
        st = no_memory(err);
    else if (!(st = lower(b, &b->lower, &b->clean, err)))
        st = b->lower.failed ? no_memory(err) : make_room(e, b->lower.len, err);
    if (!st)
        st = encode_words(e, &b->lower, err);
    dr_free(composed);
    return st;
}

dr_status dr_bpe_encode(dr_bpe *b, const char *text, int32_t *ids, int max, int *needed,
                        dr_err *err)
{
    encoder e = { .b = b, .v = &b->vocab, .ids = ids, .max = max };
    dr_status st = DR_OK;
    size_t n = strlen(text), from = 0, at = 0;
    if (!dr_utf8_valid(text, n, &at))
        return dr_fail(err, DR_EINVAL, "prompt: byte %zu is not UTF-8", at);
    dr_arena_reset(b->scratch);
    emit(&e, b->vocab.bos);
    for (at = 0; at <= n && !st; at++) {
        int32_t token = at < n ? dr_bpe_added_at(&b->vocab, text + at, n - at) : -1;
        if (token < 0 && at < n)
            continue;
        st = encode_text(&e, text + from, at - from, err);
        if (token >= 0) {
            emit_symbol(&e, token);
            from = at + b->vocab.symbols[token].len;
            at = from - 1;
        }
    }
    emit(&e, b->vocab.eos);
    *needed = e.count;
    return st;
}

dr_status dr_bpe_row(dr_bpe *b, const char *text, int32_t *ids, int length, int *cut,
                     dr_err *err)
{
    int needed = 0;
    dr_status st = dr_bpe_encode(b, text, ids, length, &needed, err);
    for (int i = needed; i < length; i++)
        ids[i] = b->vocab.pad;
    if (needed > length)
        ids[length - 1] = b->vocab.eos;
    *cut = needed > length ? needed - length : 0;
    return st;
}

int32_t dr_bpe_bos(const dr_bpe *b)
{
    return b->vocab.bos;
}

int32_t dr_bpe_eos(const dr_bpe *b)
{
    return b->vocab.eos;
}

int32_t dr_bpe_pad(const dr_bpe *b)
{
    return b->vocab.pad;
}

int32_t dr_bpe_size(const dr_bpe *b)
{
    return b->vocab.size;
}

dr_status dr_bpe_open(dr_bpe **out, const char *tokenizer_dir, dr_err *err)
{
    /* Without case U+0345 (the iota subscript) counts as a letter to the class that must
     * have none and as no letter to the one that must have some: it is in no word. */
    static const char words[] =
        "<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|"
        "\\p{L}+|\\p{N}|[^\\s\\p{L}\\p{N}\\x{345}]+";
    /* A cased letter before it and none after it, looking past what is case-ignorable
     * (Unicode 3.13, Final_Sigma). */
    static const char final_sigma[] =
        "(?!\\p{Case_Ignorable})\\p{Cased}\\p{Case_Ignorable}*+"
        "\\K\\x{3a3}(?!\\p{Case_Ignorable}*+\\p{Cased})";
    dr_bpe *b = dr_alloc(sizeof *b);
    dr_status st;
    if (!b)
        return no_memory(err);
    if ((st = dr_bpe_vocab_read(&b->vocab, tokenizer_dir, err)) ||
        (st = compile(&b->words, words, PCRE2_CASELESS, err)) ||
        (st = compile(&b->final_sigma, final_sigma, 0, err)))
        goto done;
    b->match = pcre2_match_data_create(1, NULL);
    b->scratch = dr_arena_new();
    if (!b->match || !b->scratch)
        st = no_memory(err);
done:
    if (st)
        dr_bpe_close(b);
    else
        *out = b;
    return st;
}

void dr_bpe_close(dr_bpe *b)
{
    if (!b)
        return;
    dr_bpe_vocab_free(&b->vocab);
    dr_arena_free(b->scratch);
    dr_buf_free(&b->clean);
    dr_buf_free(&b->lower);
    pcre2_code_free(b->words);
    pcre2_code_free(b->final_sigma);
    pcre2_match_data_free(b->match);
    dr_free(b);
}
