#include "job/row.h"

#include "base/utf8.h"
#include "job/picture.h"
#include "job/read.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* --- Saying and remembering ---------------------------------------------------------- */

const char *dr_label(const dr_fill *f, const dr_row *r, char buf[DR_LABEL_BYTES])
{
    snprintf(buf, DR_LABEL_BYTES, "%s%s", f->prefix, r->name);
    return buf;
}

dr_status dr_bad(dr_fill *f, const dr_row *r, const char *fmt, ...)
{
    char label[DR_LABEL_BYTES], text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    dr_label(f, r, label);
    return dr_fail_field(f->err, DR_EINVAL, label, "%s%s", label, text);
}

dr_status dr_fill_nomem(dr_fill *f)
{
    return dr_fail(f->err, DR_ENOMEM, "out of memory");
}

bool dr_is_given(const dr_fill *f, const dr_row *r)
{
    return f->given[r - f->rows];
}

dr_status dr_note_given(dr_fill *f, const dr_row *r, const char *as, bool equal)
{
    const char **given = &f->given[r - f->rows];
    char label[DR_LABEL_BYTES];
    if (*given && !equal && !strcmp(*given, as)) {
        dr_label(f, r, label);
        return dr_fail_field(f->err, DR_EINVAL, label,
                             "%s%s: given twice with different values; send one", f->prefix,
                             as);
    }
    if (*given && !equal)
        return dr_bad(f, r, ": given as %s and as %s with different values; send one",
                      *given, as);
    *given = as;
    return DR_OK;
}

dr_status dr_fill_keep(dr_fill *f, const dr_row *r, const char *as, const void *value,
                       size_t size)
{
    void *to = (char *)f->base + r->offset;
    dr_status st = dr_note_given(f, r, as, !memcmp(to, value, size));
    if (!st)
        memcpy(to, value, size);
    return st;
}

dr_status dr_fill_text(dr_fill *f, const dr_row *r, const char *as, const char *text)
{
    const char **to = (const char **)((char *)f->base + r->offset);
    dr_status st = dr_note_given(f, r, as, *to && !strcmp(*to, text));
    if (!st)
        *to = text;
    return st;
}

/* --- Checked reading ----------------------------------------------------------------- */

dr_status dr_to_text(dr_fill *f, const dr_row *r, const dr_value *v, const char **out)
{
    size_t at;
    if (v->kind != DR_VALUE_STR)
        return dr_bad(f, r, " %s: must be text", dr_value_show(v).text);
    const char *p = v->as.s.p, *nul = memchr(p, 0, v->as.s.n);
    if (r->max && (int64_t)v->as.s.n > r->max)
        return dr_bad(f, r, " of %zu bytes: must be at most %lld; shorten it", v->as.s.n,
                      (long long)r->max);
    if ((int64_t)v->as.s.n < r->min)
        return dr_bad(f, r, ": empty; give a value or leave it out");
    if (!dr_utf8_valid(p, v->as.s.n, &at))
        return dr_bad(f, r, ": byte %zu is not UTF-8; send the text as UTF-8", at);
    if (nul)
        return dr_bad(f, r, ": byte %zu is NUL; text may not hold one", (size_t)(nul - p));
    *out = p;
    return DR_OK;
}

/* Whether v is one of the spellings in a word, "jpeg|jpg", in either case. */
static bool spells(const dr_value *v, const char *word)
{
    while (v->kind == DR_VALUE_STR) {
        size_t n = strcspn(word, "|");
        if (n == v->as.s.n && !strncasecmp(word, v->as.s.p, n))
            return true;
        if (!word[n])
            break;
        word += n + 1;
    }
    return false;
}

dr_status dr_to_word(dr_fill *f, const dr_row *r, const dr_value *v, int *out)
{
    char known[128] = "";
    size_t n = 0;
    for (int i = 0; r->words[i]; i++) {
        const char *word = r->words[i];
        if (spells(v, word)) {
            *out = i;
            return DR_OK;
        }
        n += (size_t)snprintf(known + n, sizeof known - n, "%s%.*s", i ? ", " : "",
                              (int)strcspn(word, "|"), word);
    }
    return dr_bad(f, r, " %s: this version knows %s", dr_value_show(v).text, known);
}

dr_status dr_unfold(dr_fill *f, const dr_value *v, const dr_value **out, dr_err *why)
{
    dr_value *tree;
    *out = v;
    if (v->kind != DR_VALUE_STR || !v->plain)
        return DR_OK;
    dr_status st =
        dr_value_from_json(&tree, f->mem, v->as.s.p, v->as.s.n, DR_JOB_OBJECTS_MAX, why);
    if (!st)
        *out = tree;
    return st;
}

/* Whether a text looks like JSON's list or map; "{darkroom}:input:…" does not. */
static bool looks_like_items(const dr_value *v)
{
    static const char blanks[] = " \t\r\n";
    if (v->kind != DR_VALUE_STR)
        return false;
    const char *p = v->as.s.p + strspn(v->as.s.p, blanks);
    if (*p != '{')
        return *p == '[';
    p++;
    p += strspn(p, blanks);
    return *p == '"' || *p == '}' || !*p;
}

dr_status dr_unfold_items(dr_fill *f, const dr_row *r, const dr_value **v)
{
    dr_err why;
    const dr_value *from = *v;
    if (!looks_like_items(from))
        return DR_OK;
    dr_status st = dr_unfold(f, from, v, &why);
    if (st == DR_EINVAL)
        return dr_bad(f, r, ": %s", why.message);
    return st ? dr_fill_nomem(f) : DR_OK;
}

