#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/utf8.h"
#include "nn/bpe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* A small vocabulary: byte b is token b, at the end of a word 256 + b; then the results of
 * the merges; then the two specials. */
static const char *const merges[] = {
    "a b", "ab c</w>", "c a", "x x", "xx x</w>", "l l</w>"
};
enum { AB = 512, ABC_, CA, XX, XXX_, LL_, BOS, EOS, TOKENS };
#define IDS_MAX   4096
#define END(byte) (256 + (byte))

static char dir[] = "/tmp/darkroom-bpe-XXXXXX";

static void write_file(const char *name, const char *text)
{
    char path[DR_PATH_MAX];
    dr_err err = { 0 };
    assert_int_equal(dr_path_join(path, dir, name, &err), DR_OK);
    assert_int_equal(dr_file_write(path, text, strlen(text), &err), DR_OK);
}

static void remove_file(const char *name)
{
    char path[DR_PATH_MAX];
    dr_err err = { 0 };
    assert_int_equal(dr_path_join(path, dir, name, &err), DR_OK);
    unlink(path);
}

static void put_token(dr_buf *out, const char *text, int id)
{
    dr_buf_puts(out, out->len ? ",\n" : "{");
    dr_json_put_string(out, text);
    dr_buf_printf(out, ":%d", id);
}

static void put_bytes(dr_buf *out)
{
    int next = 0x100;
    for (int b = 0; b < 256; b++) {
        char text[16] = "";
        bool printable = (b > 0x20 && b < 0x7f) || (b > 0xa0 && b != 0xad);
        int n = dr_utf8_encode(printable ? b : next++, text);
        put_token(out, text, b);
        memcpy(text + n, "</w>", 5);
        put_token(out, text, END(b));
    }
}

static int make_folder(void **state)
{
    dr_buf vocab = { 0 }, lines = { 0 };
    (void)state;
    if (!strcmp(dir + sizeof dir - 7, "XXXXXX") && !mkdtemp(dir))
        return -1;
    put_bytes(&vocab);
    dr_buf_puts(&lines, "#version: 0.2\n");
    for (size_t i = 0; i < DR_COUNT(merges); i++) {
        char joined[32];
        const char *blank = strchr(merges[i], ' ');
        snprintf(joined, sizeof joined, "%.*s%s", (int)(blank - merges[i]), merges[i],
                 blank + 1);
        put_token(&vocab, joined, AB + (int)i);
        dr_buf_printf(&lines, "%s\n", merges[i]);
    }
    put_token(&vocab, "<|startoftext|>", BOS);
    put_token(&vocab, "<|endoftext|>", EOS);
    dr_buf_puts(&vocab, "}");
    write_file("vocab.json", vocab.data);
    write_file("merges.txt", lines.data);
    remove_file("tokenizer_config.json");
    remove_file("special_tokens_map.json");
    dr_buf_free(&vocab);
    dr_buf_free(&lines);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    remove_file("vocab.json");
    remove_file("merges.txt");
    remove_file("tokenizer_config.json");
    remove_file("special_tokens_map.json");
    return rmdir(dir);
}

static dr_bpe *open_folder(const char *path)
{
    dr_bpe *b = NULL;
    dr_err err = { 0 };
    if (dr_bpe_open(&b, path, &err))
        fail_msg("%s", err.message);
    return b;
}

/* The ids between BOS and EOS are `want`. */
static void expect(dr_bpe *b, const char *text, const int32_t *want, int n)
{
    int32_t ids[IDS_MAX];
    int needed = 0;
    dr_err err = { 0 };
    assert_int_equal(dr_bpe_encode(b, text, ids, IDS_MAX, &needed, &err), DR_OK);
    if (needed != n + 2)
        fail_msg("\"%s\": %d tokens, not %d", text, needed - 2, n);
    assert_int_equal(ids[0], dr_bpe_bos(b));
    assert_int_equal(ids[n + 1], dr_bpe_eos(b));
    for (int i = 0; i < n; i++)
        if (ids[i + 1] != want[i])
            fail_msg("\"%s\": token %d is %d, not %d", text, i, ids[i + 1], want[i]);
}
#define EXPECT(b, text, ...)                                                               \
    expect(b, text, (const int32_t[]){ __VA_ARGS__ },                                      \
           (int)DR_COUNT(((const int32_t[]){ __VA_ARGS__ })))

