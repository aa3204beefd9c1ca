#include "base/json.h"

#include "base/file.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

#define FILE_BYTES_MAX ((size_t)64 << 20)

dr_status dr_json_parse(dr_json **out, const char *text, size_t n, dr_err *err)
{
    const char *end = text;
    cJSON *j = cJSON_ParseWithLengthOpts(text, n, &end, 0);
    if (!j)
        return dr_fail(err, DR_EINVAL, "not JSON: error near byte %zu",
                       (size_t)(end - text));
    for (; end < text + n; end++)
        if (*end && !strchr(" \t\r\n", *end)) {
            size_t at = (size_t)(end - text);
            cJSON_Delete(j);
            return dr_fail(err, DR_EINVAL, "not JSON: trailing text at byte %zu", at);
        }
    *out = j;
    return DR_OK;
}

dr_status dr_json_read(dr_json **out, const char *path, dr_err *err)
{
    dr_buf text = { 0 };
    dr_status st = dr_file_read(path, FILE_BYTES_MAX, &text, err);
    if (!st && (st = dr_json_parse(out, text.data ? text.data : "", text.len, err)))
        dr_err_wrap(err, "%s", path);
    dr_buf_free(&text);
    return st;
}

void dr_json_free(dr_json *j)
{
    cJSON_Delete(j);
}

dr_json_kind dr_json_type(const dr_json *j)
{
    if (!j || cJSON_IsNull(j))
        return DR_JSON_NULL;
    if (cJSON_IsBool(j))
        return DR_JSON_BOOL;
    if (cJSON_IsNumber(j))
        return DR_JSON_NUMBER;
    if (cJSON_IsString(j))
        return DR_JSON_STRING;
    return cJSON_IsArray(j) ? DR_JSON_ARRAY : DR_JSON_OBJECT;
}

double dr_json_number(const dr_json *j)
{
    return cJSON_IsNumber(j) ? j->valuedouble : NAN;
}

bool dr_json_bool(const dr_json *j)
{
    return cJSON_IsTrue(j);
}

const char *dr_json_string(const dr_json *j)
{
    return cJSON_IsString(j) ? j->valuestring : NULL;
}

const dr_json *dr_json_first(const dr_json *j)
{
    return j ? j->child : NULL;
}

const dr_json *dr_json_next(const dr_json *item)
{
    return item->next;
}

const char *dr_json_key(const dr_json *item)
{
    return item->string ? item->string : "";
}

int dr_json_count(const dr_json *j)
{
    return j ? cJSON_GetArraySize(j) : 0;
}

const dr_json *dr_json_get(const dr_json *obj, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(obj, key);
}

const dr_json *dr_json_at(const dr_json *array, int i)
{
    return cJSON_GetArrayItem(array, i);
}

double dr_json_get_number(const dr_json *obj, const char *key, double fallback)
{
    const dr_json *j = dr_json_get(obj, key);
    return cJSON_IsNumber(j) ? j->valuedouble : fallback;
}

bool dr_json_get_bool(const dr_json *obj, const char *key, bool fallback)
{
    const dr_json *j = dr_json_get(obj, key);
    return cJSON_IsBool(j) ? cJSON_IsTrue(j) : fallback;
}

const char *dr_json_get_string(const dr_json *obj, const char *key, const char *fallback)
{
    const dr_json *j = dr_json_get(obj, key);
    return cJSON_IsString(j) ? j->valuestring : fallback;
}

void dr_json_put_string(dr_buf *b, const char *s)
{
    dr_buf_put(b, "\"", 1);
    for (const char *run = s;; s++) {
        unsigned char c = (unsigned char)*s;
        if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f)
            continue;
        dr_buf_put(b, run, (size_t)(s - run));
        run = s + 1;
        if (!c)
            break;
        if (c == '"' || c == '\\')
            dr_buf_printf(b, "\\%c", c);
        else if (c == '\n')
            dr_buf_puts(b, "\\n");
        else
            dr_buf_printf(b, "\\u%04x", c);
    }
    dr_buf_put(b, "\"", 1);
}

void dr_json_put_number(dr_buf *b, double v)
{
    if (!isfinite(v))
        dr_buf_puts(b, "null");
    else if (v == floor(v) && fabs(v) < 9e15)
        dr_buf_printf(b, "%.0f", v);
    else
        dr_buf_printf(b, "%.6g", v);
}

void dr_json_put(dr_buf *b, const dr_json *j)
{
    char *text = cJSON_PrintUnformatted(j);
    if (text)
        dr_buf_puts(b, text);
    else
        b->failed = true;
    cJSON_free(text);
}
