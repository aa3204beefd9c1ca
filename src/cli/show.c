#include "cli/show.h"

#include "base/err.h"
#include "base/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define GAP "  " /* between columns */

/* --- the screen --- */

dr_screen dr_screen_look(void)
{
    struct winsize size = { 0 };
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    dr_screen s = { .terminal = isatty(STDOUT_FILENO) };
    if (!s.terminal)
        return s;
    s.color = !(no_color && *no_color) && !(term && !strcmp(term, "dumb"));
    bool known = !ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) && size.ws_col && size.ws_row;
    s.width = known ? size.ws_col : 80;
    s.height = known ? size.ws_row : 24;
    return s;
}

static const char *const codes[] = {
    [DR_PLAIN] = NULL, [DR_DIM] = "2",     [DR_BOLD] = "1",
    [DR_GREEN] = "32", [DR_YELLOW] = "33", [DR_RED] = "31",
};

/* --- texts --- */

/* The next character of text as it is shown, in out; the bytes it took. */
static size_t next_shown(const char *text, size_t left, char out[5])
{
    int32_t cp;
    int n = dr_utf8_decode(text, left, &cp);
    bool shown = n > 0 && cp >= ' ' && !(cp >= 0x7f && cp < 0xa0);
    snprintf(out, 5, "%.*s", shown ? n : 1, shown ? text : "?");
    return n > 0 ? (size_t)n : 1;
}

static int count_shown(const char *text, size_t n)
{
    char ignored[5];
    int count = 0;
    for (size_t at = 0; at < n; count++)
        at += next_shown(text + at, n - at, ignored);
    return count;
}

int dr_show_text(dr_buf *out, const char *text, size_t n, int max)
{
    int count = count_shown(text, n);
    bool cut = max > 0 && count > max;
    count = cut ? max : count;
    for (int i = 0; i < count - cut; i++) {
        char shown[5];
        size_t took = next_shown(text, n, shown);
        dr_buf_puts(out, shown);
        text += took;
        n -= took;
    }
    if (cut)
        dr_buf_puts(out, "…");
    return count;
}

const char *dr_show_age(char buf[DR_SHOWN_MAX], int64_t ms)
{
    static const struct {
        int64_t ms, below_ms;
        const char *unit;
    } rows[] = {
        { 1000, 60000, "s" },
        { 60000, 3600000, "min" },
        { 3600000, 172800000, "h" },
        { 86400000, INT64_MAX, "d" },
    };
    size_t i = 0;
    if (ms < 0)
        snprintf(buf, DR_SHOWN_MAX, "-");
    else {
        while (ms >= rows[i].below_ms && i + 1 < DR_COUNT(rows))
            i++;
        snprintf(buf, DR_SHOWN_MAX, "%lld %s", (long long)(ms / rows[i].ms), rows[i].unit);
    }
    return buf;
}

const char *dr_show_bytes(char buf[DR_SHOWN_MAX], int64_t bytes)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    double v = (double)bytes;
    size_t i = 0;
    while (v >= 1024 && i + 1 < DR_COUNT(units)) {
        v /= 1024;
        i++;
    }
    snprintf(buf, DR_SHOWN_MAX, i ? "%.1f %s" : "%.0f %s", v, units[i]);
    return buf;
}

/* --- tables --- */

struct dr_table_row {
    dr_cell cells[DR_COLUMNS_MAX];
    dr_table_row *next;
};

static int count_columns(const dr_table *t)
{
    int n = 0;
    while (n < DR_COLUMNS_MAX && t->columns[n].head)
        n++;
    return n;
}

void dr_table_add(dr_table *t, const dr_cell *cells)
{
    dr_table_row *row = dr_arena_alloc(t->mem, sizeof *row);
    if (!row) {
        t->failed = true;
        return;
    }
    for (int i = 0; i < count_columns(t); i++) {
        const char *copy = dr_arena_str(t->mem, cells[i].text, strlen(cells[i].text));
        row->cells[i] = (dr_cell){ copy ? copy : "", cells[i].color };
        t->failed = t->failed || !copy;
    }
    if (t->last)
        t->last->next = row;
    else
        t->first = row;
    t->last = row;
}

/* What the columns need; widths 0: left out. */
typedef struct {
    int n, widths[DR_COLUMNS_MAX];
} layout;

