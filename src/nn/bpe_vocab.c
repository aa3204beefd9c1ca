#include "nn/bpe_vocab.h"

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

#define VOCAB_MAX        (1 << 20)
#define MERGES_BYTES_MAX ((size_t)16 << 20)
#define MERGES_MAX       (49152 - 256 - 2) /* CLIP reads no further */
#define WORD_END         "</w>"

/* --- tables --- */

static size_t power_of_two(size_t at_least)
{
    size_t n = 16;
    while (n < at_least)
        n *= 2;
    return n;
}

static int32_t *find_slot(const dr_bpe_vocab *v, const char *text, size_t len)
{
    size_t i = dr_hash64(text, len) & v->slot_mask;
    for (; v->slots[i]; i = (i + 1) & v->slot_mask) {
        const dr_bpe_symbol *s = &v->symbols[v->slots[i] - 1];
        if (s->len == len && !memcmp(s->text, text, len))
            break;
    }
    return &v->slots[i];
}

int32_t dr_bpe_symbol_of(const dr_bpe_vocab *v, const char *text, size_t len)
{
    return *find_slot(v, text, len) - 1;
}

/* The symbol of a string, made when there is none; -1 when memory is out. */
static int32_t intern(dr_bpe_vocab *v, const char *text, size_t len)
{
    int32_t *slot = find_slot(v, text, len);
    if (*slot)
        return *slot - 1;
    char *copy = v->n_symbols < v->symbols_max ? dr_arena_str(v->mem, text, len) : NULL;
    if (!copy)
        return -1;
    v->symbols[v->n_symbols] = (dr_bpe_symbol){ copy, (uint32_t)len, -1 };
    *slot = ++v->n_symbols;
    return *slot - 1;
}

static dr_bpe_merge *find_merge(const dr_bpe_vocab *v, int32_t left, int32_t right)
{
    int32_t key[2] = { left, right };
    size_t i = dr_hash64(key, sizeof key) & v->merge_mask;
    while (v->merges[i].rank >= 0 &&
           (v->merges[i].left != left || v->merges[i].right != right))
        i = (i + 1) & v->merge_mask;
    return &v->merges[i];
}

const dr_bpe_merge *dr_bpe_merge_of(const dr_bpe_vocab *v, int32_t left, int32_t right)
{
    return find_merge(v, left, right);
}

int32_t dr_bpe_added_at(const dr_bpe_vocab *v, const char *p, size_t n)
{
    int32_t best = -1;
    for (int i = 0; v->added_start[(uint8_t)*p] && i < v->n_added; i++) {
        const dr_bpe_symbol *s = &v->symbols[v->added[i]];
        if (s->len <= n && !memcmp(s->text, p, s->len) &&
            (best < 0 || s->len > v->symbols[best].len))
            best = v->added[i];
    }
    return best;
}

static dr_status no_memory(dr_err *err)
{
    return dr_fail(err, DR_ENOMEM, "tokenizer: out of memory");
}

static dr_status make_tables(dr_bpe_vocab *v, size_t n_vocab, size_t n_merges, dr_err *err)
{
    size_t symbols = n_vocab + 3 * n_merges + 512 + DR_BPE_ADDED_MAX;
    size_t slots = power_of_two(2 * symbols), merges = power_of_two(2 * n_merges);
    v->symbols_max = (int32_t)symbols;
    v->slot_mask = slots - 1;
    v->merge_mask = merges - 1;
    v->symbols = dr_arena_alloc(v->mem, symbols * sizeof *v->symbols);
    v->slots = dr_arena_alloc(v->mem, slots * sizeof *v->slots);
    v->merges = dr_arena_alloc(v->mem, merges * sizeof *v->merges);
    if (!v->symbols || !v->slots || !v->merges)
        return no_memory(err);
    for (size_t i = 0; i < merges; i++)
        v->merges[i].rank = -1;
    return DR_OK;
}

/* Each byte is written as one printable code point, because merges.txt is text separated
 * by blanks: printable Latin-1 stands for itself, the others follow from U+0100 on. */
