// SPDX-License-Identifier: GPL-2.0-or-later
/* output.c - tables and JSON */
#include <libsmartcols.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

struct cli_table {
	struct libscols_table *table;
	struct libscols_line *line;
	unsigned int columns, column;
};

struct cli_table *cli_table_new(const char *const *columns, const char *right)
{
	struct cli_table *t = calloc(1, sizeof(*t));

	if (!t)
		abort();
	t->table = scols_new_table();
	if (!t->table)
		abort();
	for (; columns[t->columns]; t->columns++)
		scols_table_new_column(t->table, columns[t->columns], 0,
				       right[t->columns] == '>' ? SCOLS_FL_RIGHT : 0);
	/* No cutting of text where a program reads it. */
	if (!isatty(STDOUT_FILENO))
		scols_table_set_termforce(t->table, SCOLS_TERMFORCE_NEVER);
	return t;
}

void cli_table_cell(struct cli_table *t, const char *text)
{
	if (!t->column)
		t->line = scols_table_new_line(t->table, NULL);
	if (!t->line || scols_line_set_data(t->line, t->column, text))
		abort();
	t->column = (t->column + 1) % t->columns;
}

void cli_table_cellf(struct cli_table *t, const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	cli_table_cell(t, text);
}

void cli_table_print(struct cli_table *t)
{
	scols_print_table(t->table);
	scols_unref_table(t->table);
	free(t);
}

void cli_print_json(json_t *o)
{
	json_dumpf(o, stdout, JSON_INDENT(2));
	fputc('\n', stdout);
	json_decref(o);
}

const char *cli_bytes(uint64_t n, char buf[16])
{
	static const char units[] = "KMGTPE";
	double d = (double)n;
	int u = -1;

	while (d >= 1024 && u < 5) {
		d /= 1024;
		u++;
	}
	if (u < 0)
		snprintf(buf, 16, "%llu", (unsigned long long)n);
	else
		snprintf(buf, 16, "%.1f%c", d, units[u]);
	return buf;
}

const char *cli_get_string(json_t *o, const char *name)
{
	const char *text = json_string_value(json_object_get(o, name));

	return text ? text : "";
}

long long cli_get_number(json_t *o, const char *name)
{
	return json_integer_value(json_object_get(o, name));
}