bool dr_asks_nothing(const dr_value *v)
{
    double d;
    bool b;
    switch (v->kind) {
    case DR_VALUE_NIL:
        return true;
    case DR_VALUE_STR:
    case DR_VALUE_BIN:
        return !v->as.s.n || (v->plain && dr_value_bool(v, &b) && !b);
    case DR_VALUE_ARRAY:
    case DR_VALUE_MAP:
        return !v->as.items.n;
    case DR_VALUE_BOOL:
        return !v->as.b;
    default:
        return dr_value_float(v, &d) && d == 0;
    }
}

/* --- Setters ------------------------------------------------------------------------- */

dr_status dr_set_int(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    int64_t i;
    if (!dr_value_int(v, &i) || i < r->min || i > r->max)
        return dr_bad(f, r, " %s: must be a whole number in %lld..%lld",
                      dr_value_show(v).text, (long long)r->min, (long long)r->max);
    return dr_fill_keep(f, r, as, &i, sizeof i);
}

dr_status dr_set_float(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    double d;
    if (!dr_value_float(v, &d) || d < (double)r->min || d > (double)r->max)
        return dr_bad(f, r, " %s: must be a number in %lld..%lld", dr_value_show(v).text,
                      (long long)r->min, (long long)r->max);
    return dr_fill_keep(f, r, as, &d, sizeof d);
}

dr_status dr_set_bool(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    bool b;
    if (!dr_value_bool(v, &b))
        return dr_bad(f, r, " %s: must be true or false", dr_value_show(v).text);
    return dr_fill_keep(f, r, as, &b, sizeof b);
}

dr_status dr_set_text(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    const char *text;
    dr_status st = dr_to_text(f, r, v, &text);
    return st ? st : dr_fill_text(f, r, as, text);
}

dr_status dr_set_name(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    static const char ending[] = ".safetensors";
    const char *text;
    bool control = false;
    dr_status st = dr_to_text(f, r, v, &text);
    if (st)
        return st;
    size_t n = v->as.s.n, tail = sizeof ending - 1;
    for (size_t i = 0; i < n; i++)
        control |= (unsigned char)text[i] < ' ' || text[i] == 0x7f;
    if (n > tail && !strcmp(text + n - tail, ending))
        n -= tail;
    if (control || *text == '.' || strchr(text, '/') || strstr(text, ".."))
        return dr_bad(f, r,
                      " %s: must be a name without \"/\", \"..\", a leading \".\" and "
                      "control characters; it is looked up in the worker's own folder",
                      dr_value_show(v).text);
    char *name = dr_arena_str(f->mem, text, n);
    return name ? dr_fill_text(f, r, as, name) : dr_fill_nomem(f);
}

dr_status dr_set_enum(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    int word;
    dr_status st = dr_to_word(f, r, v, &word);
    return st ? st : dr_fill_keep(f, r, as, &word, sizeof word);
}

/* Two words whose second means true. */
dr_status dr_set_enum_bool(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    int word;
    dr_status st = dr_to_word(f, r, v, &word);
    bool b = !st && word;
    return st ? st : dr_fill_keep(f, r, as, &b, sizeof b);
}

static bool same_picture(const dr_picture_ref *a, const dr_picture_ref *b)
{
    if (a->key || b->key)
        return a->key && b->key && !strcmp(a->key, b->key);
    return a->n == b->n && a->n && !memcmp(a->bytes, b->bytes, a->n);
}

/* A list of one, as A1111's init_images, counts as what is in it. */
dr_status dr_set_picture(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    char label[DR_LABEL_BYTES];
    dr_picture_ref ref, *to = (dr_picture_ref *)((char *)f->base + r->offset);
    dr_status st = v->plain ? dr_unfold_items(f, r, &v) : DR_OK;
    if (st || dr_asks_nothing(v))
        return st;
    if (v->kind == DR_VALUE_ARRAY && v->as.items.n > 1)
        return dr_bad(f, r, " of %d pictures: must be one; leave the others out",
                      v->as.items.n);
    if (v->kind == DR_VALUE_ARRAY && dr_asks_nothing(v = v->as.items.first))
        return DR_OK;
    st = dr_picture_read(&ref, f->mem, dr_label(f, r, label), v, f->err);
    if (!st)
        st = dr_note_given(f, r, as, same_picture(to, &ref));
    if (!st)
        *to = ref;
    return st;
}

dr_status dr_set_group(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    (void)as;
    dr_status st = dr_unfold_items(f, r, &v);
    if (st)
        return st;
    if (v->kind != DR_VALUE_MAP)
        return dr_bad(f, r, " %s: must be a map", dr_value_show(v).text);
    for (const dr_value *i = v->as.items.first; i && !st; i = i->next) {
        const char *name = dr_arena_printf(f->mem, "%s.%s", r->name, i->name);
        st = name ? dr_apply(f, i, name) : dr_fill_nomem(f);
    }
    return st;
}

dr_status dr_set_none(dr_fill *f, const dr_row *r, const dr_value *v, const char *as)
{
    char label[DR_LABEL_BYTES];
    if (dr_asks_nothing(v))
        return DR_OK;
    return dr_fail_field(f->err, DR_EINVAL, dr_label(f, r, label),
                         "%s: this version cannot do that; leave it out", as);
}
