#include "diffusion/prompt.h"

#include "diffusion/lex.h"

#include <math.h>

/* From brackets to weights, and BREAK. */

#define WORD "BREAK"

/* Text so far: stretches are neighbours in one buffer. */
typedef struct {
    size_t from, to;
    double weight;
    bool is_break;
} span;

typedef struct {
    dr_reading *r;
    span *spans;
    int n;
    char *text;
    size_t len;
    int *round, *square; /* spans before each open bracket */
    int n_round, n_square;
} weigher;

static void put(weigher *w, const char *p, size_t n)
{
    if (!n)
        return;
    memcpy(w->text + w->len, p, n);
    w->spans[w->n++] = (span){ .from = w->len, .to = w->len + n, .weight = 1 };
    w->len += n;
}

/* A run of text, in which BREAK is a word of its own. */
static void put_run(weigher *w, const char *p, size_t n)
{
    for (size_t from = 0;;) {
        size_t at = from, len = sizeof WORD - 1;
        while (at + len <= n &&
               (memcmp(p + at, WORD, len) != 0 || (at > 0 && is_word(p[at - 1])) ||
                (at + len < n && is_word(p[at + len]))))
            at++;
        if (at + len > n) {
            put(w, p + from, n - from);
            return;
        }
        size_t end = at;
        while (end > from && is_space(p[end - 1]))
            end--;
        put(w, p + from, end - from);
        w->spans[w->n++] = (span){ .from = w->len, .to = w->len, .is_break = true };
        for (from = at + len; from < n && is_space(p[from]); from++)
            ;
    }
}

static void multiply(weigher *w, int first, double factor)
{
    for (int i = first; i < w->n; i++)
        w->spans[i].weight *= factor;
}

/* ":1.3)" → its bytes; 0: it is something else. */
static size_t weight_at(const char *p, double *weight)
{
    size_t at = 1;
    while (is_space(p[at]))
        at++;
    size_t n = number(p + at, weight);
    if (!n || fabs(*weight) > DR_PROMPT_WEIGHT_MAX)
        return 0;
    for (at += n; is_space(p[at]); at++)
        ;
    return p[at] == ')' ? at + 1 : 0;
}

/* A colon: the weight that closes a bracket, or text. → its bytes */
static size_t colon(weigher *w, const char *p)
{
    double weight = 1;
    size_t n = weight_at(p, &weight), rest = strcspn(p + 1, "\\()[]:");
    if (w->n_round && n) {
        multiply(w, w->round[--w->n_round], weight);
        return n;
    }
    if (w->n_round && p[1 + rest] == ')')
        dr_note(w->r, "\"%.*s\" is no weight (a number up to %d); it is read as text",
                shown(p, rest + 1), p, DR_PROMPT_WEIGHT_MAX);
    put_run(w, p, n ? n : 1);
    return n ? n : 1;
}

/* The token at p → its bytes */
static size_t weigh(weigher *w, const char *p)
{
    size_t run = strcspn(p, "\\()[]:");
    if (run) {
        put_run(w, p, run);
        return run;
    }
    if (*p == ':')
        return colon(w, p);
    if (*p == '\\') {
        bool escapes = p[1] && strchr("\\()[]", p[1]);
        put(w, p + 1, escapes);
        return 1 + (size_t)escapes;
    }
    if (*p == '(')
        w->round[w->n_round++] = w->n;
    else if (*p == '[')
        w->square[w->n_square++] = w->n;
    else if (*p == ')' && w->n_round)
        multiply(w, w->round[--w->n_round], 1.1);
    else if (*p == ']' && w->n_square)
        multiply(w, w->square[--w->n_square], 1 / 1.1);
    else
        put(w, p, 1);
    return 1;
}

/* Spans that touch and weigh the same become one stretch. */
static dr_status join(dr_stretch **out, int *n, const weigher *w, dr_err *err)
{
    size_t spans = (size_t)w->n + 1;
    char *text = dr_arena_alloc(w->r->mem, w->len + spans + 1);
    dr_stretch *to = *out = dr_arena_alloc(w->r->mem, spans * sizeof *to);
    if (!text || !to)
        return dr_fail(err, DR_ENOMEM, "out of memory for a prompt");
    for (int i = 0; i < w->n; to++) {
        const span *s = &w->spans[i];
        size_t end = s->to;
        double limit = DR_PROMPT_WEIGHT_MAX;
        for (i++; !s->is_break && i < w->n && !w->spans[i].is_break &&
                  w->spans[i].weight == s->weight;
             i++)
            end = w->spans[i].to;
        memcpy(text, w->text + s->from, end - s->from);
        *to = (dr_stretch){ .text = text,
                            .weight = fmax(-limit, fmin(limit, s->weight)),
                            .is_break = s->is_break };
        text += end - s->from + 1;
    }
    if (!w->n)
        *to++ = (dr_stretch){ .text = "", .weight = 1 };
    *n = (int)(to - *out);
    return DR_OK;
}

/* How many spans a text comes to at most: a character that means something and the run
 * after it are one each, so are a BREAK and what follows. */
static size_t spans_max(const char *text)
{
    size_t n = 1;
    for (const char *p = text; *(p += strcspn(p, "\\()[]:")); p++)
        n += 2;
    for (const char *p = text; (p = strstr(p, WORD)); p++)
        n += 2;
    return n;
}

dr_status dr_prompt_weigh(dr_stretch **out, int *n, dr_reading *r, const char *text,
                          dr_err *err)
{
    size_t size = spans_max(text);
    weigher w = { .r = r };
    w.spans = dr_arena_alloc(r->mem, size * sizeof *w.spans);
    w.text = dr_arena_alloc(r->mem, strlen(text) + 1);
    w.round = dr_arena_alloc(r->mem, size * sizeof *w.round);
    w.square = dr_arena_alloc(r->mem, size * sizeof *w.square);
    if (!w.spans || !w.text || !w.round || !w.square)
        return dr_fail(err, DR_ENOMEM, "out of memory for a prompt");
    for (const char *p = text; *p;)
        p += weigh(&w, p);
    while (w.n_round)
        multiply(&w, w.round[--w.n_round], 1.1);
    while (w.n_square)
        multiply(&w, w.square[--w.n_square], 1 / 1.1);
    return join(out, n, &w, err);
}
