#include "base/embed.h"

#include <stddef.h>
#include <string.h>

const dr_embedded *dr_embedded_find(const dr_embedded *table, const char *name)
{
    for (; table->name; table++)
        if (!strcmp(table->name, name))
            return table;
    return NULL;
}
