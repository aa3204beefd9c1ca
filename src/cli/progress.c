#include "cli/progress.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CELLS     28
#define REDRAW_S  0.1
#define TAIL_SIZE 96

dr_bar dr_bar_make(bool quiet)
{
    return (dr_bar){ .quiet = quiet, .terminal = isatty(STDERR_FILENO), .tenth = -1 };
}

/* " 12/20  3.21 it/s  ETA 1:05": what is known of it. */
static void format_tail(char out[TAIL_SIZE], const dr_bar_state *s)
{
    int n = 0;
    out[0] = 0;
    if (s->steps > 0)
        n += snprintf(out, TAIL_SIZE, "  %lld/%lld", (long long)s->step,
                      (long long)s->steps);
    if (s->it_s >= 1)
        n += snprintf(out + n, TAIL_SIZE - (size_t)n, "  %.2f it/s", s->it_s);
    else if (s->it_s > 0)
        n += snprintf(out + n, TAIL_SIZE - (size_t)n, "  %.2f s/it", 1 / s->it_s);
    if (s->eta_s > 0) {
        long long eta_s = (long long)(s->eta_s + 0.5);
        snprintf(out + n, TAIL_SIZE - (size_t)n, "  ETA %lld:%02lld", eta_s / 60,
                 eta_s % 60);
    }
}

static void draw(dr_bar *b, const dr_bar_state *s, const char *tail)
{
    char cells[CELLS + 1];
    int full = (int)(s->percent / 100 * CELLS + 0.5);
    for (int i = 0; i < CELLS; i++)
        cells[i] = i < full ? '#' : '.';
    cells[CELLS] = 0;
    fprintf(stderr, "\r\033[K%-8s [%s] %3.0f%%%s", s->phase, cells, s->percent, tail);
    fflush(stderr);
    b->drawn = true;
    b->drawn_at_s = dr_now_s();
}

void dr_bar_show(dr_bar *b, const dr_bar_state *s)
{
    char tail[TAIL_SIZE];
    if (b->quiet)
        return;
    bool new_phase = strcmp(b->phase, s->phase) != 0;
    snprintf(b->phase, sizeof b->phase, "%s", s->phase);
    format_tail(tail, s);
    if (b->terminal) {
        bool last = s->steps > 0 && s->step == s->steps;
        if (new_phase || last || dr_now_s() - b->drawn_at_s >= REDRAW_S)
            draw(b, s, tail);
        return;
    }
    int64_t tenth = (int64_t)(s->percent / 10);
    if (new_phase || tenth > b->tenth)
        fprintf(stderr, "%s %.0f%%%s\n", s->phase, s->percent, tail);
    b->tenth = tenth;
}

void dr_bar_clear(dr_bar *b)
{
    if (b->drawn)
        fprintf(stderr, "\r\033[K");
    b->drawn = false;
}