static int total(const layout *l)
{
    int sum = 0;
    for (int i = 0; i < l->n; i++)
        sum += l->widths[i] ? l->widths[i] + (sum ? (int)strlen(GAP) : 0) : 0;
    return sum;
}

static layout measure(const dr_table *t)
{
    layout l = { .n = count_columns(t) };
    for (int i = 0; i < l.n; i++) {
        l.widths[i] = count_shown(t->columns[i].head, strlen(t->columns[i].head));
        for (const dr_table_row *row = t->first; row; row = row->next) {
            int n = count_shown(row->cells[i].text, strlen(row->cells[i].text));
            l.widths[i] = n > l.widths[i] ? n : l.widths[i];
        }
    }
    return l;
}

/* Cut to the narrowest. */
static layout squeezed(const dr_table *t, layout l)
{
    for (int i = 0; i < l.n; i++)
        if (t->columns[i].min && l.widths[i] > t->columns[i].min)
            l.widths[i] = t->columns[i].min;
    return l;
}

/* The column whose rank is highest and which is still there; -1: none may go. */
static int least_wanted(const dr_table *t, const layout *l)
{
    int found = -1;
    for (int i = 0; i < l->n; i++)
        if (l->widths[i] && t->columns[i].rank &&
            (found < 0 || t->columns[i].rank > t->columns[found].rank))
            found = i;
    return found;
}

/* The widest column that may be narrower than it is; -1: none. */
static int widest(const layout *l, const layout *least)
{
    int found = -1;
    for (int i = 0; i < l->n; i++)
        if (l->widths[i] > least->widths[i] &&
            (found < 0 || l->widths[i] > l->widths[found]))
            found = i;
    return found;
}

/* First columns are left out until the rest would fit at its narrowest, then the widest
 * give way; on a screen that is too narrow for that, all do. */
static layout fit(const dr_table *t, int width)
{
    layout l = measure(t), least = squeezed(t, l), one = { .n = l.n };
    int i;
    while (total(&least) > width && (i = least_wanted(t, &least)) >= 0)
        l.widths[i] = least.widths[i] = 0;
    for (i = 0; i < l.n; i++)
        one.widths[i] = l.widths[i] ? 1 : 0;
    while (total(&l) > width && (i = widest(&l, &least)) >= 0)
        l.widths[i]--;
    while (total(&l) > width && (i = widest(&l, &one)) >= 0)
        l.widths[i]--;
    return l;
}

static void put_cell(dr_buf *out, const dr_cell *cell, int width, bool right, bool last,
                     bool color)
{
    int n = count_shown(cell->text, strlen(cell->text));
    int pad = n < width ? width - n : 0;
    const char *code = color ? codes[cell->color] : NULL;
    if (right)
        dr_buf_printf(out, "%*s", pad, "");
    if (code)
        dr_buf_printf(out, "\033[%sm", code);
    dr_show_text(out, cell->text, strlen(cell->text), width);
    if (code)
        dr_buf_puts(out, "\033[0m");
    if (!right && !last)
        dr_buf_printf(out, "%*s", pad, "");
}

static void put_row(dr_buf *out, const dr_table *t, const layout *l, const dr_cell *cells,
                    bool color)
{
    int last = l->n - 1;
    while (last > 0 && !l->widths[last])
        last--;
    for (int i = 0, shown = 0; i <= last; i++) {
        if (!l->widths[i])
            continue;
        if (shown++)
            dr_buf_puts(out, GAP);
        put_cell(out, &cells[i], l->widths[i], t->columns[i].right, i == last, color);
    }
    dr_buf_puts(out, "\n");
}

void dr_table_put(dr_buf *out, const dr_table *t, const dr_screen *screen)
{
    dr_cell heads[DR_COLUMNS_MAX];
    const layout l = fit(t, screen->width ? screen->width : INT16_MAX);
    for (int i = 0; i < l.n; i++)
        heads[i] = (dr_cell){ t->columns[i].head, DR_DIM };
    put_row(out, t, &l, heads, screen->color);
    for (const dr_table_row *row = t->first; row; row = row->next)
        put_row(out, t, &l, row->cells, screen->color);
    out->failed = out->failed || t->failed;
}