static dr_status make_byte_symbols(dr_bpe_vocab *v, dr_err *err)
{
    int32_t next = 0x100;
    for (int32_t byte = 0; byte < 256; byte++) {
        char text[8];
        bool printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);
        int n = dr_utf8_encode(printable ? byte : next++, text);
        v->byte_symbol[0][byte] = intern(v, text, (size_t)n);
        memcpy(text + n, WORD_END, sizeof WORD_END - 1);
        v->byte_symbol[1][byte] = intern(v, text, (size_t)n + sizeof WORD_END - 1);
        if (v->byte_symbol[0][byte] < 0 || v->byte_symbol[1][byte] < 0)
            return no_memory(err);
    }
    return DR_OK;
}

/* --- files --- */

/* Every id from 0 on, each once. seen: n flags, all false. */
static dr_status read_vocab(dr_bpe_vocab *v, const dr_json *vocab, int n, bool *seen,
                            const char *path, dr_err *err)
{
    for (const dr_json *item = dr_json_first(vocab); item; item = dr_json_next(item)) {
        const char *text = dr_json_key(item);
        double number = dr_json_number(item);
        if (!(number >= 0 && number < n) || number != (int32_t)number)
            return dr_fail(
                err, DR_EMODEL,
                "%s: \"%.40s\": the id must be a whole number in 0..%d, each once", path,
                text, n - 1);
        int32_t id = (int32_t)number, s = intern(v, text, strlen(text));
        if (s < 0)
            return no_memory(err);
        if (seen[id] || v->symbols[s].id >= 0)
            return dr_fail(err, DR_EMODEL,
                           "%s: \"%.40s\": id %d or the token is there twice", path, text,
                           id);
        seen[id] = true;
        v->symbols[s].id = id;
    }
    v->size = n;
    return DR_OK;
}

/* A model's file that is no JSON is a bad model, not bad input. */
static dr_status read_json(dr_json **out, const char *path, dr_err *err)
{
    dr_status st = dr_json_read(out, path, err);
    if (st != DR_EINVAL)
        return st;
    if (err)
        err->code = DR_EMODEL;
    return DR_EMODEL;
}

/* Split a line at blanks into exactly two strings. */
static bool split_pair(const char *line, size_t n, const char *part[2], size_t len[2])
{
    static const char blanks[] = " \t\r\f\v";
    int parts = 0;
    for (size_t i = 0; i < n;) {
        if (memchr(blanks, line[i], sizeof blanks)) {
            i++;
            continue;
        }
        if (parts == 2)
            return false;
        part[parts] = line + i;
        while (i < n && !memchr(blanks, line[i], sizeof blanks))
            i++;
        len[parts] = (size_t)(line + i - part[parts]);
        parts++;
    }
    return parts == 2;
}

static dr_status add_merge(dr_bpe_vocab *v, const char *part[2], size_t len[2],
                           int32_t rank, dr_buf *joined, dr_err *err)
{
    dr_buf_clear(joined);
    dr_buf_put(joined, part[0], len[0]);
    dr_buf_put(joined, part[1], len[1]);
    if (joined->failed)
        return no_memory(err);
    int32_t left = intern(v, part[0], len[0]), right = intern(v, part[1], len[1]);
    int32_t result = intern(v, joined->data, joined->len);
    if (left < 0 || right < 0 || result < 0)
        return no_memory(err);
    *find_merge(v, left, right) = (dr_bpe_merge){ left, right, result, rank };
    return DR_OK;
}

/* The first line is a heading; a line's rank is its number after it. */
static dr_status read_merges(dr_bpe_vocab *v, const dr_buf *text, const char *path,
                             dr_err *err)
{
    dr_status st = DR_OK;
    dr_buf joined = { 0 };
    const char *p = text->data, *end = p + text->len;
    for (int32_t line = 0; p < end && line <= MERGES_MAX && !st; line++) {
        const char *newline = memchr(p, '\n', (size_t)(end - p)), *part[2];
        size_t n = (size_t)((newline ? newline : end) - p), len[2];
        if (line > 0 && !split_pair(p, n, part, len))
            st = dr_fail(err, DR_EMODEL,
                         "%s:%d: must be two symbols separated by a blank: \"%.*s\"", path,
                         line + 1, n < 40 ? (int)n : 40, p);
        else if (line > 0)
            st = add_merge(v, part, len, line - 1, &joined, err);
        p += n + 1;
    }
    dr_buf_free(&joined);
    return st;
}

