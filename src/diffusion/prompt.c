#include "diffusion/prompt.h"

#include "diffusion/lex.h"

#include <stdarg.h>
#include <stdio.h>

static dr_status no_memory(dr_err *err)
{
    return dr_fail(err, DR_ENOMEM, "out of memory for a prompt");
}

/* --- notes --- */

void dr_note(dr_reading *r, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    char *note = dr_arena_printf(r->mem, "%s: %s", r->field, text);
    if (!note || r->n == DR_NOTES_MAX)
        return;
    for (int i = 0; i < r->n; i++)
        if (!strcmp(r->note[i], note))
            return;
    r->note[r->n++] = note;
}

const char *dr_prompt_word(const char *at, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = at; (p = strstr(p, word)); p++)
        if ((p == at || !is_word(p[-1])) && !is_word(p[n]))
            return p;
    return NULL;
}

/* --- the steps --- */

/* A prompt is a list of nodes; so is everything between brackets. */
typedef enum { TEXT, SWITCH, CYCLE, OPTION } node_kind;

/* As written: a share of the steps, or a number of them. */
typedef struct {
    double v;
    bool share;
} moment;

typedef struct {
    node_kind kind;
    int next;          /* of its list; -1: the last */
    uint32_t from, to; /* in the source */
    int first, second; /* lists: SWITCH before and after, CYCLE options, OPTION its own */
    moment when;       /* SWITCH */
} node;

typedef struct {
    const char *source;
    dr_prompt_steps steps;
    node *nodes;
    int n;
    bool cycles;
} parser;

/* A list under construction. */
typedef struct {
    int first, last;
} chain;

static const chain empty = { -1, -1 };

static node *add(parser *p, chain *c, node_kind kind, size_t from, size_t to)
{
    int i = p->n++;
    p->nodes[i] = (node){ .kind = kind,
                          .next = -1,
                          .from = (uint32_t)from,
                          .to = (uint32_t)to,
                          .first = -1,
                          .second = -1 };
    *(c->last < 0 ? &c->first : &p->nodes[c->last].next) = i;
    c->last = i;
    return &p->nodes[i];
}

static void append(const parser *p, chain *c, chain list)
{
    if (list.first < 0)
        return;
    *(c->last < 0 ? &c->first : &p->nodes[c->last].next) = list.first;
    c->last = list.last;
}

static size_t parse_bracket(parser *p, chain *c, size_t at, int depth);

/* Bytes of text at `at` in which no character means anything. */
static size_t plain(const char *p)
{
    size_t n = 0;
    while (p[n] && !strchr("[]():|", p[n]))
        n += p[n] == '\\' && p[n + 1] ? 2 : 1;
    return n;
}

/* What stands between brackets, up to a character that ends it. → where that is; 0: a
 * bracket in it is unbalanced. */
static size_t parse_list(parser *p, chain *c, size_t at, int depth)
{
    for (;;) {
        size_t n = plain(p->source + at);
        if (n)
            add(p, c, TEXT, at, at + n);
        at += n;
        char ends = p->source[at];
        if (ends != '(' && ends != '[')
            return at;
        if (!(at = parse_bracket(p, c, at, depth + 1)))
            return 0;
    }
}

/* ( list ) or ( list : list ): its own characters stay, for the weights. */
static size_t parse_round(parser *p, chain *c, size_t at, int depth)
{
    add(p, c, TEXT, at, at + 1);
    if (!(at = parse_list(p, c, at + 1, depth)))
        return 0;
    if (p->source[at] == ':') {
        add(p, c, TEXT, at, at + 1);
        if (!(at = parse_list(p, c, at + 1, depth)))
            return 0;
    }
    if (p->source[at] != ')')
        return 0;
    add(p, c, TEXT, at, at + 1);
    return at + 1;
}

/* ":when]" → where it ends; 0: it is something else. */
static size_t parse_when(const parser *p, size_t at, moment *when)
{
    for (at++; is_space(p->source[at]); at++)
        ;
    const char *text = p->source + at;
    size_t n = number(text, &when->v);
    if (!n)
        return 0;
    when->share = memchr(text, '.', n);
    for (at += n; is_space(p->source[at]); at++)
        ;
    return p->source[at] == ']' ? at + 1 : 0;
}