static void test_merges(void **state)
{
    (void)state;
    dr_bpe *b = open_folder(dir);
    expect(b, "", NULL, 0);
    expect(b, " \t\n\r ", NULL, 0);
    EXPECT(b, "abc", ABC_);
    EXPECT(b, "ab", 'a', END('b'));       /* the merge is of a b, not of a b</w> */
    EXPECT(b, "abab", AB, 'a', END('b')); /* all but the last b */
    EXPECT(b, "cabc", 'c', ABC_);         /* a b comes before c a */
    EXPECT(b, "caca", CA, 'c', END('a')); /* left to right */
    EXPECT(b, "xxx", XXX_);
    EXPECT(b, "xxxx", XX, 'x', END('x')); /* pairs are taken from the left */
    EXPECT(b, "abc  abc", ABC_, ABC_);
    dr_bpe_close(b);
}

static void test_words(void **state)
{
    (void)state;
    dr_bpe *b = open_folder(dir);
    EXPECT(b, "ABC", ABC_);
    EXPECT(b, "i'LL", END('i'), '\'', LL_);
    EXPECT(b, "a1 23", END('a'), END('1'), END('2'), END('3')); /* digits stand alone */
    EXPECT(b, "a, b!!", END('a'), END(','), END('b'), '!', END('!'));
    EXPECT(b,
           "a\x01"
           "bc",
           ABC_); /* control characters vanish */
    EXPECT(b,
           "a\xe2\x80\x8b"
           "bc",
           ABC_); /* so do format characters, here U+200B */
    EXPECT(b,
           "a\xc2\xa0"
           "b",
           END('a'), END('b')); /* U+00A0 is a space */
    EXPECT(b, "\xe6\x97\xa5\xe6\x9c\xac", 0xe6, 0x97, END(0xa5), 0xe6, 0x9c, END(0xac));
    dr_bpe_close(b);
}

static void test_unicode(void **state)
{
    (void)state;
    dr_bpe *b = open_folder(dir);
    /* NFC: e + U+0301 is U+00E9. */
    EXPECT(b, "e\xcc\x81", 0xc3, END(0xa9));
    EXPECT(b, "\xc3\x89", 0xc3, END(0xa9));
    /* U+0130 in lower case is i + U+0307, which is no letter. */
    EXPECT(b, "\xc4\xb0", END('i'), 0xcc, END(0x87));
    /* A sigma that ends a word is the final one (U+03C2), an apostrophe notwithstanding;
     * one that is a word, or stands inside of one, is U+03C3. */
    EXPECT(b, "A\xce\xa3", 'a', 0xcf, END(0x82));
    EXPECT(b, "A\xce\xa3'", 'a', 0xcf, END(0x82), END('\''));
    EXPECT(b, "\xce\xa3", 0xcf, END(0x83));
    EXPECT(b,
           "A\xce\xa3"
           "B",
           'a', 0xcf, 0x83, END('b'));
    /* U+017F folds to s, so that this is the 's of the pattern. */
    EXPECT(b, "a'\xc5\xbf", END('a'), '\'', 0xc5, END(0xbf));
    /* U+0345 is in no word. */
    EXPECT(b,
           "b\xcd\x85"
           "b",
           END('b'), END('b'));
    dr_bpe_close(b);
}