static size_t count_lines(const dr_buf *text)
{
    size_t lines = 1;
    for (size_t i = 0; i < text->len; i++)
        lines += text->data[i] == '\n';
    return lines;
}

static dr_status read_tables(dr_bpe_vocab *v, const char *dir, dr_err *err)
{
    char path[DR_PATH_MAX];
    dr_json *vocab = NULL;
    dr_buf merges = { 0 };
    bool *seen = NULL;
    dr_status st;
    if ((st = dr_path_join(path, dir, "merges.txt", err)) ||
        (st = dr_file_read(path, MERGES_BYTES_MAX, &merges, err)))
        goto done;
    while (merges.len && strchr(" \t\r\n\f\v", merges.data[merges.len - 1]))
        merges.len--;
    if ((st = dr_path_join(path, dir, "vocab.json", err)) ||
        (st = read_json(&vocab, path, err)))
        goto done;
    int n = dr_json_count(vocab);
    size_t lines = count_lines(&merges);
    if (dr_json_type(vocab) != DR_JSON_OBJECT || n < 1 || n > VOCAB_MAX) {
        st = dr_fail(err, DR_EMODEL, "%s: must be one object of 1..%d tokens", path,
                     VOCAB_MAX);
        goto done;
    }
    if (!(seen = dr_alloc((size_t)n))) {
        st = no_memory(err);
        goto done;
    }
    if ((st = make_tables(v, (size_t)n, lines < MERGES_MAX ? lines : MERGES_MAX, err)) ||
        (st = read_vocab(v, vocab, n, seen, path, err)) ||
        (st = make_byte_symbols(v, err)) ||
        (st = dr_path_join(path, dir, "merges.txt", err)))
        goto done;
    st = read_merges(v, &merges, path, err);
done:
    dr_free(seen);
    dr_json_free(vocab);
    dr_buf_free(&merges);
    return st;
}

/* --- special and added tokens --- */

enum { BOS, EOS, UNK, PAD, SPECIALS };

/* The settings of a tokenizer folder; a NULL member is a file that is not there. */
typedef struct {
    dr_json *config, *map, *added;
} settings;

/* Make text an added token with this id; id < 0: the vocabulary's, else the next free one.
 * A token that is one already keeps its id. */
static dr_status add_token(dr_bpe_vocab *v, const char *text, double id, dr_err *err)
{
    int32_t s = intern(v, text, strlen(text));
    if (!*text)
        return DR_OK;
    for (int i = 0; i < v->n_added; i++)
        if (v->added[i] == s)
            return DR_OK;
    if (v->n_added == DR_BPE_ADDED_MAX || id >= VOCAB_MAX || id != (int32_t)id)
        return dr_fail(
            err, DR_EMODEL,
            "tokenizer: added token \"%.40s\" with id %g: there may be %d, with ids "
            "below %d",
            text, id, DR_BPE_ADDED_MAX, VOCAB_MAX);
    if (s < 0)
        return no_memory(err);
    if (id >= 0)
        v->symbols[s].id = (int32_t)id;
    else if (v->symbols[s].id < 0)
        v->symbols[s].id = v->size;
    if (v->symbols[s].id >= v->size)
        v->size = v->symbols[s].id + 1;
    v->added[v->n_added++] = s;
    v->added_start[(uint8_t)*text] = true;
    return DR_OK;
}

/* A token is written as a string or as {content, …}. */
static const char *token_text(const dr_json *j, const char *fallback)
{
    const char *s = dr_json_string(j);
    return s ? s : dr_json_get_string(j, "content", fallback);
}