/* The rest of [ first : when ] or [ first : second : when ], from its first colon. */
static size_t parse_switch(parser *p, chain *c, chain first, size_t open, size_t at,
                           int depth)
{
    moment when;
    chain second = empty;
    size_t end = parse_when(p, at, &when);
    if (end) {
        second = first;
        first = empty;
    } else {
        at = parse_list(p, &second, at + 1, depth);
        if (!at || p->source[at] != ':' || !(end = parse_when(p, at, &when)))
            return 0;
    }
    node *v = add(p, c, SWITCH, open, end);
    v->first = first.first;
    v->second = second.first;
    v->when = when;
    return end;
}

/* The rest of [ first | … ], from its first bar. */
static size_t parse_cycle(parser *p, chain *c, chain first, size_t open, size_t at,
                          int depth)
{
    chain options = empty;
    add(p, &options, OPTION, open, open)->first = first.first;
    while (p->source[at] == '|') {
        chain list = empty;
        if (!(at = parse_list(p, &list, at + 1, depth)))
            return 0;
        add(p, &options, OPTION, open, open)->first = list.first;
    }
    if (p->source[at] != ']')
        return 0;
    add(p, c, CYCLE, open, at + 1)->first = options.first;
    p->cycles = true;
    return at + 1;
}

/* [ list ] stays as it is, for the weights. */
static size_t parse_square(parser *p, chain *c, size_t open, int depth)
{
    chain list = empty;
    size_t at = parse_list(p, &list, open + 1, depth);
    if (!at)
        return 0;
    if (p->source[at] == ':')
        return parse_switch(p, c, list, open, at, depth);
    if (p->source[at] == '|')
        return parse_cycle(p, c, list, open, at, depth);
    if (p->source[at] != ']')
        return 0;
    add(p, c, TEXT, open, open + 1);
    append(p, c, list);
    add(p, c, TEXT, at, at + 1);
    return at + 1;
}

/* The bracket at `at` with all it holds, added to the list. → where it ends; 0: it does not
 * balance, or lies too deep. */
static size_t parse_bracket(parser *p, chain *c, size_t at, int depth)
{
    if (depth > DR_PROMPT_DEPTH_MAX)
        return 0;
    return p->source[at] == '(' ? parse_round(p, c, at, depth)
                                : parse_square(p, c, at, depth);
}

/* The whole prompt: brackets that do not balance are text. Each failed try reads on for at
 * most DR_PROMPT_DEPTH_MAX open brackets, so that the work stays in proportion. */
static chain parse(parser *p)
{
    chain all = empty;
    for (size_t at = 0; p->source[at];) {
        size_t n = plain(p->source + at), end = 0;
        if (n) {
            add(p, &all, TEXT, at, at + n);
            at += n;
            continue;
        }
        if (p->source[at] == '(' || p->source[at] == '[') {
            const chain before = all;
            int nodes = p->n;
            bool cycles = p->cycles;
            if (!(end = parse_bracket(p, &all, at, 1))) {
                all = before;
                p->n = nodes;
                p->cycles = cycles;
                if (all.last >= 0)
                    p->nodes[all.last].next = -1;
            }
        }
        if (!end)
            add(p, &all, TEXT, at, end = at + 1);
        at = end;
    }
    return all;
}

/* The last step of a pass that reads what a SWITCH begins with; 0: none does. */
static int64_t last_of_first(const parser *p, const node *v, int pass)
{
    int64_t steps = p->steps.steps[pass], before = pass ? p->steps.steps[0] : 0;
    double when =
        v->when.share ? (v->when.v - pass) * (double)steps : v->when.v - (double)before;
    return when >= (double)steps ? steps : when < 0 ? 0 : (int64_t)when;
}

/* Write what a list says in a step of the pass, counted from 1. */
static char *write_list(const parser *p, int i, int64_t step, char *out)
{
    for (; i >= 0; i = p->nodes[i].next) {
        const node *v = &p->nodes[i];
        if (v->kind == TEXT) {
            memcpy(out, p->source + v->from, v->to - v->from);
            out += v->to - v->from;
        } else if (v->kind == SWITCH) {
            bool first = step <= last_of_first(p, v, p->steps.pass);
            out = write_list(p, first ? v->first : v->second, step, out);
        } else {
            int options = 0, option = v->first;
            for (int k = option; k >= 0; k = p->nodes[k].next)
                options++;
            for (int64_t k = (step - 1) % options; k > 0; k--)
                option = p->nodes[option].next;
            out = write_list(p, p->nodes[option].first, step, out);
        }
    }
    return out;
}