static void test_specials(void **state)
{
    (void)state;
    dr_bpe *b = open_folder(dir);
    EXPECT(b, "a<|endoftext|>b", END('a'), EOS, END('b'));
    EXPECT(b, "<|STARTOFTEXT|>", BOS);
    EXPECT(b, "<|endoftext|", '<', END('|'), 'e', 'n', 'd', 'o', 'f', 't', 'e', 'x',
           't' + 256, END('|'));
    assert_int_equal(dr_bpe_bos(b), BOS);
    assert_int_equal(dr_bpe_eos(b), EOS);
    assert_int_equal(dr_bpe_pad(b), EOS);
    assert_int_equal(dr_bpe_size(b), TOKENS);
    dr_bpe_close(b);

    /* SD 2 pads with "!", which so becomes an added token: it is cut out of words. */
    write_file("tokenizer_config.json", "{\"pad_token\": \"<|endoftext|>\"}");
    write_file("special_tokens_map.json", "{\"pad_token\": \"!\"}");
    b = open_folder(dir);
    assert_int_equal(dr_bpe_pad(b), '!');
    EXPECT(b, "a!!", END('a'), '!', '!');
    dr_bpe_close(b);

    /* The newer file says all, the older one is not read. */
    write_file("tokenizer_config.json",
               "{\"pad_token\": \"<|endoftext|>\", \"added_tokens_decoder\": {"
               "\"520\": {\"content\": \"<cat>\"}, \"521\": {\"content\": \"<cat>s\"}}}");
    b = open_folder(dir);
    assert_int_equal(dr_bpe_pad(b), EOS);
    assert_int_equal(dr_bpe_size(b), 522);
    EXPECT(b, "a<cat> <cat>s", END('a'), 520, 521); /* the longest one */
    dr_bpe_close(b);
}

static void test_rows(void **state)
{
    (void)state;
    dr_bpe *b = open_folder(dir);
    int32_t ids[5];
    int cut = -1;
    dr_err err = { 0 };
    assert_int_equal(dr_bpe_row(b, "abc", ids, 5, &cut, &err), DR_OK);
    assert_memory_equal(ids, ((int32_t[]){ BOS, ABC_, EOS, EOS, EOS }), sizeof ids);
    assert_int_equal(cut, 0);
    assert_int_equal(dr_bpe_row(b, "1 2 3", ids, 5, &cut, &err), DR_OK);
    assert_memory_equal(ids, ((int32_t[]){ BOS, END('1'), END('2'), END('3'), EOS }),
                        sizeof ids);
    assert_int_equal(cut, 0);
    assert_int_equal(dr_bpe_row(b, "1 2 3 4 5", ids, 5, &cut, &err), DR_OK);
    assert_memory_equal(ids, ((int32_t[]){ BOS, END('1'), END('2'), END('3'), EOS }),
                        sizeof ids);
    assert_int_equal(cut, 2);
    assert_int_equal(dr_bpe_row(b, "a\xff", ids, 5, &cut, &err), DR_EINVAL);
    assert_non_null(strstr(err.message, "byte 1"));
    dr_bpe_close(b);
}

/* A word of 8 KiB must not cost its square. */
static void test_long_words(void **state)
{
    (void)state;
    dr_bpe *b = open_folder(dir);
    static const char *const units[] = { "x", "abc", "!", "'", "\xce\xa3", "\xce\xa3'" };
    for (size_t u = 0; u < DR_COUNT(units); u++) {
        dr_buf text = { 0 };
        int needed = 0;
        dr_err err = { 0 };
        while (text.len + strlen(units[u]) <= 8192)
            dr_buf_puts(&text, units[u]);
        double from_s = dr_now_s();
        assert_int_equal(dr_bpe_encode(b, text.data, NULL, 0, &needed, &err), DR_OK);
        assert_true(dr_now_s() - from_s < 0.5); /* a millisecond; sanitizers are slow */
        assert_true(needed > 2);
        dr_buf_free(&text);
    }
    dr_bpe_close(b);
}

static void expect_refused(const char *name, const char *text, const char *message)
{
    dr_bpe *b = NULL;
    dr_err err = { 0 };
    write_file(name, text);
    assert_int_equal(dr_bpe_open(&b, dir, &err), DR_EMODEL);
    if (!strstr(err.message, message))
        fail_msg("\"%s\" does not say \"%s\"", err.message, message);
}

