#ifndef DR_CLI_SHOW_H
#define DR_CLI_SHOW_H

#include "base/arena.h"
#include "base/buf.h"

#include <stdbool.h>
#include <stdint.h>

/* What the commands that show tables share. Whatever comes out of Redis is shown as text:
 * control characters and bytes that are not UTF-8 become "?". */

/* The standard output. */
typedef struct {
    bool terminal, color;
    int width, height; /* 0: no limit (a pipe) */
} dr_screen;
dr_screen dr_screen_look(void);

typedef enum {
    DR_PLAIN,
    DR_DIM,
    DR_BOLD,
    DR_GREEN,
    DR_YELLOW,
    DR_RED,
} dr_color;

/* --- tables --- */

#define DR_COLUMNS_MAX 16

typedef struct {
    const char *head;
    bool right; /* numbers */
    int min;    /* cells may be cut to this many characters; 0: never */
    int rank;   /* 0: always there; else the highest goes first when there is no room */
} dr_column;

typedef struct {
    const char *text;
    dr_color color;
} dr_cell;

typedef struct dr_table_row dr_table_row;
typedef struct {
    dr_arena *mem;
    const dr_column *columns; /* until one without a head */
    dr_table_row *first, *last;
    bool failed; /* memory is out */
} dr_table;

/* One cell for each column, copied. */
void dr_table_add(dr_table *t, const dr_cell *cells);
/* Append the table to out; no line is wider than the screen. */
void dr_table_put(dr_buf *out, const dr_table *t, const dr_screen *screen);

/* --- texts --- */

/* Append n bytes as shown text; max > 0 cuts it to that many characters, the last of them
 * "…". Returns how many characters that made. */
int dr_show_text(dr_buf *out, const char *text, size_t n, int max);

/* "12 s", "3 min", "5 h", "2 d"; "-" when negative. And "1.2 MiB". Both return buf. */
#define DR_SHOWN_MAX 32
const char *dr_show_age(char buf[DR_SHOWN_MAX], int64_t ms);
const char *dr_show_bytes(char buf[DR_SHOWN_MAX], int64_t bytes);

#endif