/* Whether the text may change after a step. */
static bool changes_after(const parser *p, int64_t step)
{
    for (int i = 0; i < p->n; i++)
        if (p->nodes[i].kind == SWITCH &&
            last_of_first(p, &p->nodes[i], p->steps.pass) == step)
            return true;
    return p->cycles;
}

/* Tell of what no step of any pass reads. */
static void note_unread(const parser *p, dr_reading *r)
{
    const int64_t *steps = p->steps.steps;
    int64_t all = steps[0] + steps[1], longest = steps[steps[1] > steps[0]];
    int last = steps[1] > 0;
    for (int i = 0; i < p->n; i++) {
        const node *v = &p->nodes[i];
        const char *text = p->source + v->from;
        int options = 0, n = shown(text, v->to - v->from);
        for (int k = v->kind == CYCLE ? v->first : -1; k >= 0; k = p->nodes[k].next)
            options++;
        if (v->kind == SWITCH && v->second >= 0 && last_of_first(p, v, last) == steps[last])
            dr_note(r,
                    "%.*s changes after the last of %lld steps; what it changes to has no "
                    "effect",
                    n, text, (long long)all);
        else if (v->kind == SWITCH && v->first >= 0 && !last_of_first(p, v, 0))
            dr_note(r,
                    "%.*s changes before the first of %lld steps; what it begins with has "
                    "no effect",
                    n, text, (long long)all);
        else if (options > longest)
            dr_note(r, "%.*s has %d texts for %lld steps; the last ones have no effect", n,
                    text, options, (long long)longest);
    }
}

static int find_text(const dr_prompt *v, const char *text)
{
    for (int i = 0; i < v->n; i++)
        if (!strcmp(v->text[i], text))
            return i;
    return -1;
}

static dr_status collect(dr_prompt *out, const parser *p, int list, dr_reading *r,
                         dr_err *err)
{
    int64_t steps = p->steps.steps[p->steps.pass];
    size_t size = strlen(p->source) + 1;
    char *text = dr_arena_alloc(r->mem, size);
    for (int64_t i = 0; i < steps; i++) {
        if (!text)
            return no_memory(err);
        if (i > 0 && !changes_after(p, i)) {
            out->at[i] = out->at[i - 1];
            continue;
        }
        *write_list(p, list, i + 1, text) = 0;
        if ((out->at[i] = find_text(out, text)) >= 0)
            continue;
        if (out->n == DR_PROMPT_TEXTS_MAX)
            return dr_fail_field(err, DR_EINVAL, r->field,
                                 "%s: comes to more than %d different texts over %lld "
                                 "steps; use fewer [a|b]",
                                 r->field, DR_PROMPT_TEXTS_MAX, (long long)steps);
        out->at[i] = out->n;
        out->text[out->n++] = text;
        text = dr_arena_alloc(r->mem, size);
    }
    return DR_OK;
}

dr_status dr_prompt_read(dr_prompt *out, dr_reading *r, const char *source,
                         dr_prompt_steps steps, dr_err *err)
{
    bool scheduled = strchr(source, '[') != NULL;
    size_t count = (size_t)steps.steps[steps.pass];
    parser p = { .source = source, .steps = steps };
    *out = (dr_prompt){ .at = dr_arena_alloc(r->mem, count * sizeof *out->at) };
    out->text =
        dr_arena_alloc(r->mem, (scheduled ? DR_PROMPT_TEXTS_MAX : 1) * sizeof *out->text);
    if (scheduled) /* each node stands for a character of its own: OPTIONs for [ and |, a
                      CYCLE for ] */
        p.nodes = dr_arena_alloc(r->mem, (strlen(source) + 1) * sizeof *p.nodes);
    if (!out->at || !out->text || (scheduled && !p.nodes))
        return no_memory(err);
    if (!strcmp(r->field, "prompt") && dr_prompt_word(source, "AND"))
        dr_note(r, "AND does not compose prompts here; it is read as a word");
    if (!scheduled) {
        out->text[out->n++] = source;
        return DR_OK;
    }
    chain all = parse(&p);
    note_unread(&p, r);
    return collect(out, &p, all.first, r, err);
}