static void test_malformed(void **state)
{
    (void)state;
    dr_bpe *b = NULL;
    dr_err err = { 0 };
    expect_refused("merges.txt", "#version\na b\nc\nd e\n", "merges.txt:3:");
    expect_refused("merges.txt", "#version\na b c\n", "merges.txt:2:");
    expect_refused("vocab.json", "{", "vocab.json");
    expect_refused("vocab.json", "[]", "vocab.json");
    expect_refused("vocab.json", "{\"a\":0,\"b\":0}", "twice");
    expect_refused("vocab.json", "{\"a\":0,\"a\":1}", "twice");
    expect_refused("vocab.json", "{\"a\":0,\"b\":2}", "0..1");
    expect_refused("vocab.json", "{\"a\":0,\"b\":\"1\"}", "\"b\"");
    expect_refused("vocab.json", "{\"a\":0,\"b\":0.5}", "\"b\"");
    make_folder(NULL);
    expect_refused("tokenizer_config.json",
                   "{\"added_tokens_decoder\":{\"x\":{\"content\":\"<a>\"}}}", "<a>");
    expect_refused("tokenizer_config.json",
                   "{\"added_tokens_decoder\":{\"99999999999\":{\"content\":\"<a>\"}}}",
                   "<a>");
    remove_file("vocab.json");
    assert_int_equal(dr_bpe_open(&b, dir, &err), DR_ENOTFOUND);
    assert_non_null(strstr(err.message, "vocab.json"));
}

/* U+1FA77 and U+1FAE8 came with Unicode 15: unassigned, and so dropped, to a Python or a
 * utf8proc that is older. */
static bool depends_on_unicode_version(const char *text)
{
    return strstr(text, "\xf0\x9f\xa9\xb7") || strstr(text, "\xf0\x9f\xab\xa8");
}

static void expect_row(dr_bpe *b, const char *text, const int32_t *want, int n)
{
    int32_t ids[IDS_MAX];
    int cut = 0;
    dr_err err = { 0 };
    assert_int_equal(dr_bpe_row(b, text, ids, n, &cut, &err), DR_OK);
    for (int i = 0; i < n; i++)
        if (ids[i] != want[i])
            fail_msg("row \"%s\": token %d is %d, not %d", text, i, ids[i], want[i]);
}

static void expect_rows(dr_bpe *b, const dr_json *rows, bool padded)
{
    int32_t want[IDS_MAX];
    assert_true(dr_json_count(rows) >= 8);
    for (const dr_json *row = dr_json_first(rows); row; row = dr_json_next(row)) {
        const char *text = dr_json_get_string(row, "text", "");
        const dr_json *id = dr_json_first(dr_json_get(row, "ids"));
        int n = 0;
        for (; id && n < IDS_MAX; id = dr_json_next(id))
            want[n++] = (int32_t)dr_json_number(id);
        assert_true(n >= 2);
        if (padded)
            expect_row(b, text, want, n);
        else if (!depends_on_unicode_version(text))
            expect(b, text, want + 1, n - 2);
    }
}

/* What transformers' slow CLIPTokenizer gives (contrib/goldens). */
static void expect_goldens(const char *tokenizer, const char *path)
{
    dr_bpe *b = open_folder(tokenizer);
    dr_json *file = NULL;
    dr_err err = { 0 };
    if (dr_json_read(&file, path, &err))
        fail_msg("%s", err.message);
    assert_int_equal(dr_bpe_bos(b), dr_json_get_number(file, "bos", -1));
    assert_int_equal(dr_bpe_eos(b), dr_json_get_number(file, "eos", -1));
    assert_int_equal(dr_bpe_pad(b), dr_json_get_number(file, "pad", -1));
    assert_int_equal(dr_bpe_size(b), dr_json_get_number(file, "vocab_size", -1));
    expect_rows(b, dr_json_get(file, "rows"), false);
    expect_rows(b, dr_json_get(file, "padded"), true);
    dr_json_free(file);
    dr_bpe_close(b);
}

static void test_goldens(void **state)
{
    (void)state;
    expect_goldens("contrib/demo-model/model/tokenizer", "tests/golden/tokens-demo.json");
    expect_goldens("tests/golden/tiny-sd1/model/tokenizer",
                   "tests/golden/tokens-tiny-sd1.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_merges, make_folder),
        cmocka_unit_test_setup(test_words, make_folder),
        cmocka_unit_test_setup(test_unicode, make_folder),
        cmocka_unit_test_setup(test_specials, make_folder),
        cmocka_unit_test_setup(test_rows, make_folder),
        cmocka_unit_test_setup(test_long_words, make_folder),
        cmocka_unit_test_setup(test_malformed, make_folder),
        cmocka_unit_test(test_goldens),
    };
    return cmocka_run_group_tests(tests, NULL, remove_folder);
}