static dr_status add_listed(dr_bpe_vocab *v, const settings *s, dr_err *err)
{
    dr_status st = DR_OK;
    const dr_json *decoder = dr_json_get(s->config, "added_tokens_decoder"), *item;
    for (item = dr_json_first(decoder); item && !st; item = dr_json_next(item)) {
        const char *text = token_text(item, "");
        char *end;
        double id = (double)strtoll(dr_json_key(item), &end, 10);
        if (*end || end == dr_json_key(item) || id < 0 ||
            dr_json_get_bool(item, "single_word", false))
            st = dr_fail(
                err, DR_EMODEL,
                "tokenizer_config.json: added token \"%.40s\": the id \"%.20s\" is no "
                "number, or single_word is set, which is not supported",
                text, dr_json_key(item));
        else
            st = add_token(v, text, id, err);
    }
    for (item = dr_json_first(s->added); item && !st; item = dr_json_next(item))
        st = dr_json_type(item) == DR_JSON_NUMBER && dr_json_number(item) >= 0
                 ? add_token(v, dr_json_key(item), dr_json_number(item), err)
                 : dr_fail(err, DR_EMODEL, "added_tokens.json: \"%.40s\" has no id",
                           dr_json_key(item));
    return st;
}

static dr_status add_specials(dr_bpe_vocab *v, const settings *s, dr_err *err)
{
    static const struct {
        const char *key, *fallback;
    } rows[SPECIALS] = {
        [BOS] = { "bos_token", "<|startoftext|>" },
        [EOS] = { "eos_token", "<|endoftext|>" },
        [UNK] = { "unk_token", "<|endoftext|>" },
        [PAD] = { "pad_token", "<|endoftext|>" },
    };
    int32_t *const targets[SPECIALS] = { &v->bos, &v->eos, &v->unk, &v->pad };
    dr_status st = add_listed(v, s, err);
    for (int i = 0; i < SPECIALS && !st; i++) {
        const char *text =
            token_text(dr_json_get(s->config, rows[i].key), rows[i].fallback);
        text = token_text(dr_json_get(s->map, rows[i].key), text);
        if ((st = add_token(v, text, -1, err)))
            return st;
        int32_t found = dr_bpe_symbol_of(v, text, strlen(text));
        if (found < 0 || v->symbols[found].id < 0)
            return dr_fail(err, DR_EMODEL, "tokenizer: %s must not be empty", rows[i].key);
        *targets[i] = v->symbols[found].id;
    }
    const dr_json *more =
        dr_json_get(s->map ? s->map : s->config, "additional_special_tokens");
    for (more = dr_json_first(more); more && !st; more = dr_json_next(more))
        st = add_token(v, token_text(more, ""), -1, err);
    return st;
}

static dr_status read_optional(dr_json **out, const char *dir, const char *name,
                               dr_err *err)
{
    char path[DR_PATH_MAX];
    dr_status st = dr_path_join(path, dir, name, err);
    return st || !dr_file_exists(path) ? st : read_json(out, path, err);
}

/* Newer folders have everything in tokenizer_config.json (added_tokens_decoder); only
 * without it do the two older files count. */
static dr_status read_settings(dr_bpe_vocab *v, const char *dir, dr_err *err)
{
    settings s = { 0 };
    dr_status st = read_optional(&s.config, dir, "tokenizer_config.json", err);
    if (!st && !dr_json_get(s.config, "added_tokens_decoder") &&
        !(st = read_optional(&s.map, dir, "special_tokens_map.json", err)))
        st = read_optional(&s.added, dir, "added_tokens.json", err);
    if (!st)
        st = add_specials(v, &s, err);
    dr_json_free(s.config);
    dr_json_free(s.map);
    dr_json_free(s.added);
    return st;
}

dr_status dr_bpe_vocab_read(dr_bpe_vocab *v, const char *dir, dr_err *err)
{
    *v = (dr_bpe_vocab){ .mem = dr_arena_new() };
    dr_status st = v->mem ? read_tables(v, dir, err) : no_memory(err);
    if (!st && (st = read_settings(v, dir, err)))
        dr_err_wrap(err, "%s", dir);
    if (st)
        dr_bpe_vocab_free(v);
    return st;
}

void dr_bpe_vocab_free(dr_bpe_vocab *v)
{
    dr_arena_free(v->mem);
    *v = (dr_bpe_vocab){ 0 };
}
